//! The stored form of a struct, or of one variant of an enum.

use std::collections::HashSet;

use proc_macro2::Span;
use quote::quote;
use syn::{
    Attribute, Error, Expr, Field, Fields, Ident, LitInt, LitStr, Path, Result, Type, TypePath,
    ext::IdentExt,
    parse_quote,
    spanned::Spanned,
    visit_mut::{self, VisitMut},
};

use crate::{
    attributes::{EventAttributes, FIELD, FieldPath, Upcast},
    crates::Crates,
    serde_attributes::{ContainerSerde, FieldSerde},
};

const RESERVED: [&str; 5] =
    ["timestamp", "originator_id", "originator_version", "class_version", "_metadata_"];

/// The stored layout of a struct, or of one variant of an enum.
pub(crate) struct Layout {
    /// The struct or the variant.
    pub(crate) ident: Ident,
    /// The name of the constant that has the topic.
    pub(crate) constant: Option<Ident>,
    pub(crate) topic: LitStr,
    pub(crate) aliases: Vec<LitStr>,
    /// The types of the earlier class versions, from 1 on; `_` if the next version
    /// reads it.
    pub(crate) old_layouts: Vec<Type>,
    pub(crate) seal: Option<Seal>,
    pub(crate) body: Body,
    pub(crate) serde: ContainerSerde,
}

/// The data subject with whose key the attributes are sealed.
pub(crate) struct Seal {
    pub(crate) subject: FieldPath,
    /// Makes the event of an erased subject.
    pub(crate) erased: Expr,
    /// The crate of personal values.
    pub(crate) personal: Path,
}

/// The location of the attributes.
pub(crate) enum Body {
    Named(Vec<Attributes>),
    /// The fields of the single inner value.
    Newtype(Box<Attributes>),
    /// No attributes.
    Unit,
}

/// A field: an attribute, or the value that has them.
pub(crate) struct Attributes {
    /// Absent for the value inside a newtype.
    pub(crate) ident: Option<Ident>,
    pub(crate) ty: Type,
    pub(crate) serde: Vec<Attribute>,
}

impl Layout {
    /// The class version that is written.
    pub(crate) fn version(&self) -> u32 {
        // Each old layout is written in the source, so the number is always small.
        u32::try_from(self.old_layouts.len()).map_or(u32::MAX, |older| older.saturating_add(1))
    }

    /// The type that the last upcast returns.
    pub(crate) fn upcast_target(&self) -> Type {
        match &self.body {
            Body::Newtype(inside) => inside.ty.clone(),
            Body::Named(_) | Body::Unit => parse_quote!(Self),
        }
    }
}

impl Seal {
    pub(crate) fn of(event: &mut EventAttributes, crates: &Crates) -> Result<Option<Self>> {
        match (event.subject.take(), event.erased.take()) {
            (None, None) => Ok(None),
            (Some(subject), Some(erased)) => Ok(Some(Self { subject, erased, personal: crates.personal()? })),
            (Some(subject), None) => Err(Error::new_spanned(
                subject,
                "what is the event after an erasure of its subject? `erased = …` has a function of the subject",
            )),
            (None, Some(erased)) => {
                Err(Error::new_spanned(erased, "an event without `subject = …` is not erased"))
            }
        }
    }
}

/// The old layouts, one for each version before the present one.
pub(crate) fn old_layouts(event: &EventAttributes) -> Result<Vec<Type>> {
    let version = event.version.as_ref().map_or(Ok(1), LitInt::base10_parse::<u32>)?;
    let mut named = event.upcast.iter().flat_map(|upcast| &upcast.layouts);
    let mut layouts = Vec::new();
    for expected in 1..version {
        let Some(old) = named.next() else {
            return Err(Error::new(missing_upcast_span(event), missing_upcast(expected)));
        };
        if old.version.base10_parse::<u32>()? != expected {
            return Err(Error::new(
                old.version.span(),
                format!(
                    "expected the layout of class version {expected}: they stand in order, none left out"
                ),
            ));
        }
        layouts.push(old.layout.clone());
    }
    match named.next() {
        None => Ok(layouts),
        Some(old) => Err(Error::new(
            old.version.span(),
            format!("only versions before the present one, which is {version}, are upcast; see `version`"),
        )),
    }
}

fn missing_upcast(version: u32) -> String {
    format!(
        "events of class version {version} would be unreadable: name their layout, as in \
         `upcast({version} = OpenedV{version})`, or write `upcast({version} = _)` if the next version reads them"
    )
}

fn missing_upcast_span(event: &EventAttributes) -> Span {
    let version = event.version.as_ref().map(LitInt::span);
    event.upcast.as_ref().map(|Upcast { span, .. }| *span).or(version).unwrap_or_else(Span::call_site)
}

