//! Invalid attributes are compile errors with a helpful message at their span.
//!
//! Only messages of this crate are compared, none of rustc's or serde's own, which change.
//! `TRYBUILD=overwrite cargo test -p es-derive --test ui` writes them anew.

#[test]
fn invalid_input_is_an_error_with_an_explanation() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
