//! The content of `#[event(…)]`.

use proc_macro2::Span;
use syn::{
    Attribute, Error, Expr, Ident, LitInt, LitStr, Path, Result, Token, Type,
    meta::ParseNestedMeta,
    parenthesized,
    parse::{Parse, ParseStream},
    parse_quote_spanned,
    punctuated::Punctuated,
    spanned::Spanned,
    token::Paren,
};

/// The keys that a location accepts, and the name of the location in messages.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    name: &'static str,
    keys: &'static [&'static str],
}

pub(crate) const STRUCT: Place = Place {
    name: "a struct",
    keys: &["topic", "alias", "version", "upcast", "subject", "erased", "const", "crate"],
};
pub(crate) const ENUM: Place = Place { name: "an enum", keys: &["topic", "alias", "transparent", "crate"] };
pub(crate) const VARIANT: Place =
    Place { name: "a variant", keys: &["topic", "alias", "version", "upcast", "subject", "erased", "const"] };
pub(crate) const WRAPPER: Place = Place { name: "a transparent enum", keys: &["transparent", "crate"] };
pub(crate) const WRAPPED: Place = Place { name: "a variant of a transparent enum", keys: &[] };
pub(crate) const FIELD: Place = Place { name: "a field", keys: &["registered", "as"] };

/// The `#[event(…)]` attributes of one place.
#[derive(Default)]
pub(crate) struct EventAttributes {
    pub(crate) topic: Option<LitStr>,
    pub(crate) aliases: Vec<LitStr>,
    pub(crate) version: Option<LitInt>,
    pub(crate) upcast: Option<Upcast>,
    pub(crate) subject: Option<FieldPath>,
    pub(crate) erased: Option<Expr>,
    pub(crate) constant: Option<Constant>,
    pub(crate) transparent: Option<()>,
    pub(crate) crate_path: Option<Path>,
    pub(crate) adapter: Option<Type>,
}

/// `const = NAME`, or `const = _` for none.
pub(crate) enum Constant {
    Named(Ident),
    Omitted,
}

/// `owner`, or `owner.id`.
pub(crate) type FieldPath = Punctuated<Ident, Token![.]>;

/// `upcast(1 = OpenedV1, 2 = OpenedV2)`.
pub(crate) struct Upcast {
    pub(crate) span: Span,
    pub(crate) layouts: Vec<OldLayout>,
}

/// `1 = OpenedV1`.
pub(crate) struct OldLayout {
    pub(crate) version: LitInt,
    pub(crate) layout: Type,
}

impl EventAttributes {
    pub(crate) fn parse(attributes: &[Attribute], place: Place) -> Result<Self> {
        let mut parsed = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| parsed.parse_key(&meta, place))?;
        }
        Ok(parsed)
    }

    fn parse_key(&mut self, meta: &ParseNestedMeta<'_>, place: Place) -> Result<()> {
        let key = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
        if !place.keys.contains(&key.as_str()) {
            return Err(meta.error(unknown_key(&meta.path, place)));
        }
        match key.as_str() {
            "topic" => set(&mut self.topic, meta, topic(meta.value()?)?),
            "alias" => {
                self.aliases.push(topic(meta.value()?)?);
                Ok(())
            }
            "version" => set(&mut self.version, meta, version(meta.value()?)?),
            "upcast" => set(&mut self.upcast, meta, upcast(meta)?),
            "subject" => set(&mut self.subject, meta, field_path(meta.value()?)?),
            "erased" => set(&mut self.erased, meta, erased(meta.value()?)?),
            "const" => set(&mut self.constant, meta, constant(meta.value()?)?),
            "transparent" => set(&mut self.transparent, meta, ()),
            "crate" => set(&mut self.crate_path, meta, crate_path(meta.value()?)?),
            "as" => set(&mut self.adapter, meta, unquoted_type(meta.value()?, "as = Vec<Registered>")?),
            _ => set(&mut self.adapter, meta, registered(meta)?),
        }
    }
}

