//! The names of the constants for topics.

use std::collections::HashSet;

use heck::ToShoutySnakeCase;
use syn::{Error, Ident, Result, ext::IdentExt};

use crate::{
    attributes::Constant,
    layout::{Layout, all},
};

/// The constant of `Event` that has all topics.
const ALL_TOPICS: &str = "TOPICS";

/// Returns the name for a struct: `TOPIC` by default.
pub(crate) fn of_struct(given: Option<Constant>, ident: &Ident) -> Option<Ident> {
    named(given, || Some(Ident::new("TOPIC", ident.span())))
}

/// Returns the name for a variant: by default that of the variant, as constants are written. None is made
/// that the name of a variant would hide.
pub(crate) fn of_variant(given: Option<Constant>, ident: &Ident, variants: &HashSet<Ident>) -> Option<Ident> {
    named(given, || {
        let mut name: Ident = syn::parse_str(&ident.unraw().to_string().to_shouty_snake_case()).ok()?;
        name.set_span(ident.span());
        (!variants.contains(&name)).then_some(name)
    })
}

fn named(given: Option<Constant>, default: impl FnOnce() -> Option<Ident>) -> Option<Ident> {
    match given {
        Some(Constant::Named(name)) => Some(name),
        Some(Constant::Omitted) => None,
        None => default(),
    }
}

/// Each name must lead to one topic.
pub(crate) fn check_constants(layouts: &[Layout], variants: &HashSet<Ident>) -> Result<()> {
    const ADVICE: &str = "name it with `#[event(const = …)]`, or omit it with `#[event(const = _)]`";
    let mut names = HashSet::new();
    let constants = layouts.iter().filter_map(|layout| layout.constant.as_ref());
    let checked = constants.map(|name| {
        let reason = if name == ALL_TOPICS {
            "would hide `Event::TOPICS`"
        } else if variants.contains(name) {
            "is hidden by the variant of this name"
        } else if names.insert(name) {
            return Ok(());
        } else {
            "is that of another variant"
        };
        Err(Error::new(name.span(), format!("the constant `{name}` for a topic {reason}: {ADVICE}")))
    });
    all(checked).map(drop)
}
