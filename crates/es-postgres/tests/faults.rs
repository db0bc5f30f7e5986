//! Lost connections, locks that are not granted, canceled callers: nothing is lost, nothing is written twice,
//! and no caller gets a wrong result.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use std::task::{Context, Poll};

use common::{
    prelude::*,
    proxy::{Cut, Proxy},
};
use es_core::{SegmentChange, SegmentRecorder};

const MARK: &[u8] = b"cut the connection here";

fn marked() -> StoredEvent {
    StoredEvent { state: Bytes::from_static(MARK), ..first() }
}

async fn count(schema: &Schema) -> i64 {
    let sql = format!("SELECT count(*) FROM {}", schema.table("bank_events"));
    scalar(&mut schema.connect().await, &sql).await
}

/// A transaction that holds the lock of the events table.
async fn holding_the_lock(schema: &Schema) -> PgConnection {
    let mut connection = schema.connect().await;
    let lock = format!("BEGIN; LOCK TABLE {} IN EXCLUSIVE MODE", schema.table("bank_events"));
    run(&mut connection, &lock).await;
    connection
}

/// Until a session waits for a lock on the events table.
async fn until_waiting(connection: &mut PgConnection, schema: &Schema) {
    let events = schema.table("bank_events");
    let sql =
        format!("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted)");
    until(connection, &sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let proxy = Proxy::start(schema.server.clone(), MARK).await;
        let options = schema.options().host("127.0.0.1").port(proxy.port).ordering(ordering);
        let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
        recorder.insert_events(vec![first()]).await.unwrap();
        proxy.arm(Cut::Answer);
        let events = vec![marked(), first()];
        let ids = recorder.insert_events(events).await.expect("not a conflict with itself");
        assert_eq!(ids, [2, 3]);
        assert_eq!(count(&schema).await, 3, "not written twice");
        // With tracking, and tracking alone.
        proxy.arm(Cut::Answer);
        let tracking = Tracking::new("upstream", 7).unwrap();
        let ids = recorder.insert_events_with_tracking(vec![marked()], tracking).await.unwrap();
        assert_eq!(ids, [4]);
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7));
        proxy.arm(Cut::Answer);
        let name = std::str::from_utf8(MARK).unwrap();
        recorder.insert_tracking(Tracking::new(name, 9).unwrap()).await.unwrap();
        assert_eq!(recorder.max_tracking_id(name).await.unwrap(), Some(9));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_arrived_is_sent_again() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(schema.server.clone(), MARK).await;
    let options = schema.options().host("127.0.0.1").port(proxy.port);
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    proxy.arm(Cut::Request);
    assert_eq!(recorder.insert_events(vec![marked()]).await.unwrap(), [2]);
    assert_eq!(count(&schema).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rivals_event_at_the_version_is_a_conflict() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(schema.server.clone(), MARK).await;
    let options = schema
        .options()
        .host("127.0.0.1")
        .port(proxy.port)
        .hooks(Inserting(schema.server.clone(), schema.table("bank_events")));
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    proxy.arm(Cut::Request);
    let lost = StoredEvent { originator_id: CONTESTED, ..marked() };
    let refused = recorder.insert_events(vec![lost]).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
    assert_eq!(count(&schema).await, 2);
}

const CONTESTED: Uuid = Uuid::from_u128(0xc0);

/// A rival is faster while the outcome is unknown.
struct Inserting(common::Server, String);

impl FaultHooks for Inserting {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == FaultPoint::OutcomeDoubtful {
                let insert =
                    format!("INSERT INTO {} VALUES ('{CONTESTED}', 1, 'bank:Other', 'theirs')", self.1);
                run(&mut self.0.connect().await, &insert).await;
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_found_out_is_called_unknown() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(schema.server.clone(), MARK).await;
    let options = schema.options().host("127.0.0.1").port(proxy.port);
    let options = options.connect_timeout(Duration::from_millis(300));
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    proxy.arm(Cut::AnswerForGood);
    let unknown = recorder.insert_events(vec![marked()]).await.unwrap_err();
    assert!(unknown.is_outcome_unknown(), "{unknown:?}");
    assert!(!unknown.is_conflict() && !unknown.is_transient());
    assert_eq!(count(&schema).await, 1, "in truth it was recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_process_is_made_up_for() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let mut holder = holding_the_lock(&schema).await;
    let mut watching = schema.connect().await;
    let append = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.insert_events(vec![first(), first()]).await }
    });
    until_waiting(&mut watching, &schema).await;
    let kill = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = '{}'::regclass AND NOT granted",
        schema.table("bank_events")
    );
    assert!(scalar::<bool>(&mut watching, &kill).await);
    // It is waiting again, on another connection.
    let again = format!(
        "SELECT count(*) = 1 FROM pg_locks WHERE relation = '{}'::regclass AND NOT granted",
        schema.table("bank_events")
    );
    until(&mut watching, &again).await;
    run(&mut holder, "COMMIT").await;
    assert_eq!(append.await.unwrap().unwrap().len(), 2);
    assert_eq!(count(&schema).await, 2);
}

