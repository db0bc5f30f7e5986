//! Serialized ordering: ids become visible in ascending order, whichever kinds of writers share the table.
//!
//! Writers of this library exclude each other by an advisory lock inside the statement that inserts, and the
//! Python library's writers by the lock that `INSERT` takes. Each test also runs a defective variant, which
//! it must catch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use common::{cluster::Cluster, prelude::*};
use sqlx::Executor;

/// The first key of the advisory lock of an append, which earlier builds took for roles that may only insert.
const APPEND_CLASS: i32 = 0x6573_6c6b;

async fn open(schema: &Schema) -> PostgresProcessRecorder {
    schema.open().await.process_recorder("bank").await.unwrap()
}

/// Returns the number of allocated ids.
async fn drawn(schema: &Schema) -> i64 {
    let sequence = schema.table("bank_events_notification_id_seq");
    let sql = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}");
    scalar(&mut schema.connect().await, &sql).await
}

/// Returns a query that checks whether this many sessions wait for a lock of the table, or for its advisory
/// lock.
fn waiting(schema: &Schema, sessions: usize) -> String {
    format!(
        "SELECT count(*) = {sessions} FROM pg_locks WHERE NOT granted AND (relation = '{0}'::regclass \
         OR (locktype = 'advisory' AND objid = '{0}'::regclass::oid))",
        schema.table("bank_events")
    )
}

/// Inserts as version 9.5 of the Python library does.
fn python(events: &str) -> String {
    format!(
        "BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE; \
         INSERT INTO {events} VALUES (gen_random_uuid(), 1, 'bank:Account.Opened', '{{}}'); COMMIT"
    )
}

// An id that is drawn before the lock is granted may be visible after a higher one.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_id_is_drawn_while_an_append_waits() {
    let schema = Schema::create().await;
    let recorder = open(&schema).await;
    recorder.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap();
    let events = schema.table("bank_events");
    let mut holder = schema.connect().await;
    let mut position = 1;
    for behind_python in [true, false] {
        for kind in ["single", "group", "tracking"] {
            let mut held = holder.begin().await.unwrap();
            if behind_python {
                run(&mut held, &format!("LOCK TABLE {events} IN EXCLUSIVE MODE")).await;
            } else {
                // Of another datastore, as in another process.
                let other = open(&schema).await;
                other.insert_events_in(&mut held, &[first()]).await.unwrap();
            }
            let before = drawn(&schema).await;
            position += 1;
            let tracking = Tracking::new("upstream", position).unwrap();
            let append = tokio::spawn({
                let recorder = recorder.clone();
                async move {
                    match kind {
                        "single" => recorder.insert_events(vec![first()]).await,
                        "group" => recorder.insert_events(vec![first(), first()]).await,
                        _ => recorder.insert_events_with_tracking(vec![first()], tracking).await,
                    }
                }
            });
            until(&mut schema.connect().await, &waiting(&schema, 1)).await;
            assert_eq!(drawn(&schema).await, before, "{kind}");
            held.commit().await.unwrap();
            assert_eq!(append.await.unwrap().unwrap()[0], before + 1, "{kind}");
        }
    }

    // The defect: the lock is not part of what the row is inserted from.
    let mut held = holder.begin().await.unwrap();
    let other = open(&schema).await;
    other.insert_events_in(&mut held, &[first()]).await.unwrap();
    let before = drawn(&schema).await;
    let hasty = format!(
        "WITH id AS MATERIALIZED (SELECT nextval('{}') AS id), lock AS MATERIALIZED \
         (SELECT pg_advisory_xact_lock({APPEND_CLASS}, '{events}'::regclass::oid::integer) FROM id) \
         INSERT INTO {events} SELECT gen_random_uuid(), 1, 'bank:Account.Opened', '{{}}', id FROM id, lock",
        schema.table("bank_events_notification_id_seq")
    );
    let mut connection = schema.connect().await;
    let append = tokio::spawn(async move { run(&mut connection, &hasty).await });
    until(&mut schema.connect().await, &waiting(&schema, 1)).await;
    assert_eq!(drawn(&schema).await, before + 1, "the test notices an id that is drawn too early");
    held.commit().await.unwrap();
    append.await.unwrap();
}

