//! A server that is stopped, killed, restarted, full, read-only, or replaced by its standby, while
//! events are written and read: each acknowledged event is there, once, and all tasks continue without help.
//!
//! Each test has a server of its own, where PostgreSQL's programs are installed, and says so where not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use std::sync::Mutex;

use common::{
    cluster::{Cluster, Stop, kill},
    disk::SmallDisk,
    load::Load,
    prelude::*,
};

const ORDERINGS: [NotificationOrdering; 2] =
    [NotificationOrdering::Serialized, NotificationOrdering::Parallel];

/// Writers of each load, and how many acknowledged requests lie between one fault and the next.
const WRITERS: usize = 4;
const BETWEEN_FAULTS: usize = 20;

async fn open(options: PostgresOptions) -> PostgresProcessRecorder {
    options.open().await.unwrap().process_recorder("bank").await.unwrap()
}

/// A recorder for each ordering, with tables of its own.
async fn recorders(options: &PostgresOptions) -> Vec<PostgresProcessRecorder> {
    let mut recorders = Vec::new();
    for ordering in ORDERINGS {
        let datastore = options.clone().ordering(ordering).open().await.unwrap();
        recorders.push(datastore.process_recorder(&format!("{ordering:?}")).await.unwrap());
    }
    recorders
}

async fn until_more(loads: &mut [Load]) {
    for load in loads {
        load.until_more(BETWEEN_FAULTS).await;
    }
}

async fn finish(what: &str, faults: usize, loads: Vec<Load>) {
    for load in loads {
        let [acknowledged, refused, unknown] = load.finish().await;
        println!(
            "{what}: {faults} faults, {acknowledged} acknowledged, {refused} refused, {unknown} unknown"
        );
    }
}

/// Ends the sessions of recorders.
async fn terminate(connection: &mut PgConnection) -> i64 {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = 'es-postgres' AND pid <> pg_backend_pid()";
    scalar(connection, sql).await
}

// Stopped, killed, and started again, while several write and one reads.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_has_lost_nothing() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let mut loads: Vec<Load> = Vec::new();
    for recorder in recorders(&cluster.server.options()).await {
        loads.push(Load::start(&recorder, WRITERS));
    }
    let mut faults = 0;
    for _ in 0..3 {
        for stop in [Stop::Fast, Stop::Immediate, Stop::Kill] {
            until_more(&mut loads).await;
            cluster.stop(stop);
            cluster.launch();
            faults += 1;
        }
        // One process of the server is killed, whereupon all of them are begun anew.
        until_more(&mut loads).await;
        let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'es-postgres' LIMIT 1";
        let mut session = cluster.server.connect().await;
        let pid: i32 = scalar(&mut session, pid).await;
        kill("-KILL", u32::try_from(pid).unwrap());
        // Writers continue for a moment; the server has noticed when it ends the sessions of others.
        while sqlx::raw_sql("SELECT 1").execute(&mut session).await.is_ok() {}
        // Sessions are ended, all at once.
        until_more(&mut loads).await;
        terminate(&mut cluster.server.connect().await).await;
        faults += 2;
    }
    until_more(&mut loads).await;
    finish("stopped and killed", faults, loads).await;
}

// Sessions are ended at each point that a recorder passes.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_ended_at_any_step_is_made_up_for() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let writing = [FaultPoint::GroupFormed, FaultPoint::GroupAnswered, FaultPoint::OutcomeDoubtful];
    let reading = [
        FaultPoint::GapFound,
        FaultPoint::HorizonTaken,
        FaultPoint::WritersPending,
        FaultPoint::HorizonPassed,
    ];
    for (number, point) in writing.into_iter().chain(reading).enumerate() {
        let ends = Ends { server: cluster.server.clone(), points: Arc::default(), passed: Arc::default() };
        let options = cluster.server.options().ordering(NotificationOrdering::Parallel).hooks(ends.clone());
        let recorder = options.open().await.unwrap().process_recorder(&format!("n{number}")).await.unwrap();
        let events = format!("n{number}_events");
        let mut slow = cluster.server.connect().await;
        let insert = format!(
            "BEGIN; INSERT INTO {events} VALUES (gen_random_uuid(), 1, 'bank:Account.Opened', '{{}}')"
        );
        run(&mut slow, &insert).await;
        // A lost connection is what makes an outcome doubtful.
        let lost = if point == FaultPoint::OutcomeDoubtful { vec![FaultPoint::GroupFormed] } else { vec![] };
        ends.points.lock().unwrap().extend(lost.into_iter().chain([point]));
        let tracking = Tracking::new("upstream", 1).unwrap();
        let ids = recorder.insert_events_with_tracking(vec![first(), first()], tracking).await.unwrap();
        assert_eq!(ids, [2, 3], "{point:?}");
        let page = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.select_notifications(NotificationSelection::new(9)).await.unwrap() }
        });
        while !ends.passed.lock().unwrap().contains(&FaultPoint::WritersPending) {
            tokio::task::yield_now().await;
        }
        run(&mut slow, "COMMIT").await;
        assert_eq!(page.await.unwrap().len(), 3, "{point:?}");
        assert!(ends.points.lock().unwrap().is_empty(), "{point:?} was passed");
        let count = format!("SELECT count(*) FROM {events}");
        assert_eq!(scalar::<i64>(&mut slow, &count).await, 3, "{point:?}");
    }
}

