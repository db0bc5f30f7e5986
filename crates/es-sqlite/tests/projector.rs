//! Projections: each notification's effect and the position are recorded together, exactly once, despite
//! interruptions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test unwraps the values that it expects"
)]

mod support;

use std::{
    collections::HashMap,
    env,
    error::Error,
    fmt,
    num::{NonZeroU32, NonZeroUsize},
    ops::RangeInclusive,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use es_core::{
    AggregateRecorder, Conflict, ConsumerError, ErrorKind, HandlerError, Notification, NotificationBatch,
    NotificationConsumer, PersistenceError, Recorder, TrackingRecorder, TrackingRecorderExt,
};
use es_process::Processor;
use es_sqlite::{
    Fault, FaultHooks, FaultPoint, SqliteOptions, SqliteProjection, SqliteProjector, SqliteTrackingRecorder,
    rusqlite::{self, Connection, Transaction},
};
use support::{Faults, accepted, database, event, gate, open};

const UPSTREAM: &str = "upstream";

/// Writes the id of each notification, and misbehaves at some.
#[derive(Default)]
struct Ids {
    calls: Arc<AtomicUsize>,
    misbehaviours: HashMap<i64, Misbehaviour>,
}

type Misbehaviour = fn(&Transaction<'_>) -> Result<(), Refused>;

#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

impl Ids {
    fn with(misbehaviours: impl IntoIterator<Item = (i64, Misbehaviour)>) -> Self {
        Self { misbehaviours: misbehaviours.into_iter().collect(), ..Self::default() }
    }
}

impl SqliteProjection for Ids {
    type Error = Refused;

    fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), Refused> {
        Ok(transaction.execute_batch("CREATE TABLE IF NOT EXISTS ids (id INTEGER, parked TEXT)")?)
    }

    fn project(&mut self, transaction: &Transaction<'_>, notification: &Notification) -> Result<(), Refused> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        transaction.prepare_cached("INSERT INTO ids (id) VALUES (?1)")?.execute((notification.id,))?;
        self.misbehaviours.get(&notification.id).map_or(Ok(()), |misbehaviour| misbehaviour(transaction))
    }

    fn park(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
        failure: HandlerError,
    ) -> Result<(), HandlerError> {
        if failure.to_string() == "hopeless" {
            return Err(failure);
        }
        transaction.execute("INSERT INTO ids VALUES (?1, ?2)", (notification.id, failure.to_string()))?;
        Ok(())
    }
}

fn notifications(ids: RangeInclusive<i64>) -> Vec<Notification> {
    ids.map(|id| Notification { id, event: event(1, id) }).collect()
}

fn batch(notifications: &[Notification]) -> NotificationBatch<'_> {
    let position = notifications.last().expect("a batch has notifications").id;
    NotificationBatch { application_name: UPSTREAM, notifications, position, expected_position: None }
}

async fn process<P: SqliteProjection>(
    projector: &mut SqliteProjector<P>,
    ids: RangeInclusive<i64>,
) -> Result<usize, ConsumerError> {
    projector.process(batch(&notifications(ids))).await
}

async fn recorder(options: SqliteOptions) -> SqliteTrackingRecorder {
    options.open().await.unwrap().tracking_recorder().await.unwrap()
}

async fn projector(options: SqliteOptions) -> SqliteProjector<Ids> {
    recorder(options).await.projector(Ids::default()).await.unwrap()
}

/// The effects of the first so many notifications are there, once, and the position. So it is when the
/// database is opened again.
async fn assert_processed(path: &str, last: i64) {
    let reopened = recorder(SqliteOptions::new(path)).await;
    let position = reopened.max_tracking_id(UPSTREAM).await.unwrap();
    reopened.datastore().close().await.unwrap();
    assert_eq!((position.unwrap_or(0), ids(path)), (last, (1..=last).collect()));
}

