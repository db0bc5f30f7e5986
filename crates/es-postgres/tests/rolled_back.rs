//! A log, or a tracking record, that is cut back under a running processor: by the restore of a backup, or by
//! a failover to a standby that lags.
//!
//! The bug: only the first position of a run was compared with the log. After an upstream was cut back to 7
//! under a processor at 10, the new notifications 8 to 10 were never handled; after a downstream was, the
//! effects of 8 to 10 were missing for good. Neither was an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use std::convert::Infallible;

use common::{
    cluster::{Cluster, Stop},
    prelude::*,
};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder};
use es_process::{HandlerConsumer, Processor, ProcessorError};

/// So long that a test which waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

async fn handle(notification: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    Ok(vec![notification.event])
}

/// Writes a row for each notification.
struct Rows {
    table: String,
}

impl PostgresProjection for Rows {
    type Error = sqlx::Error;

    async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
        let create = format!("CREATE TABLE IF NOT EXISTS {} (id bigint)", self.table);
        sqlx::query(AssertSqlSafe(create)).execute(&mut **transaction).await.map(drop)
    }

    async fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), sqlx::Error> {
        let insert = format!("INSERT INTO {} VALUES ({})", self.table, notification.id);
        sqlx::query(AssertSqlSafe(insert)).execute(&mut **transaction).await.map(drop)
    }
}

async fn insert(upstream: &impl AggregateRecorder, count: usize) {
    for _ in 0..count {
        upstream.insert_events(vec![event(Uuid::new_v4(), 1)]).await.unwrap();
    }
}

