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
use sqlx::Row;

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
