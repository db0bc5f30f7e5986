//! Names of consumers, the state of a processor, the classification of errors, and the bounds of a run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{cell::Cell, convert::Infallible, pin::pin, time::Duration};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Bytes, ErrorKind, HandlerError, Notification, NotificationBatch,
    NotificationConsumer, NotificationSelection, PersistenceError, Recorder, StoredEvent, Topic, Tracking,
    TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder, PopoProjection, PopoTrackingRecorder};
use es_process::{Handler, Processor, ProcessorError, ProcessorState};
use futures_util::FutureExt;

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

fn event(originator: u128, originator_version: i64) -> StoredEvent {
    StoredEvent {
        originator_id: Uuid::from_u128(originator),
        originator_version,
        topic: Topic::from_static("bank:Account.Credited"),
        state: Bytes::new(),
    }
}

/// A bank whose log has this number of notifications.
async fn bank(notifications: i64) -> PopoApplicationRecorder {
    let bank = PopoApplicationRecorder::new();
    bank.insert_events((1..=notifications).map(|version| event(1, version)).collect()).await.unwrap();
    bank
}

/// A recorder with the same log, and a signal of its own.
async fn opened_again(bank: &PopoApplicationRecorder) -> PopoApplicationRecorder {
    let all = bank.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap();
    let again = PopoApplicationRecorder::new();
    again.insert_events(all.into_iter().map(|notification| notification.event).collect()).await.unwrap();
    again
}

async fn nothing(_: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    Ok(Vec::new())
}

async fn nothing_else(_: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    Ok(Vec::new())
}

/// Counts notifications.
struct Count;

impl PopoProjection for Count {
    type View = u64;
    type Error = Infallible;

    fn project(&mut self, count: &mut u64, _: &Notification) -> Result<(), Infallible> {
        *count += 1;
        Ok(())
    }
}

/// Two consumers of one upstream in one datastore had the upstream's name as the key of their positions, and
/// so the same position. Each notification reached only one of them.
#[tokio::test]
async fn each_of_two_consumers_in_one_datastore_gets_all_notifications() {
    let (bank, positions) = (bank(3).await, PopoTrackingRecorder::new());
    let projectors = [positions.projector(Count, 0), positions.projector(Count, 0)];
    let views = [projectors[0].view(), projectors[1].view()];
    for (name, projector) in ["balances", "owners"].into_iter().zip(projectors) {
        let mut processor = Processor::with_consumer(name, bank.clone(), projector);
        tokio::select! {
            ended = processor.run() => panic!("{ended:?}"),
            waited = positions.wait(name, 3, TOO_LONG) => waited.unwrap(),
        }
    }
    assert_eq!(views.map(|view| *view.read()), [3, 3]);
}

/// A second, different consumer under a name that is in use was not noticed: it skipped what the first one
/// processed.
#[tokio::test]
async fn a_name_that_a_different_consumer_uses_is_refused() {
    let (bank, audit) = (bank(3).await, PopoProcessRecorder::new());
    let mut first = Processor::new("audit", bank.clone(), audit.clone(), nothing);
    let mut running = pin!(first.run());
    assert!(running.as_mut().now_or_never().is_none());

    let other_type = Processor::new("audit", bank.clone(), audit.clone(), nothing_else).run().now_or_never();
    let other_topics = Processor::new("audit", bank.clone(), audit.clone(), nothing)
        .topics([Topic::from_static("bank:Account.Opened")])
        .run()
        .now_or_never();
    for refused in [other_type, other_topics] {
        let error = refused.unwrap().unwrap_err();
        assert!(error.to_string().contains("\"audit\""), "{error}");
        let ProcessorError::Persistence { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), ErrorKind::Programming, "{source}");
    }

    // A second instance of the same consumer, another name, and another datastore are not refused.
    let mut same = Processor::new("audit", bank.clone(), audit.clone(), nothing);
    assert!(same.run().now_or_never().is_none());
    // Nor an instance with an upstream that was opened separately: it may be the same database.
    let mut same = Processor::new("audit", opened_again(&bank).await, audit.clone(), nothing);
    assert!(same.run().now_or_never().is_none());
    let mut other_name = Processor::new("statements", bank.clone(), audit, nothing_else);
    assert!(other_name.run().now_or_never().is_none());
    let mut other_datastore = Processor::new("audit", bank.clone(), PopoProcessRecorder::new(), nothing_else);
    assert!(other_datastore.run().now_or_never().is_none());
}