/// Ends all sessions of recorders at the next of its points.
#[derive(Clone)]
struct Ends {
    server: Server,
    points: Arc<Mutex<Vec<FaultPoint>>>,
    passed: Arc<Mutex<Vec<FaultPoint>>>,
}

impl FaultHooks for Ends {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            let is_next = {
                let mut points = self.points.lock().unwrap();
                let is_next = points.first() == Some(&point);
                is_next.then(|| points.remove(0)).is_some()
            };
            if is_next {
                let mut connection = self.server.connect().await;
                terminate(&mut connection).await;
                until(
                    &mut connection,
                    "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'es-postgres')",
                )
                .await;
            }
            self.passed.lock().unwrap().push(point);
        })
    }
}

// A server that refuses connections, because all are in use.

#[tokio::test]
async fn a_server_out_of_connections_is_a_transient_error() {
    let settings = ["max_connections=6", "superuser_reserved_connections=1", "max_wal_senders=0"];
    let Some(cluster) = Cluster::start(&settings) else { return };
    let options = || cluster.server.options().connect_timeout(Duration::from_millis(200));
    let late = open(options()).await;
    terminate(&mut cluster.server.connect().await).await;
    let connected = open(options()).await;
    connected.insert_events(vec![first()]).await.unwrap();
    let mut others = Vec::new();
    while let Ok(connection) = cluster.server.try_connect().await {
        others.push(connection);
    }
    for refused in [
        late.max_notification_id().await.unwrap_err(),
        late.insert_events(vec![first()]).await.unwrap_err(),
        options().open().await.unwrap_err(),
    ] {
        assert_eq!((refused.kind(), refused.is_transient()), (ErrorKind::Operational, true), "{refused:?}");
    }
    assert_eq!(connected.insert_events(vec![first()]).await.unwrap(), [2], "who is in goes on");
    // One that cannot be asked about is not lost: the server says itself that it lives.
    let patient = options().response_timeout(Duration::from_millis(1));
    drop(others.pop());
    let patient = loop {
        if let Ok(datastore) = patient.clone().open().await {
            break datastore.process_recorder("bank").await.unwrap();
        }
    };
    let mut holder = others.pop().unwrap();
    run(&mut holder, "BEGIN; LOCK TABLE bank_events IN EXCLUSIVE MODE").await;
    let waiting = tokio::spawn(async move { patient.insert_events(vec![first()]).await });
    until(&mut holder, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)").await;
    until(&mut holder, "SELECT clock_timestamp() - xact_start > interval '100 ms' FROM pg_stat_activity WHERE pid = pg_backend_pid()").await;
    run(&mut holder, "COMMIT").await;
    assert_eq!(waiting.await.unwrap().unwrap(), [3]);
    drop(others);
    let again = || late.insert_events(vec![first()]);
    let ids = loop {
        // The server notices one by one that they have gone.
        match again().await {
            Ok(ids) => break ids,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    };
    assert_eq!(ids, [4]);
}

// A server that does not accept writes for a while.

#[tokio::test]
async fn a_server_that_is_read_only_for_a_while_is_a_transient_error() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let recorder = open(cluster.server.options()).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    let mut connection = cluster.server.connect().await;
    for (read_only, is_on) in [("on", true), ("off", false)] {
        run(&mut connection, &format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}")).await;
        run(&mut connection, "SELECT pg_reload_conf()").await;
        // Sessions take it in with their next statement, this one too.
        let taken_in = format!("SELECT current_setting('default_transaction_read_only') = '{read_only}'");
        until(&mut cluster.server.connect().await, &taken_in).await;
        until(&mut connection, &taken_in).await;
        if is_on {
            let refused = loop {
                match recorder.insert_events(vec![first()]).await {
                    Ok(_) => {}
                    Err(refused) => break refused,
                }
            };
            assert_eq!(
                (refused.kind(), refused.is_transient()),
                (ErrorKind::Operational, true),
                "{refused:?}"
            );
            assert!(recorder.max_notification_id().await.unwrap().is_some(), "it may be read");
            run(&mut connection, "SET transaction_read_only = off; SET default_transaction_read_only = off")
                .await;
        }
    }
    let ids = loop {
        match recorder.insert_events(vec![first()]).await {
            Ok(ids) => break ids,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    };
    assert_eq!(recorder.max_notification_id().await.unwrap(), Some(ids[0]));
}

// A disk that is full.

#[tokio::test]
async fn a_full_disk_is_reported_and_loses_nothing() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let Some(disk) = SmallDisk::mount(&cluster.directory("disk"), 8) else { return };
    cluster.own(&disk.0);
    let mut connection = cluster.server.connect().await;
    run(&mut connection, &format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display())).await;
    run(&mut connection, "CREATE TABLE filler (bytes bytea) TABLESPACE small").await;
    run(&mut connection, "ALTER TABLE filler ALTER bytes SET STORAGE EXTERNAL").await;
    let filler = "INSERT INTO filler SELECT repeat('x', 1000000)::bytea FROM generate_series(1, 4)";
    run(&mut connection, filler).await;
    let recorders = recorders(&cluster.server.options()).await;
    let room = ["DROP TABLE filler", "DROP TABLE serialized_events"];
    for ((recorder, table), room) in
        recorders.into_iter().zip(["serialized_events", "parallel_events"]).zip(room)
    {
        run(&mut connection, &format!("ALTER TABLE {table} SET TABLESPACE small")).await;
        let mut recorded = 0;
        let full = loop {
            // It does not compress.
            let state: Vec<u8> = (0..8_000).flat_map(|_| *Uuid::new_v4().as_bytes()).collect();
            let large = StoredEvent { state: Bytes::from(state), ..first() };
            match recorder.insert_events(vec![large]).await {
                Ok(_) => recorded += 1,
                Err(full) => break full,
            }
        };
        assert_eq!((full.kind(), full.is_transient()), (ErrorKind::Operational, false), "{full:?}");
        let all = || recorder.select_notifications(NotificationSelection::new(1_000));
        assert_eq!(all().await.unwrap().len(), recorded, "what was acknowledged is there, and nothing else");
        // Space is freed, and all tasks continue.
        run(&mut connection, room).await;
        run(&mut connection, "CHECKPOINT").await;
        recorder.insert_events(vec![first()]).await.unwrap();
        assert_eq!(all().await.unwrap().len(), recorded + 1);
    }
}

