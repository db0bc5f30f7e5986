//! The end of the log as far as this process knows it: a standby that is behind it is not read from.

use std::sync::atomic::{AtomicI64, Ordering as Atomic};

/// The highest notification id that is known to be visible on the primary; 0 if none is.
#[derive(Debug, Default)]
pub(crate) struct KnownHead(AtomicI64);

impl KnownHead {
    pub(crate) fn get(&self) -> i64 {
        self.0.load(Atomic::SeqCst)
    }

    /// Notes an id that was recorded or read.
    pub(crate) fn raise(&self, id: i64) {
        self.0.fetch_max(id, Atomic::SeqCst);
    }

    /// Notes the highest id of the primary, which was read after the head was `known`. If it is lower, the
    /// log was rolled back, and the known head is no more.
    pub(crate) fn observe(&self, known: i64, highest: i64) {
        if highest >= known {
            self.raise(highest);
        } else {
            // Not if it was raised meanwhile.
            let _ = self.0.compare_exchange(known, highest, Atomic::SeqCst, Atomic::SeqCst);
        }
    }
}
