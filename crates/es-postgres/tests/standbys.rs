//! Notifications are read from standbys that lag, are ahead, are promoted, hang, end and come back: no event
//! is missed, read twice, or read that is not recorded.
//!
//! Each test has servers of its own, where PostgreSQL's programs are installed, and says so where not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use common::{
    cluster::{Cluster, Stop},
    pooler::{Pooler, Program},
    prelude::*,
};
use es_conformance::{Fixture, process_rules};

/// Longer than any test takes: a test that waits for it fails.
const NEVER: Duration = Duration::from_secs(3_600);

/// True for a session that has read notifications as a standby does.
const READS: &str = "application_name = 'es-postgres' AND query LIKE '%pg_is_in_recovery() FROM (SELECT)%'";

/// A primary and its standby.
async fn pair(settings: &[&str]) -> Option<(Cluster, Cluster)> {
    let primary = Cluster::start(settings)?;
    let standby = primary.start_standby().await;
    Some((primary, standby))
}

fn host(cluster: &Cluster) -> (String, u16) {
    (cluster.server.host.clone(), cluster.server.port)
}

async fn open(options: PostgresOptions) -> PostgresProcessRecorder {
    options.open().await.unwrap().process_recorder("bank").await.unwrap()
}

/// A recorder that writes to a primary and reads from it.
async fn writer(primary: &Cluster) -> PostgresProcessRecorder {
    open(primary.server.options()).await
}

async fn ids<R: ApplicationRecorder>(recorder: &R, after: i64) -> Vec<i64> {
    let page = recorder.select_notifications(NotificationSelection::new(10_000).after(after)).await.unwrap();
    page.iter().map(|read| read.id).collect()
}

/// Reads until a query of the standby is true: it is used again some time after a failure.
async fn read_until<R: ApplicationRecorder>(recorder: &R, standby: &Cluster, query: &str) {
    let mut connection = standby.server.connect().await;
    for _ in 0..3_000 {
        ids(recorder, 0).await;
        if scalar::<bool>(&mut connection, query).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the standby is not read from");
}

async fn replay(connection: &mut PgConnection, function: &str) {
    run(connection, &format!("SELECT pg_wal_replay_{function}()")).await;
    let state = if function == "pause" { "paused" } else { "not paused" };
    until(connection, &format!("SELECT pg_get_wal_replay_pause_state() = '{state}'")).await;
}

/// Notifies of each read that finds a standby behind.
struct Behind(mpsc::UnboundedSender<()>);

impl FaultHooks for Behind {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        if point == FaultPoint::StandbyBehind {
            let _ = self.0.send(());
        }
        Box::pin(async {})
    }
}

