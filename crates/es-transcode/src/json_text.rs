//! Properties of JSON text that are determined without decoding it.

/// The maximum depth of arrays and objects, for writing and reading: that of serde_json's reader.
pub(crate) const MAX_DEPTH: usize = 127;

/// Returns the depth of arrays and objects in a JSON text.
pub(crate) fn depth(json: &str) -> usize {
    let mut depth: usize = 0;
    let mut deepest = 0;
    for (_, byte) in outside_strings(json) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// A token whose text serde does not pass to a visitor.
#[derive(Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// A number as it is spelled.
    Number(&'a str),
    /// The beginning of an object.
    Object,
}

/// Returns the numbers of a JSON text and the beginnings of its objects, in order.
pub(crate) fn tokens(json: &str) -> impl Iterator<Item = Token<'_>> {
    let mut bytes = outside_strings(json).peekable();
    std::iter::from_fn(move || {
        let (start, first) = bytes.by_ref().find(|(_, byte)| matches!(byte, b'{' | b'-' | b'0'..=b'9'))?;
        if first == b'{' {
            return Some(Token::Object);
        }
        let mut end = start + 1;
        while bytes
            .next_if(|(_, byte)| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
            .is_some()
        {
            end += 1;
        }
        json.get(start..end).map(Token::Number)
    })
}

/// Returns the bytes outside of strings, with their positions.
fn outside_strings(json: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut within = false;
    let mut escaped = false;
    json.bytes().enumerate().filter(move |(_, byte)| {
        if !within {
            within = *byte == b'"';
            return !within;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => within = false,
            _ => {}
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_objects_are_found_outside_of_strings() {
        let json = r#"{"1":[-1, 2.5e+3,{"a\\":0,"b\"{4":"{5"}],"c":1180591620717411303424}"#;
        let found: Vec<Token<'_>> = tokens(json).collect();
        let expected = [
            Token::Object,
            Token::Number("-1"),
            Token::Number("2.5e+3"),
            Token::Object,
            Token::Number("0"),
            Token::Number("1180591620717411303424"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn depth_counts_arrays_and_objects_outside_of_strings() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"[{"[[":"\"[["},[[]]]"#), 3);
    }
}