#[tokio::test]
async fn idle_connections_that_were_lost_are_replaced() {
    let schema = Schema::create().await;
    let options = schema.server.options().schema(&schema.name).user(&schema.server.user);
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    let mut killer = schema.connect().await;
    // Of all sessions, those that last touched this test's tables.
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%{}%' \
         AND pid <> pg_backend_pid()",
        schema.name
    );
    assert!(scalar::<i64>(&mut killer, &kill).await > 0);
    let page = recorder.select_notifications(NotificationSelection::new(10)).await.unwrap();
    assert_eq!(page.len(), 1, "a read is tried again");
    assert!(scalar::<i64>(&mut killer, &kill).await > 0);
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [2], "a write is recovered");
    assert_eq!(count(&schema).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_does_not_come_in_time_is_a_transient_error() {
    let schema = Schema::create().await;
    let options = schema.options().lock_timeout(Duration::from_millis(20));
    let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
    let before = count(&schema).await;
    let mut holder = holding_the_lock(&schema).await;
    let late = recorder.insert_events(vec![first()]).await.unwrap_err();
    assert_eq!((late.kind(), late.is_transient()), (ErrorKind::Operational, true), "{late:?}");
    run(&mut holder, "COMMIT").await;
    assert_eq!(count(&schema).await, before, "nothing was written");
    // So is a position that stays locked.
    recorder.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap();
    run(&mut holder, &format!("BEGIN; UPDATE {} SET notification_id = 1", schema.table("bank_tracking")))
        .await;
    let tracking = Tracking::new("upstream", 2).unwrap();
    let late = recorder.insert_events_with_tracking(vec![first()], tracking.clone()).await.unwrap_err();
    assert_eq!((late.kind(), late.is_transient()), (ErrorKind::Operational, true), "{late:?}");
    run(&mut holder, "ROLLBACK").await;
    recorder.insert_events_with_tracking(vec![first()], tracking).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_that_is_dropped_leaves_all_or_nothing() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let mut holder = holding_the_lock(&schema).await;
    let mut watching = schema.connect().await;
    let abandoned = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.insert_events(vec![first(), first()]).await }
    });
    until_waiting(&mut watching, &schema).await;
    abandoned.abort();
    run(&mut holder, "COMMIT").await;
    recorder.insert_events(vec![first()]).await.unwrap();
    assert_eq!(count(&schema).await, 3, "what was accepted is written whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_finishes_accepted_writes_and_refuses_waiting_ones() {
    let schema = Schema::create().await;
    // Room for one event in the queue.
    let options = schema.options().queue_bytes(300.try_into().unwrap());
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    let mut holder = holding_the_lock(&schema).await;
    let mut watching = schema.connect().await;
    let accepted = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.insert_events(vec![first()]).await }
    });
    until_waiting(&mut watching, &schema).await;
    let closing = async {
        tokio::task::yield_now().await;
        tokio::join!(recorder.close(), run(&mut holder, "COMMIT")).0
    };
    let (waiting, closed) = tokio::join!(recorder.insert_events(vec![first()]), closing);
    closed.unwrap();
    assert_eq!(waiting.unwrap_err().kind(), ErrorKind::Interface, "it had no place in the queue");
    assert_eq!(accepted.await.unwrap().unwrap(), [1]);
    assert_eq!(count(&schema).await, 1);
}

