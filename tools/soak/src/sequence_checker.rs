//! Checks the notifications that one reader receives. Versions of an aggregate have no gaps, so a missed or
//! repeated event is a version that is not the next one; the checker need not keep all events.

use anyhow::{Context, Result, ensure};
use es_core::Notification;

use crate::ledger::{self, AGGREGATES, Ledger};

/// Checks that a reader receives each notification once, in order.
#[derive(Debug)]
pub struct SequenceChecker {
    position: i64,
    /// The last version of each aggregate; `None` if the first one may be any.
    versions: Vec<Option<i64>>,
}

impl SequenceChecker {
    /// Creates a checker of a reader that starts at the beginning.
    pub fn from_beginning() -> Self {
        Self { position: 0, versions: vec![Some(0); AGGREGATES] }
    }

    /// Creates a checker of a reader that starts after a position.
    pub fn after(position: i64) -> Self {
        Self { position, versions: vec![None; AGGREGATES] }
    }

    /// The id of the last notification, or the position after it.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Checks the next notification.
    ///
    /// # Errors
    /// If it is not the next one.
    pub fn see(&mut self, notification: &Notification) -> Result<()> {
        let (id, version) = (notification.id, notification.event.originator_version);
        ensure!(id > self.position, "id {id} was seen after {}", self.position);
        self.position = id;
        let aggregate = ledger::aggregate(&notification.event);
        let aggregate = aggregate.with_context(|| format!("no writer recorded notification {id}"))?;
        let last = &mut self.versions[aggregate];
        if let Some(last) = *last {
            ensure!(
                version == last + 1,
                "of aggregate {aggregate}, version {version} (id {id}) was seen after version {last}"
            );
        }
        *last = Some(version);
        Ok(())
    }

    /// Nothing is left to see up to a position.
    pub fn reach(&mut self, position: i64) {
        self.position = self.position.max(position);
    }

    /// Checks that exactly the acknowledged events were seen, of one topic or of all.
    ///
    /// # Errors
    /// When something was not, or more was.
    pub fn check(&self, ledger: &Ledger, topic: Option<usize>) -> Result<()> {
        for (aggregate, seen) in self.versions.iter().enumerate() {
            let expected = if ledger::has_topic(aggregate, topic) { ledger.version(aggregate) } else { 0 };
            ensure!(
                *seen == Some(expected),
                "of aggregate {aggregate}, version {seen:?} was the last that was seen, and {expected} is acknowledged"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn notification(id: i64, aggregate: usize, version: i64) -> Notification {
        Notification { id, event: ledger::event(aggregate, version, 0) }
    }

    fn reads(seen: &mut SequenceChecker, notifications: &[(i64, usize, i64)]) -> bool {
        notifications
            .iter()
            .all(|(id, aggregate, version)| seen.see(&notification(*id, *aggregate, *version)).is_ok())
    }

    #[test]
    fn missing_and_repeated_events_are_found() {
        let whole = [(1, 7, 1), (2, 8, 1), (4, 7, 2)];
        assert!(reads(&mut SequenceChecker::from_beginning(), &whole));
        for broken in [
            vec![(1, 7, 1), (4, 7, 3)],
            vec![(1, 7, 2)],
            vec![(1, 7, 1), (2, 7, 1)],
            vec![(2, 7, 1), (2, 8, 1)],
            vec![(3, 7, 1), (1, 8, 1)],
            vec![(1, AGGREGATES, 1)],
        ] {
            assert!(!reads(&mut SequenceChecker::from_beginning(), &broken), "{broken:?}");
        }
    }

    #[test]
    fn a_checker_that_starts_later_finds_gaps_after_its_first_notification() {
        assert!(reads(&mut SequenceChecker::after(10), &[(11, 7, 5), (12, 7, 6)]));
        assert!(!reads(&mut SequenceChecker::after(10), &[(11, 7, 5), (12, 7, 7)]));
        assert!(!reads(&mut SequenceChecker::after(10), &[(10, 7, 5)]));
    }

    #[test]
    fn an_end_that_is_not_the_acknowledged_one_is_found() {
        let ledger = Ledger::default();
        ledger.acknowledged(7, 2, 4);
        let mut seen = SequenceChecker::from_beginning();
        assert!(reads(&mut seen, &[(1, 7, 1)]));
        assert!(seen.check(&ledger, None).is_err());
        assert!(reads(&mut seen, &[(4, 7, 2)]));
        seen.check(&ledger, None).unwrap();
        seen.check(&ledger, Some(3)).unwrap();
        assert!(seen.check(&ledger, Some(0)).is_err());
    }
}
