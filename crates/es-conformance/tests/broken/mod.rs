//! A recorder with one defect of choice.
//!
//! Each defect is a plausible bug of a recorder, restricted so that it breaks one rule only: to one statement
//! of several, to one batch size, or to one point in time.

mod defect;
mod notifications;
mod reading;
mod signals;
mod writing;

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use es_conformance::Fixture;
use es_core::{Notification, PersistenceError, Recorder, StoredEvent, uuid::Uuid};
use es_popo::PopoProcessRecorder;

pub(crate) use self::defect::Defect;
use self::signals::Signals;

/// A datastore and recorders on it with the defect, if there is one.
pub(crate) struct BrokenFixture {
    pub(crate) defect: Option<Defect>,
    datastore: Arc<Datastore>,
}

/// The shared state of the recorders of one fixture.
#[derive(Debug, Default)]
struct Datastore {
    popo: PopoProcessRecorder,
    recorders: AtomicUsize,
    closings: AtomicUsize,
    /// The signals of each recorder, by its number.
    signals: Mutex<Vec<Signals>>,
    notes: Mutex<Notes>,
}

/// The state of some of the defects.
#[derive(Debug, Default)]
struct Notes {
    insertions_fail: bool,
    tracking_fails: bool,
    reads: usize,
    skipped: bool,
    was_read: bool,
    first_batch: Option<usize>,
    /// The end of the log when the first page was read.
    snapshot: Option<i64>,
    /// The id after which one was used for a refused event.
    gap: Option<i64>,
    last_batch: i64,
    overwritten: HashMap<(Uuid, i64), StoredEvent>,
    phantoms: Vec<Notification>,
    /// The positions that were recorded without events, in their order, by application.
    tracked: BTreeMap<String, Vec<i64>>,
    refused: HashMap<String, i64>,
}

#[derive(Debug)]
pub(crate) struct BrokenRecorder {
    defect: Option<Defect>,
    datastore: Arc<Datastore>,
    /// The number of recorders that were opened before.
    number: usize,
    reopened: bool,
    closed: AtomicBool,
    signals: Signals,
}

impl BrokenFixture {
    pub(crate) fn new(defect: Option<Defect>) -> Self {
        Self { defect, datastore: Arc::default() }
    }
}

impl Fixture for BrokenFixture {
    type Recorder = BrokenRecorder;

    async fn open(&self) -> BrokenRecorder {
        let signals = Signals::default();
        self.datastore.signals().push(signals.clone());
        BrokenRecorder {
            defect: self.defect,
            datastore: Arc::clone(&self.datastore),
            number: self.datastore.recorders.fetch_add(1, Ordering::Relaxed),
            reopened: self.datastore.closings.load(Ordering::Relaxed) > 0,
            closed: AtomicBool::new(false),
            signals,
        }
    }

    /// Some defects make a rule wait until the timeout.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

impl Recorder for BrokenRecorder {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.datastore.closings.fetch_add(1, Ordering::Relaxed);
        if self.has(Defect::ClosingIsSignalledLate) {
            self.closed.store(true, Ordering::Relaxed);
            pause().await;
        }
        self.close_signals();
        let again = self.closed.swap(true, Ordering::Relaxed);
        if again && self.has(Defect::ClosingAgainFails) { Err(closed()) } else { Ok(()) }
    }
}

impl Datastore {
    fn signals(&self) -> MutexGuard<'_, Vec<Signals>> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrokenRecorder {
    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn popo(&self) -> &PopoProcessRecorder {
        &self.datastore.popo
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.datastore.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Fails after close, unless the defect is to continue.
    fn check_open(&self, working_on: Defect) -> Result<(), PersistenceError> {
        if self.is_closed() && !self.has(working_on) { Err(closed()) } else { Ok(()) }
    }
}

fn closed() -> PersistenceError {
    PersistenceError::interface("the recorder is closed")
}

/// Returns the error without its conflict.
fn unnamed(error: &PersistenceError) -> PersistenceError {
    PersistenceError::new(error.kind(), "something collided")
}

/// Yields to other tasks, often enough for a concurrent one to run in between.
async fn pause() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// Runs a future, and a function if the future is dropped before it is ready.
async fn or_when_dropped<T>(future: impl Future<Output = T>, when_dropped: impl FnOnce()) -> T {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(when_dropped) = self.0.take() {
                when_dropped();
            }
        }
    }
    let mut guard = Guard(Some(when_dropped));
    tokio::task::yield_now().await;
    let output = future.await;
    guard.0 = None;
    output
}

/// Returns the result of a recorder in memory, for code that cannot await.
fn now<T>(future: impl Future<Output = T>) -> T {
    use futures_util::FutureExt;
    future.now_or_never().expect("recorders in memory do not wait")
}
