//! The total order: an append-only sequence of events in segments that never move.
//!
//! One growing vector would be copied whole, under the lock, each time that it is full.

use es_core::StoredEvent;

/// Events in a segment: large enough that segments are few, small enough that a reader that takes
/// the lock once per segment does not delay writers.
const SEGMENT_LENGTH: usize = 1_024;

#[derive(Default)]
pub(crate) struct Log {
    /// All full but the last.
    segments: Vec<Vec<StoredEvent>>,
}

impl Log {
    pub(crate) fn len(&self) -> usize {
        let full = self.segments.len().saturating_sub(1);
        full * SEGMENT_LENGTH + self.segments.last().map_or(0, Vec::len)
    }

    pub(crate) fn push(&mut self, event: StoredEvent) {
        match self.segments.last_mut() {
            Some(segment) if segment.len() < SEGMENT_LENGTH => segment.push(event),
            _ => {
                let mut segment = Vec::with_capacity(SEGMENT_LENGTH);
                segment.push(event);
                self.segments.push(segment);
            }
        }
    }

    pub(crate) fn get(&self, position: usize) -> Option<&StoredEvent> {
        self.segments.get(position / SEGMENT_LENGTH)?.get(position % SEGMENT_LENGTH)
    }

    /// The events from `position` up to and without `end`, as far as they lie in one segment; none
    /// only if there are none.
    pub(crate) fn run(&self, position: usize, end: usize) -> &[StoredEvent] {
        let Some(segment) = self.segments.get(position / SEGMENT_LENGTH) else {
            return &[];
        };
        let from = position % SEGMENT_LENGTH;
        let to = segment.len().min(from + end.saturating_sub(position));
        segment.get(from..to).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use es_core::{Bytes, Topic, uuid::Uuid};

    use super::*;

    fn log(length: i64) -> Log {
        let mut log = Log::default();
        for originator_version in 0..length {
            log.push(StoredEvent {
                originator_id: Uuid::nil(),
                originator_version,
                topic: Topic::from_static("topic"),
                state: Bytes::new(),
            });
        }
        log
    }

    #[test]
    fn keeps_events_at_their_positions_across_segments() {
        let length = 2 * SEGMENT_LENGTH + 1;
        let log = log(length as i64);
        assert_eq!(log.len(), length);
        for position in 0..length {
            assert_eq!(log.get(position).unwrap().originator_version, position as i64);
        }
        assert!(log.get(length).is_none());
    }

    #[test]
    fn ranges_end_with_their_segment_or_at_the_requested_end() {
        let log = log(SEGMENT_LENGTH as i64 + 10);
        assert_eq!(log.run(0, usize::MAX).len(), SEGMENT_LENGTH);
        assert_eq!(log.run(SEGMENT_LENGTH - 1, usize::MAX).len(), 1);
        assert_eq!(log.run(SEGMENT_LENGTH, usize::MAX).len(), 10);
        assert_eq!(log.run(5, 8).len(), 3);
        assert!(log.run(8, 8).is_empty());
        assert!(log.run(9, 8).is_empty());
        assert!(log.run(SEGMENT_LENGTH + 10, usize::MAX).is_empty());
        assert!(Log::default().run(0, 1).is_empty());
    }
}