// A standby that lags.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lags_is_waited_for() {
    let Some((primary, standby)) = pair(&[]).await else { return };
    let mut lagging = standby.server.connect().await;
    let (sender, mut behind) = mpsc::unbounded_channel();
    let options = primary.server.options().read_hosts([host(&standby)]).standby_wait(NEVER);
    let recorder = open(options.clone().hooks(Behind(sender))).await;
    let mut subscription = recorder.subscribe(0, []).poll_interval(NEVER);
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [1]);
    assert_eq!(subscription.next_page().await.unwrap().unwrap().position, 1);
    assert!(
        scalar::<bool>(&mut lagging, &format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {READS})"))
            .await
    );

    // The subscription is woken by the commit, and waits for it to be replayed.
    replay(&mut lagging, "pause").await;
    let event = first();
    assert_eq!(recorder.insert_events(vec![event.clone()]).await.unwrap(), [2]);
    let page = tokio::spawn(async move {
        let page = subscription.next_page().await.unwrap().unwrap();
        (page.position, subscription)
    });
    while behind.try_recv().is_ok() {}
    behind.recv().await.unwrap();
    behind.recv().await.unwrap();
    // Loads and positions are those of the primary.
    let range = EventRange::all();
    assert_eq!(recorder.select_events(event.originator_id, range).await.unwrap(), [event]);
    recorder.insert_tracking(Tracking::new("upstream", 7).unwrap()).await.unwrap();
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7));
    assert_eq!(recorder.max_notification_id().await.unwrap(), Some(2));
    replay(&mut lagging, "resume").await;
    let (position, subscription) = page.await.unwrap();
    assert_eq!((position, subscription.position()), (2, 2));

    // Another process sees an earlier state, unless it waits, or knows of a later one.
    let other = open(options.clone()).await;
    replay(&mut lagging, "pause").await;
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [3]);
    assert_eq!(ids(&other, 0).await, [1, 2]);
    // A position that the standby does not have is not one that the log has lost.
    let mut ahead = other.subscribe(3, []).poll_interval(Duration::from_millis(1));
    let topics = open(options.clone()).await.subscribe(0, [first().topic]).into_stream();
    let all = tokio::spawn(async move {
        let mut topics = std::pin::pin!(topics);
        let mut read = Vec::new();
        while read.len() < 3 {
            read.push(futures_util::StreamExt::next(&mut topics).await.unwrap().unwrap().id);
        }
        read
    });
    let waiting = tokio::spawn({
        let other = other.clone();
        async move {
            other.wait_for_notification(3, NEVER).await.unwrap();
            ids(&other, 0).await
        }
    });
    let mut ahead = tokio::spawn(async move { ahead.next_page().await });
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut ahead).await.is_err());
    replay(&mut lagging, "resume").await;
    assert_eq!(waiting.await.unwrap(), [1, 2, 3]);
    assert_eq!(all.await.unwrap(), [1, 2, 3]);
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [4]);
    assert_eq!(ahead.await.unwrap().unwrap().unwrap().position, 4);

    // The primary answers after the wait.
    let hasty = open(options.clone().standby_wait(Duration::from_millis(20))).await;
    replay(&mut lagging, "pause").await;
    for id in [5, 6] {
        assert_eq!(hasty.insert_events(vec![first()]).await.unwrap(), [id]);
        assert_eq!(ids(&hasty, 4).await.last(), Some(&id));
    }
    assert_eq!(ids(&open(options).await, 4).await, [0_i64; 0]);
    let missing = hasty.wait_for_notification(7, Duration::ZERO).await.unwrap_err();
    assert_eq!((missing.kind(), missing.is_transient()), (ErrorKind::TimedOut, true), "{missing:?}");
    replay(&mut lagging, "resume").await;
}

// Standbys that replay while several write, one after the other paused: a reader moves between them and the
// primary.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_on_standbys_receive_each_event_once() {
    const EVENTS: usize = 600;
    let Some((primary, standby)) = pair(&[]).await else { return };
    let second = primary.start_standby().await;
    let options = primary.server.options().read_hosts([host(&standby), host(&second)]);
    let options = options.standby_wait(Duration::from_millis(10)).poll_interval(Duration::from_millis(5));
    let recorder = open(options.clone()).await;
    let followers: Vec<_> = [
        (recorder.clone(), vec![]),
        (recorder.clone(), vec![first().topic]),
        (open(options.clone()).await, vec![]),
        (open(options).await, vec![first().topic]),
    ]
    .into_iter()
    .map(|(recorder, topics)| {
        let mut subscription = recorder.subscribe(0, topics);
        tokio::spawn(async move {
            let mut read: Vec<i64> = Vec::new();
            while read.len() < EVENTS {
                let page = subscription.next_page().await.unwrap().unwrap();
                read.extend(page.notifications.iter().map(|read| read.id));
            }
            read
        })
    })
    .collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let pausing = tokio::spawn({
        let (is_over, servers) = (Arc::clone(&is_over), [standby.server.clone(), second.server.clone()]);
        async move {
            while !is_over.load(Atomic::SeqCst) {
                for server in &servers {
                    let mut connection = server.connect().await;
                    replay(&mut connection, "pause").await;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    replay(&mut connection, "resume").await;
                }
            }
        }
    });
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                for _ in 0..EVENTS / 4 {
                    recorder.insert_events(vec![first()]).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let log = ids(&writer(&primary).await, 0).await;
    assert_eq!(log.len(), EVENTS);
    for follower in followers {
        assert_eq!(follower.await.unwrap(), log);
    }
    is_over.store(true, Atomic::SeqCst);
    pausing.await.unwrap();

    // The defect: a writer that takes no lock, whose id becomes visible late.
    let mut subscription = recorder.subscribe(*log.last().unwrap(), []).poll_interval(NEVER);
    let mut unlocked = primary.server.connect().await;
    let insert = "INSERT INTO bank_events VALUES (gen_random_uuid(), 1, 'bank:Account.Credited', '{}')";
    run(&mut unlocked, &format!("BEGIN; {insert}")).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    let mut read = log.clone();
    for round in 0..2 {
        let page = subscription.next_page().await.unwrap().unwrap();
        read.extend(page.notifications.iter().map(|read| read.id));
        if round == 0 {
            run(&mut unlocked, "COMMIT").await;
            recorder.insert_events(vec![first()]).await.unwrap();
        }
    }
    assert_ne!(read, ids(&recorder, 0).await, "the test notices a writer without a lock");
}