fn ids(path: &str) -> Vec<i64> {
    let connection = Connection::open(path).unwrap();
    let mut select = connection.prepare("SELECT id FROM ids ORDER BY id").unwrap();
    let rows = select.query_map((), |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn recording(failure: ConsumerError) -> PersistenceError {
    match failure {
        ConsumerError::Recording(error) => error,
        ConsumerError::Handler { error, .. } => panic!("the handler failed: {error}"),
    }
}

fn handler(failure: ConsumerError) -> (usize, HandlerError) {
    match failure {
        ConsumerError::Handler { index, error } => (index, error),
        ConsumerError::Recording(error) => panic!("recording failed: {error}"),
    }
}

#[tokio::test]
async fn effects_and_position_are_recorded_as_one() {
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    let recorder = datastore.process_recorder().await.unwrap();
    let mut projector = recorder.projector(Ids::default()).await.unwrap();
    let mut listener = recorder.tracking_signal().listen([UPSTREAM]);

    assert_eq!(process(&mut projector, 1..=3).await.unwrap(), 3);
    assert_processed(&path, 3).await;
    let woken = listener.poll_notified(&mut Context::from_waker(Waker::noop()));
    assert_eq!(woken, Poll::Ready(true), "before the reply");
    projector.recorder().wait(UPSTREAM, 3, Duration::ZERO).await.unwrap();

    // Events after the last are not relevant.
    let more = notifications(4..=5);
    let further = NotificationBatch { position: 8, ..batch(&more) };
    assert_eq!(projector.process(further).await.unwrap(), 2);
    let nothing = NotificationBatch { notifications: &[], position: 9, ..further };
    assert_eq!(projector.process(nothing).await.unwrap(), 0);
    assert_eq!(recorder.max_tracking_id(UPSTREAM).await.unwrap(), Some(9));
    assert_eq!(ids(&path), [1, 2, 3, 4, 5]);
    assert!(recording(projector.process(nothing).await.unwrap_err()).is_conflict());
}

#[tokio::test]
async fn a_fault_at_any_step_leaves_all_or_nothing() {
    use Fault::{Busy, Full, Io};
    use FaultPoint::{Append, Begin, Commit, Overwrite, Report};

    let not_recorded = [
        vec![(Begin, Busy)],
        vec![(Begin, Io)],
        vec![(Append, Io)],
        vec![(Append, Full)],
        vec![(Commit, Busy)],
        vec![(Commit, Full)],
        vec![(Commit, Io)],
    ];
    for faults in not_recorded {
        let (_directory, path) = database();
        let is_transient = faults[0].1 == Busy;
        let mut projector = projector(SqliteOptions::new(&path).hooks(Faults::new(faults.clone()))).await;
        let error = recording(process(&mut projector, 1..=3).await.unwrap_err());
        assert_eq!(
            (error.kind(), error.is_transient()),
            (ErrorKind::Operational, is_transient),
            "{faults:?}"
        );
        assert_processed(&path, 0).await;
        assert_eq!(process(&mut projector, 1..=3).await.unwrap(), 3);
        assert_processed(&path, 3).await;
    }
    for fault in [Busy, Full, Io] {
        let (_directory, path) = database();
        let mut projector = projector(SqliteOptions::new(&path).hooks(Faults::new([(Report, fault)]))).await;
        assert_eq!(process(&mut projector, 1..=3).await.unwrap(), 3, "it is found");
        assert_processed(&path, 3).await;
        assert_eq!(process(&mut projector, 4..=4).await.unwrap(), 1);
        assert_processed(&path, 4).await;
    }
    let (_directory, path) = database();
    let faults = Faults::new([(Commit, Io), (Overwrite, Io)]);
    let mut projector = projector(SqliteOptions::new(&path).hooks(faults)).await;
    assert!(recording(process(&mut projector, 1..=3).await.unwrap_err()).is_outcome_unknown());
    assert_processed(&path, 0).await;
    assert_eq!(process(&mut projector, 1..=3).await.unwrap(), 3);
    assert_processed(&path, 3).await;
}

/// Commits something on another connection before a step of the writer, which then fails.
struct Other {
    path: String,
    failing: Mutex<Option<FaultPoint>>,
}

impl FaultHooks for Other {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        let mut failing = self.failing.lock().unwrap();
        if *failing != Some(step) {
            return Ok(());
        }
        *failing = None;
        Connection::open(&self.path).unwrap().execute_batch("CREATE TABLE others (a)").unwrap();
        Err(Fault::Io)
    }
}

/// The other may have recorded the same position.
#[tokio::test]
async fn the_outcome_is_unknown_when_another_has_committed_since() {
    let (_directory, path) = database();
    let other = Other { path: path.clone(), failing: Mutex::new(Some(FaultPoint::Report)) };
    let mut projector = projector(SqliteOptions::new(&path).hooks(other)).await;
    assert!(recording(process(&mut projector, 1..=3).await.unwrap_err()).is_outcome_unknown());
    assert_processed(&path, 3).await;
    assert!(recording(process(&mut projector, 1..=3).await.unwrap_err()).is_conflict());
    assert_eq!(process(&mut projector, 4..=4).await.unwrap(), 1);
    assert_processed(&path, 4).await;
}

#[tokio::test]
async fn a_future_dropped_at_any_step_leaves_all_or_nothing() {
    for step in
        [FaultPoint::Begin, FaultPoint::Append, FaultPoint::Commit, FaultPoint::Report, FaultPoint::Reply]
    {
        let (_directory, path) = database();
        let (hook, mut gate) = gate(step);
        let mut projector = projector(SqliteOptions::new(&path).hooks(hook)).await;
        let first = notifications(1..=3);
        let dropped = accepted(projector.process(batch(&first)));
        gate.reached().await;
        drop(dropped);
        gate.open();
        assert_eq!(process(&mut projector, 4..=4).await.unwrap(), 1, "{step:?}");
        assert_processed(&path, 4).await;
    }
}

#[tokio::test]
async fn a_future_dropped_before_its_turn_leaves_nothing() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let datastore = SqliteOptions::new(&path).hooks(hook).open().await.unwrap();
    let recorder = datastore.process_recorder().await.unwrap();
    let mut projector = recorder.projector(Ids::default()).await.unwrap();
    let insert = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let first = notifications(1..=3);
    drop(accepted(projector.process(batch(&first))));
    gate.open();
    insert.await.unwrap();
    assert_eq!(process(&mut projector, 1..=2).await.unwrap(), 2);
    assert_processed(&path, 2).await;
}

