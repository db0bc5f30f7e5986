//! No reader ever misses an event: the traps that others fell into, one test each.
//!
//! Every trap is set by raw transactions that are held open, and by hooks that hold a reader between
//! two statements; nothing is left to timing. And every trap is shown to catch a reader that has the
//! defect it is there for: those readers are at the end of this file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use std::pin::pin;

use common::prelude::*;
use tokio::task::JoinHandle;

// A writer paused between drawing an id and committing.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_paused_before_its_commit_is_waited_for() {
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    assert_eq!(trap.recorder.insert_events(vec![first()]).await.unwrap(), [2]);

    let (reader, mut points) = trap.reader().await;
    let mut page = tokio::spawn(async move { ids(&reader, after(0)).await });
    points.passed_by(FaultPoint::WritersPending, &mut page).await;
    slow.commit().await;
    assert_eq!(page.await.unwrap(), [1, 2], "the reader waits, and then sees both in their order");

    // The defect: no guard at all.
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let mut unguarded = defective::Unguarded::default();
    let mut seen = unguarded.poll(&mut trap.connect().await, &trap.events).await;
    slow.commit().await;
    seen.extend(unguarded.poll(&mut trap.connect().await, &trap.events).await);
    assert_ne!(seen, [1, 2], "the trap catches a reader without a guard");
}

// The first event of all is in flight, while the sequence has never been used otherwise.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_event_ever_is_waited_for() {
    let trap = Trap::set().await;
    let (reader, mut points) = trap.reader().await;
    assert!(ids(&reader, from_the_start()).await.is_empty(), "an unused sequence is no id");
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    assert!(ids(&reader, from_the_start()).await.is_empty(), "nothing to see, and no cursor moves");
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let mut page = tokio::spawn(async move { ids(&reader, from_the_start()).await });
    points.passed_by(FaultPoint::WritersPending, &mut page).await;
    slow.commit().await;
    assert_eq!(page.await.unwrap(), [1, 2]);

    // The defect: `last_value` of a sequence that was never used reads 1, as if id 1 were drawn.
    let trap = Trap::set().await;
    let mut fooled = defective::LastValue::default();
    fooled.poll(&mut trap.connect().await, &trap.schema, &trap.events).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let seen = fooled.poll(&mut trap.connect().await, &trap.schema, &trap.events).await;
    assert_ne!(seen, [1], "the trap catches a reader that believes in last_value");
}

// Ids are missing at the start, for good.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leading_gaps_are_passed() {
    let trap = Trap::set().await;
    trap.writer().await.draw_insert_and_roll_back(2).await;
    assert_eq!(trap.recorder.insert_events(vec![first()]).await.unwrap(), [3]);
    let (reader, mut points) = trap.reader().await;
    assert_eq!(ids(&reader, from_the_start()).await, [3]);
    points.has_passed(FaultPoint::HorizonPassed);

    // The defect: waiting until ids are contiguous, which rolled-back ones never are.
    let mut patient = defective::WaitsForContiguity::default();
    assert!(patient.poll(&mut trap.connect().await, &trap.events).await.is_empty(), "it never goes on");
}

// Ids are missing in between, for good: rolled back.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolled_back_gaps_are_passed() {
    let trap = Trap::set().await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    trap.writer().await.draw_insert_and_roll_back(3).await;
    assert_eq!(trap.recorder.insert_events(vec![first()]).await.unwrap(), [5]);
    let (reader, mut points) = trap.reader().await;
    assert_eq!(ids(&reader, from_the_start()).await, [1, 5]);
    assert_eq!(ids(&reader, after(1)).await, [5]);
    points.has_passed(FaultPoint::HorizonPassed);

    let mut patient = defective::WaitsForContiguity::default();
    let mut connection = trap.connect().await;
    patient.poll(&mut connection, &trap.events).await;
    assert!(patient.poll(&mut connection, &trap.events).await.is_empty(), "it never goes on");
}

