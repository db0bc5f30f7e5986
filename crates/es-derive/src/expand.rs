//! The generated code.
//!
//! serde itself writes and reads the attributes, so that its own field attributes keep their
//! meaning: the type is mirrored by one that derives `Serialize` in its place
//! (`#[serde(remote = "…")]`), and each layout by a struct that derives `Deserialize`.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Ident, LitStr, Type, spanned::Spanned};

use crate::{
    event_type::{EventType, Shape},
    layout::{Attributes, Body, Layout, Seal},
    serde_attributes::ContainerDefault,
};

pub(crate) fn expand(event: &EventType) -> TokenStream {
    let written = written_mirror(event);
    let read = event.layouts().iter().map(|layout| read_mirror(event, layout));
    let constants = constants(event);
    let implementation = implementation(event);
    quote! {
        // A variant or field that is no longer to be used is still written and read, and one with an
        // uncommon name was judged where the program declares it.
        #[allow(deprecated, non_camel_case_types, non_snake_case, non_upper_case_globals)]
        const _: () = {
            #written
            #(#read)*
            #constants
            #implementation
        };
    }
}

/// The constants of topics, as visible as the type.
fn constants(event: &EventType) -> TokenStream {
    let EventType { ident, visibility, crates, .. } = event;
    let core = &crates.core;
    let constants = event.layouts().iter().filter_map(|Layout { constant, topic, .. }| {
        let name = constant.as_ref()?;
        let doc = format!("The topic `{}`.", topic.value());
        Some(quote! {
            #[doc = #doc]
            #visibility const #name: #core::Topic = #core::Topic::from_static(#topic);
        })
    });
    // A program need not use them.
    quote! {
        #[allow(dead_code)]
        #[automatically_derived]
        impl #ident { #(#constants)* }
    }
}