// The disk of the write-ahead log is full: the server breaks down, maybe in the midst of a commit, and cannot
// begin anew before room is made.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_write_ahead_log_is_made_up_for() {
    // Nothing is removed from the log: it may grow beyond the disk.
    let Some(mut cluster) = Cluster::start(&["max_wal_size=1GB", "checkpoint_timeout=1h"]) else { return };
    let Some(disk) = SmallDisk::mount(&cluster.directory("wal"), 40) else { return };
    cluster.stop(Stop::Fast);
    cluster.move_log(&disk.0);
    cluster.launch();
    let mut loads: Vec<Load> = Vec::new();
    for recorder in recorders(&cluster.server.options()).await {
        loads.push(Load::start(&recorder, WRITERS));
    }
    let fill = "CREATE TABLE IF NOT EXISTS filler (bytes bytea); ALTER TABLE filler ALTER bytes SET STORAGE EXTERNAL; \
                INSERT INTO filler VALUES (repeat('x', 300000)::bytea)";
    for round in 1..=3 {
        until_more(&mut loads).await;
        let breakdowns = cluster.panics();
        while cluster.panics() == breakdowns {
            if let Ok(mut session) = cluster.server.try_connect().await {
                // It breaks down with one of these, or with what the recorders write.
                while sqlx::raw_sql(fill).execute(&mut session).await.is_ok() {}
            }
        }
        disk.resize(40 + 40 * round);
        cluster.stop(Stop::Immediate);
        cluster.launch();
    }
    until_more(&mut loads).await;
    finish("a full write-ahead log", cluster.panics(), loads).await;
}

// The primary is killed, and its synchronous standby takes over.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_takes_over_has_all_that_was_acknowledged() {
    for stop in [Stop::Crash, Stop::Fast] {
        fail_over(stop).await;
    }
}

async fn fail_over(stop: Stop) {
    let Some(mut primary) = Cluster::start(&[]) else { return };
    let standby = primary.start_standby().await;
    let mut connection = primary.server.connect().await;
    run(&mut connection, "ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
    run(&mut connection, "SELECT pg_reload_conf()").await;
    until(&mut connection, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").await;
    let servers = [&primary, &standby].map(|cluster| (cluster.server.host.clone(), cluster.server.port));
    let options = primary.server.options().hosts(servers);
    let mut loads: Vec<Load> = Vec::new();
    for recorder in recorders(&options).await {
        loads.push(Load::start(&recorder, WRITERS));
    }
    until_more(&mut loads).await;
    primary.stop(stop);
    let mut promoting = standby.server.connect().await;
    assert!(scalar::<bool>(&mut promoting, "SELECT pg_promote()").await);
    until_more(&mut loads).await;
    finish(&format!("failover after {stop:?}"), 1, loads).await;
}