// A reader is paused between taking the horizon and reading again.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_after_the_horizon_are_not_skipped() {
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let (reader, mut points) = trap.holding_reader(FaultPoint::HorizonTaken).await;
    let mut page = tokio::spawn({
        let reader = reader.clone();
        async move { ids(&reader, after(0)).await }
    });
    points.passed_by(FaultPoint::HorizonTaken, &mut page).await;
    // While the reader is held: the one of the horizon commits, another draws an id and does not
    // commit, and a third one commits beyond that.
    slow.commit().await;
    let mut later = trap.writer().await;
    later.draw_and_insert(1).await;
    assert_eq!(trap.recorder.insert_events(vec![first()]).await.unwrap(), [4]);
    points.release();
    assert_eq!(page.await.unwrap(), [1, 2], "nothing beyond what was drawn at the horizon");
    let mut rest = tokio::spawn(async move { ids(&reader, after(2)).await });
    points.passed_by(FaultPoint::HorizonTaken, &mut rest).await;
    later.commit().await;
    points.release();
    assert_eq!(rest.await.unwrap(), [3, 4]);

    // The defect: no upper bound when reading again, so that ids drawn after the horizon are
    // returned above one that is still in flight.
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let mut unbounded = defective::NoUpperBound::default();
    let mut connection = trap.connect().await;
    unbounded.take_horizon(&mut connection, &trap.events).await;
    slow.commit().await;
    let mut later = trap.writer().await;
    later.draw_and_insert(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let mut seen = unbounded.read(&mut connection, &trap.events).await;
    later.commit().await;
    unbounded.take_horizon(&mut connection, &trap.events).await;
    seen.extend(unbounded.read(&mut connection, &trap.events).await);
    assert_ne!(seen, [1, 2, 3, 4], "the trap catches a reader without an upper bound");
}

// The horizon is read in the same statement, and so the same snapshot, as the rows.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_between_page_and_horizon_are_not_skipped() {
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let (reader, mut points) = trap.holding_reader(FaultPoint::GapFound).await;
    let mut page = tokio::spawn(async move { ids(&reader, after(0)).await });
    points.passed_by(FaultPoint::GapFound, &mut page).await;
    // The rows are read, the horizon is not: it will be empty.
    slow.commit().await;
    points.release();
    assert_eq!(page.await.unwrap(), [1, 2], "the page is read again after the horizon");

    // The defect: rows and horizon in one statement. Its snapshot is taken first, and the locks are
    // listed later: a writer that commits in between is in neither. An advisory lock that the statement
    // waits for stands for "in between".
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let mut gate = trap.connect().await;
    let key = Uuid::new_v4().as_u128() as i64;
    run(&mut gate, &format!("SELECT pg_advisory_lock({key})")).await;
    let (mut connection, events) = (trap.connect().await, trap.events.clone());
    let reading = tokio::spawn(async move {
        let mut hasty = defective::OneStatement::default();
        let mut seen = hasty.poll(&mut connection, &events, key).await;
        seen.extend(hasty.poll(&mut connection, &events, key).await);
        seen
    });
    let waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                   AND classid::bigint << 32 | objid::bigint = ";
    until(&mut gate, &format!("{waiting} {key})")).await;
    slow.commit().await;
    run(&mut gate, &format!("SELECT pg_advisory_unlock({key})")).await;
    assert_ne!(reading.await.unwrap(), [1, 2], "the trap catches a horizon in the rows' statement");
}

// A filter by transaction ids together with a cursor that is only a position.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_and_transactions_in_opposite_orders_are_no_trouble() {
    // A transaction that gets its transaction id early and its notification id late, and one the
    // other way round.
    async fn interleave(trap: &Trap) -> RawWriter {
        let mut early = trap.writer().await;
        early.begin_with_transaction_id().await;
        let mut late = trap.writer().await;
        late.draw_and_insert(1).await;
        early.draw_and_insert(1).await;
        early.commit().await;
        late
    }
    let trap = Trap::set().await;
    let mut late = interleave(&trap).await;
    let (reader, mut points) = trap.reader().await;
    let mut page = tokio::spawn(async move { ids(&reader, after(0)).await });
    points.passed_by(FaultPoint::WritersPending, &mut page).await;
    late.commit().await;
    assert_eq!(page.await.unwrap(), [1, 2]);

    let trap = Trap::set().await;
    let mut late = interleave(&trap).await;
    let mut filtering = defective::XminFilter::default();
    let mut connection = trap.connect().await;
    let mut seen = filtering.poll(&mut connection, &trap.events).await;
    late.commit().await;
    seen.extend(filtering.poll(&mut connection, &trap.events).await);
    assert_ne!(seen, [1, 2], "the trap catches a filter by xmin with a position for a cursor");
}

