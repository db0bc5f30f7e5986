//! Consumers of one upstream in one file: each has a position of its own, under its name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test unwraps the values that it expects"
)]

mod support;

use std::time::Duration;

use es_core::{
    AggregateRecorder, ErrorKind, HandlerError, Notification, PersistenceError, TrackingRecorder,
    TrackingRecorderExt,
};
use es_process::{Processor, ProcessorError};
use es_sqlite::{
    SqliteDatastore, SqliteOptions, SqliteProjection,
    rusqlite::{self, Connection, Transaction},
};
use futures_util::FutureExt;
use support::{database, event, events};

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Counts notifications in a table.
struct Count(&'static str);

impl SqliteProjection for Count {
    type Error = HandlerError;

    fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), HandlerError> {
        let create = format!("CREATE TABLE IF NOT EXISTS {} (notification INTEGER PRIMARY KEY)", self.0);
        Ok(transaction.execute_batch(&create)?)
    }

    fn project(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let insert = format!("INSERT INTO {} VALUES (?1)", self.0);
        transaction.execute(&insert, (notification.id,))?;
        Ok(())
    }
}

/// Another projection.
struct Ignore;

impl SqliteProjection for Ignore {
    type Error = rusqlite::Error;

    fn project(&mut self, _: &Transaction<'_>, _: &Notification) -> rusqlite::Result<()> {
        Ok(())
    }
}

fn counted(path: &str, table: &str) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), (), |row| row.get(0)).unwrap()
}

/// Runs a consumer with this name until it has processed the notification.
async fn run_until(datastore: &SqliteDatastore, name: &str, table: &'static str, id: i64) {
    let positions = datastore.tracking_recorder().await.unwrap();
    let projector = positions.projector(Count(table)).await.unwrap();
    let upstream = datastore.application_recorder().await.unwrap();
    let mut processor = Processor::with_consumer(name, upstream, projector);
    tokio::select! {
        ended = processor.run() => panic!("{ended:?}"),
        waited = positions.wait(name, id, TOO_LONG) => waited.unwrap(),
    }
}

/// Two consumers of one upstream in one file had the same key, the name of the upstream: the second one found
/// all notifications processed, and received none. To rebuild a projection with a new tracking recorder, as
/// the guide said, had no effect for the same reason.
#[tokio::test]
async fn each_consumer_of_a_file_gets_all_notifications_and_a_projection_can_be_rebuilt() {
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    let bank = datastore.application_recorder().await.unwrap();
    bank.insert_events(events(1, 1..=5)).await.unwrap();
    run_until(&datastore, "balances", "balances", 5).await;
    run_until(&datastore, "owners", "owners", 5).await;
    assert_eq!((counted(&path, "balances"), counted(&path, "owners")), (5, 5));

    bank.insert_events(vec![event(1, 6)]).await.unwrap();
    run_until(&datastore, "balances-2", "balances_2", 6).await;
    assert_eq!((counted(&path, "balances"), counted(&path, "balances_2")), (5, 6));
    let positions = datastore.tracking_recorder().await.unwrap();
    assert_eq!(positions.max_tracking_id("balances").await.unwrap(), Some(5));
    assert_eq!(positions.consumer_lag("balances", &bank).await.unwrap().lag(), 1);
}

/// A second, different consumer under a name that is in use was not noticed, also with tracking recorders of
/// their own.
#[tokio::test]
async fn a_name_that_a_different_consumer_of_the_file_uses_is_refused() {
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    let bank = datastore.application_recorder().await.unwrap();
    let positions = datastore.tracking_recorder().await.unwrap();
    let projector = positions.projector(Count("balances")).await.unwrap();
    let mut first = Processor::with_consumer("balances", bank.clone(), projector);
    let mut running = std::pin::pin!(first.run());
    assert!(running.as_mut().now_or_never().is_none());

    let process = datastore.process_recorder().await.unwrap();
    let projector = process.projector(Ignore).await.unwrap();
    let error = Processor::with_consumer("balances", bank, projector).run().await.unwrap_err();
    let ProcessorError::Persistence { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::Programming, "{source}");
}

/// A batch with a version twice was reported as a conflict with stored data, inside a group commit, and in
/// a transaction of the caller's: a retry that loads the aggregate again would never end.
#[tokio::test]
async fn a_version_twice_in_a_batch_is_no_conflict() {
    let is_refused = |error: PersistenceError| {
        assert!(!error.is_conflict(), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Programming, "{error:?}");
        assert!(error.to_string().contains("version 1 of originator"), "{error}");
    };
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    let bank = datastore.application_recorder().await.unwrap();
    let twice = vec![event(1, 1), event(2, 1), event(1, 1)];
    is_refused(bank.insert_events(twice.clone()).await.unwrap_err());
    assert_eq!(bank.insert_events(vec![event(1, 1)]).await.unwrap(), [1]);
    is_refused(bank.insert_events(twice).await.unwrap_err());
}
