//! Who waits for what is committed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use es_core::{Signal, Topic};

use crate::write::committer::Request;

/// The signals of one datastore: it has one application's events, and one table of positions.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
    /// Whether the writer looks for what others commit, or was asked to.
    is_watched: Arc<AtomicBool>,
}

impl Signals {
    /// Signals that have the writer look for what others commit, by calling `watch`, when somebody
    /// listens and it does not.
    pub(crate) fn new(watch: impl Fn() + Clone + Send + Sync + 'static) -> Self {
        let is_watched = Arc::new(AtomicBool::new(false));
        let signal = || {
            let (is_watched, watch) = (Arc::clone(&is_watched), watch.clone());
            Signal::on_first_listener(move || {
                if !is_watched.swap(true, Ordering::SeqCst) {
                    watch();
                }
            })
        };
        Self { commits: signal(), positions: signal(), is_watched }
    }

    /// Wakes those who wait for what a request has recorded.
    pub(crate) fn recorded(&self, request: &Request) {
        if request.table.is_numbered {
            self.commits.wake(request.events.iter().map(|event| Topic::as_str(&event.topic)));
        }
        if let Some(tracking) = &request.tracking {
            self.positions.wake([tracking.application_name()]);
        }
    }

    /// Wakes everybody: it is not known what was recorded.
    pub(crate) fn recorded_by_others(&self) {
        self.commits.wake_all();
        self.positions.wake_all();
    }

    /// Whether the writer may stop looking for what others commit: nobody listens. Whoever does from
    /// now on asks for it again.
    pub(crate) fn stop_watching(&self) -> bool {
        if self.have_listeners() {
            return false;
        }
        self.is_watched.store(false, Ordering::SeqCst);
        // One who has listened since may have seen that it is still looked.
        let is_stopped = !self.have_listeners();
        if !is_stopped {
            self.is_watched.store(true, Ordering::SeqCst);
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
    fn the_writer_is_asked_to_look_when_somebody_listens_and_it_does_not() {
        let asked = Arc::new(AtomicUsize::new(0));
        let signals = Signals::new({
            let asked = Arc::clone(&asked);
            move || {
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        let asked = || asked.load(Ordering::SeqCst);
        assert_eq!(asked(), 0);
        let commits = signals.commits.listen([""; 0]);
        let positions = signals.positions.listen(["bank"]);
        assert_eq!(asked(), 1);
        drop(commits);
        assert!(!signals.stop_watching());
        drop(positions);
        // It looks until it has seen that nobody listens.
        drop(signals.positions.listen(["bank"]));
        assert_eq!(asked(), 1);
        assert!(signals.stop_watching());
        let _commits = signals.commits.listen(["bank:Account.Opened"]);
        assert_eq!(asked(), 2);
    }
}
