//! Errors of serde_json without the values of the state, which may be personal data, and of any length. Names
//! of attributes are kept.

use std::{error::Error, fmt};

/// The most characters that are kept of a text that is not serde's own.
const MAX_LENGTH: usize = 200;

/// The text of an error of serde_json: what was found as a type, what was expected, line and column.
#[derive(Debug)]
pub(crate) struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(without_value(&error.to_string()))
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for JsonError {}

/// Removes the value from a text such as ``invalid type: string "Alice", expected u64 at line 1 column 40``.
fn without_value(text: &str) -> String {
    let with_value = ["invalid type: ", "invalid value: ", "unknown variant "];
    for start in with_value {
        if let Some(rest) = text.strip_prefix(start)
            && let Some(expected) = rest.rfind(", expected ").or_else(|| rest.rfind(", there are no "))
        {
            let (found, expected) = rest.split_at(expected);
            let kind = found.split(['"', '`']).next().unwrap_or_default();
            return format!("{}{expected}", format!("{start}{kind}").trim_end());
        }
    }
    match text.char_indices().nth(MAX_LENGTH) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_removed_and_the_rest_kept() {
        for (text, expected) in [
            (
                "invalid type: string \"Alice, expected \\\"nothing\\\"\", expected u64 at line 1 column 40",
                "invalid type: string, expected u64 at line 1 column 40",
            ),
            ("invalid type: null, expected a string", "invalid type: null, expected a string"),
            ("invalid value: integer `-5`, expected u32", "invalid value: integer, expected u32"),
            ("unknown variant `Alice`, expected `A` or `B`", "unknown variant, expected `A` or `B`"),
            ("unknown variant `Alice`, there are no variants", "unknown variant, there are no variants"),
            ("unknown field `colour`, there are no fields", "unknown field `colour`, there are no fields"),
            ("missing field `owner` at line 1 column 2", "missing field `owner` at line 1 column 2"),
        ] {
            assert_eq!(without_value(text), expected);
        }
        assert_eq!(without_value(&"ä".repeat(1_000)).chars().count(), MAX_LENGTH + 1);
    }
}
