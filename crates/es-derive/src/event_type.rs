//! Parses and validates the type of an event.

use std::collections::{HashMap, HashSet};

use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Fields, Ident, LitStr, Path, Result, Variant, Visibility,
    ext::IdentExt,
    visit_mut::{self, VisitMut},
};

use crate::{
    attributes::{ENUM, EventAttributes, STRUCT, VARIANT},
    constants::{self, check_constants},
    crates::Crates,
    layout::{Body, Layout, Seal, all, old_layouts},
    serde_attributes::ContainerSerde,
};

/// The type of an event.
pub(crate) struct EventType {
    pub(crate) ident: Ident,
    pub(crate) visibility: Visibility,
    pub(crate) crates: Crates,
    pub(crate) shape: Shape,
}

/// One topic, or one for each variant.
pub(crate) enum Shape {
    Struct(Box<Layout>),
    Enum(Vec<Layout>),
}

impl EventType {
    pub(crate) fn of(mut input: DeriveInput) -> Result<Self> {
        if !input.generics.params.is_empty() {
            return Err(Error::new_spanned(
                input.generics,
                "derive(Event) takes no generic types: a topic says which one type its state holds",
            ));
        }
        Named(&input.ident).visit_data_mut(&mut input.data);
        let DeriveInput { ident, attrs, vis, .. } = input;
        match input.data {
            Data::Struct(data) => Self::of_struct(ident, vis, &attrs, &data.fields),
            Data::Enum(data) => Self::of_enum(ident, vis, &attrs, &data),
            Data::Union(data) => Err(Error::new_spanned(
                data.union_token,
                "derive(Event) takes structs and enums: what a union holds is not known",
            )),
        }
    }

    fn of_struct(
        ident: Ident,
        visibility: Visibility,
        attributes: &[Attribute],
        fields: &Fields,
    ) -> Result<Self> {
        let mut event = EventAttributes::parse(attributes, STRUCT)?;
        let crates = Crates::find(event.crate_path.take())?;
        let Some(topic) = event.topic.take() else {
            return Err(Error::new(
                ident.span(),
                "an event needs a topic: `#[event(topic = \"module:Type\")]`",
            ));
        };
        let serde = ContainerSerde::of_struct(attributes)?;
        let layout = Layout {
            old_layouts: old_layouts(&event)?,
            seal: Seal::of(&mut event, &crates)?,
            body: Body::of(fields, &ident, &serde, &crates)?,
            ident: ident.clone(),
            constant: constants::of_struct(event.constant, &ident),
            topic,
            aliases: event.aliases,
            serde,
        };
        check_topics(std::slice::from_ref(&layout))?;
        check_constants(std::slice::from_ref(&layout), &HashSet::new())?;
        Ok(Self { ident, visibility, crates, shape: Shape::Struct(Box::new(layout)) })
    }

    fn of_enum(
        ident: Ident,
        visibility: Visibility,
        attributes: &[Attribute],
        data: &DataEnum,
    ) -> Result<Self> {
        if data.variants.is_empty() {
            return Err(Error::new(ident.span(), "an enum of events needs a variant"));
        }
        let mut event = EventAttributes::parse(attributes, ENUM)?;
        let crates = Crates::find(event.crate_path.take())?;
        let serde = ContainerSerde::of_enum(attributes)?;
        let names = data.variants.iter().map(|variant| variant.ident.clone()).collect();
        let layout = |variant| variant_layout(variant, &names, &event, &serde, &crates);
        let layouts = all(data.variants.iter().map(layout))?;
        check_topics(&layouts)?;
        check_constants(&layouts, &names)?;
        Ok(Self { ident, visibility, crates, shape: Shape::Enum(layouts) })
    }

    /// The layouts of all topics.
    pub(crate) fn layouts(&self) -> &[Layout] {
        match &self.shape {
            Shape::Struct(layout) => std::slice::from_ref(layout),
            Shape::Enum(layouts) => layouts,
        }
    }
}

/// Replaces `Self` by the name of the type, because `Self` is another type in the mirrors.
struct Named<'a>(&'a Ident);

impl VisitMut for Named<'_> {
    fn visit_path_mut(&mut self, path: &mut Path) {
        if let Some(first) = path.segments.first_mut().filter(|segment| segment.ident == "Self") {
            first.ident = self.0.clone();
        }
        visit_mut::visit_path_mut(self, path);
    }
}

fn variant_layout(
    variant: &Variant,
    variants: &HashSet<Ident>,
    of_enum: &EventAttributes,
    enum_serde: &ContainerSerde,
    crates: &Crates,
) -> Result<Layout> {
    let mut event = EventAttributes::parse(&variant.attrs, VARIANT)?;
    let serde = ContainerSerde::of_variant(&variant.attrs, enum_serde)?;
    let (topic, inherited) = match (&event.topic, &of_enum.topic) {
        (Some(own), _) => (own.clone(), Vec::new()),
        (None, Some(prefix)) => {
            let aliases = of_enum.aliases.iter().map(|alias| extended(alias, &variant.ident)).collect();
            (extended(prefix, &variant.ident), aliases)
        }
        (None, None) => return Err(no_topic(&variant.ident)),
    };
    Ok(Layout {
        ident: variant.ident.clone(),
        constant: constants::of_variant(event.constant.take(), &variant.ident, variants),
        topic,
        old_layouts: old_layouts(&event)?,
        seal: Seal::of(&mut event, crates)?,
        body: Body::of(&variant.fields, &variant.ident, &serde, crates)?,
        aliases: inherited.into_iter().chain(event.aliases).collect(),
        serde,
    })
}

fn no_topic(variant: &Ident) -> Error {
    Error::new(
        variant.span(),
        format!(
            "an event needs a topic: `#[event(topic = \"module:Type\")]` on the enum makes this one \
             \"module:Type.{variant}\", on the variant it is the whole topic"
        ),
    )
}

/// `bank:Account` and `Opened` make `bank:Account.Opened`; mistakes are shown at the variant.
fn extended(prefix: &LitStr, variant: &Ident) -> LitStr {
    LitStr::new(&format!("{}.{}", prefix.value(), variant.unraw()), variant.span())
}

/// Each topic must lead to one layout.
fn check_topics(layouts: &[Layout]) -> Result<()> {
    let mut owners = HashMap::new();
    let topics = layouts.iter().flat_map(|layout| {
        [&layout.topic].into_iter().chain(&layout.aliases).map(|topic| (topic, &layout.ident))
    });
    let checked = topics.map(|(topic, owner)| match owners.insert(topic.value(), owner) {
        None => Ok(()),
        Some(first) => {
            Err(Error::new(topic.span(), format!("topic \"{}\" already leads to `{first}`", topic.value())))
        }
    });
    all(checked).map(drop)
}