#[tokio::test]
async fn a_failed_projection_reports_its_own_error() {
    let (_directory, path) = database();
    let ids = Ids::with([(3, (|_| Err(Refused("not this one".to_owned()))) as Misbehaviour)]);
    let mut projector = recorder(SqliteOptions::new(&path)).await.projector(ids).await.unwrap();
    let (index, error) = handler(process(&mut projector, 1..=4).await.unwrap_err());
    assert_eq!((index, error.downcast_ref::<Refused>().unwrap().0.as_str()), (2, "not this one"));
    assert_processed(&path, 0).await;
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").expect("the file is not locked");
    assert_eq!(process(&mut projector, 1..=2).await.unwrap(), 2);

    // It is parked only with something in its place.
    let third = notifications(3..=3);
    let hopeless = projector.park(batch(&third), "hopeless".into()).await.unwrap_err();
    assert_eq!(handler(hopeless).1.to_string(), "hopeless");
    assert_processed(&path, 2).await;
    projector.park(batch(&third), error).await.unwrap();
    assert_processed(&path, 3).await;
    let parked: String = Connection::open(&path)
        .unwrap()
        .query_row("SELECT parked FROM ids WHERE id = 3", (), |row| row.get(0))
        .unwrap();
    assert_eq!(parked, "not this one");
    assert!(recording(projector.park(batch(&third), "again".into()).await.unwrap_err()).is_conflict());
    assert_eq!(process(&mut projector, 4..=4).await.unwrap(), 1);
    assert_processed(&path, 4).await;
}