// Transactions that have nothing to do with the table.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unrelated_transactions_do_not_hold_readers_up() {
    let trap = Trap::set().await;
    trap.writer().await.draw_insert_and_roll_back(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    // A long transaction that writes another table, one that reads this one, one that holds an
    // advisory lock, and one in another schema's table of the same name.
    let mut unrelated = trap.connect().await;
    run(&mut unrelated, &format!("CREATE TABLE {} (n int)", trap.schema.table("other"))).await;
    run(&mut unrelated, &format!("BEGIN; INSERT INTO {} VALUES (1)", trap.schema.table("other"))).await;
    let mut reading = trap.connect().await;
    run(&mut reading, &format!("BEGIN ISOLATION LEVEL SERIALIZABLE; TABLE {}", trap.events)).await;
    let mut idle = trap.connect().await;
    run(&mut idle, "SELECT pg_advisory_lock(4711), pg_advisory_lock(1702062187, 1)").await;
    let elsewhere = Trap::set().await;
    let mut other_table = elsewhere.writer().await;
    other_table.draw_and_insert(1).await;
    let mut vacuuming = trap.connect().await;
    run(&mut vacuuming, &format!("BEGIN; LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE", trap.events)).await;

    let (reader, mut points) = trap.reader().await;
    let page = points.unhindered(ids(&reader, from_the_start())).await;
    assert_eq!(page, [2], "it returns although all of those are open");

    // The defect: waiting for the oldest running transaction of the whole server.
    let mut stalled = defective::OldestTransaction::default();
    let seen = stalled.poll(&mut trap.connect().await, &trap.events).await;
    assert!(seen.is_empty(), "the trap catches a reader that waits for all writers");
}

// A gap within a page that is filled while the reader waits, with a topic filter and a limit.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filtered_and_limited_pages_miss_nothing() {
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    let other = StoredEvent { topic: Topic::from_static("bank:Account.Opened"), ..event(Uuid::new_v4(), 1) };
    trap.recorder.insert_events(vec![other, first()]).await.unwrap();
    let (reader, mut points) = trap.reader().await;
    let selection = NotificationSelection::new(1).topics([Topic::from_static("bank:Account.Credited")]);
    let mut page = tokio::spawn(async move { ids(&reader, selection).await });
    points.passed_by(FaultPoint::WritersPending, &mut page).await;
    slow.commit().await;
    assert_eq!(page.await.unwrap(), [1], "the one that was in flight comes first");
}