impl Body {
    pub(crate) fn of(fields: &Fields, of: &Ident, serde: &ContainerSerde, crates: &Crates) -> Result<Self> {
        match fields {
            Fields::Named(fields) => {
                let parsed = fields.named.iter().map(|field| Attributes::named(field, serde, crates));
                let (attributes, names): (Vec<_>, Vec<_>) = all(parsed)?.into_iter().unzip();
                check_names(names.into_iter().flatten())?;
                Ok(Self::Named(attributes))
            }
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                Ok(Self::Newtype(Box::new(Attributes::newtype(&fields.unnamed[0])?)))
            }
            Fields::Unnamed(_) => Err(Error::new(
                of.span(),
                format!(
                    "attributes need names: write `{of} {{ name: Type }}`, or `{of}(Details)` around a struct"
                ),
            )),
            Fields::Unit => Ok(Self::Unit),
        }
    }
}

/// A name in the stored state, and its span in the source.
type Name = (String, Span);

impl Attributes {
    fn named(field: &Field, container: &ContainerSerde, crates: &Crates) -> Result<(Self, Vec<Name>)> {
        let mut serde = FieldSerde::parse(&field.attrs)?;
        if let Some(adapter) = EventAttributes::parse(&field.attrs, FIELD)?.adapter {
            adapt(&mut serde, field, adapter, crates)?;
        }
        let names = names(field, &serde, container);
        Ok((Self { ident: field.ident.clone(), ty: field.ty.clone(), serde: serde.attributes }, names))
    }

    fn newtype(field: &Field) -> Result<Self> {
        if let Some(attribute) = field
            .attrs
            .iter()
            .find(|attribute| attribute.path().is_ident("event") || attribute.path().is_ident("serde"))
        {
            return Err(Error::new_spanned(
                attribute,
                "the attributes stand in the fields of the value inside: adapt them there",
            ));
        }
        Ok(Self { ident: None, ty: field.ty.clone(), serde: Vec::new() })
    }
}

/// Makes serde write and read the field with the adapter.
fn adapt(serde: &mut FieldSerde, field: &Field, mut adapter: Type, crates: &Crates) -> Result<()> {
    if let Some(span) = serde.adapter {
        return Err(Error::new(span, "a field has one adapter: either serde's or that of `#[event(…)]`"));
    }
    let transcode = crates.transcode()?;
    // serde takes a missing `Option` for `None`, but not through an adapter.
    if !serde.has_default && is_option(&field.ty) && is_option(&adapter) {
        serde.attributes.push(parse_quote!(#[serde(default)]));
    }
    let span = adapter.span();
    Adapters { transcode: &transcode }.visit_type_mut(&mut adapter);
    let path = quote!(#transcode::serde_with::As::<#adapter>).to_string();
    let path = LitStr::new(&path, span);
    serde.attributes.push(parse_quote!(#[serde(with = #path)]));
    Ok(())
}

fn is_option(ty: &Type) -> bool {
    let Type::Path(TypePath { path, .. }) = ty else { return false };
    path.segments.last().is_some_and(|segment| segment.ident == "Option")
}

/// Spells out the short names of adapters: `Registered`, which needs no serde form of the type as only a
/// transcoder writes events, and `_` for serde's own.
struct Adapters<'a> {
    transcode: &'a Path,
}

impl VisitMut for Adapters<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        let transcode = self.transcode;
        match ty {
            Type::Infer(_) => *ty = parse_quote!(#transcode::serde_with::Same),
            Type::Path(path) if path.path.is_ident("Registered") => {
                *ty = parse_quote!(#transcode::RegisteredOnly);
            }
            _ => visit_mut::visit_type_mut(self, ty),
        }
    }
}

/// The names that the attribute is written and read under, each once.
fn names(field: &Field, serde: &FieldSerde, container: &ContainerSerde) -> Vec<Name> {
    if serde.nameless {
        return Vec::new();
    }
    let own = field
        .ident
        .as_ref()
        .filter(|_| !serde.is_renamed)
        .map(|ident| (ident.unraw().to_string(), ident.span()));
    let mut names: Vec<Name> = own.into_iter().filter(|(name, _)| !container.renames(name)).collect();
    for text in serde.renames.iter().chain(&serde.aliases) {
        if names.iter().all(|(name, _)| *name != text.value()) {
            names.push((text.value(), text.span()));
        }
    }
    names
}

fn check_names(names: impl Iterator<Item = Name>) -> Result<()> {
    let mut seen = HashSet::new();
    let checked = names.map(|(name, span)| {
        if RESERVED.contains(&name.as_str()) {
            return Err(Error::new(span, reserved(&name)));
        }
        if seen.contains(&name) {
            return Err(Error::new(span, format!("there are two attributes named `{name}`")));
        }
        seen.insert(name);
        Ok(())
    });
    all(checked).map(drop)
}

fn reserved(name: &str) -> String {
    format!(
        "`{name}` is no name for an attribute: every event has one, in its state or in a column; rename the \
         field, or write `#[serde(rename = \"…\")]`"
    )
}

/// All values, or all errors.
pub(crate) fn all<T>(results: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let mut errors: Option<Error> = None;
    for result in results {
        match (result, &mut errors) {
            (Ok(value), _) => values.push(value),
            (Err(error), Some(errors)) => errors.combine(error),
            (Err(error), none) => *none = Some(error),
        }
    }
    errors.map_or(Ok(values), Err)
}