// A commit is replayed before it is visible on the primary, which waits for another standby. If the primary
// fails then, the server that takes its place does not have the event.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_only_a_standby_has_is_not_read() {
    let Some((mut primary, standby)) = pair(&["synchronous_standby_names=successor"]).await else { return };
    let mut connection = primary.server.connect().await;
    run(&mut connection, "SET synchronous_commit = local").await;
    run(&mut connection, "ALTER ROLE postgres SET synchronous_commit = local").await;
    assert_eq!(writer(&primary).await.insert_events(vec![first()]).await.unwrap(), [1]);
    let mut successor = primary.start_standby().await;
    until(&mut successor.server.connect().await, "SELECT count(*) = 1 FROM bank_events").await;
    successor.stop(Stop::Fast);
    // Of the primary only: from now on, commits wait for a standby of that name, which does not exist.
    run(&mut connection, "ALTER ROLE postgres RESET synchronous_commit").await;
    let writing = writer(&primary).await;
    let lost = tokio::spawn(async move { writing.insert_events(vec![first()]).await });
    until(&mut standby.server.connect().await, "SELECT count(*) = 2 FROM bank_events").await;

    let options = primary.server.options().hosts([host(&primary), host(&successor)]);
    let reader = open(options.clone().read_hosts([host(&standby)])).await;
    let one = NotificationSelection::new(1).after(1);
    assert_eq!(ids(&reader, 0).await, [1]);
    assert_eq!(reader.select_notifications(one.clone()).await.unwrap(), []);
    let mut subscription = reader.subscribe(1, []);

    primary.stop(Stop::Crash);
    lost.abort();
    successor.launch();
    let mut promoted = successor.server.connect().await;
    assert!(scalar::<bool>(&mut promoted, "SELECT pg_promote()").await);
    // It would skip the ids that the sequence has reserved.
    run(&mut promoted, "SELECT setval(pg_get_serial_sequence('bank_events', 'notification_id'), 1)").await;
    let other = first();
    let writing = open(options).await;
    assert_eq!(writing.insert_events(vec![other.clone()]).await.unwrap(), [2]);
    let page = subscription.next_page().await.unwrap().unwrap();
    assert_eq!(page.notifications, [Notification { id: 2, event: other.clone() }]);
    // The page of the standby is full.
    let page = reader.select_notifications(one).await.unwrap();
    assert_eq!(page, [Notification { id: 2, event: other }]);
}