// A reader that continues after the `stop` of a page, which was the highest id before: because it filters
// by topics, and the ids of these topics may be far below. A short page once settled its last id only: ids
// up to `stop` that were in flight were never seen.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_page_is_complete_up_to_its_stop() {
    let credited = || [Topic::from_static("bank:Account.Credited")];
    let opened =
        || StoredEvent { topic: Topic::from_static("bank:Account.Opened"), ..event(Uuid::new_v4(), 1) };
    // Pages that would look complete without a check of the ids after them: contiguous, empty, and filtered.
    let selections = [
        (after(0).stop(2), vec![1, 2]),
        (after(1).stop(2), vec![2]),
        (after(1).stop(3).topics(credited()), vec![2]),
        (after(0).stop(3).topics(credited()), vec![1, 2]),
    ];
    for (selection, expected) in selections {
        let trap = Trap::set().await;
        assert_eq!(trap.recorder.insert_events(vec![first()]).await.unwrap(), [1]);
        let mut slow = trap.writer().await;
        slow.draw_and_insert(1).await;
        assert_eq!(trap.recorder.insert_events(vec![opened()]).await.unwrap(), [3]);
        assert_eq!(trap.recorder.max_notification_id().await.unwrap(), Some(3));
        let (reader, mut points) = trap.reader().await;
        let mut page = tokio::spawn(async move { ids(&reader, selection).await });
        points.passed_by(FaultPoint::WritersPending, &mut page).await;
        slow.commit().await;
        assert_eq!(page.await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_page_has_nothing_that_was_drawn_after_the_horizon() {
    let trap = Trap::set().await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    trap.writer().await.draw_insert_and_roll_back(1).await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let (reader, mut points) = trap.holding_reader(FaultPoint::HorizonTaken).await;
    let mut page = tokio::spawn(async move { ids(&reader, after(0).stop(1_000)).await });
    points.passed_by(FaultPoint::HorizonTaken, &mut page).await;
    let mut later = trap.writer().await;
    later.draw_and_insert(1).await;
    assert_eq!(trap.recorder.insert_events(vec![first()]).await.unwrap(), [5]);
    points.release();
    assert_eq!(page.await.unwrap(), [1, 3], "4 is in flight, so that 5 is not yet to be seen");
    later.commit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_reaches_its_stop_does_not_wait() {
    let trap = Trap::set().await;
    trap.recorder.insert_events(vec![first(), first()]).await.unwrap();
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    let (reader, mut points) = trap.reader().await;
    for (selection, expected) in [
        (after(0).stop(2), vec![1, 2]),
        (after(0).stop(9), vec![1, 2]),
        (after(0), vec![1, 2]),
        (after(2).stop(2), vec![]),
        (after(2), vec![]),
    ] {
        assert_eq!(points.unhindered(ids(&reader, selection)).await, expected);
    }
    slow.commit().await;
}

// A stall is reported, and never skipped.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_beyond_the_bound_names_the_blocking_session() {
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    let pid: i32 = scalar(&mut slow.connection, "SELECT pg_backend_pid()").await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let options = trap
        .schema
        .options()
        .ordering(NotificationOrdering::Parallel)
        .fence_timeout(std::time::Duration::ZERO);
    let reader = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    let stalled = reader.select_notifications(after(0)).await.unwrap_err();
    assert_eq!(stalled.kind(), ErrorKind::Operational);
    assert!(stalled.is_transient(), "{stalled}");
    assert!(stalled.to_string().contains(&format!("process {pid}")), "{stalled}");
    assert!(stalled.to_string().contains("open for"), "{stalled}");
    slow.commit().await;
    assert_eq!(ids(&reader, after(0)).await, [1, 2], "nothing was skipped");
}

#[tokio::test]
async fn a_stall_is_reported_as_an_event() {
    let trap = Trap::set().await;
    let mut slow = trap.writer().await;
    slow.draw_and_insert(1).await;
    let pid: i32 = scalar(&mut slow.connection, "SELECT pg_backend_pid()").await;
    trap.recorder.insert_events(vec![first()]).await.unwrap();
    let warnings = Warnings::default();
    let _subscribed = tracing::subscriber::set_default(warnings.clone());
    let options = trap
        .schema
        .options()
        .ordering(NotificationOrdering::Parallel)
        .stall_warning(std::time::Duration::ZERO);
    let reader = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    let told = async {
        while warnings.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let mut page = pin!(ids(&reader, after(0)));
    tokio::select! {
        () = told => {}
        page = &mut page => panic!("the reader returned {page:?}, and told nothing"),
    }
    slow.commit().await;
    assert_eq!(page.await, [1, 2]);
    let told = warnings.0.lock().unwrap().first().cloned().unwrap();
    for expected in [format!("pid={pid}"), "age_seconds=".to_owned(), "bank_events".to_owned()] {
        assert!(told.contains(&expected), "{expected} in {told}");
    }
}

// Serialized ordering: writers exclude each other. `serialized.rs` has its own tests.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_table_lock_ids_become_visible_in_their_order() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let events = schema.table("bank_events");
    // As the Python library writes: lock, insert, commit.
    let mut python = RawWriter { connection: schema.connect().await, events: events.clone() };
    run(&mut python.connection, &format!("BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE")).await;
    let ours = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.insert_events(vec![first()]).await.unwrap() }
    });
    let mut watching = schema.connect().await;
    until(&mut watching, &waiting_for_lock(&events)).await;
    python.insert(1).await;
    assert!(ids(&recorder, from_the_start()).await.is_empty());
    python.commit().await;
    assert_eq!(ours.await.unwrap(), [2], "the id is drawn under the lock");
    assert_eq!(ids(&recorder, from_the_start()).await, [1, 2]);

    // The defect: a writer that draws its id before it takes the lock.
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let events = schema.table("bank_events");
    let mut hasty = schema.connect().await;
    let sequence = schema.table("bank_events_notification_id_seq");
    let drawn: i64 = scalar(&mut hasty, &format!("SELECT nextval('{sequence}')")).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    let mut seen = ids(&recorder, after(0)).await;
    let insert = format!(
        "BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE; \
         INSERT INTO {events} VALUES (gen_random_uuid(), 1, 'bank:Account.Opened', '{{}}', {drawn}); COMMIT"
    );
    run(&mut hasty, &insert).await;
    seen.extend(ids(&recorder, after(2)).await);
    assert_ne!(seen, [1, 2], "the trap catches an id that is drawn before the lock is taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_table_lock_our_own_writers_wait_for_each_other() {
    let schema = Schema::create().await;
    let [one, other] = [schema.open().await, schema.open().await];
    let (one, other) =
        (one.application_recorder("bank").await.unwrap(), other.application_recorder("bank").await.unwrap());
    let mut connection = schema.connect().await;
    let mut held = connection.begin().await.unwrap();
    assert_eq!(one.insert_events_in(&mut held, &[first()]).await.unwrap(), [1]);
    let waiting = tokio::spawn(async move { other.insert_events(vec![first()]).await.unwrap() });
    until(&mut schema.connect().await, &waiting_for_advisory_lock(&schema.table("bank_events"))).await;
    assert!(ids(&one, from_the_start()).await.is_empty());
    held.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap(), [2]);
    assert_eq!(ids(&one, from_the_start()).await, [1, 2]);
}

