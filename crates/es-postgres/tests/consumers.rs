//! Consumers of one upstream in one datastore, and the errors that must not be retried or must be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::prelude::*;
use es_process::{Processor, ProcessorError};

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Writes the id of each notification into a table.
struct Ids(String);

impl PostgresProjection for Ids {
    type Error = sqlx::Error;

    async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
        let create = format!("CREATE TABLE IF NOT EXISTS {} (id bigint PRIMARY KEY)", self.0);
        sqlx::query(AssertSqlSafe(create)).execute(&mut **transaction).await.map(drop)
    }

    async fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), sqlx::Error> {
        let insert = format!("INSERT INTO {} VALUES ({})", self.0, notification.id);
        sqlx::query(AssertSqlSafe(insert)).execute(&mut **transaction).await.map(drop)
    }
}

/// Fails with this error.
struct Fails(Option<HandlerError>);

impl PostgresProjection for Fails {
    type Error = HandlerError;

    async fn project(
        &mut self,
        _: &mut Transaction<'_, Postgres>,
        _: &Notification,
    ) -> Result<(), HandlerError> {
        self.0.take().map_or(Ok(()), Err)
    }
}

/// Two consumers of one upstream with one tracking table had the same key, the name of the upstream: the
/// second one received no notification, and a projection could not be rebuilt in the same table.
#[tokio::test]
async fn each_consumer_of_a_table_gets_all_notifications_and_a_projection_can_be_rebuilt() {
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    let bank = datastore.application_recorder("bank").await.unwrap();
    bank.insert_events((1..=5).map(|version| event(Uuid::nil(), version)).collect()).await.unwrap();
    let positions = datastore.tracking_recorder("bank").await.unwrap();
    for name in ["balances", "owners", "balances_2"] {
        let table = schema.table(name);
        let projector = positions.projector(Ids(table.clone())).await.unwrap();
        let mut processor = Processor::with_consumer(name, bank.clone(), projector);
        tokio::select! {
            ended = processor.run() => panic!("{ended:?}"),
            waited = positions.wait(name, 5, TOO_LONG) => waited.unwrap(),
        }
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(scalar::<i64>(&mut schema.connect().await, &count).await, 5);
        assert_eq!(positions.consumer_lag(name, &bank).await.unwrap().lag(), 0);
    }
}

/// A second, different consumer under a name that is in use was not noticed.
#[tokio::test]
async fn a_name_that_a_different_consumer_uses_is_refused() {
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    let bank = datastore.application_recorder("bank").await.unwrap();
    let positions = datastore.tracking_recorder("bank").await.unwrap();
    let projector = positions.projector(Fails(None)).await.unwrap();
    let mut first = Processor::with_consumer("balances", bank.clone(), projector);
    let mut running = std::pin::pin!(first.run());
    assert!(running.as_mut().now_or_never().is_none());
    let projector = positions.projector(Ids(schema.table("balances"))).await.unwrap();
    let mut second = Processor::with_consumer("balances", bank, projector);
    let refused = tokio::time::timeout(TOO_LONG, second.run()).await;
    let error = refused.unwrap().unwrap_err();
    let ProcessorError::Persistence { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::Programming, "{source}");
}

#[derive(Debug, thiserror::Error)]
#[error("the order cannot be shipped")]
struct ShippingError(#[from] PersistenceError);

/// A transient error inside an error of the program's own was not recognised when anyhow hid it, and the
/// notification counted as failed.
#[tokio::test]
async fn a_transient_error_in_the_sources_of_a_projections_error_is_one() {
    let outage = || PersistenceError::operational("the server is restarting").transient();
    let by_anyhow: anyhow::Error = outage().into();
    let permanent = PersistenceError::data("no such order");
    for (error, is_transient) in [
        (HandlerError::from(ShippingError(outage())), true),
        (by_anyhow.into(), true),
        (ShippingError(permanent).into(), false),
    ] {
        let schema = Schema::create().await;
        let positions = schema.open().await.tracking_recorder("bank").await.unwrap();
        let mut projector = positions.projector(Fails(Some(error))).await.unwrap();
        let notifications = [Notification { id: 1, event: first() }];
        let batch = NotificationBatch {
            application_name: "balances",
            notifications: &notifications,
            position: 1,
            expected_position: None,
        };
        match projector.process(batch).await.unwrap_err() {
            ConsumerError::Recording(error) => assert!(is_transient && error.is_transient(), "{error:?}"),
            ConsumerError::Handler { error, .. } => assert!(!is_transient, "{error:?}"),
        }
    }
}

/// A batch with a version twice was reported as a conflict with stored data: a retry that loads the aggregate
/// again would never end.
#[tokio::test]
async fn a_version_twice_in_a_batch_is_no_conflict() {
    let is_refused = |error: PersistenceError| {
        assert!(!error.is_conflict(), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Programming, "{error:?}");
    };
    let schema = Schema::create().await;
    let bank = schema.open().await.application_recorder("bank").await.unwrap();
    let twice = [event(Uuid::nil(), 1), event(Uuid::max(), 1), event(Uuid::nil(), 1)];
    is_refused(bank.insert_events(twice.to_vec()).await.unwrap_err());
    let mut connection = schema.connect().await;
    let mut transaction = connection.begin().await.unwrap();
    is_refused(bank.insert_events_in(&mut transaction, &twice).await.unwrap_err());
    bank.insert_events_in(&mut transaction, &twice[..2]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(bank.max_notification_id().await.unwrap(), Some(2));
}