// Writers of every kind at the same time, and a reader without any protection of its own.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Recorder,
    CallersTransaction,
    Python,
    /// A build of this library that locked the table.
    EarlierBuild,
    /// The same, with a role that may insert and not update.
    EarlierInsertOnly,
    /// The defect: no lock.
    Unlocked,
}

/// Kinds that run together. An earlier build with an insert-only role takes the advisory lock before the
/// table, so with writers that lock the table it makes circles of waiting, which the server resolves without
/// an error, but only after `deadlock_timeout`.
const WRITERS: [&[Writer]; 2] = [
    &[Writer::Recorder, Writer::CallersTransaction, Writer::Python, Writer::EarlierBuild],
    &[Writer::Recorder, Writer::CallersTransaction, Writer::EarlierInsertOnly],
];

impl Writer {
    /// Appends until `stop` is set.
    async fn run(
        self,
        server: Server,
        events: String,
        recorder: PostgresProcessRecorder,
        stop: Arc<AtomicBool>,
    ) {
        let mut connection = server.connect().await;
        let insert =
            format!("INSERT INTO {events} VALUES (gen_random_uuid(), 1, 'bank:Account.Opened', '{{}}')");
        while !stop.load(Atomic::SeqCst) {
            match self {
                Self::Recorder => drop(recorder.insert_events(vec![first()]).await.unwrap()),
                Self::CallersTransaction => {
                    let mut transaction = connection.begin().await.unwrap();
                    recorder.insert_events_in(&mut transaction, &[first(), first()]).await.unwrap();
                    tokio::task::yield_now().await;
                    transaction.commit().await.unwrap();
                }
                Self::Python => run(&mut connection, &python(&events)).await,
                Self::EarlierBuild => {
                    let append =
                        format!("DO $$ BEGIN LOCK TABLE {events} IN EXCLUSIVE MODE; {insert}; END $$");
                    run(&mut connection, &append).await;
                }
                Self::EarlierInsertOnly => {
                    let append = format!(
                        "DO $$ BEGIN PERFORM pg_advisory_xact_lock({APPEND_CLASS}, '{events}'::regclass::oid::integer); \
                         LOCK TABLE {events} IN ROW EXCLUSIVE MODE; {insert}; END $$"
                    );
                    run(&mut connection, &append).await;
                }
                Self::Unlocked => {
                    run(&mut connection, &format!("BEGIN; {insert}")).await;
                    tokio::task::yield_now().await;
                    run(&mut connection, "COMMIT").await;
                }
            }
        }
    }
}

/// Follows the log by `id > last` until it has read so many events beyond the end of the writers, and returns
/// the ids that it read.
async fn follow(server: Server, events: String, stop: Arc<AtomicBool>, read: Arc<AtomicUsize>) -> Vec<i64> {
    let mut connection = server.connect().await;
    let mut seen: Vec<i64> = Vec::new();
    loop {
        let is_last = stop.load(Atomic::SeqCst);
        let after = seen.last().copied().unwrap_or(0);
        let sql = format!("SELECT notification_id FROM {events} WHERE notification_id > {after} ORDER BY 1");
        let page: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        if page.is_empty() && is_last {
            return seen;
        }
        seen.extend(page);
        read.store(seen.len(), Atomic::SeqCst);
    }
}