#[tokio::test]
async fn parallel_mode_needs_ids_one_by_one() {
    let schema = Schema::create().await;
    schema.open().await.application_recorder("bank").await.unwrap();
    let mut connection = schema.connect().await;
    let sequence = schema.table("bank_events_notification_id_seq");
    run(&mut connection, &format!("ALTER SEQUENCE {sequence} CACHE 10")).await;
    let datastore = schema.options().ordering(NotificationOrdering::Parallel).open().await.unwrap();
    let refused = datastore.application_recorder("bank").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotSupported);
    assert!(refused.to_string().contains("CACHE 1"), "{refused}");
    // The defect that it is refused for: ids of a session's cache come out of order.
    run(&mut connection, &format!("SELECT nextval('{sequence}')")).await;
    let mut other = schema.connect().await;
    let later: i64 = scalar(&mut other, &format!("SELECT nextval('{sequence}')")).await;
    let earlier: i64 = scalar(&mut connection, &format!("SELECT nextval('{sequence}')")).await;
    assert!(earlier < later);
}

// An aggregate recorder of the application's own events table took no lock: it had not been asked
// for notification ids, and drew them all the same.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_recorder_of_an_ordered_table_keeps_its_order() {
    for (application, purpose, table) in [("bank", "events", "bank_events"), ("", "events", "stored_events")]
    {
        let schema = Schema::create().await;
        let datastore = schema.open().await;
        let reader = datastore.application_recorder(application).await.unwrap();
        let recorder = datastore.aggregate_recorder(application, purpose).await.unwrap();
        let events = schema.table(table);
        let mut holder = schema.connect().await;
        run(&mut holder, &format!("BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE")).await;
        let insert = || {
            let recorder = recorder.clone();
            tokio::spawn(async move { recorder.insert_events(vec![first()]).await.unwrap() })
        };
        let inserts = [insert(), insert()];
        until(&mut schema.connect().await, &waiting_for_lock(&events)).await;
        run(&mut holder, "COMMIT").await;
        for insert in inserts {
            insert.await.unwrap();
        }
        assert_eq!(ids(&reader, from_the_start()).await, [1, 2]);
        // The advisory lock of an append, which the application recorder's writers wait for.
        let mut held = holder.begin().await.unwrap();
        recorder.insert_events_in(&mut held, &[first()]).await.unwrap();
        let waiting = tokio::spawn({
            let reader = reader.clone();
            async move { reader.insert_events(vec![first()]).await.unwrap() }
        });
        until(&mut schema.connect().await, &waiting_for_advisory_lock(&events)).await;
        held.commit().await.unwrap();
        assert_eq!(waiting.await.unwrap(), [4]);
    }
}

// A sequence that caches ids for its sessions gives them out of order, lock or no lock: one process
// is enough for that, since its pool has several sessions.