// A standby that is promoted: by mistake, while there is a primary, and in its place.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_promoted_is_no_longer_read_as_a_standby() {
    let Some((primary, standby)) = pair(&[]).await else { return };
    let recorder = open(primary.server.options().read_hosts([host(&standby)])).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    assert_eq!(ids(&recorder, 0).await, [1]);
    let mut promoted = standby.server.connect().await;
    assert!(scalar::<bool>(&mut promoted, "SELECT pg_promote()").await);
    let insert = "INSERT INTO bank_events SELECT gen_random_uuid(), 1, 'bank:Account.Credited', '{}', id \
                  FROM generate_series(2, 9) AS id";
    run(&mut promoted, insert).await;
    let event = first();
    assert_eq!(ids(&recorder, 1).await, [0_i64; 0]);
    assert_eq!(recorder.insert_events(vec![event.clone()]).await.unwrap(), [2]);
    let page = recorder.select_notifications(NotificationSelection::new(1).after(1)).await.unwrap();
    assert_eq!(page, [Notification { id: 2, event }]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_a_failover_to_its_standby() {
    let Some((mut primary, standby)) = pair(&[]).await else { return };
    let servers = || [host(&primary), host(&standby)];
    let options = primary.server.options().hosts(servers()).read_hosts(servers());
    let recorder = open(options.connect_timeout(Duration::from_secs(60))).await;
    let mut subscription = recorder.subscribe(0, []);
    let before = recorder.insert_events(vec![first()]).await.unwrap();
    assert_eq!(subscription.next_page().await.unwrap().unwrap().position, before[0]);
    let mut promoting = standby.server.connect().await;
    until(&mut promoting, "SELECT count(*) = 1 FROM bank_events").await;
    primary.stop(Stop::Crash);
    assert!(scalar::<bool>(&mut promoting, "SELECT pg_promote()").await);
    let after = recorder.insert_events(vec![first()]).await.unwrap();
    assert_eq!(subscription.next_page().await.unwrap().unwrap().position, after[0]);
}

// A standby that hangs, ends, and comes back.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_is_read_while_a_standby_is_cut_off() {
    let Some((primary, mut standby)) = pair(&[]).await else { return };
    let options = primary.server.options().read_hosts([host(&standby)]);
    let recorder = open(options.response_timeout(Duration::from_millis(300))).await;
    let mut subscription = recorder.subscribe(0, []).poll_interval(NEVER);
    let reads = format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {READS})");
    recorder.insert_events(vec![first()]).await.unwrap();
    assert_eq!(subscription.next_page().await.unwrap().unwrap().position, 1);
    read_until(&recorder, &standby, &reads).await;

    standby.freeze();
    recorder.insert_events(vec![first()]).await.unwrap();
    assert_eq!(subscription.next_page().await.unwrap().unwrap().position, 2);
    standby.thaw();
    // The session of before ends, since its client has closed it.
    until(&mut standby.server.connect().await, &reads.replace("EXISTS", "NOT EXISTS")).await;
    read_until(&recorder, &standby, &reads).await;

    for stop in [Stop::Crash, Stop::Fast] {
        standby.stop(stop);
        let id = recorder.insert_events(vec![first()]).await.unwrap()[0];
        assert_eq!(subscription.next_page().await.unwrap().unwrap().position, id);
        let opened = open(primary.server.options().read_hosts([host(&standby)])).await;
        assert_eq!(ids(&opened, 0).await.last(), Some(&id));
        standby.launch();
        read_until(&recorder, &standby, &reads).await;
    }
}

// A query of a standby is cancelled, as by a conflict with what it replays.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_a_standby_cancels_is_made_again() {
    let Some((primary, standby)) = pair(&[]).await else { return };
    let recorder = open(primary.server.options().read_hosts([host(&standby)]).standby_wait(NEVER)).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    assert_eq!(ids(&recorder, 0).await, [1]);
    let mut locking = primary.server.connect().await;
    run(&mut locking, "BEGIN; LOCK TABLE bank_events IN ACCESS EXCLUSIVE MODE").await;
    // A commit flushes the record of the lock.
    run(&mut primary.server.connect().await, "CREATE TABLE other (number int)").await;
    let mut replaying = standby.server.connect().await;
    until(&mut replaying, "SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'bank_events'::regclass)").await;
    let reading = tokio::spawn(async move { ids(&recorder, 0).await });
    let waits = format!("FROM pg_stat_activity WHERE {READS} AND wait_event_type = 'Lock'");
    for _ in 0..2 {
        until(&mut replaying, &format!("SELECT EXISTS (SELECT {waits})")).await;
        let pid: i32 = scalar(&mut replaying, &format!("SELECT pid {waits}")).await;
        run(&mut replaying, &format!("SELECT pg_cancel_backend({pid})")).await;
        until(&mut replaying, &format!("SELECT NOT EXISTS (SELECT {waits} AND pid = {pid})")).await;
    }
    run(&mut locking, "COMMIT").await;
    assert_eq!(reading.await.unwrap(), [1]);
}