/// Runs two writers of each kind concurrently with a reader of `reading_from`. Returns the ids that it read
/// and the recorded ones.
async fn read_beside(
    schema: &Schema,
    kinds: &[Writer],
    reading_from: Server,
    events_to_read: usize,
) -> (Vec<i64>, Vec<i64>) {
    let events = schema.table("bank_events");
    let (stop, stop_reading) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for &kind in kinds.iter().chain(kinds) {
        // Connections of its own, as in another process.
        let recorder = open(schema).await;
        writers.push(tokio::spawn(kind.run(
            schema.server.clone(),
            events.clone(),
            recorder,
            Arc::clone(&stop),
        )));
    }
    let read = Arc::new(AtomicUsize::new(0));
    let reader = tokio::spawn(follow(
        reading_from.clone(),
        events.clone(),
        Arc::clone(&stop_reading),
        Arc::clone(&read),
    ));
    while read.load(Atomic::SeqCst) < events_to_read && !reader.is_finished() {
        tokio::task::yield_now().await;
    }
    stop.store(true, Atomic::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let all = format!("SELECT array_agg(notification_id ORDER BY notification_id) FROM {events}");
    let recorded: Vec<i64> = scalar(&mut schema.connect().await, &all).await;
    let highest = format!("SELECT max(notification_id) = {} FROM {events}", recorded.last().unwrap());
    until(&mut reading_from.connect().await, &highest).await;
    stop_reading.store(true, Atomic::SeqCst);
    (reader.await.unwrap(), recorded)
}

fn assert_all_seen(seen: &[i64], recorded: &[i64]) {
    let missed: Vec<i64> = recorded.iter().filter(|id| seen.binary_search(id).is_err()).copied().collect();
    assert!(missed.is_empty(), "missed {missed:?} of {} events", recorded.len());
    assert_eq!(seen.len(), recorded.len(), "events that were read twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_become_visible_in_order_beside_writers_of_every_kind() {
    for kinds in WRITERS {
        let schema = Schema::create().await;
        open(&schema).await;
        let (seen, recorded) = read_beside(&schema, kinds, schema.server.clone(), 1_000).await;
        assert_all_seen(&seen, &recorded);
    }

    // The defect: one kind of writer that takes no lock.
    let schema = Schema::create().await;
    open(&schema).await;
    for _ in 0..20 {
        let (seen, recorded) =
            read_beside(&schema, &[Writer::Unlocked, Writer::Unlocked], schema.server.clone(), 2_000).await;
        if seen != recorded {
            return;
        }
        run(&mut schema.connect().await, &format!("TRUNCATE {}", schema.table("bank_events"))).await;
    }
    panic!("the test does not notice writers without a lock");
}

// The commit of a higher id follows the commit of a lower one in the write-ahead log too, so a standby shows
// them in the same order.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_become_visible_in_order_on_a_standby() {
    let Some(primary) = Cluster::start(&[]) else { return };
    let standby = primary.start_standby().await;
    let schema = Schema { server: primary.server.clone(), name: "bank_schema".to_owned() };
    run(&mut schema.connect().await, "CREATE SCHEMA bank_schema").await;
    open(&schema).await;
    until(&mut standby.server.connect().await, "SELECT to_regclass('bank_schema.bank_events') IS NOT NULL")
        .await;
    let (seen, recorded) = read_beside(&schema, WRITERS[0], standby.server.clone(), 1_000).await;
    assert_all_seen(&seen, &recorded);
    // The schema is dropped with its server.
    std::mem::forget(schema);
}

// The lock of the table blocked `VACUUM`, and `VACUUM` blocked appends for a second (`deadlock_timeout`).

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vacuum_and_appends_do_not_wait_for_each_other() {
    let schema = Schema::create().await;
    let recorder = open(&schema).await;
    let events = schema.table("bank_events");
    let mut connection = schema.connect().await;
    let mut vacuum = schema.connect().await;
    run(&mut vacuum, "SET lock_timeout = '20ms'").await;
    let vacuum_now = format!("VACUUM (ANALYZE) {events}");
    let mut held = connection.begin().await.unwrap();
    recorder.insert_events_in(&mut held, &[first()]).await.unwrap();
    run(&mut vacuum, &vacuum_now).await;
    held.commit().await.unwrap();
    // The lock that VACUUM takes.
    run(&mut connection, &format!("BEGIN; LOCK TABLE {events} IN SHARE UPDATE EXCLUSIVE MODE")).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    recorder.insert_events(vec![first(), first()]).await.unwrap();
    run(&mut connection, "COMMIT").await;
    // The defect: a lock of the table.
    run(&mut connection, &format!("BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE")).await;
    assert!(vacuum.execute(AssertSqlSafe(vacuum_now)).await.is_err(), "the test notices a lock of the table");
    run(&mut connection, "ROLLBACK").await;
}

// Each kind of writer makes progress while the other one writes without a pause.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_kind_of_writer_starves() {
    let schema = Schema::create().await;
    let recorder = open(&schema).await;
    let events = schema.table("bank_events");
    for starving in [Writer::Python, Writer::Recorder] {
        let busy = if starving == Writer::Python { Writer::Recorder } else { Writer::Python };
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for _ in 0..4 {
            let recorder = open(&schema).await;
            writers.push(tokio::spawn(busy.run(
                schema.server.clone(),
                events.clone(),
                recorder,
                Arc::clone(&stop),
            )));
        }
        let mut connection = schema.connect().await;
        for _ in 0..100 {
            match starving {
                Writer::Python => run(&mut connection, &python(&events)).await,
                _ => drop(recorder.insert_events(vec![first()]).await.unwrap()),
            }
        }
        stop.store(true, Atomic::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
    }
}

// The statement's snapshot is older than its lock: a position that a rival records in between is met by the
// row, which shows its latest version, and not by the snapshot.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_recorded_while_an_append_waits_is_not_repeated() {
    for recorded_before in [true, false] {
        let schema = Schema::create().await;
        let recorder = open(&schema).await;
        let track = |position| Tracking::new("upstream", position).unwrap();
        if recorded_before {
            recorder.insert_tracking(track(1)).await.unwrap();
        }
        let mut connection = schema.connect().await;
        let mut rival = connection.begin().await.unwrap();
        let other = open(&schema).await;
        other.insert_events_in(&mut rival, &[first()]).await.unwrap();
        let append = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.insert_events_with_tracking(vec![event(Uuid::nil(), 1)], track(3)).await }
        });
        until(&mut schema.connect().await, &waiting(&schema, 1)).await;
        other.insert_events_with_tracking_in(&mut rival, &[first()], &track(4)).await.unwrap();
        rival.commit().await.unwrap();
        assert!(append.await.unwrap().unwrap_err().is_conflict());
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(4));
        let lost = recorder.select_events(Uuid::nil(), es_core::EventRange::all()).await.unwrap();
        assert!(lost.is_empty(), "an event without its position");
    }
}