#[tokio::test]
async fn a_projection_that_ends_the_transaction_or_panics_has_failed() {
    const INSERT: &str = "INSERT INTO ids (id) VALUES (99)";
    let misbehaviours: [(Misbehaviour, &str); 8] = [
        (|transaction| Ok(transaction.execute_batch("COMMIT")?), "committed the transaction"),
        (
            |transaction| {
                let _ = transaction.execute_batch("COMMIT");
                Ok(())
            },
            "committed the transaction",
        ),
        (
            |transaction| {
                let _ = transaction.execute_batch("COMMIT");
                let _ = transaction.execute_batch(INSERT);
                Ok(transaction.execute_batch("BEGIN")?)
            },
            "committed the transaction",
        ),
        (|transaction| Ok(transaction.execute_batch("ROLLBACK")?), "was rolled back"),
        (
            |transaction| {
                transaction.execute_batch("ROLLBACK; BEGIN")?;
                Ok(transaction.execute_batch(INSERT)?)
            },
            "was rolled back",
        ),
        (
            |transaction| {
                Ok(transaction
                    .execute_batch("INSERT OR ROLLBACK INTO tracking VALUES ('__migration__', 1)")?)
            },
            "UNIQUE",
        ),
        (|_| panic!("no {} today", "projecting"), "no projecting today"),
        (
            |transaction| {
                transaction.execute_batch("SAVEPOINT mine")?;
                let mut select = transaction.prepare("SELECT id FROM ids")?;
                let mut rows = select.query(())?;
                rows.next()?;
                panic!("in the middle")
            },
            "in the middle",
        ),
    ];
    for (misbehaviour, message) in misbehaviours {
        let (_directory, path) = database();
        let misbehaviours = Ids::with([(3, misbehaviour)]);
        let mut projector = recorder(SqliteOptions::new(&path)).await.projector(misbehaviours).await.unwrap();
        let (index, error) = handler(process(&mut projector, 1..=4).await.unwrap_err());
        assert_eq!(index, 2);
        assert!(error.to_string().contains(message), "{error}");
        assert_processed(&path, 0).await;
        // Everything works as before.
        assert_eq!(process(&mut projector, 1..=2).await.unwrap(), 2);
        assert_processed(&path, 2).await;
    }
}

#[tokio::test]
async fn savepoints_within_the_transaction_are_fine() {
    let (_directory, path) = database();
    let use_savepoints: Misbehaviour = |transaction| {
        transaction
            .execute_batch("SAVEPOINT a; INSERT INTO ids (id) VALUES (99); ROLLBACK TO a; RELEASE a")?;
        Ok(transaction.execute_batch("SAVEPOINT b")?)
    };
    let ids = Ids::with([(2, use_savepoints)]);
    let mut projector = recorder(SqliteOptions::new(&path)).await.projector(ids).await.unwrap();
    assert_eq!(process(&mut projector, 1..=3).await.unwrap(), 3);
    assert_processed(&path, 3).await;
}

/// The violation is detected by the commit, which does not name the notification.
#[tokio::test]
async fn a_deferred_constraint_that_is_violated_parks_the_notification() {
    let violate: Misbehaviour = |transaction| {
        Ok(transaction.execute_batch(
            "CREATE TABLE parents (id INTEGER PRIMARY KEY);
             CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO children VALUES (1)",
        )?)
    };
    let (_directory, path) = database();
    let ids = Ids::with([(5, violate)]);
    let mut projector = recorder(SqliteOptions::new(&path)).await.projector(ids).await.unwrap();
    let (index, error) = handler(process(&mut projector, 1..=7).await.unwrap_err());
    assert_eq!((index, error.to_string().as_str()), (6, "a constraint was violated"));
    assert_processed(&path, 0).await;

    let upstream = open(":memory:").await;
    upstream.insert_events(support::events(1, 1..=20)).await.unwrap();
    let positions = projector.recorder().clone();
    let mut processor = Processor::with_consumer(UPSTREAM, upstream.clone(), projector);
    let close = async {
        positions.wait(UPSTREAM, 20, Duration::from_secs(60)).await.unwrap();
        upstream.close().await.unwrap();
    };
    let (run, ()) = tokio::join!(processor.run(), close);
    run.unwrap();
    assert_processed(&path, 20).await;
    let connection = Connection::open(&path).unwrap();
    let parked = connection.query_row("SELECT id FROM ids WHERE parked IS NOT NULL", (), |row| row.get(0));
    assert_eq!(parked, Ok(5));
}