#[tokio::test]
async fn ids_that_sessions_cache_are_refused_under_the_table_lock_too() {
    let schema = Schema::create().await;
    schema.open().await.application_recorder("bank").await.unwrap();
    let mut connection = schema.connect().await;
    let sequence = schema.table("bank_events_notification_id_seq");
    for (flaw, cure) in [("CACHE 10", "CACHE 1"), ("CYCLE", "NO CYCLE"), ("INCREMENT -1", "INCREMENT 1")] {
        run(&mut connection, &format!("ALTER SEQUENCE {sequence} {flaw}")).await;
        let refused = schema.open().await.application_recorder("bank").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotSupported, "{flaw}");
        run(&mut connection, &format!("ALTER SEQUENCE {sequence} {cure}")).await;
    }
    schema.open().await.application_recorder("bank").await.unwrap();
    // A table made in another way, whose sequence is not the column's own, is not known to be wrong.
    run(&mut connection, &format!("ALTER SEQUENCE {sequence} OWNED BY NONE")).await;
    schema.open().await.application_recorder("bank").await.unwrap();
}

// Everything at once.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tailing_readers_see_every_event_once_among_many_writers() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let mut writers = Vec::new();
        let done = Arc::new(AtomicBool::new(false));
        // Each writer has connections of its own, as another process would.
        for _ in 0..3 {
            let options = schema.options().ordering(ordering).pool_size(2).max_overflow(2);
            let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
            for task in 0..4 {
                let recorder = recorder.clone();
                writers.push(tokio::spawn(async move {
                    let mut ids = Vec::new();
                    for batch in 0..20 {
                        let taken = recorder.insert_events(vec![first(), first()]).await.unwrap();
                        if batch % 5 == task {
                            // A conflict with itself: rolled back, and perhaps a gap.
                            let again = recorder.select_notifications(after(taken[0] - 1)).await.unwrap();
                            let twice = vec![first(), again[0].event.clone()];
                            recorder.insert_events(twice).await.unwrap_err();
                        }
                        ids.extend(taken);
                    }
                    ids
                }));
            }
        }
        let options = schema.options().ordering(ordering);
        let reader = options.open().await.unwrap().application_recorder("bank").await.unwrap();
        let tailing = tokio::spawn({
            let (reader, done) = (reader.clone(), Arc::clone(&done));
            async move {
                let mut seen: Vec<i64> = Vec::new();
                loop {
                    let finishing = done.load(Atomic::SeqCst);
                    let cursor = seen.last().copied().unwrap_or(0);
                    let page = ids(&reader, NotificationSelection::new(7).after(cursor)).await;
                    if page.is_empty() && finishing {
                        return seen;
                    }
                    seen.extend(page);
                }
            }
        });
        let mut written = Vec::new();
        for writer in writers {
            written.extend(writer.await.unwrap());
        }
        done.store(true, Atomic::SeqCst);
        written.sort_unstable();
        assert_eq!(tailing.await.unwrap(), written, "{ordering:?}");
    }
}

// ---- The means of the tests.

fn after(id: i64) -> NotificationSelection {
    NotificationSelection::new(100).after(id)
}

fn from_the_start() -> NotificationSelection {
    NotificationSelection::new(100)
}

async fn ids(recorder: &PostgresApplicationRecorder, selection: NotificationSelection) -> Vec<i64> {
    let page = recorder.select_notifications(selection).await.unwrap();
    page.into_iter().map(|notification| notification.id).collect()
}

fn waiting_for_lock(events: &str) -> String {
    format!("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted)")
}

/// Returns a query that checks whether a writer waits for the advisory lock of an append.
fn waiting_for_advisory_lock(events: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
         AND objid = '{events}'::regclass::oid)"
    )
}

/// A table of events in parallel mode.
struct Trap {
    schema: Schema,
    events: String,
    recorder: PostgresApplicationRecorder,
}

impl Trap {
    async fn set() -> Self {
        let schema = Schema::create().await;
        let options = schema.options().ordering(NotificationOrdering::Parallel).pool_size(1).max_overflow(2);
        let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
        Self { events: schema.table("bank_events"), schema, recorder }
    }

    async fn connect(&self) -> PgConnection {
        self.schema.connect().await
    }

    async fn writer(&self) -> RawWriter {
        RawWriter { connection: self.connect().await, events: self.events.clone() }
    }

    /// A reader that reports the points that it passes.
    async fn reader(&self) -> (PostgresApplicationRecorder, Points) {
        self.reader_that_stops(None).await
    }

    /// A reader that stops at a point, each time, until it is released.
    async fn holding_reader(&self, at: FaultPoint) -> (PostgresApplicationRecorder, Points) {
        self.reader_that_stops(Some(at)).await
    }

