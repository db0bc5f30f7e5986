//! The attributes of states: as one line, and of two states side by side.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// An attribute of two states.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The path of the attribute, as in `lines.0.price`.
    pub(super) path: String,
    pub(super) left: Option<String>,
    pub(super) right: Option<String>,
}

/// Returns the attributes of two states, in the order of the left one, and after them those that only the
/// right one has. Values are JSON as it is stored.
pub(super) fn differences(left: &RawValue, right: &RawValue) -> Vec<Difference> {
    let mut right = attributes(right);
    let mut differences: Vec<_> = attributes(left)
        .into_iter()
        .map(|(path, left)| {
            let found = right.iter().position(|(other, _)| *other == path);
            let right = found.map(|index| right.remove(index).1);
            Difference { path, left: Some(left), right }
        })
        .collect();
    differences.extend(right.into_iter().map(|(path, right)| Difference {
        path,
        left: None,
        right: Some(right),
    }));
    differences
}

/// Returns the attributes of a state on one line, without its timestamp, which pages show by itself; never an
/// empty line.
pub(super) fn line(state: &RawValue) -> String {
    let attribute = |(path, value): (String, String)| match path.as_str() {
        "timestamp" => None,
        "" => Some(value),
        path => Some(format!("{path}: {value}")),
    };
    let line = attributes(state).into_iter().filter_map(attribute).collect::<Vec<_>>().join(", ");
    if line.is_empty() { state.get().to_owned() } else { line }
}

/// Returns the attributes of a state by their paths.
fn attributes(state: &RawValue) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect("", state, &mut found);
    found
}

fn collect(path: &str, value: &RawValue, found: &mut Vec<(String, String)>) {
    let text = value.get();
    if let Some((kind, data)) = transcoded(value) {
        found.push((path.to_owned(), format!("{data} ({kind})")));
        return;
    }
    let members = match text.as_bytes().first() {
        Some(b'{') => serde_json::from_str::<Members>(text).map(|members| members.0).unwrap_or_default(),
        Some(b'[') => {
            let items = serde_json::from_str::<Vec<Box<RawValue>>>(text).unwrap_or_default();
            items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        _ => Vec::new(),
    };
    if members.is_empty() {
        found.push((path.to_owned(), text.to_owned()));
    }
    for (name, member) in members {
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        collect(&path, &member, found);
    }
}

/// Returns type and value of the representation of one value by a transcoding, such as a time.
fn transcoded(value: &RawValue) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Transcoded {
        _type_: String,
        _data_: Box<RawValue>,
    }
    let Transcoded { _type_: kind, _data_: data } = serde_json::from_str(value.get()).ok()?;
    (!data.get().starts_with(['{', '['])).then(|| (kind, data.get().to_owned()))
}

/// The members of an object, in their order.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::differences;

    #[test]
    fn attributes_have_paths_and_keep_their_digits() {
        let left = r#"{"n":1.50,"at":{"_type_":"date_iso","_data_":"2000-02-20"},"a":[{"b":null},[]]}"#;
        let right = r#"{"n":1.5,"a":[{"b":null}],"new":{}}"#;
        let [left, right] = [left, right].map(|json| RawValue::from_string(json.to_owned()).unwrap());
        let found: Vec<_> = differences(&left, &right)
            .into_iter()
            .map(|found| {
                [found.path, found.left.unwrap_or_default(), found.right.unwrap_or_default()].join(" ")
            })
            .collect();
        let expected =
            ["n 1.50 1.5", "at \"2000-02-20\" (date_iso) ", "a.0.b null null", "a.1 [] ", "new  {}"];
        assert_eq!(found, expected);
    }
}
