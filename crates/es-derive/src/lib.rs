//! derive(Event): topic, version and flat state of an event type.

mod attributes;
mod crates;
mod event_type;
mod expand;
mod layout;
mod serde_attributes;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

use crate::event_type::EventType;

/// Implements `es_core::Event`; the [crate documentation](crate) says how.
#[proc_macro_derive(Event, attributes(event, serde))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let expanded = EventType::of(input).map(|event| expand::expand(&event));
    expanded.unwrap_or_else(|error| error.into_compile_error()).into()
}