#[tokio::test]
async fn the_loser_of_a_race_runs_no_handler() {
    let (_directory, path) = database();
    let mut winner = projector(SqliteOptions::new(&path)).await;
    let ids = Ids::default();
    let calls = Arc::clone(&ids.calls);
    let mut loser = recorder(SqliteOptions::new(&path)).await.projector(ids).await.unwrap();
    process(&mut winner, 1..=3).await.unwrap();
    // The last of these are not processed, the first are.
    for batch in [1..=3, 1..=5, 3..=5] {
        let first = *batch.start();
        let error = recording(process(&mut loser, batch).await.unwrap_err());
        let conflict = Conflict::Tracking { application_name: UPSTREAM.to_owned(), notification_id: first };
        assert_eq!(error.conflict(), Some(&conflict));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_processed(&path, 3).await;
    process(&mut loser, 4..=5).await.unwrap();
    assert_processed(&path, 5).await;
}

/// Each from the position that it has read, in batches of its own size.
#[tokio::test(flavor = "multi_thread")]
async fn projectors_that_race_process_each_notification_once() {
    const LAST: i64 = 200;
    let (_directory, path) = database();
    let mut racing = Vec::new();
    for size in [1, 3, 7] {
        let mut projector = projector(SqliteOptions::new(&path)).await;
        racing.push(tokio::spawn(async move {
            let mut position = 0;
            while position < LAST {
                let last = LAST.min(position + size);
                position = match process(&mut projector, position + 1..=last).await {
                    Ok(_) => last,
                    Err(failure) => {
                        assert!(recording(failure).is_conflict());
                        projector.recorder().max_tracking_id(UPSTREAM).await.unwrap().unwrap()
                    }
                };
            }
        }));
    }
    for projector in racing {
        projector.await.unwrap();
    }
    assert_processed(&path, LAST).await;
}

/// Both follow the upstream and race for each of its notifications, in batches of their own sizes,
/// while another datastore writes to it, and while commits of theirs fail.
#[tokio::test(flavor = "multi_thread")]
async fn processors_that_race_process_each_notification_once() {
    const LAST: i64 = 300;
    let (_directory, path) = database();
    let (_upstream_directory, upstream_path) = database();
    let open = || async { open(&upstream_path).await };
    let (upstream, writer) = (open().await, open().await);
    let mut running = Vec::new();
    for (size, fault) in [(1, Fault::Busy), (7, Fault::Io)] {
        let faults = [FaultPoint::Begin, FaultPoint::Commit, FaultPoint::Report].map(|step| (step, fault));
        // Faults of the disk stop a processor, unless its commit is found.
        let faults =
            faults.into_iter().filter(|(step, _)| fault == Fault::Busy || *step == FaultPoint::Report);
        let projector = projector(SqliteOptions::new(&path).hooks(Faults::new(faults))).await;
        let mut processor = Processor::with_consumer(UPSTREAM, upstream.clone(), projector)
            .batch_size(NonZeroUsize::new(size).unwrap())
            .standby_pause(Duration::from_millis(1));
        running.push(tokio::spawn(async move { processor.run().await }));
    }
    for first in (1..=LAST).step_by(10) {
        writer.insert_events(support::events(1, first..=first + 9)).await.unwrap();
    }
    let positions = recorder(SqliteOptions::new(&path)).await;
    positions.wait(UPSTREAM, LAST, Duration::from_secs(60)).await.unwrap();
    upstream.close().await.unwrap();
    for processor in running {
        processor.await.unwrap().unwrap();
    }
    assert_processed(&path, LAST).await;
}

#[tokio::test]
async fn a_long_transaction_takes_no_more_notifications() {
    let (_directory, path) = database();
    let slow: Misbehaviour = |_| {
        thread::sleep(Duration::from_millis(110));
        Ok(())
    };
    let ids = Ids::with([(2, slow)]);
    let mut projector = recorder(SqliteOptions::new(&path)).await.projector(ids).await.unwrap();
    assert!(process(&mut projector, 1..=4).await.unwrap() <= 2);
    let handled = projector.recorder().max_tracking_id(UPSTREAM).await.unwrap().unwrap();
    assert_processed(&path, handled).await;
    process(&mut projector, handled + 1..=4).await.unwrap();
    assert_processed(&path, 4).await;
}

#[tokio::test]
async fn closing_waits_for_a_projection() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Commit);
    let recorder = recorder(SqliteOptions::new(&path).hooks(hook)).await;
    let mut projector = recorder.projector(Ids::default()).await.unwrap();
    let first = notifications(1..=3);
    let process_first = accepted(projector.process(batch(&first)));
    gate.reached().await;
    let close = accepted(recorder.close());
    gate.open();
    assert_eq!(process_first.await.unwrap(), 3);
    close.await.unwrap();
    assert_eq!(recording(process(&mut projector, 4..=4).await.unwrap_err()).kind(), ErrorKind::Interface);
    assert_eq!(recorder.projector(Ids::default()).await.unwrap_err().kind(), ErrorKind::Interface);
    assert_processed(&path, 3).await;
}