    async fn reader_that_stops(&self, at: Option<FaultPoint>) -> (PostgresApplicationRecorder, Points) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let hooks = Telling { sender, at, gate: Arc::clone(&gate) };
        let options = self.schema.options().ordering(NotificationOrdering::Parallel).hooks(hooks);
        let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
        (recorder, Points { receiver, gate })
    }
}

/// Keeps the warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Telling {
    sender: mpsc::UnboundedSender<FaultPoint>,
    at: Option<FaultPoint>,
    gate: Arc<Semaphore>,
}

impl FaultHooks for Telling {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            let _ = self.sender.send(point);
            if self.at == Some(point) {
                self.gate.acquire().await.unwrap().forget();
            }
        })
    }
}

struct Points {
    receiver: mpsc::UnboundedReceiver<FaultPoint>,
    gate: Arc<Semaphore>,
}

impl Points {
    /// Waits until the reader, whose page this is to become, passes the point. Fails when it does not.
    async fn passed_by(&mut self, point: FaultPoint, page: &mut JoinHandle<Vec<i64>>) {
        let returned = tokio::select! {
            biased;
            () = self.passed(point) => return,
            returned = page => returned,
        };
        panic!("the reader returned {returned:?} without passing {point:?}");
    }

    async fn passed(&mut self, point: FaultPoint) {
        while self.receiver.recv().await.expect("the reader is there") != point {}
    }

    /// Returns the result of a reader that must not wait for a writer. Fails if it does.
    async fn unhindered(&mut self, page: impl Future<Output = Vec<i64>>) -> Vec<i64> {
        tokio::select! {
            biased;
            () = self.passed(FaultPoint::WritersPending) => panic!("the reader waits for a writer"),
            page = page => page,
        }
    }

    /// Checks that a reader that has returned had passed the point.
    fn has_passed(&mut self, point: FaultPoint) {
        while self.receiver.try_recv().expect("the reader has not passed that point") != point {}
    }

    fn release(&self) {
        self.gate.add_permits(1);
    }
}

/// A writer without the library, held where a test wants it.
struct RawWriter {
    connection: PgConnection,
    events: String,
}

impl RawWriter {
    /// Draws ids and inserts, leaving the transaction open.
    async fn draw_and_insert(&mut self, count: i64) {
        run(&mut self.connection, "BEGIN").await;
        self.insert(count).await;
    }

    async fn begin_with_transaction_id(&mut self) {
        // A transaction that is begun within another is the same one: `draw_and_insert` may follow.
        run(&mut self.connection, "BEGIN; SELECT pg_current_xact_id()").await;
    }

    async fn insert(&mut self, count: i64) {
        let insert = format!(
            "INSERT INTO {} (originator_id, originator_version, topic, state) \
             SELECT gen_random_uuid(), 1, 'bank:Account.Credited', '{{}}' FROM generate_series(1, {count})",
            self.events
        );
        run(&mut self.connection, &insert).await;
    }

    async fn draw_insert_and_roll_back(&mut self, count: i64) {
        self.draw_and_insert(count).await;
        run(&mut self.connection, "ROLLBACK").await;
    }

    async fn commit(&mut self) {
        run(&mut self.connection, "COMMIT").await;
    }
}

/// Readers with one defect each. They move a cursor as every follower does; what they return of
/// two events is not both in order.
mod defective {
    use super::{AssertSqlSafe, PgConnection, Schema};

    async fn select(connection: &mut PgConnection, sql: String) -> Vec<i64> {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap()
    }

    fn advance(cursor: &mut i64, page: Vec<i64>) -> Vec<i64> {
        *cursor = page.last().copied().unwrap_or(*cursor);
        page
    }

    /// Reads what is visible.
    #[derive(Default)]
    pub(crate) struct Unguarded(i64);

    impl Unguarded {
        pub(crate) async fn poll(&mut self, connection: &mut PgConnection, events: &str) -> Vec<i64> {
            let sql =
                format!("SELECT notification_id FROM {events} WHERE notification_id > {} ORDER BY 1", self.0);
            advance(&mut self.0, select(connection, sql).await)
        }
    }

    /// Takes the sequence's `last_value` for the id up to which it has read.
    #[derive(Default)]
    pub(crate) struct LastValue(i64);