/// Processes ten notifications, injects the fault, and returns the error with which the processor then stops.
async fn error_after<R, D, P>(
    upstream: &R,
    downstream: D,
    positions: &P,
    harm: impl AsyncFnOnce(),
) -> PersistenceError
where
    R: ApplicationRecorder + Clone,
    D: NotificationConsumer,
    P: TrackingRecorder,
{
    let mut processor = Processor::with_consumer("bank", upstream.clone(), downstream)
        .poll_interval(Duration::from_millis(5));
    let interrupt = async {
        positions.wait("bank", 10, TOO_LONG).await.unwrap();
        harm().await;
    };
    let running = async { tokio::join!(processor.run(), interrupt).0 };
    match tokio::time::timeout(TOO_LONG, running).await.unwrap().unwrap_err() {
        ProcessorError::Persistence { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

fn assert_rolled_back(error: &PersistenceError) {
    assert_eq!((error.kind(), error.is_conflict()), (ErrorKind::RolledBack, false), "{error}");
    for part in ["\"bank\"", "10", "7"] {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_cut_back_under_a_processor_is_noticed() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let datastore = schema.options().ordering(ordering).open().await.unwrap();
        let upstream = datastore.application_recorder("bank").await.unwrap();
        insert(&upstream, 10).await;
        let downstream = PopoProcessRecorder::new();
        let cut = async || {
            let cut = format!(
                "DELETE FROM {0} WHERE notification_id > 7; \
                 SELECT setval(pg_get_serial_sequence('{0}', 'notification_id'), 7)",
                schema.table("bank_events")
            );
            run(&mut schema.connect().await, &cut).await;
        };
        let error =
            error_after(&upstream, HandlerConsumer::new(downstream.clone(), handle), &downstream, cut).await;
        assert_rolled_back(&error);
        assert_eq!(downstream.max_tracking_id("bank").await.unwrap(), Some(10));
    }
}

#[tokio::test]
async fn a_downstream_that_is_cut_back_under_a_processor_is_noticed() {
    for row_per_record in [false, true] {
        let schema = Schema::create().await;
        let tracking = schema.table("audit_tracking");
        if row_per_record {
            let create = format!(
                "CREATE TABLE {tracking} (application_name text, notification_id bigint, \
                 PRIMARY KEY (application_name, notification_id))"
            );
            run(&mut schema.connect().await, &create).await;
        }
        let positions = schema.open().await.tracking_recorder("audit").await.unwrap();
        let rows = schema.table("rows");
        let projector = positions.projector(Rows { table: rows.clone() }).await.unwrap();
        let upstream = PopoApplicationRecorder::new();
        insert(&upstream, 10).await;
        let cut = async || {
            let position = if row_per_record {
                format!("DELETE FROM {tracking} WHERE notification_id > 7")
            } else {
                format!("UPDATE {tracking} SET notification_id = 7 WHERE application_name = 'bank'")
            };
            run(&mut schema.connect().await, &format!("DELETE FROM {rows} WHERE id > 7; {position}")).await;
            insert(&upstream, 1).await;
        };
        let error = error_after(&upstream, projector, &positions, cut).await;
        assert_rolled_back(&error);
        let left = format!("SELECT array(SELECT id FROM {rows} ORDER BY id)");
        let left: Vec<i64> = scalar(&mut schema.connect().await, &left).await;
        assert_eq!(left, (1..=7).collect::<Vec<_>>());
        assert_eq!(positions.max_tracking_id("bank").await.unwrap(), Some(7));
    }
}

#[tokio::test]
async fn a_process_recorder_that_is_cut_back_under_a_processor_is_noticed() {
    let schema = Schema::create().await;
    let downstream = schema.open().await.process_recorder("audit").await.unwrap();
    let upstream = PopoApplicationRecorder::new();
    insert(&upstream, 10).await;
    let cut = async || {
        let (tracking, events) = (schema.table("audit_tracking"), schema.table("audit_events"));
        let cut = format!(
            "UPDATE {tracking} SET notification_id = 7 WHERE application_name = 'bank'; \
             DELETE FROM {events} WHERE notification_id > 7; \
             SELECT setval(pg_get_serial_sequence('{events}', 'notification_id'), 7)"
        );
        run(&mut schema.connect().await, &cut).await;
        insert(&upstream, 1).await;
    };
    let handling = HandlerConsumer::new(downstream.clone(), handle);
    let error = error_after(&upstream, handling, &downstream, cut).await;
    assert_rolled_back(&error);
    assert_eq!(downstream.max_tracking_id("bank").await.unwrap(), Some(7));
    assert_eq!(downstream.max_notification_id().await.unwrap(), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lags_and_takes_over_under_a_processor_is_noticed() {
    let Some(mut primary) = Cluster::start(&[]) else { return };
    let standby = primary.start_standby().await;
    let servers = [&primary, &standby].map(|cluster| (cluster.server.host.clone(), cluster.server.port));
    let datastore = primary.server.options().hosts(servers).open().await.unwrap();
    let upstream = datastore.application_recorder("bank").await.unwrap();
    insert(&upstream, 7).await;
    let mut lagging = standby.server.connect().await;
    until(&mut lagging, "SELECT to_regclass('bank_events') IS NOT NULL").await;
    until(&mut lagging, "SELECT count(*) = 7 FROM bank_events").await;
    // It gets nothing more of what the primary writes.
    run(&mut lagging, "ALTER SYSTEM SET primary_conninfo = ''").await;
    run(&mut lagging, "SELECT pg_reload_conf()").await;
    until(&mut lagging, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)").await;
    insert(&upstream, 3).await;

    let downstream = PopoProcessRecorder::new();
    let fail_over = async || {
        primary.stop(Stop::Crash);
        assert!(scalar::<bool>(&mut lagging, "SELECT pg_promote()").await);
    };
    let error =
        error_after(&upstream, HandlerConsumer::new(downstream.clone(), handle), &downstream, fail_over)
            .await;
    assert_eq!(error.kind(), ErrorKind::RolledBack, "{error}");
    assert!(error.to_string().contains("\"bank\""), "{error}");
    assert_eq!(downstream.max_tracking_id("bank").await.unwrap(), Some(10));
}