/// The datastore once closed its connections under the writers: what waited for them was refused.
#[tokio::test]
async fn closing_the_datastore_finishes_accepted_writes() {
    let schema = Schema::create().await;
    let hooks = FirstGroup { groups: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
    let datastore = schema.options().hooks(hooks.clone()).open().await.unwrap();
    let recorder = datastore.application_recorder("bank").await.unwrap();
    // Polled in this order, on the only thread: one is in flight, one waits, and the datastore closes.
    let release = async {
        while hooks.groups.load(Atomic::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        hooks.gate.add_permits(1);
    };
    let insert = || recorder.insert_events(vec![first()]);
    let (in_flight, waiting, closed, closed_again, ()) =
        tokio::join!(insert(), insert(), datastore.close(), datastore.close(), release);
    closed.unwrap();
    closed_again.unwrap();
    assert_eq!((in_flight.unwrap(), waiting.unwrap()), (vec![1], vec![2]));
    assert_eq!(count(&schema).await, 2);
    assert_eq!(insert().await.unwrap_err().kind(), ErrorKind::Interface);
    let late = datastore.application_recorder("bank").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Interface, "a closed datastore gives no recorders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_finishes_accepted_writes() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let mut holder = holding_the_lock(&schema).await;
    let mut watching = schema.connect().await;
    let accepted = tokio::spawn(async move { recorder.insert_events(vec![first()]).await });
    until_waiting(&mut watching, &schema).await;
    // The task held the last handle.
    accepted.abort();
    assert!(accepted.await.unwrap_err().is_cancelled());
    run(&mut holder, "COMMIT").await;
    let events = schema.table("bank_events");
    until(&mut watching, &format!("SELECT count(*) = 1 FROM {events}")).await;
}

/// Holds the first group back until it is released, and counts groups.
#[derive(Clone)]
struct FirstGroup {
    groups: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl FaultHooks for FirstGroup {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == FaultPoint::GroupFormed && self.groups.fetch_add(1, Atomic::SeqCst) == 0 {
                self.gate.acquire().await.unwrap().forget();
            }
        })
    }
}

/// A recorder whose writer is held with an event for its first group.
async fn held_recorder(
    options: PostgresOptions,
    opening: StoredEvent,
) -> (PostgresProcessRecorder, FirstGroup, tokio::task::JoinHandle<()>) {
    let hooks = FirstGroup { groups: Arc::new(AtomicUsize::new(0)), gate: Arc::new(Semaphore::new(0)) };
    let datastore = options.hooks(hooks.clone()).open().await.unwrap();
    let recorder = datastore.process_recorder("bank").await.unwrap();
    let opened = tokio::spawn({
        let recorder = recorder.clone();
        async move { assert_eq!(recorder.insert_events(vec![opening]).await.unwrap(), [1]) }
    });
    while hooks.groups.load(Atomic::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    (recorder, hooks, opened)
}

#[tokio::test]
async fn waiting_requests_are_one_group_with_separate_results() {
    let schema = Schema::create().await;
    let (contested, taken) = (Uuid::new_v4(), first());
    let (recorder, hooks, opened) = held_recorder(schema.options(), taken.clone()).await;
    let tracked = |events, position| {
        recorder.insert_events_with_tracking(events, Tracking::new("upstream", position).unwrap())
    };
    let release = async {
        // Everything has been sent by now: this future is polled last, on the only thread.
        hooks.gate.add_permits(1);
    };
    let results = tokio::join!(
        opened,
        recorder.insert_events(vec![event(contested, 1), event(contested, 2)]),
        recorder.insert_events(vec![event(contested, 2)]),
        recorder.insert_events(vec![first(), first()]),
        tracked(vec![first()], 5),
        tracked(vec![first()], 6),
        tracked(vec![first()], 6),
        tracked(vec![taken.clone()], 8),
        tracked(vec![first()], 7),
        recorder.insert_events(vec![taken.clone(), first()]),
        release,
    );
    results.0.unwrap();
    assert_eq!(results.1.unwrap(), [2, 3]);
    assert!(results.2.unwrap_err().is_conflict(), "the same version in one group");
    assert_eq!(results.3.unwrap(), [4, 5], "together, however many wait");
    assert_eq!(results.4.unwrap(), [6]);
    assert_eq!(results.5.unwrap(), [7], "an ascending position, in the next group");
    assert!(results.6.unwrap_err().is_conflict(), "the same position");
    assert!(results.7.unwrap_err().is_conflict(), "recorded by the group before");
    assert!(results.9.unwrap_err().is_conflict());
    // 7 conflicts with 8 of the same group, which was refused, so it got a group of its own. 8 was alone in
    // its group, and its conflict used up an id.
    assert_eq!(results.8.unwrap(), [9]);
    assert!(hooks.groups.load(Atomic::SeqCst) <= 5, "ten requests");
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7));
}

