//! A processor and a projector that are dropped in the middle of every step, and begun anew, within one
//! process: while what the dropped one has begun may still be on its way to the database.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{
    convert::Infallible,
    future::pending,
    num::NonZeroUsize,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Bytes, ConsumerError, HandlerError, Notification,
    NotificationBatch, NotificationConsumer, NotificationSelection, StoredEvent, Topic, TrackingRecorder,
    TrackingRecorderExt, uuid::Uuid,
};
use es_faults::{
    effects::{self, Effects, Kind, UPSTREAM},
    kill_point::KillPoint,
    test_database::{Backend, ProcessRecorder, TestDatabase},
};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder, PopoProjection};
use es_postgres::HookFuture;
use es_process::{Handler, HandlerConsumer, Processor};
use es_sqlite::{Fault, FaultHooks};
use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

/// A timeout after which a waiting test has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// More than one commit handles.
const NOTIFICATIONS: u128 = 7;
const BATCH_SIZE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// The passings at which each step is interrupted.
const PASSINGS: [usize; 3] = [1, 2, 3];

/// Interrupts the next run at a step, at a given passing.
#[derive(Clone, Debug)]
struct Interruption(Arc<State>);

#[derive(Debug)]
struct State {
    runtime: Handle,
    plan: Mutex<Option<Plan>>,
    reached: Notify,
    /// The gate of the point that was reached last.
    gate: Mutex<Arc<Semaphore>>,
}

#[derive(Debug)]
struct Plan {
    step: String,
    left: usize,
    /// Closed until what is held may go on; each plan has its own.
    gate: Arc<Semaphore>,
}

impl Interruption {
    fn new() -> Self {
        let (plan, reached, gate) = (Mutex::default(), Notify::new(), Mutex::new(gate()));
        Self(Arc::new(State { runtime: Handle::current(), plan, reached, gate }))
    }

    fn arm(&self, step: &str, passing: usize) {
        // The run before may have ended at the moment at which it was interrupted: an unreported run would
        // interrupt this run before its step, and leave the step to the next one, for good.
        let _ = self.0.reached.notified().now_or_never();
        let gate = gate();
        *self.0.gate.lock().unwrap() = Arc::clone(&gate);
        *self.0.plan.lock().unwrap() = Some(Plan { step: step.to_owned(), left: passing, gate });
    }

    /// Lets go on what is held. Whether the step was reached at all.
    fn release(&self) -> bool {
        self.0.gate.lock().unwrap().add_permits(1);
        self.0.plan.lock().unwrap().take().is_none()
    }

    /// The gate at which to wait, if this is the place of the plan.
    fn reached(&self, step: &str) -> Option<Arc<Semaphore>> {
        let mut planned = self.0.plan.lock().unwrap();
        let plan = planned.as_mut().filter(|plan| plan.step == step)?;
        plan.left -= 1;
        if plan.left > 0 {
            return None;
        }
        let gate = Arc::clone(&plan.gate);
        *planned = None;
        self.0.reached.notify_one();
        Some(gate)
    }

    /// A step of the run itself, which goes no further: it is dropped there.
    async fn pass(&self, step: &str) {
        if self.reached(step).is_some() {
            pending::<()>().await;
        }
    }

    /// A step of something that goes on when the run is dropped: it is held until then, and longer.
    async fn hold(&self, step: &str) {
        if let Some(gate) = self.reached(step) {
            gate.acquire().await.unwrap().forget();
        }
    }
}

fn gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

impl FaultHooks for Interruption {
    fn before(&self, step: es_sqlite::FaultPoint) -> Result<(), Fault> {
        // Called by a thread that is none of the runtime's.
        self.0.runtime.block_on(self.hold(&format!("{step:?}")));
        Ok(())
    }
}

impl es_postgres::FaultHooks for Interruption {
    fn reached(&self, point: es_postgres::FaultPoint) -> HookFuture<'_> {
        Box::pin(async move { self.hold(&format!("{point:?}")).await })
    }
}