/// The name is free again when the consumer has stopped.
#[tokio::test]
async fn a_name_is_free_after_the_run() {
    let (bank, audit) = (bank(1).await, PopoProcessRecorder::new());
    let mut first = Processor::new("audit", bank.clone(), audit.clone(), nothing);
    assert!(first.run().now_or_never().is_none());
    assert!(Processor::new("audit", bank, audit, nothing_else).run().now_or_never().is_none());
}

/// The guide said to rebuild a projection with a new tracking recorder, but in one datastore that has the
/// same position.
#[tokio::test]
async fn a_new_name_rebuilds_a_projection() {
    let (bank, positions) = (bank(4).await, PopoTrackingRecorder::new());
    positions.insert_tracking(Tracking::new("balances", 4).unwrap()).await.unwrap();
    let projector = positions.projector(Count, 0);
    let view = projector.view();
    let mut processor = Processor::with_consumer("balances-2", bank, projector);
    tokio::select! {
        ended = processor.run() => panic!("{ended:?}"),
        waited = positions.wait("balances-2", 4, TOO_LONG) => waited.unwrap(),
    }
    assert_eq!(*view.read(), 4);
}

#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("the order cannot be shipped")]
    Persistence(#[from] PersistenceError),
}

fn outage() -> PersistenceError {
    let cause = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
    PersistenceError::operational("the server is restarting").transient().with_source(cause)
}

/// A handler's error that wrapped a transient error was not recognised as one, and an outage stopped the
/// processor for good.
#[tokio::test]
async fn a_transient_error_is_found_in_the_sources_of_the_handlers_error() {
    async fn by_thiserror() -> Result<Vec<StoredEvent>, OrderError> {
        Err(outage())?
    }
    async fn by_anyhow() -> anyhow::Result<Vec<StoredEvent>> {
        Err(outage())?
    }
    async fn by_anyhow_with_context() -> anyhow::Result<Vec<StoredEvent>> {
        anyhow::Context::context(by_thiserror().await, "handling an order")
    }
    let errors: [HandlerError; 3] = [
        by_thiserror().await.unwrap_err().into(),
        by_anyhow().await.unwrap_err().into(),
        by_anyhow_with_context().await.unwrap_err().into(),
    ];
    for error in errors {
        let (bank, audit) = (bank(1).await, PopoProcessRecorder::new());
        let mut failures = vec![error];
        let handler = move |_: Notification| {
            let failure = failures.pop();
            async move { failure.map_or(Ok(Vec::new()), Err) }
        };
        let mut processor = Processor::new("audit", bank, audit.clone(), handler);
        tokio::select! {
            ended = processor.run() => panic!("{ended:?}"),
            waited = audit.wait("audit", 1, TOO_LONG) => waited.unwrap(),
        }
    }
}

/// An error that is not transient stops the processor also if its source was transient.
#[test]
fn the_first_error_of_the_library_decides_whether_it_is_transient() {
    let unknown =
        PersistenceError::new(ErrorKind::OutcomeUnknown, "the connection was lost").with_source(outage());
    assert!(!PersistenceError::is_transient_in(&OrderError::from(unknown)));
    assert!(!PersistenceError::is_transient_in(&std::io::Error::other("not of this library")));
    assert!(PersistenceError::is_transient_in(&OrderError::from(outage())));
    // The cause is still among the sources.
    let sources = std::iter::successors(std::error::Error::source(&outage()), |source| source.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    assert_eq!(sources, ["the failure is transient", "connection refused"]);
}

/// When a processor had stopped, its lag did not change any more, and nothing reported the stop.
#[tokio::test]
async fn a_stop_and_its_error_are_reported_and_the_lag_is_read_without_a_processor() {
    let (bank, audit) = (bank(2).await, PopoProcessRecorder::new());
    let handler = async |notification: Notification| match notification.id {
        2 => Err(OrderError::from(PersistenceError::data("no such order"))),
        _ => Ok(Vec::new()),
    };
    let mut processor = Processor::new("audit", bank.clone(), audit.clone(), handler);
    let progress = processor.progress();
    assert_eq!(progress.state(), ProcessorState::NotStarted);
    let error = processor.run().await.unwrap_err();
    let ProcessorState::Failed(text) = progress.state() else { panic!("{:?}", progress.state()) };
    assert_eq!(*text, format!("{error}: the order cannot be shipped: no such order"));

    bank.insert_events(vec![event(2, 1), event(2, 2)]).await.unwrap();
    let lag = audit.consumer_lag("audit", &bank).await.unwrap();
    assert_eq!((lag.position, lag.head, lag.lag()), (1, 4, 3));
    let lag = audit.consumer_lag("new", &PopoApplicationRecorder::new()).await.unwrap();
    assert_eq!((lag.position, lag.head, lag.lag()), (0, 0, 0));

    let mut processor = Processor::new("audit", bank.clone(), audit, nothing);
    let progress = processor.progress();
    {
        let mut running = pin!(processor.run());
        assert!(running.as_mut().now_or_never().is_none());
        assert_eq!(progress.state(), ProcessorState::Running);
    }
    assert_eq!(progress.state(), ProcessorState::Cancelled);
    bank.close().await.unwrap();
    processor.run().await.unwrap();
    assert_eq!(progress.state(), ProcessorState::Ended);
}

/// A batch in which a handler returns a version twice was reported as a conflict with stored data, and was
/// retried. It is the handler's failure.
#[tokio::test]
async fn a_version_twice_in_the_events_of_a_notification_is_the_handlers_failure() {
    let (bank, audit) = (bank(3).await, PopoProcessRecorder::new());
    let handler = async |notification: Notification| {
        let version = notification.id;
        let versions = if version == 2 { vec![version, version] } else { vec![version] };
        Ok::<_, Infallible>(versions.into_iter().map(|version| event(9, version)).collect())
    };
    let error = Processor::new("audit", bank, audit.clone(), handler).run().await.unwrap_err();
    let ProcessorError::Handler { notification, source, .. } = error else { panic!("{error:?}") };
    assert_eq!(notification.id, 2);
    let source = source.downcast_ref::<PersistenceError>().unwrap();
    assert!(!source.is_conflict() && source.kind() == ErrorKind::Programming, "{source:?}");
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), Some(1));
}

