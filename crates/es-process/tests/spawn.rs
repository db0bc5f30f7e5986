//! Processors that run in a task: stopping, state, and the result of the run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{
    convert::Infallible,
    future::pending,
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use es_core::{
    AggregateRecorder, Bytes, ConsumerError, ErrorKind, HandlerError, Notification, NotificationBatch,
    NotificationConsumer, PersistenceError, Recorder, Signal, StoredEvent, Topic, Tracking, TrackingRecorder,
    TrackingRecorderExt, uuid::Uuid,
};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder, PopoTrackingRecorder};
use es_process::{Processor, ProcessorError, ProcessorState, Progress};
use futures_util::FutureExt;
use tokio::{sync::Semaphore, task::yield_now, time::timeout};

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

/// A bank whose log has this number of notifications.
async fn bank(notifications: i64) -> PopoApplicationRecorder {
    let bank = PopoApplicationRecorder::new();
    credit(&bank, 1..=notifications).await;
    bank
}

async fn credit(bank: &PopoApplicationRecorder, versions: impl IntoIterator<Item = i64>) {
    let event = |originator_version| StoredEvent {
        originator_id: Uuid::nil(),
        originator_version,
        topic: Topic::from_static("bank:Account.Credited"),
        state: Bytes::new(),
    };
    bank.insert_events(versions.into_iter().map(event).collect()).await.unwrap();
}

async fn nothing(_: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    Ok(Vec::new())
}

async fn state_after(progress: &Progress, before: ProcessorState) -> ProcessorState {
    let changed = async {
        while progress.state() == before {
            yield_now().await;
        }
        progress.state()
    };
    timeout(TOO_LONG, changed).await.unwrap()
}

#[tokio::test]
async fn it_processes_until_it_is_stopped() {
    let (bank, audit) = (bank(3).await, PopoProcessRecorder::new());
    let mut running = Processor::new("audit", bank.clone(), audit.clone(), nothing).spawn().unwrap();
    let progress = running.progress();
    audit.wait("audit", 3, TOO_LONG).await.unwrap();
    assert_eq!(running.health(), ProcessorState::Running);
    // Cancel safe: the processor goes on.
    assert!(running.join().now_or_never().is_none());
    credit(&bank, [4]).await;
    audit.wait("audit", 4, TOO_LONG).await.unwrap();
    running.stop();
    timeout(TOO_LONG, running.join()).await.unwrap().unwrap();
    assert_eq!((running.health(), progress.position()), (ProcessorState::Ended, 4));
    credit(&bank, [5]).await;
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), Some(4));
    running.join().await.unwrap();
}

#[tokio::test]
async fn a_stop_commits_the_batch_in_progress_and_no_other() {
    let (bank, audit) = (bank(2).await, PopoProcessRecorder::new());
    let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
        move |_: Notification| {
            let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
            async move {
                entered.add_permits(1);
                leave.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Vec::new())
            }
        }
    };
    let processor = Processor::new("audit", bank, audit.clone(), handler).batch_size(NonZeroUsize::MIN);
    let mut running = processor.spawn().unwrap();
    timeout(TOO_LONG, entered.acquire()).await.unwrap().unwrap().forget();
    running.stop();
    leave.add_permits(2);
    timeout(TOO_LONG, running.join()).await.unwrap().unwrap();
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), Some(1));
    assert_eq!(entered.available_permits(), 0);
}

