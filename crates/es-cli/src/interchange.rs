//! The format of exports: JSON lines, compressed by zstd.
//!
//! ```text
//! {"format":"es-export","version":1}
//! {"id":1,"originator_id":"…","originator_version":1,"topic":"…","state":{…},"sum":"0123456789abcdef"}
//! …
//! {"events":2,"digest":"…"}
//! ```
//! A state is the decoded one. If it is no JSON object on one line, `state_base64` has its bytes. The sum of
//! an event is the first 16 digits of the digest with ids of the [chain](crate::digest) up to it, so that a
//! changed, missing or additional record is detected at once; the last line has the whole digest.

use std::io::{self, BufRead, BufReader, Read};

use base64::prelude::{BASE64_STANDARD, Engine};
use es_core::{Bytes, Notification, StoredEvent, Topic, uuid::Uuid};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zstd::stream::read::Decoder;

use crate::{digest::Chain, failure::Failure};

const FORMAT: &str = "es-export";
const VERSION: u32 = 1;
/// The digits of a sum.
const SUM: usize = 16;

/// The first line.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Header {
    format: String,
    version: u32,
}

/// The last line.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    events: u64,
    digest: String,
}

/// The line of an event.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    id: i64,
    originator_id: String,
    originator_version: i64,
    topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_base64: Option<String>,
    sum: String,
}

/// A line after the first.
pub(crate) enum Line {
    Event(Notification),
    End,
}

/// The most bytes of a line: the largest state of a database, as base64 text, and the rest of the record. A
/// small input can decompress to any size.
pub(crate) const MAX_LINE: usize = 1_500_000_000;

/// An export that is read: its events, verified one by one.
pub(crate) struct Reader<R: Read> {
    input: BufReader<Decoder<'static, BufReader<R>>>,
    max_line: usize,
    interchange: Interchange,
}

impl<R: Read> Reader<R> {
    /// Reads and verifies the first line.
    pub(crate) fn new(input: R, max_line: usize) -> Result<Self, Failure> {
        let input = BufReader::new(Decoder::new(input).map_err(unreadable)?);
        let mut reader = Self { input, max_line, interchange: Interchange::default() };
        Interchange::parse_header(&reader.line()?.unwrap_or_default())?;
        Ok(reader)
    }

    /// Returns the next line; `None` if the input ends without the last line.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Failure> {
        let Some(line) = self.line()? else { return Ok(None) };
        self.interchange.parse(&line).map(Some)
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        let limit = self.max_line as u64 + 1;
        self.input.by_ref().take(limit).read_until(b'\n', &mut line).map_err(unreadable)?;
        match line.pop() {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) if line.len() == self.max_line => return Err(damaged("a line", "is too long")),
            Some(last) => line.push(last),
        }
        Ok(Some(line))
    }
}

fn unreadable(error: io::Error) -> Failure {
    Failure::new(format!("the export cannot be read: {error}"))
}

/// The state of an export that is written or read.
#[derive(Default)]
pub(crate) struct Interchange {
    chain: Chain,
    events: u64,
}

impl Interchange {
    pub(crate) fn header() -> Header {
        Header { format: FORMAT.to_owned(), version: VERSION }
    }

    /// Returns the line of an event with a decoded state.
    pub(crate) fn record(&mut self, id: i64, event: &StoredEvent, state: &[u8]) -> impl Serialize + use<> {
        self.chain.add(id, event, state);
        self.events += 1;
        let json = one_line(state);
        Record {
            id,
            originator_id: event.originator_id.to_string(),
            originator_version: event.originator_version,
            topic: event.topic.to_string(),
            state_base64: json.is_none().then(|| BASE64_STANDARD.encode(state)),
            state: json,
            sum: self.sum(),
        }
    }

    /// Returns the last line.
    pub(crate) fn footer(&self) -> impl Serialize + use<> {
        Footer { events: self.events, digest: self.chain.positions() }
    }

    /// Verifies the first line.
    fn parse_header(line: &[u8]) -> Result<(), Failure> {
        let header: Option<Header> = serde_json::from_slice(line).ok();
        match header {
            Some(header) if header == Self::header() => Ok(()),
            Some(Header { format, version }) if format == FORMAT => Err(Failure::new(format!(
                "the export has version {version}; this program reads version {VERSION}"
            ))),
            _ => Err(Failure::new("the input is no export of `es export`")),
        }
    }

    /// Parses and verifies a line after the first.
    fn parse(&mut self, line: &[u8]) -> Result<Line, Failure> {
        let number = self.events + 1;
        if let Ok(footer) = serde_json::from_slice::<Footer>(line) {
            let is_complete = footer == Footer { events: self.events, digest: self.chain.positions() };
            return if is_complete {
                Ok(Line::End)
            } else {
                Err(damaged("the end", "does not fit the events"))
            };
        }
        let name = format!("record {number}");
        let record: Record =
            serde_json::from_slice(line).map_err(|_| damaged(&name, "is no record of an event"))?;
        let state = match (record.state, record.state_base64) {
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(base64)) => {
                BASE64_STANDARD.decode(base64).map_err(|_| damaged(&name, "has no base64 in state_base64"))?
            }
            _ => return Err(damaged(&name, "has not exactly one of state and state_base64")),
        };
        let originator_id = Uuid::try_parse(&record.originator_id);
        let event = StoredEvent {
            originator_id: originator_id.map_err(|_| damaged(&name, "has no UUID as originator_id"))?,
            originator_version: record.originator_version,
            topic: Topic::from_stored(record.topic),
            state: Bytes::from(state),
        };
        self.chain.add(record.id, &event, &event.state);
        self.events += 1;
        if self.sum() != record.sum {
            return Err(damaged(
                &name,
                "does not have its sum: it was changed, or records before it are missing",
            ));
        }
        Ok(Line::Event(Notification { id: record.id, event }))
    }

    fn sum(&self) -> String {
        self.chain.positions()[..SUM].to_owned()
    }
}

fn damaged(part: &str, problem: &str) -> Failure {
    Failure::new(format!("the export is damaged: {part} {problem}"))
}

/// Returns a state as JSON that is read again as the same bytes, if that is possible.
fn one_line(state: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(state).ok()?;
    let is_exact = !text.contains(['\n', '\r']) && text.trim_ascii() == text;
    // `null` would be read as an absent state.
    if is_exact && text.starts_with('{') { RawValue::from_string(text.to_owned()).ok() } else { None }
}