/// A consumer, and a handler, that may be sent to another thread, but not shared by threads.
struct Unshared<T>(T, Cell<u32>);

impl Handler for Unshared<()> {
    type Error = Infallible;

    async fn handle(&mut self, _: Notification) -> Result<Vec<StoredEvent>, Infallible> {
        self.1.set(self.1.get() + 1);
        tokio::task::yield_now().await;
        Ok(Vec::new())
    }
}

impl NotificationConsumer for Unshared<PopoTrackingRecorder> {
    type Recorder = PopoTrackingRecorder;

    fn recorder(&self) -> &PopoTrackingRecorder {
        &self.0
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, es_core::ConsumerError> {
        self.1.set(self.1.get() + 1);
        let handled = batch.notifications.len();
        self.0.insert_tracking(batch.tracking(handled)?).await?;
        Ok(handled)
    }

    async fn park(
        &mut self,
        _: NotificationBatch<'_>,
        error: HandlerError,
    ) -> Result<(), es_core::ConsumerError> {
        Err(es_core::ConsumerError::Handler { index: 0, error })
    }
}

/// The future of a run was `Send` only if the consumer was `Sync`, which its trait does not require: such a
/// processor could not be spawned.
#[tokio::test]
async fn consumers_and_handlers_need_not_be_sync() {
    let (bank, audit) = (bank(2).await, PopoProcessRecorder::new());
    let positions = PopoTrackingRecorder::new();
    let mut first = Processor::new("audit", bank.clone(), audit.clone(), Unshared((), Cell::new(0)));
    let consumer = Unshared(positions.clone(), Cell::new(0));
    let mut second = Processor::with_consumer("count", bank.clone(), consumer);
    let runs =
        [tokio::spawn(async move { first.run().await }), tokio::spawn(async move { second.run().await })];
    audit.wait("audit", 2, TOO_LONG).await.unwrap();
    positions.wait("count", 2, TOO_LONG).await.unwrap();
    bank.close().await.unwrap();
    for run in runs {
        run.await.unwrap().unwrap();
    }
}

/// A closure with state of its own, in the documented form.
#[tokio::test]
async fn closures_may_change_their_state() {
    let (bank, audit) = (bank(3).await, PopoProcessRecorder::new());
    let mut versions = 0;
    let numbering = move |_: Notification| {
        versions += 1;
        async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(vec![event(9, versions)])
        }
    };
    let mut processor = Processor::new("audit", bank, audit.clone(), numbering);
    tokio::select! {
        ended = processor.run() => panic!("{ended:?}"),
        waited = audit.wait("audit", 3, TOO_LONG) => waited.unwrap(),
    }
    let events = audit.select_events(Uuid::from_u128(9), (..).into()).await.unwrap();
    assert_eq!(events.len(), 3);
}
