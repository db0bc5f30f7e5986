//! Databases in memory that several datastores of a program share by name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::time::Duration;

use es_core::{AggregateRecorder, ApplicationRecorder, ErrorKind, NotificationSelection};
use es_sqlite::{FaultPoint, SqliteOptions};
use support::{accepted, application_recorder, event, events, gate};

/// SQLite does not wait for locks within a shared cache: a statement that met one failed immediately.
#[tokio::test]
async fn datastores_wait_for_each_other() {
    let name = "file:datastores_wait_for_each_other?mode=memory&cache=shared";
    let (hook, mut gate) = gate(FaultPoint::Commit);
    let first = application_recorder(SqliteOptions::new(name).hooks(hook)).await;
    let second = application_recorder(SqliteOptions::new(name)).await;

    let held = accepted(first.insert_events(events(1, 1..=2)));
    gate.reached().await;
    let insert = accepted(second.insert_events(events(2, 1..=2)));
    let third = application_recorder(SqliteOptions::new(name).create_table(false)).await;
    let select = accepted(third.select_notifications(NotificationSelection::new(10)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.open();

    assert_eq!(held.await.unwrap(), [1, 2]);
    assert_eq!(insert.await.unwrap(), [3, 4]);
    assert!([2, 4].contains(&select.await.unwrap().len()));
}

#[tokio::test]
async fn the_wait_ends_with_the_lock_timeout() {
    let name = "file:the_wait_ends_with_the_lock_timeout?mode=memory&cache=shared";
    let (hook, mut gate) = gate(FaultPoint::Commit);
    let first = application_recorder(SqliteOptions::new(name).hooks(hook)).await;
    let second = application_recorder(SqliteOptions::new(name).lock_timeout(Duration::from_millis(30))).await;
    let held = accepted(first.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    for error in [
        second.insert_events(vec![event(2, 1)]).await.unwrap_err(),
        second.max_notification_id().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Operational, true), "{error:?}");
    }
    gate.open();
    held.await.unwrap();
    assert_eq!(second.insert_events(vec![event(2, 1)]).await.unwrap(), [2]);
}