    impl LastValue {
        pub(crate) async fn poll(
            &mut self,
            connection: &mut PgConnection,
            schema: &Schema,
            events: &str,
        ) -> Vec<i64> {
            let sequence = schema.table("bank_events_notification_id_seq");
            let drawn = select(connection, format!("SELECT last_value FROM {sequence}")).await[0];
            let sql = format!(
                "SELECT notification_id FROM {events} \
                 WHERE notification_id > {} AND notification_id <= {drawn} ORDER BY 1",
                self.0
            );
            let page = select(connection, sql).await;
            self.0 = drawn;
            page
        }
    }

    /// Returns a page as far as no id is missing.
    #[derive(Default)]
    pub(crate) struct WaitsForContiguity(i64);

    impl WaitsForContiguity {
        pub(crate) async fn poll(&mut self, connection: &mut PgConnection, events: &str) -> Vec<i64> {
            let sql =
                format!("SELECT notification_id FROM {events} WHERE notification_id > {} ORDER BY 1", self.0);
            let page = select(connection, sql).await;
            let contiguous = page.into_iter().zip(self.0 + 1..).take_while(|(id, expected)| id == expected);
            let page = contiguous.map(|(id, _)| id).collect();
            advance(&mut self.0, page)
        }
    }

    /// Waits for the horizon, and then reads whatever is visible.
    #[derive(Default)]
    pub(crate) struct NoUpperBound(i64, Vec<String>);

    impl NoUpperBound {
        pub(crate) async fn take_horizon(&mut self, connection: &mut PgConnection, events: &str) {
            let sql = format!(
                "SELECT virtualtransaction FROM pg_locks WHERE relation = '{events}'::regclass \
                 AND mode = 'RowExclusiveLock'"
            );
            self.1 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap();
        }

        pub(crate) async fn read(&mut self, connection: &mut PgConnection, events: &str) -> Vec<i64> {
            let sql = "SELECT count(*) FROM pg_locks WHERE virtualtransaction = ANY($1)";
            while sqlx::query_scalar::<_, i64>(sql).bind(&self.1).fetch_one(&mut *connection).await.unwrap()
                > 0
            {}
            let sql =
                format!("SELECT notification_id FROM {events} WHERE notification_id > {} ORDER BY 1", self.0);
            advance(&mut self.0, select(connection, sql).await)
        }
    }

    /// Reads the rows if no transaction is writing, in one statement.
    #[derive(Default)]
    pub(crate) struct OneStatement(i64);

    impl OneStatement {
        pub(crate) async fn poll(
            &mut self,
            connection: &mut PgConnection,
            events: &str,
            gate: i64,
        ) -> Vec<i64> {
            let sql = format!(
                "WITH gate AS MATERIALIZED (SELECT pg_advisory_xact_lock({gate})), \
                 writing AS MATERIALIZED (SELECT count(*) AS writers FROM gate, pg_locks \
                 WHERE relation = '{events}'::regclass AND mode = 'RowExclusiveLock') \
                 SELECT notification_id FROM writing, {events} \
                 WHERE writers = 0 AND notification_id > {} ORDER BY 1",
                self.0
            );
            advance(&mut self.0, select(connection, sql).await)
        }
    }

    /// Reads rows of transactions below the oldest one that is running, from a position on.
    #[derive(Default)]
    pub(crate) struct XminFilter(i64);

    impl XminFilter {
        pub(crate) async fn poll(&mut self, connection: &mut PgConnection, events: &str) -> Vec<i64> {
            let sql = format!(
                "SELECT notification_id FROM {events} WHERE notification_id > {} \
                 AND xmin::text::bigint < pg_snapshot_xmin(pg_current_snapshot())::text::bigint ORDER BY 1",
                self.0
            );
            advance(&mut self.0, select(connection, sql).await)
        }
    }

    /// Reads rows of transactions that are older than every one that is running, on any table.
    #[derive(Default)]
    pub(crate) struct OldestTransaction(i64);

    impl OldestTransaction {
        pub(crate) async fn poll(&mut self, connection: &mut PgConnection, events: &str) -> Vec<i64> {
            let running = "SELECT count(*) FROM pg_stat_activity \
                           WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()";
            if select(connection, running.to_owned()).await[0] > 0 {
                return Vec::new();
            }
            let sql =
                format!("SELECT notification_id FROM {events} WHERE notification_id > {} ORDER BY 1", self.0);
            advance(&mut self.0, select(connection, sql).await)
        }
    }
}