fn implementation(event: &EventType) -> TokenStream {
    let EventType { ident, crates, .. } = event;
    let core = &crates.core;
    let known = event.layouts().iter().flat_map(|layout| [&layout.topic].into_iter().chain(&layout.aliases));
    let topics = event.layouts().iter().map(|layout| {
        let (pattern, topic) = (pattern(event, layout), &layout.topic);
        quote!(#pattern => const { #core::Topic::from_static(#topic) })
    });
    let versions = event.layouts().iter().map(|layout| {
        let (pattern, version) = (pattern(event, layout), layout.version());
        quote!(#pattern => #version)
    });
    let decoders = event.layouts().iter().map(|layout| {
        let (topic, aliases, decoder) = (&layout.topic, &layout.aliases, decoder(event, layout));
        quote!(#topic #(| #aliases)* => #decoder)
    });
    let encode = encode(event);
    quote! {
        #[automatically_derived]
        impl #core::Event for #ident {
            const TOPICS: &[#core::Topic] = &[#(#core::Topic::from_static(#known)),*];

            fn topic(&self) -> #core::Topic {
                match self { #(#topics,)* }
            }

            fn class_version(&self) -> u32 {
                match self { #(#versions,)* }
            }

            fn encode<__State: #core::serde::ser::SerializeMap>(
                &self,
                state: &mut __State,
            ) -> ::core::result::Result<(), __State::Error> {
                #encode
            }

            fn decode<__Transcoder: #core::Transcoder>(
                topic: &str,
                state: &mut #core::StateReader<'_, __Transcoder>,
            ) -> ::core::result::Result<Self, #core::PersistenceError> {
                match topic {
                    #(#decoders,)*
                    _ => ::core::result::Result::Err(state.unknown_topic()),
                }
            }
        }
    }
}

/// The expression that writes the attributes, or their sealed form.
fn encode(event: &EventType) -> TokenStream {
    let core = &event.crates.core;
    let plain = quote!(#core::encode_attributes(&__Written(self), state));
    let sealed: Vec<_> = event.layouts().iter().filter_map(|layout| sealed_arm(event, layout)).collect();
    if sealed.is_empty() {
        return plain;
    }
    let others = (sealed.len() < event.layouts().len()).then(|| quote!(_ => #plain,));
    quote!(match self { #(#sealed,)* #others })
}

fn sealed_arm(event: &EventType, layout: &Layout) -> Option<TokenStream> {
    let Seal { subject, personal, .. } = layout.seal.as_ref()?;
    let path = path(event, layout);
    let (pattern, subject) = match &layout.body {
        Body::Newtype(_) => (quote!(#path(inside)), quote!(inside.#subject)),
        Body::Named(_) | Body::Unit => {
            let field = subject.first();
            let rest = subject.iter().skip(1);
            // Another name: the field may be called `state`.
            (quote!(#path { #field: __subject, .. }), quote!((*__subject) #(.#rest)*))
        }
    };
    Some(quote! {
        #pattern => #personal::encode_sealed(::core::clone::Clone::clone(&#subject), &__Written(self), state)
    })
}

/// The type that serde serializes in place of the event type.
fn written_mirror(event: &EventType) -> TokenStream {
    let EventType { ident, crates, shape, .. } = event;
    let core = &crates.core;
    let remote = ident.to_string();
    let serde_crate = serde_crate(event);
    let mirror = match shape {
        Shape::Struct(layout) => mirror_struct(&format_ident!("__Mirror"), layout),
        Shape::Enum(layouts) => {
            let variants = layouts.iter().map(|layout| {
                let Layout { ident, serde, .. } = layout;
                let rename_all = serde.rename_all.as_ref().map(|rule| quote!(#[serde(rename_all #rule)]));
                let body = body(&layout.body);
                quote!(#rename_all #ident #body)
            });
            quote!(#[serde(untagged)] enum __Mirror { #(#variants,)* })
        }
    };
    quote! {
        #[derive(#core::serde::Serialize)]
        #[serde(crate = #serde_crate, remote = #remote)]
        #mirror

        struct __Written<'a>(&'a #ident);

        impl #core::serde::Serialize for __Written<'_> {
            fn serialize<__Serializer: #core::serde::Serializer>(
                &self,
                serializer: __Serializer,
            ) -> ::core::result::Result<__Serializer::Ok, __Serializer::Error> {
                __Mirror::serialize(self.0, serializer)
            }
        }
    }
}

/// The type that serde deserializes for one layout, and the conversion to the event.
fn read_mirror(event: &EventType, layout: &Layout) -> TokenStream {
    let core = &event.crates.core;
    let (ident, name) = (&event.ident, mirror_name(layout));
    let (serde_crate, mirror) = (serde_crate(event), mirror_struct(&name, layout));
    let pattern = pattern_with_fields(event, layout);
    let fields = named_fields(&layout.body);
    let itself = match &layout.body {
        Body::Newtype(_) => quote!(#name(inside)),
        Body::Named(_) | Body::Unit => quote!(#name { #(#fields),* }),
    };
    let default = default(event, layout, &pattern, &itself);
    quote! {
        #[derive(#core::serde::Deserialize)]
        #[serde(crate = #serde_crate)]
        #mirror

        impl #name {
            fn into_event(self) -> #ident {
                let #itself = self;
                #pattern
            }
        }

        #default
    }
}

/// The code for `#[serde(default)]` on a struct: missing attributes are those of the struct's own default.
fn default(
    event: &EventType,
    layout: &Layout,
    pattern: &TokenStream,
    itself: &TokenStream,
) -> Option<TokenStream> {
    let (ident, name) = (&event.ident, mirror_name(layout));
    let default = match layout.serde.default.as_ref()? {
        ContainerDefault::Trait => quote!(<#ident as ::core::default::Default>::default()),
        ContainerDefault::Function(path) => quote!(#path()),
    };
    Some(quote! {
        impl ::core::default::Default for #name {
            fn default() -> Self {
                let #pattern: #ident = #default;
                #itself
            }
        }
    })
}

/// A struct whose attributes serde writes and reads as those of the layout.
fn mirror_struct(name: &Ident, layout: &Layout) -> TokenStream {
    let (serde, body) = (&layout.serde, body(&layout.body));
    if matches!(layout.body, Body::Newtype(_)) {
        return quote!(#[serde(transparent)] struct #name #body;);
    }
    let rename_all = serde.rename_all.as_ref().map(|rule| quote!(#[serde(rename_all #rule)]));
    let deny_unknown_fields = serde.deny_unknown_fields.then(|| quote!(#[serde(deny_unknown_fields)]));
    let default = serde.default.as_ref().map(|_| quote!(#[serde(default)]));
    quote!(#rename_all #deny_unknown_fields #default struct #name #body)
}

/// The body of a mirror. Unit layouts have empty braces: serde writes and reads those as objects.
fn body(body: &Body) -> TokenStream {
    match body {
        Body::Named(attributes) => quote!({ #(#attributes,)* }),
        Body::Newtype(inside) => quote!((#inside)),
        Body::Unit => quote!({}),
    }
}

impl ToTokens for Attributes {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { ident, ty, serde } = self;
        let name = ident.as_ref().map(|ident| quote!(#ident:));
        tokens.extend(quote!(#(#serde)* #name #ty));
    }
}

/// The expression that decodes the state of a topic, of any class version.
fn decoder(event: &EventType, layout: &Layout) -> TokenStream {
    let mirror = mirror_name(layout);
    let attributes = attributes(layout, &quote!(#mirror));
    let decode = quote!(::core::result::Result::Ok(#mirror::into_event(#attributes)));
    if layout.old_layouts.is_empty() {
        return decode;
    }
    let version = layout.version();
    let old_versions = (1_u32..).zip(0..layout.old_layouts.len()).map(|(version, index)| {
        let upcast = upcast(event, layout, &layout.old_layouts[index..]).unwrap_or_else(|| decode.clone());
        quote!(#version => #upcast)
    });
    quote! {
        match state.class_version()? {
            #(#old_versions,)*
            #version => #decode,
            unknown => ::core::result::Result::Err(state.unsupported_class_version(unknown)),
        }
    }
}

/// The expression that decodes attributes of a type; for an erased subject, it returns from the function.
fn attributes(layout: &Layout, ty: &TokenStream) -> TokenStream {
    let Some(Seal { erased, personal, .. }) = &layout.seal else { return quote!(state.decode::<#ty>()?) };
    quote! {
        match state.decode::<#personal::Sealed<#ty>>()? {
            #personal::Sealed::Attributes(attributes) => attributes,
            #personal::Sealed::Erased(subject) => {
                let erased: fn(#personal::Subject) -> Self = #erased;
                return ::core::result::Result::Ok(erased(subject));
            }
        }
    }
}

/// Decodes the first of the layouts that has a type, and upcasts it through the others; nothing
/// where none has, and the present layout reads them all.
fn upcast(event: &EventType, layout: &Layout, old_layouts: &[Type]) -> Option<TokenStream> {
    let mut typed = old_layouts.iter().filter(|layout| !matches!(layout, Type::Infer(_)));
    let first = typed.next()?;
    let target = layout.upcast_target();
    let steps = typed.chain([&target]).scan(first, |from, to| {
        let span = std::mem::replace(from, to).span();
        Some(quote_spanned!(span=> let event: #to = state.upcast(event)?;))
    });
    let present = match &layout.body {
        Body::Newtype(_) => {
            let path = path(event, layout);
            quote!(#path(event))
        }
        Body::Named(_) | Body::Unit => quote!(event),
    };
    let attributes = attributes(layout, &quote!(#first));
    Some(quote!({
        let event: #first = #attributes;
        #(#steps)*
        ::core::result::Result::Ok(#present)
    }))
}

/// `Opened`, or `AccountEvent::Opened`.
fn path(event: &EventType, layout: &Layout) -> TokenStream {
    let (ident, variant) = (&event.ident, &layout.ident);
    match &event.shape {
        Shape::Struct(_) => quote!(#ident),
        Shape::Enum(_) => quote!(#ident::#variant),
    }
}

/// Matches any value of the layout.
fn pattern(event: &EventType, layout: &Layout) -> TokenStream {
    let path = path(event, layout);
    quote!(#path { .. })
}

/// A pattern that destructures a value of the layout, or an expression that constructs one.
fn pattern_with_fields(event: &EventType, layout: &Layout) -> TokenStream {
    let (path, fields) = (path(event, layout), named_fields(&layout.body));
    match &layout.body {
        Body::Newtype(_) => quote!(#path(inside)),
        Body::Named(_) | Body::Unit => quote!(#path { #(#fields),* }),
    }
}

fn named_fields(body: &Body) -> Vec<&Ident> {
    match body {
        Body::Named(attributes) => {
            attributes.iter().filter_map(|attribute| attribute.ident.as_ref()).collect()
        }
        Body::Newtype(_) | Body::Unit => Vec::new(),
    }
}

/// A name that cannot conflict with types of the program in the fields.
fn mirror_name(layout: &Layout) -> Ident {
    format_ident!("__Read{}", layout.ident)
}

fn serde_crate(event: &EventType) -> LitStr {
    let core = &event.crates.core;
    LitStr::new(&quote!(#core::serde).to_string().replace(' ', ""), proc_macro2::Span::call_site())
}