// Poolers in front of both.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_behind_a_pooler_is_read() {
    let Some((primary, standby)) = pair(&[]).await else { return };
    let reads = format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {READS})");
    for program in Program::all() {
        let pooler = Pooler::start(&program, &primary.server, "").await;
        let read_pooler = Pooler::start(&program, &standby.server, "").await;
        let server = pooler.server(&primary.server);
        let options = server.options().transaction_pooler(true);
        let recorder = open(options.read_hosts([("127.0.0.1", read_pooler.port)])).await;
        let id = recorder.insert_events(vec![first()]).await.unwrap()[0];
        assert_eq!(ids(&recorder, 0).await.last(), Some(&id));
        let queries = reads.replace(READS, "backend_type = 'client backend' AND query LIKE 'COMMIT%'");
        assert!(scalar::<bool>(&mut standby.server.connect().await, &queries).await);
    }
}

#[tokio::test]
async fn parallel_ordering_is_refused() {
    let options = PostgresOptions::new("events").read_hosts([("127.0.0.1", 1)]);
    let refused = options.ordering(NotificationOrdering::Parallel).open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Programming);
    assert!(refused.to_string().contains("POSTGRES_READ_HOST"), "{refused}");
}

/// A schema for each rule, on servers that are shared by all rules. Other recorders read what was
/// acknowledged, since a commit waits until the standby has replayed it (`remote_apply`).
struct OnStandby {
    schema: Schema,
    read_host: (String, u16),
}

impl Fixture for OnStandby {
    type Recorder = PostgresProcessRecorder;

    async fn open(&self) -> PostgresProcessRecorder {
        let [recorder, _] = self.open_two().await;
        recorder
    }

    async fn open_two(&self) -> [PostgresProcessRecorder; 2] {
        let options = self.schema.options().read_hosts([self.read_host.clone()]);
        let datastore = options.pool_size(2).max_overflow(2).open().await.unwrap();
        [datastore.process_recorder("bank").await.unwrap(), datastore.process_recorder("bank").await.unwrap()]
    }
}

#[test]
fn rules_of_notifications_hold_on_a_standby() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let settings = ["synchronous_commit=remote_apply", "max_connections=300"];
    let Some((primary, standby)) = runtime.block_on(pair(&settings)) else { return };
    runtime.block_on(async {
        let mut connection = primary.server.connect().await;
        run(&mut connection, "ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
        run(&mut connection, "SELECT pg_reload_conf()").await;
        until(&mut connection, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')")
            .await;
    });
    let rules: Vec<_> = process_rules::<OnStandby>()
        .into_iter()
        .filter(|rule| {
            ["application", "notification_streams", "subscriptions", "commit_signal"]
                .contains(&rule.name.split("::").next().unwrap())
        })
        .collect();
    assert!(rules.len() > 40, "{}", rules.len());
    let fixture = async || {
        let name = format!("test_{}", Uuid::new_v4().simple());
        run(&mut primary.server.connect().await, &format!("CREATE SCHEMA {name}")).await;
        OnStandby { schema: Schema { server: primary.server.clone(), name }, read_host: host(&standby) }
    };
    let rules = std::sync::Mutex::new(rules);
    let next = || rules.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(rule) = next() {
                    println!("{}", rule.name);
                    es_conformance::run(fixture, async |fixture| (rule.check)(fixture).await);
                }
            });
        }
    });
    // Not all of it was read from the primary.
    let many = "SELECT xact_commit > 1000 FROM pg_stat_database WHERE datname = 'postgres'";
    runtime.block_on(async { until(&mut standby.server.connect().await, many).await });
}
