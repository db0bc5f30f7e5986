//! Mistakes in attributes get messages that help, at the place of the mistake.
//!
//! Only messages of this crate are compared, none of rustc's or serde's own, which change.
//! `TRYBUILD=overwrite cargo test -p es-derive --test ui` writes them anew.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