#[tokio::test]
async fn a_run_can_be_stopped() {
    let (bank, audit) = (bank(2).await, PopoProcessRecorder::new());
    let mut processor = Processor::new("audit", bank, audit.clone(), nothing);
    let (stop, progress) = (processor.stop_handle(), processor.progress());
    {
        let mut run = pin!(processor.run());
        assert!(run.as_mut().now_or_never().is_none());
        stop.stop();
        run.now_or_never().unwrap().unwrap();
    }
    assert_eq!((progress.state(), progress.position()), (ProcessorState::Ended, 2));
    // Also at once.
    processor.run().now_or_never().unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_handle_stops_it() {
    let (bank, audit) = (bank(1).await, PopoProcessRecorder::new());
    let running = Processor::new("audit", bank, audit.clone(), nothing).spawn().unwrap();
    let progress = running.progress();
    audit.wait("audit", 1, TOO_LONG).await.unwrap();
    drop(running);
    assert_eq!(state_after(&progress, ProcessorState::Running).await, ProcessorState::Ended);
}

#[tokio::test]
async fn a_failure_is_the_result_and_the_state() {
    let (bank, audit) = (bank(1).await, PopoProcessRecorder::new());
    let handler = async |_: Notification| Err(PersistenceError::data("no such account"));
    let mut running = Processor::new("audit", bank, audit, handler).spawn().unwrap();
    let error = timeout(TOO_LONG, running.join()).await.unwrap().unwrap_err();
    assert!(matches!(error, ProcessorError::Handler { .. }), "{error:?}");
    let ProcessorState::Failed(text) = running.health() else { panic!("{:?}", running.health()) };
    assert_eq!(*text, format!("{error}: no such account"));
    running.join().await.unwrap();
}

#[tokio::test]
async fn a_panic_of_the_handler_is_an_error() {
    let (bank, audit) = (bank(1).await, PopoProcessRecorder::new());
    let handler = async |notification: Notification| -> Result<_, Infallible> {
        assert!(notification.id == 0, "the handler is broken");
        Ok(Vec::new())
    };
    let mut running = Processor::new("audit", bank, audit, handler).spawn().unwrap();
    let error = timeout(TOO_LONG, running.join()).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "consumer \"audit\" was aborted");
    let ProcessorError::Aborted { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("panicked"), "{source}");
    let ProcessorState::Failed(text) = running.health() else { panic!("{:?}", running.health()) };
    assert_eq!(*text, *"the processor panicked");
}

#[test]
fn a_runtime_that_is_shut_down_aborts_it() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (first, second) = (runtime(), runtime());
    let audit = PopoProcessRecorder::new();
    let mut running = first.block_on(async {
        let running = Processor::new("audit", bank(1).await, audit.clone(), nothing).spawn().unwrap();
        audit.wait("audit", 1, TOO_LONG).await.unwrap();
        running
    });
    drop(first);
    let error = second.block_on(running.join()).unwrap_err();
    assert!(matches!(error, ProcessorError::Aborted { .. }), "{error:?}");
    assert_eq!(running.health(), ProcessorState::Cancelled);
}

#[test]
fn outside_of_a_runtime_it_is_an_error() {
    let bank = bank(1).now_or_never().unwrap();
    let error = Processor::new("audit", bank, PopoProcessRecorder::new(), nothing).spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interface, "{error}");
}

/// Fails, or does not return from, each call.
#[derive(Debug, Default)]
struct Down {
    positions: PopoTrackingRecorder,
    hangs: bool,
    calls: AtomicUsize,
}

fn down() -> PersistenceError {
    PersistenceError::operational("the server is down").transient()
}

impl Recorder for Down {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.positions.close().await
    }
}

impl TrackingRecorder for Down {
    async fn insert_tracking(&self, _: Tracking) -> Result<(), PersistenceError> {
        Err(down())
    }

    async fn max_tracking_id(&self, _: &str) -> Result<Option<i64>, PersistenceError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.hangs { pending().await } else { Err(down()) }
    }

    fn tracking_signal(&self) -> &Signal {
        self.positions.tracking_signal()
    }
}

struct Positions(Arc<Down>);

impl NotificationConsumer for Positions {
    type Recorder = Down;

    fn recorder(&self) -> &Down {
        &self.0
    }

    async fn process(&mut self, _: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        Ok(1)
    }

    async fn park(&mut self, _: NotificationBatch<'_>, error: HandlerError) -> Result<(), ConsumerError> {
        Err(ConsumerError::Handler { index: 0, error })
    }
}

#[tokio::test]
async fn a_stop_interrupts_reads_and_pauses() {
    for hangs in [false, true] {
        let recorder = Arc::new(Down { hangs, ..Down::default() });
        let consumer = Positions(Arc::clone(&recorder));
        let mut processor = Processor::with_consumer("audit", bank(1).await, consumer);
        let stop = processor.stop_handle();
        let mut run = pin!(processor.run());
        assert!(run.as_mut().now_or_never().is_none());
        assert_eq!(recorder.calls.load(Ordering::Relaxed), 1);
        stop.stop();
        // At once: without waiting for the end of the pause, or for the database.
        assert!(matches!(run.now_or_never(), Some(Ok(()))));
    }
}
