//! Signals of the broken recorder.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use es_core::{ApplicationRecorder, Signal, StoredEvent, Topic, Tracking};

use super::{BrokenRecorder, Defect, now};

/// The number of listeners after which one counts as late.
const EARLY: usize = 24;

/// The signals of one recorder.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    commits: Signal,
    positions: Signal,
    /// A signal that no commit or position fires.
    deaf: Signal,
    asked_for: Arc<AtomicUsize>,
    /// The number of times that there was a first listener.
    periods: Arc<AtomicUsize>,
}

impl Default for Signals {
    fn default() -> Self {
        let periods = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&periods);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        Self {
            commits: Signal::on_first_listener(count),
            positions: Signal::new(),
            deaf: Signal::new(),
            asked_for: Arc::default(),
            periods,
        }
    }
}

impl BrokenRecorder {
    pub(super) fn broken_commits(&self) -> &Signal {
        let is_deaf = self.has(Defect::LateListenersAreNotNotified) && self.is_late();
        if is_deaf { &self.signals.deaf } else { &self.signals.commits }
    }

    pub(super) fn broken_positions(&self) -> &Signal {
        let is_deaf = self.has(Defect::LateWaitersAreNotNotified) && self.is_late();
        if is_deaf { &self.signals.deaf } else { &self.signals.positions }
    }

    fn is_late(&self) -> bool {
        self.signals.asked_for.fetch_add(1, Ordering::Relaxed) >= EARLY
    }

    pub(super) fn close_signals(&self) {
        let is_short = now(self.popo().max_notification_id()).is_ok_and(|highest| highest == Some(1));
        if !(self.has(Defect::ClosingForgetsFollowers) && is_short) {
            self.signals.commits.close();
        }
        if !self.has(Defect::ClosingForgetsPositions) {
            self.signals.positions.close();
        }
        self.signals.deaf.close();
        for signals in self.datastore.signals().iter() {
            if self.has(Defect::ClosingEndsOtherSubscriptions) {
                signals.commits.close();
            }
            if self.has(Defect::ClosingEndsOtherWaits) {
                signals.positions.close();
            }
        }
    }

    /// Notifies all listeners of recorded events.
    pub(super) fn tell_events(&self, events: &[StoredEvent]) {
        if events.is_empty() || self.has(Defect::BatchOfFiveDoesNotNotify) && events.len() == 5 {
            return;
        }
        let notified = if self.has(Defect::OnlyFirstTopicNotifies) { &events[..1] } else { events };
        for (number, signals) in self.datastore.signals().iter().enumerate() {
            let is_noticed = match self.defect {
                Some(Defect::FirstCommitOfOthersIsMissed) => signals.periods.load(Ordering::Relaxed) > 1,
                Some(Defect::OthersAreDetectedOnce) => signals.periods.load(Ordering::Relaxed) <= 1,
                _ => true,
            };
            if number == self.number || is_noticed {
                signals.commits.wake(notified.iter().map(|event| Topic::as_str(&event.topic)));
            }
        }
    }

    /// Notifies all listeners of a recorded position.
    pub(super) fn tell_position(&self, tracking: &Tracking) {
        if self.has(Defect::PositionDoesNotNotify) && tracking.notification_id() == 21 {
            return;
        }
        for (number, signals) in self.datastore.signals().iter().enumerate() {
            if number == self.number || !self.has(Defect::PositionsOfOthersDoNotNotify) {
                signals.positions.wake([tracking.application_name()]);
            }
        }
    }
}