#[tokio::test]
async fn groups_are_bounded() {
    // One alone, and the other four two by two; or each alone, because of rows, or of bytes.
    let rows = |options: PostgresOptions, rows: usize| options.group_rows(rows.try_into().unwrap());
    let bytes = |options: PostgresOptions, bytes: usize| options.group_bytes(bytes.try_into().unwrap());
    for (bound, limit, groups) in [
        (&rows as &dyn Fn(_, _) -> _, 8, 3),
        (&rows, 7, 5),
        (&bytes, 1_500, 3),
        (&bytes, 1_000, 5),
        (&bytes, 1, 5),
    ] {
        let schema = Schema::create().await;
        let (recorder, hooks, opened) = held_recorder(bound(schema.options(), limit), first()).await;
        let release = async { hooks.gate.add_permits(1) };
        let insert = || recorder.insert_events(vec![first(), first(), first()]);
        let results = tokio::join!(insert(), insert(), insert(), insert(), opened, release);
        let ids = [results.0, results.1, results.2, results.3].map(Result::unwrap).concat();
        assert_eq!(ids, (2..=13).collect::<Vec<_>>(), "in their order");
        assert_eq!(hooks.groups.load(Atomic::SeqCst), groups, "at most {limit}");
    }
}

/// The writer is a task of the runtime that opened the recorder; a program may have others.
#[test]
fn a_caller_that_outlives_the_writers_runtime_gets_an_error() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (writers, callers) = (runtime(), runtime());
    let schema = callers.block_on(Schema::create());
    let (recorder, _hooks, _) = writers.block_on(held_recorder(schema.options(), first()));
    let mut waiting = Box::pin(recorder.insert_events(vec![first()]));
    assert!(callers.block_on(async { (&mut waiting).now_or_never() }).is_none());
    drop(writers);
    // This one was not sent, which no task is left to report.
    assert_eq!(callers.block_on(waiting).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    let refused = callers.block_on(recorder.insert_events(vec![first()])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Interface);
    assert!(refused.to_string().contains("runtime"), "{refused}");
}

#[tokio::test]
async fn one_requests_fault_is_not_anothers() {
    let schema = Schema::create().await;
    let (recorder, hooks, opened) = held_recorder(schema.options(), first()).await;
    // An index row cannot be so large: the server refuses the whole statement.
    let random: String = (0..400).map(|_| Uuid::new_v4().to_string()).collect();
    let too_long = Tracking::new(random, 1).unwrap();
    let release = async { hooks.gate.add_permits(1) };
    let results = tokio::join!(
        opened,
        recorder.insert_events(vec![first()]),
        recorder.insert_events_with_tracking(vec![first()], too_long),
        recorder.insert_events(vec![first()]),
        release
    );
    assert!(results.0.is_ok() && results.1.is_ok() && results.3.is_ok());
    let refused = results.2.unwrap_err();
    assert!(!refused.is_conflict() && !refused.is_transient(), "{refused:?}");
    assert_eq!(count(&schema).await, 3);
}

#[tokio::test]
async fn too_much_at_once_is_a_data_error() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let huge = StoredEvent { state: Bytes::from(vec![0; 1_000_000_001]), ..first() };
    let refused = recorder.insert_events(vec![huge]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [1], "it is usable afterwards");
}

/// A request that is left out of a group must not be overtaken by a later one that conflicts with it:
/// 9 once went ahead of 7, which was then refused although 8, its rival, had been.
#[tokio::test]
async fn a_deferred_request_is_not_overtaken() {
    let schema = Schema::create().await;
    let (taken, contested) = (first(), first());
    let (recorder, hooks, opened) = held_recorder(schema.options(), taken.clone()).await;
    let tracked = |events, position| {
        recorder.insert_events_with_tracking(events, Tracking::new("upstream", position).unwrap())
    };
    let elsewhere = event(taken.originator_id, 2);
    let release = async { hooks.gate.add_permits(1) };
    let results = tokio::join!(
        opened,
        tracked(vec![taken.clone()], 8),
        tracked(vec![first()], 7),
        tracked(vec![first()], 9),
        // Both want version 1 of `taken`, so that the second is postponed; the third would be in its way.
        recorder.insert_events(vec![taken.clone(), elsewhere.clone()]),
        recorder.insert_events(vec![elsewhere.clone(), contested.clone()]),
        recorder.insert_events(vec![contested.clone()]),
        release,
    );
    results.0.unwrap();
    assert!(results.1.unwrap_err().is_conflict());
    results.2.expect("8 was refused, and 9 came later");
    results.3.expect("greater than all before");
    assert!(results.4.unwrap_err().is_conflict());
    results.5.expect("its rival was refused, and the next came later");
    assert!(results.6.unwrap_err().is_conflict(), "the one before it has the version");
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(9));
}

