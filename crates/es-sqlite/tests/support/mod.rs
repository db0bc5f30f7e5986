//! Shared code of this crate's tests. Each test binary uses a part of it.
#![allow(dead_code)]

use std::{
    collections::VecDeque,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use es_core::{Bytes, PersistenceError, StoredEvent, Topic, uuid::Uuid};
use es_sqlite::{
    Fault, FaultHooks, FaultPoint, SqliteApplicationRecorder, SqliteOptions, SqliteProcessRecorder,
};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A timeout after which a waiting test has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The event of an aggregate at a version.
pub(crate) fn event(originator: u128, version: i64) -> StoredEvent {
    event_of(originator, version, format!(r#"{{"version":{version}}}"#).into_bytes())
}

/// The event of an aggregate at a version, with a topic.
pub(crate) fn event_about(topic: &'static str, originator: u128, version: i64) -> StoredEvent {
    StoredEvent { topic: Topic::from_static(topic), ..event(originator, version) }
}

pub(crate) fn event_of(originator: u128, version: i64, state: Vec<u8>) -> StoredEvent {
    StoredEvent {
        originator_id: id(originator),
        originator_version: version,
        topic: Topic::from_static("bank:Account.Credited"),
        state: Bytes::from(state),
    }
}

pub(crate) fn events(originator: u128, versions: impl IntoIterator<Item = i64>) -> Vec<StoredEvent> {
    versions.into_iter().map(|version| event(originator, version)).collect()
}

pub(crate) fn id(originator: u128) -> Uuid {
    Uuid::from_u128(originator)
}

/// A directory and the path of a database in it.
pub(crate) fn database() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    (directory, path.to_str().unwrap().to_owned())
}

/// An application recorder on a file, with default options.
pub(crate) async fn open(path: impl AsRef<Path>) -> SqliteApplicationRecorder {
    try_open(path).await.unwrap()
}

/// Waits until the datastore is closed if the recorder cannot be opened.
pub(crate) async fn try_open(path: impl AsRef<Path>) -> Result<SqliteApplicationRecorder, PersistenceError> {
    let datastore = SqliteOptions::new(path).open().await?;
    let recorder = datastore.application_recorder().await;
    if recorder.is_err() {
        datastore.close().await.unwrap();
    }
    recorder
}

/// A process recorder on a file, with default options.
pub(crate) async fn open_process(path: impl AsRef<Path>) -> SqliteProcessRecorder {
    process_recorder(SqliteOptions::new(path)).await
}

pub(crate) async fn application_recorder(options: SqliteOptions) -> SqliteApplicationRecorder {
    options.open().await.unwrap().application_recorder().await.unwrap()
}

pub(crate) async fn process_recorder(options: SqliteOptions) -> SqliteProcessRecorder {
    options.open().await.unwrap().process_recorder().await.unwrap()
}

/// Polls a call once, after which it has been accepted if there is room, and hands it back.
pub(crate) fn accepted<'a, T>(
    call: impl Future<Output = T> + Send + 'a,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    let mut call = Box::pin(call);
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(call.as_mut().poll(&mut context), Poll::Pending), "the writer is held");
    call
}

/// Holds the writer before a step until it is released, once for each time.
pub(crate) struct Gate {
    step: FaultPoint,
    arrivals: tokio::sync::mpsc::UnboundedSender<()>,
    releases: Mutex<mpsc::Receiver<()>>,
    steps: Arc<Steps>,
    faults: Faults,
}

/// Controls a [`Gate`]. When dropped, it opens the gate.
pub(crate) struct GateKeeper {
    arrivals: UnboundedReceiver<()>,
    releases: Option<mpsc::Sender<()>>,
    pub(crate) steps: Arc<Steps>,
}

/// Counts of the writer's steps.
#[derive(Default)]
pub(crate) struct Steps {
    commits: AtomicUsize,
}

impl Steps {
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    fn count(&self, step: FaultPoint) {
        if step == FaultPoint::Commit {
            self.commits.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub(crate) fn gate(step: FaultPoint) -> (Gate, GateKeeper) {
    failing_gate(step, [])
}

/// A gate behind which steps fail.
pub(crate) fn failing_gate(
    step: FaultPoint,
    faults: impl IntoIterator<Item = (FaultPoint, Fault)>,
) -> (Gate, GateKeeper) {
    let (arrive, arrivals) = unbounded_channel();
    let (release, releases) = mpsc::channel();
    let steps = Arc::new(Steps::default());
    let releases = Mutex::new(releases);
    let gate =
        Gate { step, arrivals: arrive, releases, steps: Arc::clone(&steps), faults: Faults::new(faults) };
    (gate, GateKeeper { arrivals, releases: Some(release), steps })
}

impl FaultHooks for Gate {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        self.steps.count(step);
        if step == self.step {
            let _ = self.arrivals.send(());
            // Fails when the gate keeper is dropped.
            let _ = self.releases.lock().unwrap().recv();
        }
        self.faults.before(step)
    }
}

impl GateKeeper {
    /// Waits until the writer has reached the gate.
    pub(crate) async fn reached(&mut self) {
        self.arrivals.recv().await.expect("the writer runs");
    }

    /// Releases the writer once.
    pub(crate) fn pass(&self) {
        self.releases.as_ref().expect("the gate is not open").send(()).expect("the writer runs");
    }

    /// Opens the gate for all further steps.
    pub(crate) fn open(&mut self) {
        self.releases = None;
    }

    /// Waits until the writer thread has ended.
    pub(crate) async fn writer_ended(&mut self) {
        while self.arrivals.recv().await.is_some() {}
    }
}

/// Fails the steps of a list, in its order.
pub(crate) struct Faults(Mutex<VecDeque<(FaultPoint, Fault)>>);

impl Faults {
    pub(crate) fn new(faults: impl IntoIterator<Item = (FaultPoint, Fault)>) -> Self {
        Self(Mutex::new(faults.into_iter().collect()))
    }
}

impl FaultHooks for Faults {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        let mut faults = self.0.lock().unwrap();
        match faults.front() {
            Some(&(at, fault)) if at == step => {
                faults.pop_front();
                Err(fault)
            }
            _ => Ok(()),
        }
    }
}
