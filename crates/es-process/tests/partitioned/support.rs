//! Databases, logs, and handlers with one effect for each notification.

use std::{collections::HashMap, env, num::NonZeroU16, path::Path, sync::Arc, time::Duration};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Bytes, Notification, NotificationSelection, PersistenceError,
    ProcessRecorder, SegmentRecorder, StoredEvent, Topic, uuid::Uuid,
};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder};
use es_postgres::{PostgresOptions, PostgresProcessRecorder};
use es_process::{Handler, HandlerConsumer, PartitionedProcessor};
use es_sqlite::{SqliteOptions, SqliteProcessRecorder};
use tokio::sync::Semaphore;

/// A timeout after which a waiting test has failed.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(60);

/// The name of the consumer.
pub(crate) const NAME: &str = "audit";

/// A lease that is renewed often, so that workers notice each other soon.
pub(crate) const SHORT_LEASE: Duration = Duration::from_millis(600);

/// A lease that no test waits for.
pub(crate) const LONG_LEASE: Duration = Duration::from_secs(3_600);

/// A recorder of effects, positions and segments.
pub(crate) trait Downstream: ProcessRecorder + SegmentRecorder + Clone + 'static {}

impl<R: ProcessRecorder + SegmentRecorder + Clone + 'static> Downstream for R {}

pub(crate) async fn popo() -> PopoProcessRecorder {
    PopoProcessRecorder::new()
}

/// A database on disk, whose connections are many, in a directory of its own.
pub(crate) async fn sqlite(directory: &Path) -> SqliteProcessRecorder {
    let datastore = SqliteOptions::new(directory.join("events.db")).open().await.unwrap();
    datastore.process_recorder().await.unwrap()
}

/// Tables of their own on the server that the environment names; none without one.
pub(crate) async fn postgres() -> Option<PostgresProcessRecorder> {
    if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
        return None;
    }
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let options = PostgresOptions::new(variable("POSTGRES_DBNAME"))
        .host(variable("POSTGRES_HOST"))
        .port(variable("POSTGRES_PORT").parse().unwrap())
        .user(variable("POSTGRES_USER"))
        .password(variable("POSTGRES_PASSWORD"))
        .poll_interval(Duration::from_millis(50));
    let name = format!("p{}", Uuid::now_v7().simple());
    Some(options.open().await.unwrap().process_recorder(&name).await.unwrap())
}

pub(crate) fn segments(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}

pub(crate) fn event(originator: u128, originator_version: i64) -> StoredEvent {
    StoredEvent {
        originator_id: Uuid::from_u128(originator),
        originator_version,
        topic: Topic::from_static("bank:Account.Credited"),
        state: Bytes::new(),
    }
}

/// A log of events of so many aggregates in turn.
pub(crate) async fn bank(aggregates: u128, versions: i64) -> PopoApplicationRecorder {
    let bank = PopoApplicationRecorder::new();
    append(&bank, aggregates, 1..=versions).await;
    bank
}

pub(crate) async fn append(
    bank: &PopoApplicationRecorder,
    aggregates: u128,
    versions: impl Iterator<Item = i64>,
) {
    for version in versions {
        let events = (1..=aggregates).map(|originator| event(originator, version)).collect();
        bank.insert_events(events).await.unwrap();
    }
}

/// The effect of a notification. Only its position keeps it from being recorded twice.
pub(crate) fn effect(notification: &Notification) -> StoredEvent {
    let state = format!("{}", notification.id).into();
    StoredEvent { state, topic: Topic::from_static("audit:Noticed"), ..event(Uuid::new_v4().as_u128(), 1) }
}

/// A handler with one effect for each notification, which may be stopped before it returns.
#[derive(Clone, Default)]
pub(crate) struct Effects {
    /// Permits to return, if there is a gate. The calls that wait for one are counted.
    pub(crate) gate: Option<Arc<Gate>>,
}

pub(crate) struct Gate {
    pub(crate) permits: Semaphore,
    pub(crate) waiting: Semaphore,
}

impl Gate {
    pub(crate) fn closed() -> Arc<Self> {
        Arc::new(Self { permits: Semaphore::new(0), waiting: Semaphore::new(0) })
    }

    /// Waits until so many calls have arrived.
    pub(crate) async fn arrived(&self, calls: u32) {
        tokio::time::timeout(TOO_LONG, self.waiting.acquire_many(calls)).await.unwrap().unwrap().forget();
    }

    pub(crate) fn open(&self) {
        self.permits.close();
    }
}

impl Handler for Effects {
    type Error = PersistenceError;

    async fn handle(&mut self, notification: Notification) -> Result<Vec<StoredEvent>, PersistenceError> {
        if let Some(gate) = &self.gate {
            gate.waiting.add_permits(1);
            // A closed semaphore lets all calls pass.
            if let Ok(permit) = gate.permits.acquire().await {
                permit.forget();
            }
        }
        Ok(vec![effect(&notification)])
    }
}

/// A worker with these effects.
pub(crate) fn worker<R: Downstream>(
    bank: &PopoApplicationRecorder,
    recorder: &R,
    effects: &Effects,
) -> PartitionedProcessor<PopoApplicationRecorder, R, HandlerConsumer<R, Effects>> {
    let (recorder, effects) = (recorder.clone(), effects.clone());
    let leases = recorder.clone();
    PartitionedProcessor::new(NAME, bank.clone(), leases, move |_| {
        let consumer = HandlerConsumer::new(recorder.clone(), effects.clone());
        async move { Ok(consumer) }
    })
    .segments(segments(8))
    .lease(SHORT_LEASE)
}

/// Returns the notifications whose effects are recorded, in the order of the effects.
pub(crate) async fn effects_in(recorder: &impl ApplicationRecorder) -> Vec<i64> {
    let all = recorder.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap();
    let id = |effect: &Notification| std::str::from_utf8(&effect.event.state).unwrap().parse().unwrap();
    all.iter().map(id).collect()
}

/// Checks that each notification up to `end` has had one effect, in order for each aggregate. Returns the
/// first violation.
pub(crate) fn check(log: &[Notification], effects: &[i64], end: i64) -> Result<(), String> {
    let mut counts: HashMap<i64, usize> = HashMap::new();
    effects.iter().for_each(|id| *counts.entry(*id).or_default() += 1);
    for notification in log.iter().filter(|notification| notification.id <= end) {
        match counts.get(&notification.id) {
            Some(1) => {}
            None => return Err(format!("notification {} was skipped", notification.id)),
            Some(count) => return Err(format!("notification {} had {count} effects", notification.id)),
        }
    }
    let originators: HashMap<i64, Uuid> =
        log.iter().map(|notification| (notification.id, notification.event.originator_id)).collect();
    let mut last: HashMap<Uuid, i64> = HashMap::new();
    for id in effects {
        let Some(originator) = originators.get(id) else { return Err(format!("effect {id} has no cause")) };
        if last.insert(*originator, *id).is_some_and(|before| before >= *id) {
            return Err(format!("notification {id} had its effect after a later one of its aggregate"));
        }
    }
    Ok(())
}

/// Checks the effects of the whole log.
pub(crate) async fn check_all(bank: &PopoApplicationRecorder, recorder: &impl ApplicationRecorder) {
    let log = bank.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap();
    let end = log.last().map_or(0, |last| last.id);
    let effects = effects_in(recorder).await;
    assert_eq!(check(&log, &effects, end), Ok(()));
}