#[tokio::test]
async fn projections_wait_for_room_in_the_queue() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let room = NonZeroU32::new(1_000).unwrap();
    let datastore = SqliteOptions::new(&path).queue_bytes(room).hooks(hook).open().await.unwrap();
    let recorder = datastore.process_recorder().await.unwrap();
    let mut projector = recorder.projector(Ids::default()).await.unwrap();
    let large = notifications(1..=10);
    let waiting = accepted(projector.process(batch(&large)));
    gate.reached().await;
    // It has the queue to itself.
    drop(accepted(recorder.insert_events(vec![event(1, 1)])));
    gate.open();
    assert_eq!(waiting.await.unwrap(), 10);
    assert_eq!(recorder.insert_events(vec![event(1, 1)]).await.unwrap(), [1]);
    assert_processed(&path, 10).await;
}

/// A projection whose set-up fails or panics.
struct Unready(Misbehaviour);

impl SqliteProjection for Unready {
    type Error = Refused;

    fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), Refused> {
        transaction.execute_batch("CREATE TABLE ids (id INTEGER)")?;
        (self.0)(transaction)
    }

    fn project(&mut self, _: &Transaction<'_>, _: &Notification) -> Result<(), Refused> {
        Ok(())
    }
}

#[tokio::test]
async fn a_set_up_that_fails_leaves_nothing() {
    let (_directory, path) = database();
    let recorder = recorder(SqliteOptions::new(&path)).await;
    let failing: [Misbehaviour; 2] = [|_| Err(Refused("not ready".to_owned())), |_| panic!("not ready")];
    for misbehaviour in failing {
        let error = recorder.projector(Unready(misbehaviour)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming);
        assert!(error.source().unwrap().to_string().contains("not ready"));
    }
    recorder.projector(Unready(|_| Ok(()))).await.unwrap();
    assert_eq!(ids(&path), [0; 0]);
}

#[tokio::test]
async fn a_database_in_memory_is_projected_into_too() {
    let mut projector = projector(SqliteOptions::new(":memory:")).await;
    assert_eq!(process(&mut projector, 1..=3).await.unwrap(), 3);
    assert!(recording(process(&mut projector, 3..=3).await.unwrap_err()).is_conflict());
    assert_eq!(projector.recorder().max_tracking_id(UPSTREAM).await.unwrap(), Some(3));
}

const PATH: &str = "ES_SQLITE_TEST_PATH";
const KILLED_AT: &str = "ES_SQLITE_TEST_KILLED_AT";

/// Not a test by itself: the work of the other process. It continues from the recorded position.
#[tokio::test]
async fn child() {
    let Ok(path) = env::var(PATH) else { return };
    let mut projector = projector(SqliteOptions::new(path).hooks(Killer(env::var(KILLED_AT).ok()))).await;
    let position = projector.recorder().max_tracking_id(UPSTREAM).await.unwrap().unwrap_or(0);
    process(&mut projector, position + 1..=position + 3).await.unwrap();
}

/// Ends the process without cleanup, at a step of its writer.
struct Killer(Option<String>);

impl FaultHooks for Killer {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        if self.0.as_deref() == Some(format!("{step:?}").as_str()) {
            std::process::abort();
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_process_may_die_at_any_step() {
    let (_directory, path) = database();
    drop(projector(SqliteOptions::new(&path)).await);
    let mut last = 0;
    for (step, is_recorded) in [
        (FaultPoint::Begin, false),
        (FaultPoint::Append, false),
        (FaultPoint::Commit, false),
        (FaultPoint::Report, true),
        (FaultPoint::Reply, true),
    ] {
        for killed_at in [Some(step), None] {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "child", "--nocapture"]).env(PATH, &path).env_remove(KILLED_AT);
            if let Some(step) = killed_at {
                command.env(KILLED_AT, format!("{step:?}"));
            }
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert_eq!(status.success(), killed_at.is_none());
            if is_recorded || killed_at.is_none() {
                last += 3;
            }
            assert_processed(&path, last).await;
        }
    }
}