/// A downstream that can be interrupted before it handles, and before it tells that it has committed.
struct Interrupted<D> {
    inner: D,
    at: Interruption,
}

impl<D: NotificationConsumer> NotificationConsumer for Interrupted<D> {
    type Recorder = D::Recorder;

    fn recorder(&self) -> &D::Recorder {
        self.inner.recorder()
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        self.at.pass("before handling").await;
        let handled = self.inner.process(batch).await?;
        self.at.pass("after the commit").await;
        Ok(handled)
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        self.inner.park(batch, failure).await
    }
}

/// A handler that can be interrupted before and after it is called.
struct InterruptedHandler {
    effects: Effects,
    at: Interruption,
}

impl Handler for InterruptedHandler {
    type Error = Infallible;

    async fn handle(&mut self, notification: Notification) -> Result<Vec<StoredEvent>, Infallible> {
        self.at.pass("before the handler").await;
        let events = self.effects.handle(notification).await;
        self.at.pass("after the handler").await;
        events
    }
}

/// Runs a processor, drops it at the step, runs another before that step goes on, and so for each step;
/// returns the position.
async fn interrupt<R, D>(
    at: &Interruption,
    steps: &[&str],
    recorder: &R,
    mut downstream: impl AsyncFnMut() -> D,
) -> Vec<i64>
where
    R: TrackingRecorder,
    D: NotificationConsumer,
{
    let upstream = PopoApplicationRecorder::new();
    for step in steps {
        let mut is_reached = false;
        for passing in PASSINGS {
            grow(&upstream).await;
            let end = upstream.max_notification_id().await.unwrap().unwrap();
            // While what is interrupted may be held, nothing else can be set up.
            let [first, second] = [downstream().await, downstream().await];
            at.arm(step, passing);
            let mut first = processor(&upstream, first, at);
            tokio::select! {
                ended = first.run() => panic!("the first ended: {ended:?}"),
                () = at.0.reached.notified() => {}
                waited = recorder.wait(UPSTREAM, end, TIMEOUT) => waited.unwrap(),
            }
            drop(first);
            let mut second = processor(&upstream, second, at);
            let mut run = pin!(second.run());
            assert!(run.as_mut().now_or_never().is_none());
            is_reached |= at.release();
            tokio::select! {
                ended = run => panic!("the second ended: {ended:?}"),
                waited = recorder.wait(UPSTREAM, end, TIMEOUT) => waited.unwrap(),
            }
        }
        assert!(is_reached, "nothing was interrupted at step {step:?}");
    }
    let all = upstream.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap();
    all.iter().map(|notification| notification.id).collect()
}

fn processor<D: NotificationConsumer>(
    upstream: &PopoApplicationRecorder,
    inner: D,
    at: &Interruption,
) -> Processor<PopoApplicationRecorder, Interrupted<D>> {
    let downstream = Interrupted { inner, at: at.clone() };
    Processor::with_consumer(UPSTREAM, upstream.clone(), downstream)
        .batch_size(BATCH_SIZE)
        .standby_pause(Duration::from_millis(1))
}

async fn grow(upstream: &PopoApplicationRecorder) {
    let event = |_| StoredEvent {
        originator_id: Uuid::new_v4(),
        originator_version: 1,
        topic: Topic::from_static("bank:Account.Opened"),
        state: Bytes::new(),
    };
    upstream.insert_events((0..NOTIFICATIONS).map(event).collect()).await.unwrap();
}

const OF_DOWNSTREAMS: [&str; 2] = ["before handling", "after the commit"];
const OF_HANDLERS: [&str; 4] =
    ["before handling", "after the commit", "before the handler", "after the handler"];

