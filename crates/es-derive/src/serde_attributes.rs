//! The content of `#[serde(…)]`: mostly passed on to serde, and parsed where it names attributes.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, LitStr, Path, Result, Token,
    meta::ParseNestedMeta,
    parse::{ParseStream, Parser},
};

/// The `#[serde(…)]` of a struct, an enum or a variant.
#[derive(Clone, Default)]
pub(crate) struct ContainerSerde {
    /// The value of `rename_all`, or of `rename_all_fields` of an enum.
    pub(crate) rename_all: Option<TokenStream>,
    pub(crate) deny_unknown_fields: bool,
    pub(crate) default: Option<ContainerDefault>,
}

/// The source of missing attributes.
#[derive(Clone)]
pub(crate) enum ContainerDefault {
    Trait,
    Function(Path),
}

impl ContainerSerde {
    pub(crate) fn of_struct(attributes: &[Attribute]) -> Result<Self> {
        Self::parse(attributes, &["rename_all", "deny_unknown_fields", "default"])
    }

    pub(crate) fn of_enum(attributes: &[Attribute]) -> Result<Self> {
        Self::parse(attributes, &["rename_all_fields", "deny_unknown_fields"])
    }

    pub(crate) fn of_variant(attributes: &[Attribute], of_enum: &Self) -> Result<Self> {
        let own = Self::parse(attributes, &["rename_all"])?;
        Ok(Self { rename_all: own.rename_all.or_else(|| of_enum.rename_all.clone()), ..of_enum.clone() })
    }

    fn parse(attributes: &[Attribute], honoured: &[&str]) -> Result<Self> {
        let mut parsed = Self::default();
        for_each_key(attributes, |key, value, meta| {
            match key {
                _ if !honoured.contains(&key) => return ignore(key, meta),
                "deny_unknown_fields" => parsed.deny_unknown_fields = true,
                "default" if value.is_empty() => parsed.default = Some(ContainerDefault::Trait),
                "default" => parsed.default = Some(ContainerDefault::Function(quoted_path.parse2(value)?)),
                _ => parsed.rename_all = Some(value),
            }
            Ok(())
        })?;
        Ok(parsed)
    }

    /// Returns whether `rename_all` changes `name`.
    pub(crate) fn renames(&self, name: &str) -> bool {
        let Some(rule) = &self.rename_all else { return false };
        let rule = rule.to_string();
        if rule.contains("lowercase") || rule.contains("\"snake_case") {
            return false;
        }
        name.contains('_') || !(rule.contains("camelCase") || rule.contains("\"kebab-case"))
    }
}

/// The attributes that only affect serde's own derives, which the type may have as well.
fn ignore(key: &str, meta: &ParseNestedMeta<'_>) -> Result<()> {
    const IGNORED: [&str; 9] =
        ["alias", "content", "crate", "expecting", "other", "rename", "rename_all", "tag", "untagged"];
    if IGNORED.contains(&key) {
        return Ok(());
    }
    Err(meta.error(format!("`#[serde({key})]` has no meaning for `derive(Event)` here")))
}

/// The `#[serde(…)]` of a field.
#[derive(Default)]
pub(crate) struct FieldSerde {
    /// All of it, for serde.
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) has_default: bool,
    /// `with` and its halves.
    pub(crate) adapter: Option<Span>,
    /// True if the field is neither written nor read, or is written under other names.
    pub(crate) nameless: bool,
    /// True if the field is written and read under `renames` instead of its own name.
    pub(crate) is_renamed: bool,
    pub(crate) renames: Vec<LitStr>,
    pub(crate) aliases: Vec<LitStr>,
}

impl FieldSerde {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut parsed = Self::default();
        for_each_key(attributes, |key, value, meta| {
            match key {
                "default" => parsed.has_default = true,
                "with" | "serialize_with" | "deserialize_with" => {
                    parsed.adapter = Some(meta.path.segments[0].ident.span());
                }
                "skip" | "flatten" => parsed.nameless = true,
                "rename" => {
                    let only_one_way = is_list(&value) && texts(value.clone()).len() == 1;
                    parsed.is_renamed = !only_one_way;
                    parsed.renames = texts(value);
                }
                "alias" => parsed.aliases.extend(texts(value)),
                _ => {}
            }
            Ok(())
        })?;
        parsed.attributes = attributes.iter().filter(|attribute| is_serde(attribute)).cloned().collect();
        Ok(parsed)
    }
}

fn is_serde(attribute: &Attribute) -> bool {
    attribute.path().is_ident("serde")
}

/// Calls `f` with each key, and the tokens after it up to the next comma.
fn for_each_key(
    attributes: &[Attribute],
    mut f: impl FnMut(&str, TokenStream, &ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    for attribute in attributes.iter().filter(|attribute| is_serde(attribute)) {
        attribute.parse_nested_meta(|meta| {
            let key = meta.path.require_ident()?.to_string();
            let value = until_comma(meta.input)?;
            f(&key, value, &meta)
        })?;
    }
    Ok(())
}

fn until_comma(input: ParseStream<'_>) -> Result<TokenStream> {
    let mut tokens = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    Ok(tokens)
}

/// `= "path::to::function"`.
fn quoted_path(input: ParseStream<'_>) -> Result<Path> {
    input.parse::<Token![=]>()?;
    input.parse::<LitStr>()?.parse()
}

fn is_list(tokens: &TokenStream) -> bool {
    matches!(tokens.clone().into_iter().next(), Some(TokenTree::Group(_)))
}

/// The texts in `= "a"` or `(serialize = "a", deserialize = "b")`.
fn texts(tokens: TokenStream) -> Vec<LitStr> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => texts(group.stream()),
            token => syn::parse2(token.into()).into_iter().collect(),
        })
        .collect()
}
