//! The signals that fire after commits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use es_core::Signal;

/// The signals of a datastore, which has the events of one application and one table of positions.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
    /// True if the writer thread polls for commits of other connections, or was asked to.
    is_polling: Arc<AtomicBool>,
}

impl Signals {
    /// Creates signals that call `start_polling` when a listener is added while the writer thread does not
    /// poll.
    pub(crate) fn new(start_polling: impl Fn() + Clone + Send + Sync + 'static) -> Self {
        let is_polling = Arc::new(AtomicBool::new(false));
        let signal = || {
            let (is_polling, start_polling) = (Arc::clone(&is_polling), start_polling.clone());
            Signal::on_first_listener(move || {
                if !is_polling.swap(true, Ordering::SeqCst) {
                    start_polling();
                }
            })
        };
        Self { commits: signal(), positions: signal(), is_polling }
    }

    /// Wakes all listeners, because the topics of another connection's commit are unknown.
    pub(crate) fn wake_all(&self) {
        self.commits.wake_all();
        self.positions.wake_all();
    }

    /// Returns true if the writer thread may stop polling, because there are no listeners. The next listener
    /// starts it again.
    pub(crate) fn stop_polling(&self) -> bool {
        if self.have_listeners() {
            return false;
        }
        self.is_polling.store(false, Ordering::SeqCst);
        // A listener added meanwhile may have found the flag set.
        let is_stopped = !self.have_listeners();
        if !is_stopped {
            self.is_polling.store(true, Ordering::SeqCst);
        }
        is_stopped
    }

    pub(crate) fn close(&self) {
        self.commits.close();
        self.positions.close();
    }

    fn have_listeners(&self) -> bool {
        self.commits.has_listeners() || self.positions.has_listeners()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_listener_starts_polling_unless_it_runs() {
        let starts = Arc::new(AtomicUsize::new(0));
        let signals = Signals::new({
            let starts = Arc::clone(&starts);
            move || {
                starts.fetch_add(1, Ordering::SeqCst);
            }
        });
        let starts = || starts.load(Ordering::SeqCst);
        assert_eq!(starts(), 0);
        let commits = signals.commits.listen([""; 0]);
        let positions = signals.positions.listen(["bank"]);
        assert_eq!(starts(), 1);
        drop(commits);
        assert!(!signals.stop_polling());
        drop(positions);
        // Polling continues until `stop_polling` finds no listener.
        drop(signals.positions.listen(["bank"]));
        assert_eq!(starts(), 1);
        assert!(signals.stop_polling());
        let _commits = signals.commits.listen(["bank:Account.Opened"]);
        assert_eq!(starts(), 2);
    }
}
