//! The digest chain over a log, by which copies are compared.
//!
//! The digest of each event covers the digest before it, so that the last one covers the log:
//!
//! ```text
//! contents[n]  = SHA-256(contents[n-1] | originator | version
//!                        | length of topic | topic | length of state | state)
//! positions[n] = SHA-256(positions[n-1] | id | contents[n])
//! ```
//! Numbers are big-endian in 8 bytes, and the originator is the 16 bytes of the UUID. The state is the
//! decoded one, so that a copy with another cipher or compressor has the same digests. The contents have no
//! ids, so that a copy that numbers its events anew has the same digest of contents.

use es_core::StoredEvent;
use ring::digest::{Context, SHA256};

/// The digests up to an event; zeros before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    contents: [u8; 32],
    positions: [u8; 32],
}

impl Chain {
    /// Adds the next event of the log.
    pub(crate) fn add(&mut self, id: i64, event: &StoredEvent, state: &[u8]) {
        let topic = event.topic.as_bytes();
        self.contents = digest(&[
            &self.contents,
            event.originator_id.as_bytes(),
            &event.originator_version.to_be_bytes(),
            &(topic.len() as u64).to_be_bytes(),
            topic,
            &(state.len() as u64).to_be_bytes(),
            state,
        ]);
        self.positions = digest(&[&self.positions, &id.to_be_bytes(), &self.contents]);
    }

    /// Returns the digest of the events in their order, without their ids, in hexadecimal.
    pub(crate) fn contents(&self) -> String {
        hexadecimal(&self.contents)
    }

    /// Returns the digest of the events with their ids, in hexadecimal.
    pub(crate) fn positions(&self) -> String {
        hexadecimal(&self.positions)
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use es_core::{Bytes, Topic, uuid::Uuid};

    use super::*;

    #[test]
    fn every_part_of_an_event_changes_the_digest() {
        let event = StoredEvent {
            originator_id: Uuid::from_u128(1),
            originator_version: 1,
            topic: Topic::from_static("ab"),
            state: Bytes::new(),
        };
        let chain = |id: i64, event: &StoredEvent, state: &[u8]| {
            let mut chain = Chain::default();
            chain.add(id, event, state);
            chain
        };
        let one = chain(1, &event, b"cd");
        let moved = chain(2, &event, b"cd");
        assert_eq!(one.contents(), moved.contents());
        assert_ne!(one.positions(), moved.positions());
        for other in [
            chain(1, &event, b"ce"),
            chain(1, &StoredEvent { originator_version: 2, ..event.clone() }, b"cd"),
            chain(1, &StoredEvent { originator_id: Uuid::from_u128(2), ..event.clone() }, b"cd"),
            chain(1, &StoredEvent { topic: Topic::from_static("abc"), ..event.clone() }, b"d"),
        ] {
            assert_ne!(other.contents(), one.contents());
        }
        let mut two = one;
        two.add(1, &event, b"cd");
        assert_ne!(two.contents(), one.contents(), "a repeated event");
    }
}