/// A request that is left out because of a version, which its rival then records, may have lost its position,
/// too. It is processed in its turn and receives the conflict of the position, as it would without other
/// requests. It needs no further work.
#[tokio::test]
async fn a_deferred_request_with_a_lost_position_gets_the_position_conflict() {
    let schema = Schema::create().await;
    let elsewhere = schema.open().await.process_recorder("bank").await.unwrap();
    elsewhere.insert_tracking(Tracking::new("upstream", 8).unwrap()).await.unwrap();
    let (recorder, hooks, opened) = held_recorder(schema.options(), first()).await;
    let contested = first();
    let tracked = |position| {
        let tracking = Tracking::new("upstream", position).unwrap();
        recorder.insert_events_with_tracking(vec![contested.clone()], tracking)
    };
    let release = async { hooks.gate.add_permits(1) };
    let results = tokio::join!(
        opened,
        recorder.insert_events(vec![contested.clone()]),
        tracked(8),
        tracked(9),
        release
    );
    assert!(results.0.is_ok() && results.1.is_ok());
    let position = Conflict::Tracking { application_name: "upstream".to_owned(), notification_id: 8 };
    assert_eq!(results.2.unwrap_err().conflict(), Some(&position));
    let StoredEvent { originator_id, originator_version, .. } = contested;
    let version = Conflict::Version { originator_id, originator_version };
    assert_eq!(results.3.unwrap_err().conflict(), Some(&version));
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(8));
}

/// In the parallel ordering, two writers took two positions of one application. The second could reach the
/// server first, and then failed with the error of a log that was rolled back.
#[tokio::test]
async fn a_position_is_not_overtaken_by_the_next_one() {
    let schema = Schema::create().await;
    let elsewhere = schema.open().await.process_recorder("bank").await.unwrap();
    elsewhere.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap();
    let hooks = FirstGroup { groups: Arc::new(AtomicUsize::new(0)), gate: Arc::new(Semaphore::new(0)) };
    let options = schema.options().ordering(NotificationOrdering::Parallel).hooks(hooks.clone());
    let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
    let tracked = |position| {
        let tracking = Tracking::new("upstream", position).unwrap().after(position - 1).unwrap();
        let recorder = recorder.clone();
        async move { recorder.insert_events_with_tracking(vec![first()], tracking).await }
    };
    let held = tokio::spawn(tracked(2));
    while hooks.groups.load(Atomic::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let release = async {
        // Another writer commits it, together with the next position if it takes that.
        recorder.insert_events(vec![first()]).await.unwrap();
        hooks.gate.add_permits(1);
    };
    let (next, ()) = tokio::join!(tracked(3), release);
    held.await.unwrap().unwrap();
    next.unwrap();
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(3));
}

// A process that was suspended within a change of segments kept the lock of all changes. No other worker
// could renew its lease, and the whole consumer stood still.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_suspended_within_a_change_of_segments_stops_no_other_one() {
    let schema = Schema::create().await;
    let open = async || schema.open().await.process_recorder("bank").await.unwrap();
    let (suspended, other) = (open().await, open().await);
    let renew =
        |worker: &str| SegmentChange::Renew { worker: worker.to_owned(), lease: Duration::from_secs(3_600) };
    suspended.change_segments("audit", SegmentChange::Create(2.try_into().unwrap())).await.unwrap();
    // Its write waits for this lock. When that is released, the client is suspended, and does not commit.
    let workers = schema.table("bank_tracking_workers");
    let mut locking = schema.connect().await;
    run(&mut locking, &format!("BEGIN; LOCK TABLE {workers} IN SHARE MODE")).await;
    let is_waiting = format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '{workers}'::regclass AND NOT granted)"
    );
    let mut watching = schema.connect().await;
    let mut change = Box::pin(suspended.change_segments("audit", renew("a")));
    while !scalar::<bool>(&mut watching, &is_waiting).await {
        let is_pending = |context: &mut Context<'_>| Poll::Ready(change.as_mut().poll(context).is_pending());
        assert!(std::future::poll_fn(is_pending).await);
    }
    run(&mut locking, "COMMIT").await;
    let renewed = other.change_segments("audit", renew("b"));
    let renewed = tokio::time::timeout(Duration::from_secs(60), renewed).await.unwrap().unwrap();
    assert_eq!(renewed.workers.len(), 1, "{renewed:?}");
    let lost = change.await.unwrap_err();
    assert!(lost.is_outcome_unknown() || lost.is_transient(), "{lost:?}");
}
