//! An account, and a recorder whose writes and reads a test controls.

// Each test binary compiles this module and uses some of it.
#![allow(dead_code)]

pub(crate) mod process_manager;

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use es_aggregate::{Aggregate, Repository};
use es_core::{
    AggregateRecorder, DomainEvent, ErrorKind, EventRange, EventStore, Mapper, Metadata, PersistenceError,
    Recorder, SnapshotState, StoredEvent, uuid::Uuid,
};
use es_derive::Event;
use es_popo::PopoApplicationRecorder;
use es_transcode::JsonTranscoder;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub(crate) const A: Uuid = Uuid::from_u128(0xa);
pub(crate) const B: Uuid = Uuid::from_u128(0xb);

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account")]
pub(crate) enum AccountEvent {
    Credited { cents: i64 },
    Debited { cents: i64 },
}

pub(crate) use AccountEvent::{Credited, Debited};

/// With the number of its events, so that a lost or repeated one is noticed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) balance: i64,
    pub(crate) events: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        self.events += 1;
        match event {
            Credited { cents } => self.balance += cents,
            Debited { cents } => self.balance -= cents,
        }
    }
}

impl SnapshotState for Account {
    const AGGREGATE_TOPIC: &str = "bank:Account";
    const CLASS_VERSION: u32 = 3;

    fn upcast<T: es_core::Transcoder>(
        class_version: u32,
        snapshot: &mut es_core::StateReader<'_, T>,
    ) -> Result<Self, PersistenceError> {
        match class_version {
            2 => {
                let InEuros { euros, events } = snapshot.decode_snapshot()?;
                Ok(Self { balance: euros * 100, events })
            }
            _ => Err(snapshot.unsupported_class_version(class_version)),
        }
    }
}

/// The layout of class version 2.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InEuros {
    pub(crate) euros: i64,
    pub(crate) events: i64,
}

impl SnapshotState for InEuros {
    const AGGREGATE_TOPIC: &str = "bank:Account";
    const CLASS_VERSION: u32 = 2;
}

#[derive(Debug, PartialEq)]
pub(crate) struct Overdrawn;

impl Account {
    pub(crate) fn credit(&self, cents: i64) -> Result<[AccountEvent; 1], Infallible> {
        Ok([Credited { cents }])
    }

    pub(crate) fn debit(&self, cents: i64) -> Result<Vec<AccountEvent>, Overdrawn> {
        if cents > self.balance { Err(Overdrawn) } else { Ok(vec![Debited { cents }]) }
    }
}

pub(crate) fn store<R>(recorder: R) -> EventStore<R, JsonTranscoder> {
    EventStore::new(recorder, Mapper::new(JsonTranscoder::new()))
}

pub(crate) fn accounts<R: AggregateRecorder + 'static>(
    recorder: R,
) -> Repository<Account, R, JsonTranscoder> {
    Repository::new(store(recorder))
}

/// Waits until a condition holds, for one that a task brings about.
pub(crate) async fn eventually(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TOO_LONG, waiting).await.unwrap();
}

/// Appends credits of one cent, as another process does.
pub(crate) async fn credit<R: AggregateRecorder>(recorder: &R, id: Uuid, count: i64) {
    let stored = recorder.select_events(id, EventRange::all()).await.unwrap();
    let last = stored.len() as i64;
    let new = |version| DomainEvent::new(id, version, Credited { cents: 1 });
    let events: Vec<_> = (last + 1..=last + count).map(new).collect();
    let mapper = Mapper::new(JsonTranscoder::new());
    let events = events.iter().map(|event| mapper.to_stored_event(event).unwrap()).collect();
    recorder.insert_events(events).await.unwrap();
}

/// 60 tasks that each credit one cent to one account, by these repositories in turns.
pub(crate) async fn contend<R: AggregateRecorder + 'static>(
    repositories: &[Repository<Account, R, JsonTranscoder>],
) {
    let commands: Vec<_> = (0..60)
        .map(|number| {
            let accounts = repositories[number % repositories.len()].clone();
            tokio::spawn(
                async move { accounts.execute(A, Metadata::new(), |account| account.credit(1)).await },
            )
        })
        .collect();
    for command in commands {
        command.await.unwrap().unwrap();
    }
    let loaded = repositories[0].load(A).await.unwrap();
    assert_eq!((loaded.version, loaded.state), (60, Account { balance: 60, events: 60 }));
}

/// A recorder in memory whose writes wait for a permit, or record and report an unknown outcome, and whose
/// reads are counted.
#[derive(Clone, Debug)]
pub(crate) struct TestRecorder {
    pub(crate) inner: PopoApplicationRecorder,
    pub(crate) writes: Arc<Semaphore>,
    pub(crate) loses_outcomes: bool,
    pub(crate) attempts: Arc<AtomicUsize>,
    pub(crate) reads: Arc<Mutex<Vec<EventRange>>>,
}

impl TestRecorder {
    pub(crate) fn new() -> Self {
        Self {
            inner: PopoApplicationRecorder::new(),
            writes: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            loses_outcomes: false,
            attempts: Arc::default(),
            reads: Arc::default(),
        }
    }

    /// A recorder whose writes wait until the test adds permits.
    pub(crate) fn blocked() -> Self {
        Self { writes: Arc::new(Semaphore::new(0)), ..Self::new() }
    }
}

impl Recorder for TestRecorder {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.inner.close().await
    }
}

impl AggregateRecorder for TestRecorder {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        self.writes.acquire().await.unwrap().forget();
        // Another task can load the aggregate before this write, as with a recorder that waits.
        if tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::yield_now().await;
        }
        let ids = self.inner.insert_events(events).await?;
        if self.loses_outcomes {
            return Err(PersistenceError::new(ErrorKind::OutcomeUnknown, "the connection was lost"));
        }
        Ok(ids)
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.reads.lock().unwrap().push(range);
        self.inner.select_events(originator_id, range).await
    }
}
