//! The types of several libraries that are written as text.

#[cfg(feature = "chrono")]
mod chrono;
#[cfg(feature = "jiff")]
mod jiff;
#[cfg(feature = "rust-decimal")]
mod rust_decimal;
mod time;

use crate::{as_text::AsText, registry::Registry};

/// Registers the types of all libraries.
pub(crate) fn register(registry: &mut Registry) {
    registry.register(AsText::<::time::Date>::new());
    registry.register(AsText::<::time::Time>::new());
    #[cfg(feature = "chrono")]
    chrono::register(registry);
    #[cfg(feature = "jiff")]
    jiff::register(registry);
    #[cfg(feature = "rust-decimal")]
    registry.register(AsText::<::rust_decimal::Decimal>::new());
}