// A version conflict leaves the position alone, and a request in a group with a conflict is recorded.

#[tokio::test]
async fn a_version_conflict_leaves_the_position_alone() {
    let schema = Schema::create().await;
    let recorder = open(&schema).await;
    let taken = first();
    recorder.insert_events(vec![taken.clone()]).await.unwrap();
    let track = |position| Tracking::new("upstream", position).unwrap();
    for position in [None, Some(5)] {
        if let Some(position) = position {
            recorder.insert_tracking(track(position)).await.unwrap();
        }
        let refused =
            recorder.insert_events_with_tracking(vec![first(), taken.clone()], track(7)).await.unwrap_err();
        assert!(refused.is_conflict());
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), position);
    }
    recorder.insert_events_with_tracking(vec![first()], track(7)).await.unwrap();
}

// A role that may insert and not update has what an append needs.

#[tokio::test]
async fn a_role_that_may_only_insert_and_read_appends_in_order() {
    let schema = Schema::create().await;
    open(&schema).await;
    let role = Role::create(&schema).await;
    let grants = format!(
        "GRANT SELECT, INSERT ON {0}.bank_events TO {1}; GRANT USAGE ON SEQUENCE \
         {0}.bank_events_notification_id_seq TO {1}",
        schema.name, role.name
    );
    run(&mut schema.connect().await, &grants).await;
    let options = role.server.options().schema(&schema.name).create_table(false);
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [1]);
    let taken = first();
    assert_eq!(recorder.insert_events(vec![taken.clone(), first()]).await.unwrap(), [2, 3]);
    assert!(recorder.insert_events(vec![taken]).await.unwrap_err().is_conflict());
    let mut connection: PgConnection = role.server.connect().await;
    let mut transaction = connection.begin().await.unwrap();
    recorder.insert_events_in(&mut transaction, &[first()]).await.unwrap();
    transaction.commit().await.unwrap();
}

