//! Events as text, as JSON or by a template.

use base64::prelude::{BASE64_STANDARD, Engine};
use es_core::StoredEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    color::Color,
    failure::{Exit, Failure, chain},
    output::{Output, printable},
    state::StateDecoder,
    template::{Field, Template, attribute},
};

/// The format of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventFormat {
    Text,
    Json,
    Template(Template),
}

impl std::str::FromStr for EventFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            template if template.contains('{') => Template::parse(template).map(Self::Template),
            _ => Err("expected text, json, or a template with placeholders such as {topic}".to_owned()),
        }
    }
}

/// Writes events, and counts those that cannot be decoded.
pub(crate) struct EventWriter {
    pub(crate) output: Output,
    color: Color,
    format: EventFormat,
    decoder: Option<StateDecoder>,
    /// The states of an aggregate are printed on several lines.
    is_expanded: bool,
    unreadable: u64,
}

/// An event as JSON.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    originator_id: String,
    originator_version: i64,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a RawValue>,
    /// The stored bytes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_base64: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// The state of an event, as it is printed.
pub(crate) enum Shown {
    Json(Box<RawValue>),
    Raw(String),
    Unreadable(String),
}

impl EventWriter {
    /// Makes a writer; without a decoder, it prints the stored bytes.
    pub(crate) fn new(format: EventFormat, decoder: Option<StateDecoder>, color: Color) -> Self {
        Self { output: Output::new(), color, format, decoder, is_expanded: false, unreadable: 0 }
    }

    pub(crate) fn expanded(mut self) -> Self {
        self.is_expanded = true;
        self
    }

    /// Writes an event; `id` is its notification id, if it is known.
    pub(crate) fn write(&mut self, id: Option<i64>, event: &StoredEvent) -> Result<(), Failure> {
        let shown = Shown::new(self.decoder.as_ref(), event);
        self.unreadable += u64::from(matches!(shown, Shown::Unreadable(_)));
        match &self.format {
            EventFormat::Json => self.output.json(&Record::new(id, event, &shown)),
            EventFormat::Text => self.output.line(&self.text(id, event, &shown)),
            EventFormat::Template(template) => {
                let line = template.fill(|field| value(field, id, event, &shown));
                self.output.line(&line)
            }
        }
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// [`Exit::Findings`] if states could not be decoded.
    pub(crate) fn finish(mut self) -> Result<Exit, Failure> {
        self.output.flush()?;
        match self.unreadable {
            0 => Ok(Exit::Success),
            count => Err(Failure::findings(format!("{count} states cannot be decoded")).with_hint(
                "set cipher and compressor as the application does (CIPHER_KEY, COMPRESSOR_TOPIC), or use --raw",
            )),
        }
    }

    fn text(&self, id: Option<i64>, event: &StoredEvent, shown: &Shown) -> String {
        let id = id.map_or_else(String::new, |id| format!("{id}  "));
        let moment = shown.timestamp().map_or_else(String::new, |moment| format!("{}  ", printable(&moment)));
        let (originator, version) = (event.originator_id, event.originator_version);
        let state = match shown {
            Shown::Json(json) if self.is_expanded => expanded(json, 1),
            Shown::Unreadable(reason) => self.color.bad(&format!("unreadable: {}", printable(reason))),
            shown => shown.text().to_owned(),
        };
        let separator = if self.is_expanded { "\n" } else { "  " };
        let topic = self.color.topic(&printable(&event.topic));
        let dim = self.color.dim(&format!("{originator} v{version}"));
        format!("{id}{moment}{topic}  {dim}{separator}{state}")
    }
}

impl<'a> Record<'a> {
    fn new(id: Option<i64>, event: &'a StoredEvent, shown: &'a Shown) -> Self {
        let (state, state_base64, error) = match shown {
            Shown::Json(json) => (Some(&**json), None, None),
            Shown::Raw(base64) => (None, Some(base64.as_str()), None),
            Shown::Unreadable(reason) => (None, None, Some(reason.as_str())),
        };
        Self {
            id,
            originator_id: event.originator_id.to_string(),
            originator_version: event.originator_version,
            topic: &event.topic,
            state,
            state_base64,
            error,
        }
    }
}

impl Shown {
    /// Decodes the state of an event; without a decoder, it is shown as stored.
    pub(crate) fn new(decoder: Option<&StateDecoder>, event: &StoredEvent) -> Self {
        match decoder.map(|decoder| decoder.json(event)) {
            None => Self::Raw(BASE64_STANDARD.encode(&event.state)),
            Some(Ok(json)) => Self::Json(json),
            Some(Err(error)) => Self::Unreadable(chain(&error)),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Json(json) => json.get(),
            Self::Raw(text) | Self::Unreadable(text) => text,
        }
    }

    /// Returns the timestamp of the event: the text of the attribute, or of its representation.
    pub(crate) fn timestamp(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Timestamped {
            timestamp: Value,
        }
        let Self::Json(json) = self else { return None };
        let Timestamped { timestamp } = serde_json::from_str(json.get()).ok()?;
        timestamp.as_str().or_else(|| timestamp.get("_data_")?.as_str()).map(str::to_owned)
    }
}

/// Returns the value of a placeholder.
fn value(field: &Field, id: Option<i64>, event: &StoredEvent, shown: &Shown) -> String {
    match field {
        Field::Id => id.map_or_else(String::new, |id| id.to_string()),
        Field::OriginatorId => event.originator_id.to_string(),
        Field::OriginatorVersion => event.originator_version.to_string(),
        Field::Topic => printable(&event.topic),
        Field::Timestamp => shown.timestamp().unwrap_or_default(),
        Field::State(path) => match shown {
            Shown::Json(json) if !path.is_empty() => serde_json::from_str(json.get())
                .map_or_else(|_| String::new(), |state| printable(&attribute(&state, path))),
            shown => shown.text().to_owned(),
        },
    }
}

/// Returns JSON on several lines, indented by `depth` and more, with its attributes in their order and its
/// numbers as they are.
pub(crate) fn expanded(json: &RawValue, mut depth: usize) -> String {
    let mut text = "  ".repeat(depth);
    let (mut is_string, mut is_escaped) = (false, false);
    let mut characters = json.get().chars().peekable();
    while let Some(character) = characters.next() {
        if is_string {
            text.push(character);
            is_string = is_escaped || character != '"';
            is_escaped = character == '\\' && !is_escaped;
            continue;
        }
        match character {
            '{' | '[' => {
                text.push(character);
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(close) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(close);
                } else {
                    depth += 1;
                    break_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                break_line(&mut text, depth);
                text.push(character);
            }
            ',' => {
                text.push(character);
                break_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            character if character.is_whitespace() => {}
            character => {
                is_string = character == '"';
                text.push(character);
            }
        }
    }
    text
}

fn break_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::expanded;

    #[test]
    fn expanded_json_keeps_order_and_digits() {
        let json = r#"{"b": 1.50, "a":["x\"]{",{}, [ ]]}"#;
        let lines = [
            "  {",
            "    \"b\": 1.50,",
            "    \"a\": [",
            r#"      "x\"]{","#,
            "      {},",
            "      []",
            "    ]",
            "  }",
        ];
        let json = RawValue::from_string(json.to_owned()).unwrap();
        assert_eq!(expanded(&json, 1), lines.join("\n"));
    }
}
