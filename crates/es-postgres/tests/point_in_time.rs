//! Recovery to a point in time, from a base backup and the archive of the write-ahead log, under a consumer
//! in another database: the consumer is then ahead of the log, and its position must be set back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::convert::Infallible;

use common::{
    cluster::{Cluster, Stop},
    prelude::*,
};
use es_process::{HandlerConsumer, Processor, ProcessorError};

/// So long that a test which waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

async fn handle(notification: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    Ok(vec![notification.event])
}

async fn insert(upstream: &impl AggregateRecorder, count: usize) {
    for _ in 0..count {
        upstream.insert_events(vec![event(Uuid::new_v4(), 1)]).await.unwrap();
    }
}

async fn open(server: &Server) -> PostgresApplicationRecorder {
    server.options().open().await.unwrap().application_recorder("bank").await.unwrap()
}

/// Processes up to the position; the error with which the processor stops before.
async fn process(
    upstream: &PostgresApplicationRecorder,
    downstream: &PostgresProcessRecorder,
    position: i64,
) -> Result<(), PersistenceError> {
    let consumer = HandlerConsumer::new(downstream.clone(), handle);
    let mut processor = Processor::with_consumer("bank", upstream.clone(), consumer);
    tokio::select! {
        ended = processor.run() => match ended.unwrap_err() {
            ProcessorError::Persistence { source, .. } => Err(source),
            other => panic!("{other:?}"),
        },
        waited = downstream.wait("bank", position, TOO_LONG) => waited,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_ahead_of_a_restored_log_is_refused_until_its_position_is_set() {
    // The server's programs run in the directory of the data.
    let archiving = ["archive_mode=on", "archive_command=cp %p ../archive/%f"];
    let Some(mut primary) = Cluster::start(&archiving) else { return };
    let archive = primary.directory("archive");
    let upstream = open(&primary.server).await;
    insert(&upstream, 4).await;
    let mut restored = primary.base_backup().await;
    insert(&upstream, 3).await;
    let mut admin = primary.server.connect().await;
    run(&mut admin, "SELECT pg_create_restore_point('before_the_mistake')").await;
    insert(&upstream, 3).await;

    let schema = Schema::create().await;
    let downstream = schema.open().await.process_recorder("audit").await.unwrap();
    process(&upstream, &downstream, 10).await.unwrap();
    let segment: String = scalar(&mut admin, "SELECT pg_walfile_name(pg_switch_wal())").await;
    until(&mut admin, &format!("SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver")).await;
    primary.stop(Stop::Crash);

    restored.directory("archive");
    restored.launch_as(
        "recovery.signal",
        &format!(
            "restore_command = 'cp {}/%f %p'\nrecovery_target_name = 'before_the_mistake'\n\
             recovery_target_action = 'promote'",
            archive.display()
        ),
    );
    until(&mut restored.server.connect().await, "SELECT NOT pg_is_in_recovery()").await;
    let upstream = open(&restored.server).await;
    assert_eq!(upstream.max_notification_id().await.unwrap(), Some(7));
    let refused = process(&upstream, &downstream, 11).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RolledBack, "{refused}");

    // As `es track set bank 7` does. The effects of 8 to 10 are for the operator to judge.
    let set = format!(
        "UPDATE {} SET notification_id = 7 WHERE application_name = 'bank'",
        schema.table("audit_tracking")
    );
    run(&mut schema.connect().await, &set).await;
    assert_eq!(downstream.validated_position("bank", &upstream).await.unwrap(), Some(7));
    insert(&upstream, 2).await;
    let next = upstream.max_notification_id().await.unwrap().unwrap();
    process(&upstream, &downstream, next).await.unwrap();
    assert_eq!(downstream.max_notification_id().await.unwrap(), Some(12));
}