/// Reports that a position was found locked.
struct PositionLocked(mpsc::UnboundedSender<()>);

impl FaultHooks for PositionLocked {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        if point == FaultPoint::PositionLocked {
            let _ = self.0.send(());
        }
        Box::pin(async {})
    }
}

async fn open_hooked(
    schema: &Schema,
    ordering: NotificationOrdering,
) -> (PostgresProcessRecorder, mpsc::UnboundedReceiver<()>) {
    let (sender, locked) = mpsc::unbounded_channel();
    let options = schema.options().ordering(ordering).hooks(PositionLocked(sender));
    (options.open().await.unwrap().process_recorder("bank").await.unwrap(), locked)
}

// A request whose position is locked was waited for inside the statement, or retried with later requests:
// others waited with it, the position after it overtook it, and it was refused, as if its notification had
// been processed.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_position_delays_its_own_application_alone() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let (recorder, mut locked) = open_hooked(&schema, ordering).await;
        let track = |name: &str, position| Tracking::new(name, position).unwrap();
        recorder.insert_tracking(track("upstream", 1)).await.unwrap();
        // A first position is also sent again by the task of its application, which reports it.
        locked.recv().await.unwrap();
        let mut holder = schema.connect().await;
        let lock = format!(
            "BEGIN; SELECT FROM {} WHERE application_name = 'upstream' FOR UPDATE",
            schema.table("bank_tracking")
        );
        run(&mut holder, &lock).await;
        let append = |position| {
            let (recorder, tracking) = (recorder.clone(), track("upstream", position));
            let expected = tracking.after(position - 1).unwrap();
            async move { recorder.insert_events_with_tracking(vec![first()], expected).await }
        };
        let delayed = tokio::spawn(append(2));
        locked.recv().await.unwrap();
        let waiting = tokio::spawn(futures_util::future::join_all((3..=5).map(append)));
        recorder.insert_events(vec![first()]).await.unwrap();
        recorder.insert_events_with_tracking(vec![first()], track("other", 1)).await.unwrap();
        run(&mut holder, "COMMIT").await;
        delayed.await.unwrap().unwrap();
        for (position, result) in (3..).zip(waiting.await.unwrap()) {
            result.unwrap_or_else(|error| panic!("{ordering:?}, position {position}: {error:?}"));
        }
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(5));
    }
}

// The first position of an application was inserted while the statement held the locks of the events table,
// and waited there for a rival's first position: a deadlock with the Python library's order of locks, and
// with a projection that appends.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_position_is_waited_for_without_locks() {
    let schema = Schema::create().await;
    let (recorder, mut locked) = open_hooked(&schema, NotificationOrdering::Serialized).await;
    let events = schema.table("bank_events");
    let mut python = schema.connect().await;
    let insert = format!("BEGIN; INSERT INTO {} VALUES ('upstream', 1)", schema.table("bank_tracking"));
    run(&mut python, &insert).await;
    let append = tokio::spawn({
        let recorder = recorder.clone();
        let tracking = Tracking::new("upstream", 1).unwrap();
        async move { recorder.insert_events_with_tracking(vec![first()], tracking).await }
    });
    locked.recv().await.unwrap();
    let waits = "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) \
                 WHERE NOT l.granted AND a.query LIKE '%";
    until(&mut schema.connect().await, &format!("{waits}{}%')", schema.name)).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    run(&mut python, &format!("LOCK TABLE {events} IN EXCLUSIVE MODE NOWAIT; COMMIT")).await;
    assert!(append.await.unwrap().unwrap_err().is_conflict());
    // Not refused where the rival rolls back.
    run(&mut python, &insert.replace("upstream", "other")).await;
    let append = tokio::spawn({
        let recorder = recorder.clone();
        let tracking = Tracking::new("other", 1).unwrap();
        async move { recorder.insert_events_with_tracking(vec![first()], tracking).await }
    });
    locked.recv().await.unwrap();
    run(&mut python, "ROLLBACK").await;
    append.await.unwrap().unwrap();
    assert_eq!(recorder.max_tracking_id("other").await.unwrap(), Some(1));
}
