//! Behind pgbouncer in transaction mode, where each transaction may get another session.
//!
//! Runs with each pgbouncer that is installed (`apt-get install pgbouncer`) or that `cargo xtask test`
//! provides, and reports those that are missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use std::{collections::BTreeMap, num::NonZeroUsize};

use common::{
    pooler::{POOL_SIZE, Pooler, Program},
    prelude::*,
};
use es_core::{
    Bytes, EventKey, SegmentChange, SegmentRecorder, SegmentRecorderExt, StateMaintenance, StateReplacement,
    StoredEvent,
};
use es_personal::{Erasure, KeyReplacement, KeyStore, PostgresKeyStore, Subject, WrappedKey};
use es_process::{HandlerConsumer, PartitionedProcessor};
use sqlx::{
    Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorders_work_behind_pgbouncer_in_transaction_mode() {
    for program in Program::all() {
        let schema = Schema::create().await;
        let pooler = Pooler::start(&program, &schema.server, "").await;
        for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
            let options = through(&pooler, &schema).ordering(ordering);
            let options = options
                .lock_timeout(Duration::from_secs(10))
                .idle_in_transaction_session_timeout(Duration::from_secs(10));
            use_heavily(options, &format!("{ordering:?}")).await;
        }
    }
}

// Another client of the pooler would see any setting that this library changes in a session.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_state_leaks_to_other_clients() {
    for program in Program::all() {
        let schema = Schema::create().await;
        let [used, fresh] = [
            Pooler::start(&program, &schema.server, "").await,
            Pooler::start(&program, &schema.server, "").await,
        ];
        for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
            for notify in [false, true] {
                let options = through(&used, &schema).ordering(ordering).notify(notify);
                use_heavily(options, &format!("{ordering:?}{notify}")).await;
            }
        }
        let expected = sessions(&fresh.server(&schema.server)).await.remove(0);
        for state in sessions(&used.server(&schema.server)).await {
            assert_eq!(state, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_replaced_behind_pgbouncer_in_transaction_mode() {
    const EVENTS: i64 = 300;
    for program in Program::all() {
        let schema = Schema::create().await;
        let pooler = Pooler::start(&program, &schema.server, "").await;
        let datastore = through(&pooler, &schema).open().await.unwrap();
        let recorder = datastore.application_recorder("replacing").await.unwrap();
        let id = Uuid::new_v4();
        recorder.insert_events((1..=EVENTS).map(|version| event(id, version)).collect()).await.unwrap();
        // Each state is replaced by one of them.
        let replaced = tokio::join!(replace(&recorder), replace(&recorder), replace(&recorder));
        assert_eq!(replaced.0 + replaced.1 + replaced.2, EVENTS as usize);
        let events = recorder.select_events(id, EventRange::all()).await.unwrap();
        assert!(events.len() == EVENTS as usize && events.iter().all(|event| *event.state == *b"new"));
    }
}

/// Replaces all states, in pages; returns the number of those that were replaced.
async fn replace(recorder: &impl StateMaintenance) -> usize {
    let (mut replaced, mut after): (usize, Option<EventKey>) = (0, None);
    loop {
        let events = recorder.select_by_key(after, 20).await.unwrap();
        let Some(last) = events.last().map(StoredEvent::key) else { return replaced };
        after = Some(last);
        let old = events.into_iter().filter(|event| *event.state != *b"new");
        let replacement = |event: StoredEvent| StateReplacement {
            key: event.key(),
            current: event.state,
            replacement: Bytes::from_static(b"new"),
        };
        replaced += recorder.replace_states(old.map(replacement).collect()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_store_works_behind_pgbouncer_in_transaction_mode() {
    const SUBJECTS: usize = 40;
    for program in Program::all() {
        let mut server = Server::from_environment();
        let mut admin = server.connect().await;
        server.dbname = format!("test_{}", Uuid::new_v4().simple());
        run(&mut admin, &format!("CREATE DATABASE {}", server.dbname)).await;
        let pooler = Pooler::start(&program, &server, "").await;
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(pooler.port)
            .database(&server.dbname)
            .username(&server.user)
            .password(&server.password)
            .extra_float_digits(None);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(options.clone());
            tasks.spawn(async move {
                use_key_store(&PostgresKeyStore::open(pool).await.unwrap(), SUBJECTS).await;
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        drop(pooler);
        run(&mut admin, &format!("DROP DATABASE {} WITH (FORCE)", server.dbname)).await;
    }
}

/// Creates, reads, replaces and erases keys, as other tasks do with the same ones.
async fn use_key_store(store: &PostgresKeyStore, subjects: usize) {
    let key = |number: usize, key: &'static [u8]| {
        let subject = Subject::new(format!("subject-{number:03}")).unwrap();
        WrappedKey { subject, key: Bytes::from_static(key) }
    };
    for page in (0..subjects).collect::<Vec<_>>().chunks(10) {
        let keys: Vec<_> = page.iter().map(|number| key(*number, b"first")).collect();
        let subjects: Vec<_> = keys.iter().map(|key| key.subject.clone()).collect();
        store.insert(keys.clone()).await.unwrap();
        assert_eq!(store.select(&subjects).await.unwrap().len(), 10);
        let replacements = keys.into_iter().zip(page).map(|(current, number)| {
            let replacement = key(*number, b"second");
            KeyReplacement { current, replacement }
        });
        store.replace_keys(replacements.collect()).await.unwrap();
        store.erase(Erasure::now(subjects[0].clone(), "test")).await.unwrap();
    }
    let keys = store.select_keys(None, 1_000).await.unwrap();
    assert!(keys.len() == subjects - subjects / 10 && keys.iter().all(|key| *key.key == *b"second"));
    let erasures = store.select_erasures(None, 1_000).await.unwrap();
    assert_eq!(erasures.len(), subjects / 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_segments_behind_pgbouncer_in_transaction_mode() {
    const NAME: &str = "audit";
    for program in Program::all() {
        let schema = Schema::create().await;
        let pooler = Pooler::start(&program, &schema.server, "").await;
        for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
            let options =
                || through(&pooler, &schema).ordering(ordering).poll_interval(Duration::from_millis(50));
            let prefix = format!("{ordering:?}").to_lowercase();
            let log = options().open().await.unwrap().application_recorder(&prefix).await.unwrap();
            let mut running = Vec::new();
            for _ in 0..2 {
                let recorder = options().open().await.unwrap();
                let recorder = recorder.process_recorder(&format!("{prefix}_effects")).await.unwrap();
                let consumers = recorder.clone();
                let worker = PartitionedProcessor::new(NAME, log.clone(), recorder, move |_| {
                    let consumer = HandlerConsumer::new(consumers.clone(), effect);
                    async move { Ok(consumer) }
                });
                // Short: segments go from worker to worker.
                let worker = worker.segments(6.try_into().unwrap()).lease(Duration::from_millis(300));
                running.push(worker.spawn().unwrap());
            }
            let effects = options().open().await.unwrap();
            let effects = effects.process_recorder(&format!("{prefix}_effects")).await.unwrap();
            let ids: Vec<_> = (0..10).map(|_| Uuid::new_v4()).collect();
            let mut end = 0;
            for version in 1..=10 {
                let events = ids.iter().map(|id| event(*id, version)).collect();
                end = log.insert_events(events).await.unwrap().into_iter().max().unwrap();
                let segments = effects.segments(NAME).await.unwrap().segments;
                if let Some(segment) = segments.get(usize::try_from(version).unwrap() % 6) {
                    let first_hash = segment.first_hash;
                    let changed = effects.change_segments(NAME, SegmentChange::Split { first_hash }).await;
                    // Its position may just be recorded.
                    assert!(changed.map_or_else(|error| error.is_transient(), |_| true));
                }
            }
            effects.wait_for_segments(NAME, end, Duration::from_secs(60)).await.unwrap();
            for mut running in running {
                running.stop();
                running.join().await.unwrap();
            }
            let all = log.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
            let recorded = effects.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
            let mut recorded: Vec<_> =
                recorded.iter().map(|effect| effect.event.originator_version).collect();
            recorded.sort_unstable();
            assert_eq!(recorded, all.iter().map(|notification| notification.id).collect::<Vec<_>>());
        }
    }
}

/// Its version is the id of the notification.
async fn effect(notification: Notification) -> Result<Vec<StoredEvent>, PersistenceError> {
    Ok(vec![event(Uuid::new_v4(), notification.id)])
}

/// The state of each session that the pooler has: all settings, and what else a client can leave behind.
async fn sessions(server: &Server) -> Vec<BTreeMap<String, String>> {
    let mut clients = Vec::new();
    let mut states = Vec::new();
    for _ in 0..POOL_SIZE {
        let mut client = server.connect().await;
        // A transaction of each client at the same time takes all sessions.
        run(&mut client, "BEGIN").await;
        states.push(session(&mut client).await);
        clients.push(client);
    }
    states
}

async fn session(client: &mut PgConnection) -> BTreeMap<String, String> {
    // The pooler itself passes on an application's name, and a server process lists the settings of a
    // language from its first use on.
    let query = "SELECT name, setting FROM pg_settings WHERE name <> 'application_name' AND name NOT LIKE 'plpgsql.%' \
         UNION ALL SELECT 'statement ' || name, statement FROM pg_prepared_statements WHERE name <> '' \
         AND statement NOT LIKE '%FROM pg_settings%' \
         UNION ALL SELECT 'channel', pg_listening_channels() \
         UNION ALL SELECT 'cursor ' || name, statement FROM pg_cursors WHERE name <> '' \
         UNION ALL SELECT 'table ' || relname, '' FROM pg_class WHERE relnamespace = pg_my_temp_schema() \
         UNION ALL SELECT 'advisory lock', objid::text FROM pg_locks WHERE locktype = 'advisory' \
         AND pid = pg_backend_pid()";
    let rows = sqlx::raw_sql(query).fetch_all(client).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn through(pooler: &Pooler, schema: &Schema) -> PostgresOptions {
    schema.options().host("127.0.0.1").port(pooler.port).transaction_pooler(true)
}

/// Writes a row for each notification.
struct Rows(String);

impl PostgresProjection for Rows {
    type Error = HandlerError;

    async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), HandlerError> {
        let create = format!("CREATE TABLE IF NOT EXISTS {} (id bigint)", self.0);
        sqlx::query(AssertSqlSafe(create)).persistent(false).execute(&mut **transaction).await?;
        Ok(())
    }

    async fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let insert = format!("INSERT INTO {} VALUES ({})", self.0, notification.id);
        sqlx::query(AssertSqlSafe(insert)).persistent(false).execute(&mut **transaction).await?;
        Ok(())
    }
}

/// Records, reads, follows and projects, by several tasks.
async fn use_heavily(options: PostgresOptions, name: &str) {
    let recorder = options.open().await.unwrap().process_recorder(name).await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let recorder = recorder.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                recorder.insert_events(vec![first(), first()]).await.unwrap();
                recorder.select_notifications(NotificationSelection::new(3).after(0)).await.unwrap();
            }
        }));
    }
    let following = tokio::spawn(follow(recorder.clone(), 80));
    for task in tasks {
        task.await.unwrap();
    }
    let followed = following.await.unwrap();
    assert_eq!(followed.len(), 80);
    let id = Uuid::new_v4();
    let tracking = Tracking::new("upstream", 1).unwrap();
    recorder.insert_events_with_tracking(vec![event(id, 1)], tracking.clone()).await.unwrap();
    assert!(recorder.insert_tracking(tracking).await.unwrap_err().is_conflict());
    assert!(recorder.insert_events(vec![event(id, 1)]).await.unwrap_err().is_conflict());
    assert_eq!(recorder.select_events(id, EventRange::all()).await.unwrap(), [event(id, 1)]);
    let all = recorder.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
    assert_eq!(all.len(), 81);
    let mut projector = recorder.projector(Rows(format!("\"{name}_rows\""))).await.unwrap();
    let position = followed.last().unwrap().id;
    let batch = NotificationBatch {
        application_name: "projected",
        notifications: &followed,
        position,
        expected_position: None,
    };
    assert_eq!(projector.process(batch).await.unwrap(), 80);
    assert_eq!(recorder.max_tracking_id("projected").await.unwrap(), Some(position));
}

async fn follow(recorder: PostgresProcessRecorder, count: usize) -> Vec<Notification> {
    let mut subscription = recorder.subscribe(0, []).page_size(NonZeroUsize::new(7).unwrap());
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(subscription.next_page().await.unwrap().unwrap().notifications);
    }
    seen
}