/// Each notification's effect is there once, whichever step is interrupted.
async fn check(backend: Backend, kind: Kind) {
    if !Backend::available().contains(&backend) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = format!("restarts_{backend:?}_{kind:?}").to_lowercase();
    let database = TestDatabase::create(backend, directory.path(), &name).await.unwrap();
    let at = Interruption::new();
    let make = || Effects::new(&database, KillPoint::new(None));
    let handler = || InterruptedHandler { effects: make(), at: at.clone() };
    let steps = match kind {
        Kind::Rows => [&OF_DOWNSTREAMS[..], backend.points_of_projectors()].concat(),
        _ => [&OF_HANDLERS[..], backend.points_of_handlers()].concat(),
    };
    let handled = match (kind, database.open_process(at.clone(), false).await.unwrap()) {
        (Kind::Rows, ProcessRecorder::Sqlite(recorder)) => {
            interrupt(&at, &steps, &recorder, async || recorder.projector(make()).await.unwrap()).await
        }
        (Kind::Rows, ProcessRecorder::Postgres(recorder)) => {
            interrupt(&at, &steps, &recorder, async || recorder.projector(make()).await.unwrap()).await
        }
        (_, ProcessRecorder::Sqlite(recorder)) => {
            interrupt(&at, &steps, &recorder, async || HandlerConsumer::new(recorder.clone(), handler()))
                .await
        }
        (_, ProcessRecorder::Postgres(recorder)) => {
            interrupt(&at, &steps, &recorder, async || HandlerConsumer::new(recorder.clone(), handler()))
                .await
        }
        (_, other) => panic!("no test for {other:?}"),
    };
    assert_eq!(effects::read(&database, kind).await.unwrap(), handled);
    database.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_in_memory() {
    let (at, audit) = (Interruption::new(), PopoProcessRecorder::new());
    let database = TestDatabase::create(Backend::Sqlite, Path::new(""), "unused").await.unwrap();
    let handler =
        || InterruptedHandler { effects: Effects::new(&database, KillPoint::new(None)), at: at.clone() };
    let handled =
        interrupt(&at, &OF_HANDLERS, &audit, async || HandlerConsumer::new(audit.clone(), handler())).await;
    let all = audit.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap();
    assert_eq!(effects::of(&all), handled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_in_memory() {
    let (at, audit) = (Interruption::new(), PopoProcessRecorder::new());
    let upstream = PopoApplicationRecorder::new();
    let projector = audit.projector(List, Vec::new());
    let view = projector.view();
    // The view lives in the projector, and so does what is run again.
    let mut processor = processor(&upstream, projector, &at);
    for step in OF_DOWNSTREAMS {
        for passing in PASSINGS {
            grow(&upstream).await;
            let end = upstream.max_notification_id().await.unwrap().unwrap();
            at.arm(step, passing);
            tokio::select! {
                ended = processor.run() => panic!("it ended: {ended:?}"),
                () = at.0.reached.notified() => {}
            }
            assert!(at.release());
            tokio::select! {
                ended = processor.run() => panic!("it ended: {ended:?}"),
                waited = audit.wait(UPSTREAM, end, TIMEOUT) => waited.unwrap(),
            }
            assert_eq!(*view.read(), (1..=end).collect::<Vec<_>>());
        }
    }
}

/// The ids of all notifications.
struct List;

impl PopoProjection for List {
    type View = Vec<i64>;
    type Error = Infallible;

    fn project(&mut self, view: &mut Vec<i64>, notification: &Notification) -> Result<(), Infallible> {
        view.push(notification.id);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_on_sqlite() {
    check(Backend::Sqlite, Kind::Events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_on_sqlite() {
    check(Backend::Sqlite, Kind::Rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_on_postgres() {
    check(Backend::Postgres, Kind::Events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_on_postgres() {
    check(Backend::Postgres, Kind::Rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_on_postgres_with_parallel_writers() {
    check(Backend::Parallel, Kind::Events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_on_postgres_with_parallel_writers() {
    check(Backend::Parallel, Kind::Rows).await;
}
