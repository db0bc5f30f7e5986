//! Templates of output: texts with placeholders such as `{topic}` or `{state.owner}`.

use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// A placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Id,
    OriginatorId,
    OriginatorVersion,
    Topic,
    Timestamp,
    /// The path of an attribute in the state; the whole state if empty.
    State(Vec<String>),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// The reason for people, if a placeholder is not known or not closed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '{' | '}' if characters.peek() == Some(&character) => {
                    characters.next();
                    literal.push(character);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match characters.next() {
                            Some('}') => break,
                            Some(character) => name.push(character),
                            None => return Err(format!("placeholder {{{name} is not closed")),
                        }
                    }
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    pieces.push(Piece::Field(Field::parse(&name)?));
                }
                '}' => return Err("a single brace: write }} for }".to_owned()),
                '\\' => match characters.next() {
                    Some('n') => literal.push('\n'),
                    Some('t') => literal.push('\t'),
                    Some(other) => literal.push(other),
                    None => literal.push('\\'),
                },
                other => literal.push(other),
            }
        }
        pieces.push(Piece::Text(literal));
        Ok(Self(pieces))
    }

    /// Returns the text with the value of each placeholder.
    pub(crate) fn fill(&self, value: impl Fn(&Field) -> String) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Field(field) => filled.push_str(&value(field)),
            }
        }
        filled
    }
}

impl Field {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "id" => Self::Id,
            "originator_id" => Self::OriginatorId,
            "originator_version" => Self::OriginatorVersion,
            "topic" => Self::Topic,
            "timestamp" => Self::Timestamp,
            "state" => Self::State(Vec::new()),
            _ => match name.strip_prefix("state.") {
                Some(path) => Self::State(path.split('.').map(str::to_owned).collect()),
                None => {
                    return Err(format!(
                        "placeholder {{{name}}} is not known: use id, originator_id, originator_version, topic, \
                         timestamp, state or state.ATTRIBUTE"
                    ));
                }
            },
        })
    }
}

/// Returns the text of an attribute: a string without quotes, nothing if it is absent, else JSON.
pub(crate) fn attribute<'v>(state: &'v Value, path: &[String]) -> String {
    let step = |value: &'v Value, name: &String| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    };
    let found = path.iter().try_fold(state, step);
    match found {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn braces_are_doubled_and_placeholders_known() {
        let template = Template::parse("{{{id}}}\\t{state.a.0}").unwrap();
        assert_eq!(template.fill(|field| format!("<{field:?}>")), "{<Id>}\t<State([\"a\", \"0\"])>");
        for wrong in ["{ide}", "{id", "id}", "{state.}x{"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_are_found_by_name_and_by_index() {
        let state = json!({"lines": [{"price": 3}, {"price": 4}], "owner": "Alice"});
        let found = |path: &str| attribute(&state, &path.split('.').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(found("lines.1.price"), "4");
        assert_eq!(found("owner"), "Alice");
        assert_eq!(found("owner.x"), "");
        assert_eq!(found("lines.0"), "{\"price\":3}");
    }
}
