//! Bytes that claim to be an export of the command-line tool.

use std::cell::RefCell;

use arbitrary::{Result, Unstructured};
use es_persistence::{Bytes, Notification, StoredEvent, Topic};
use serde::Serialize;
use uuid::Uuid;
use zstd::bulk::Compressor;

use crate::{
    interchange::{Interchange, Line, Reader},
    memory::within,
};

/// Small, so that a short input reaches it.
const MAX_LINE: usize = 64 << 10;

/// The line with its copies, and the buffers of the reader.
const MEMORY: u64 = 8 * MAX_LINE as u64 + (512 << 10);

/// Anything as an export: as it is, and as its text.
pub fn export(data: &[u8]) {
    let _ = read(data);
    let lines = [line(&Interchange::header()), data.to_vec()].concat();
    let _ = read(&compressed(&lines));
    let _ = written(&mut Unstructured::new(data));
}

/// Events of any content are read as they were written; a changed byte changes no event.
fn written(source: &mut Unstructured<'_>) -> Result<()> {
    let (at, bit) = (source.arbitrary::<usize>()?, source.int_in_range(0..=7)?);
    let mut events = Vec::new();
    while source.arbitrary()? {
        let state: &[u8] = source.arbitrary()?;
        let state = match source.arbitrary()? {
            true => state.to_vec(),
            // Which is stored as it is.
            false => format!("{{\"text\":{:?}}}", String::from_utf8_lossy(state)).into_bytes(),
        };
        let event = StoredEvent {
            originator_id: Uuid::from_u128(source.arbitrary()?),
            originator_version: source.arbitrary()?,
            topic: Topic::from_stored(source.arbitrary::<&str>()?),
            state: Bytes::from(state),
        };
        events.push(Notification { id: source.arbitrary()?, event });
    }
    let mut interchange = Interchange::default();
    let mut lines = line(&Interchange::header());
    for Notification { id, event } in &events {
        lines.extend(line(&interchange.record(*id, event, &event.state)));
    }
    lines.extend(line(&interchange.footer()));
    assert_eq!(read(&compressed(&lines)).as_ref(), Some(&events), "an export is not read as it was written");

    let at = at % lines.len();
    lines[at] ^= 1 << bit;
    // A letter of a UUID or of an escape may have the other case.
    assert!(read(&compressed(&lines)).is_none_or(|read| read == events), "a changed byte is not noticed");
    let is_line_end = at + 1 == lines.len();
    lines.truncate(at);
    // Without the end of its last line it is complete.
    assert!(is_line_end || read(&compressed(&lines)).is_none(), "an export that is cut off is complete");
    Ok(())
}

/// Returns the events of a complete export.
fn read(export: &[u8]) -> Option<Vec<Notification>> {
    let mut events = Vec::new();
    let mut reader = within(MEMORY, || Reader::new(export, MAX_LINE)).ok()?;
    loop {
        match within(MEMORY, || reader.next()).ok()?? {
            Line::Event(event) => events.push(event),
            Line::End => return Some(events),
        }
    }
}

fn line(line: &impl Serialize) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "a line has strings and numbers only")]
    let mut line = serde_json::to_vec(line).expect("a line");
    line.push(b'\n');
    line
}

#[expect(clippy::expect_used, reason = "in memory")]
fn compressed(lines: &[u8]) -> Vec<u8> {
    thread_local! {
        // Made once: a context has a large memory, which it clears.
        static COMPRESSOR: RefCell<Compressor<'static>> =
            RefCell::new(Compressor::new(1).expect("a compressor"));
    }
    COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(lines)).expect("compressed lines")
}