fn unknown_key(path: &Path, place: Place) -> String {
    let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    let expected: Vec<_> = place.keys.iter().map(|key| format!("`{key}`")).collect();
    let expected = if expected.is_empty() { "none".to_owned() } else { expected.join(", ") };
    format!("`{}` is no attribute of {}; expected {expected}", segments.join("::"), place.name)
}

fn set<T>(slot: &mut Option<T>, meta: &ParseNestedMeta<'_>, value: T) -> Result<()> {
    if slot.replace(value).is_none() {
        return Ok(());
    }
    let key = &meta.path.segments[0].ident;
    let message = match key.to_string().as_str() {
        "registered" | "as" => "a field has one adapter: either `registered` or one `as`".to_owned(),
        key => format!("`{key}` is given twice"),
    };
    Err(meta.error(message))
}

/// A text that is a topic.
fn topic(input: ParseStream<'_>) -> Result<LitStr> {
    let text: LitStr = parse_or(input, "expected a topic in quotes, such as \"bank:Account\"")?;
    let value = text.value();
    if value.is_empty() {
        return Err(Error::new(text.span(), "a topic is not empty"));
    }
    if value.contains('\0') {
        return Err(Error::new(text.span(), "a topic has no NUL character"));
    }
    Ok(text)
}

/// A whole number from 1 on.
fn version(input: ParseStream<'_>) -> Result<LitInt> {
    const EXPECTED: &str = "expected a class version, a whole number from 1 on";
    let literal: LitInt = parse_or(input, EXPECTED)?;
    match literal.base10_parse::<u32>() {
        Ok(1..) => Ok(literal),
        _ => Err(Error::new(literal.span(), EXPECTED)),
    }
}

fn upcast(meta: &ParseNestedMeta<'_>) -> Result<Upcast> {
    if !meta.input.peek(Paren) {
        return Err(meta.error("expected the old layouts, as in `upcast(1 = OpenedV1, 2 = OpenedV2)`"));
    }
    let content;
    parenthesized!(content in meta.input);
    let layouts = Punctuated::<OldLayout, Token![,]>::parse_terminated(&content)?;
    Ok(Upcast { span: meta.path.span(), layouts: layouts.into_iter().collect() })
}

impl Parse for OldLayout {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let version = version(input)?;
        input.parse::<Token![=]>()?;
        Ok(Self { version, layout: unquoted_type(input, "1 = OpenedV1")? })
    }
}

fn field_path(input: ParseStream<'_>) -> Result<FieldPath> {
    let span = input.span();
    FieldPath::parse_separated_nonempty(input)
        .map_err(|_| Error::new(span, "expected a field, as in `subject = owner` or `subject = owner.id`"))
}

fn erased(input: ParseStream<'_>) -> Result<Expr> {
    parse_or(input, "expected a function of the subject, as in `erased = Self::erased`")
}

fn constant(input: ParseStream<'_>) -> Result<Constant> {
    if input.peek(Token![_]) {
        return input.parse::<Token![_]>().map(|_| Constant::Omitted);
    }
    parse_or(input, "expected a name, as in `const = PLACED`, or `_` for no constant").map(Constant::Named)
}

fn registered(meta: &ParseNestedMeta<'_>) -> Result<Type> {
    if !meta.input.is_empty() && !meta.input.peek(Token![,]) {
        return Err(meta.input.error("`registered` takes no value; write `as = Vec<Registered>` for a part"));
    }
    Ok(parse_quote_spanned!(meta.path.span()=> Registered))
}

fn crate_path(input: ParseStream<'_>) -> Result<Path> {
    let message = "expected a path without quotes, as in `crate = es_persistence`";
    if input.peek(LitStr) { Err(input.error(message)) } else { input.call(Path::parse_mod_style) }
}

fn unquoted_type(input: ParseStream<'_>, example: &str) -> Result<Type> {
    parse_or(input, &format!("expected a type without quotes, as in `{example}`"))
}

fn parse_or<T: Parse>(input: ParseStream<'_>, message: &str) -> Result<T> {
    let span = input.span();
    input.parse().map_err(|_| Error::new(span, message))
}
