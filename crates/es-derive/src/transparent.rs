//! Enums whose variants wrap other event types.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, Result, Type, Variant};

use crate::{
    attributes::{ENUM, EventAttributes, WRAPPED, WRAPPER},
    crates::Crates,
    layout::all,
};

/// An enum with `#[event(transparent)]`.
pub(crate) struct Transparent {
    ident: Ident,
    crates: Crates,
    variants: Vec<(Ident, Type)>,
}

impl Transparent {
    /// Returns `None` for other types.
    pub(crate) fn of(input: &DeriveInput) -> Result<Option<Self>> {
        let Data::Enum(data) = &input.data else { return Ok(None) };
        if EventAttributes::parse(&input.attrs, ENUM)?.transparent.is_none() {
            return Ok(None);
        }
        let event = EventAttributes::parse(&input.attrs, WRAPPER)?;
        if !input.generics.params.is_empty() {
            let message = "derive(Event) takes no generic types: its topics are known when it is compiled";
            return Err(Error::new_spanned(&input.generics, message));
        }
        if data.variants.is_empty() {
            return Err(Error::new(input.ident.span(), "an enum of events needs a variant"));
        }
        let crates = Crates::find(event.crate_path)?;
        let variants = all(data.variants.iter().map(wrapped))?;
        Ok(Some(Self { ident: input.ident.clone(), crates, variants }))
    }

    pub(crate) fn expand(&self) -> TokenStream {
        let Self { ident, crates, variants } = self;
        let core = &crates.core;
        let (names, types): (Vec<_>, Vec<_>) = variants.iter().map(|(name, ty)| (name, ty)).unzip();
        quote! {
            #[allow(deprecated)]
            const _: () = {
                const __LENGTH: usize = 0 #(+ <#types as #core::Event>::TOPICS.len())*;

                #[automatically_derived]
                impl #core::Event for #ident {
                    const TOPICS: &[#core::Topic] =
                        &#core::Topic::concat::<__LENGTH>(&[#(<#types as #core::Event>::TOPICS),*]);

                    fn topic(&self) -> #core::Topic {
                        match self { #(Self::#names(event) => #core::Event::topic(event),)* }
                    }

                    fn class_version(&self) -> u32 {
                        match self { #(Self::#names(event) => #core::Event::class_version(event),)* }
                    }

                    fn encode<__State: #core::serde::ser::SerializeMap>(
                        &self,
                        state: &mut __State,
                    ) -> ::core::result::Result<(), __State::Error> {
                        match self { #(Self::#names(event) => #core::Event::encode(event, state),)* }
                    }

                    fn decode<__Transcoder: #core::Transcoder>(
                        topic: &str,
                        state: &mut #core::StateReader<'_, __Transcoder>,
                    ) -> ::core::result::Result<Self, #core::PersistenceError> {
                        #(
                            if <#types as #core::Event>::TOPICS.iter().any(|known| known == topic) {
                                return <#types as #core::Event>::decode(topic, state).map(Self::#names);
                            }
                        )*
                        ::core::result::Result::Err(state.unknown_topic())
                    }
                }
            };
        }
    }
}

/// The variant, and the event type that it wraps.
fn wrapped(variant: &Variant) -> Result<(Ident, Type)> {
    EventAttributes::parse(&variant.attrs, WRAPPED)?;
    let field = match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => fields.unnamed.first(),
        _ => None,
    };
    let Some(Field { attrs, ty, .. }) = field else {
        let message = format!("a variant of a transparent enum wraps an event type: `{}(…)`", variant.ident);
        return Err(Error::new(variant.ident.span(), message));
    };
    EventAttributes::parse(attrs, WRAPPED)?;
    Ok((variant.ident.clone(), ty.clone()))
}
