//! Processors whose handlers have one effect for each notification, and what must be seen of it.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::{Result, ensure};
use es_core::{
    ApplicationRecorder, Notification, NotificationConsumer, NotificationSelection, StoredEvent,
    TrackingRecorder,
};
use es_postgres::PostgresProjection;
use es_process::{Handler, HandlerConsumer, Processor};
use es_sqlite::{SqliteProjection, rusqlite};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Postgres};
use tokio::sync::watch;

use crate::{
    clients::stopped,
    history::{Event, Recorded, topics},
    kill_point::{HANDLER, KillPoint},
    test_database::{ProcessRecorder, Recorder, TestDatabase},
};

/// The name under which the upstream is tracked.
pub const UPSTREAM: &str = "bank";

/// The table of a projection: what it has projected, in which order.
const TABLE: &str = "effects";

/// The kind of effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kind {
    /// Events of the downstream.
    Events,
    /// Rows of a table of the program's own.
    Rows,
}

/// Has the effects, and passes [`HANDLER`] before each.
#[derive(Clone, Debug)]
pub struct Effects {
    kill_point: KillPoint,
    table: String,
}

impl Effects {
    /// Effects in a database.
    pub fn new(database: &TestDatabase, kill_point: KillPoint) -> Self {
        Self { kill_point, table: database.table(TABLE) }
    }
}

/// Processes all events, or those of a topic, until the stop signal.
///
/// # Errors
/// When the processor stops by itself.
pub async fn process(
    upstream: Recorder,
    database: &TestDatabase,
    (kind, topic): (Kind, Option<usize>),
    kill_point: KillPoint,
    seed: u64,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let effects = Effects::new(database, kill_point.clone());
    match (kind, database.open_process(kill_point, true).await?) {
        (Kind::Events, ProcessRecorder::Sqlite(recorder)) => {
            run(upstream, HandlerConsumer::new(recorder, effects), topic, seed, stop).await
        }
        (Kind::Events, ProcessRecorder::Postgres(recorder)) => {
            run(upstream, HandlerConsumer::new(recorder, effects), topic, seed, stop).await
        }
        (Kind::Rows, ProcessRecorder::Sqlite(recorder)) => {
            run(upstream, recorder.projector(effects).await?, topic, seed, stop).await
        }
        (Kind::Rows, ProcessRecorder::Postgres(recorder)) => {
            run(upstream, recorder.projector(effects).await?, topic, seed, stop).await
        }
    }
}

async fn run(
    upstream: Recorder,
    downstream: impl NotificationConsumer,
    topic: Option<usize>,
    seed: u64,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let batch_size = NonZeroUsize::new(random.usize(1..64)).unwrap_or(NonZeroUsize::MIN);
    let mut processor = Processor::with_consumer(UPSTREAM, upstream.clone(), downstream)
        .topics(topics(topic))
        .batch_size(batch_size)
        .poll_interval(Duration::from_millis(20))
        .standby_pause(Duration::from_millis(20));
    let mut run = std::pin::pin!(processor.run());
    tokio::select! {
        ended = &mut run => ended?,
        () = stopped(stop) => {
            es_core::Recorder::close(&upstream).await?;
            run.await?;
        }
    }
    Ok(())
}

impl Handler for Effects {
    type Error = std::convert::Infallible;

    async fn handle(&mut self, notification: Notification) -> Result<Vec<StoredEvent>, Self::Error> {
        self.kill_point.pass(HANDLER);
        Ok(vec![effect(notification.id)])
    }
}

impl SqliteProjection for Effects {
    type Error = rusqlite::Error;

    fn set_up(&mut self, transaction: &rusqlite::Transaction<'_>) -> Result<(), rusqlite::Error> {
        let table = &self.table;
        transaction.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY AUTOINCREMENT, notification INTEGER)"
        ))
    }

    fn project(
        &mut self,
        transaction: &rusqlite::Transaction<'_>,
        notification: &Notification,
    ) -> Result<(), rusqlite::Error> {
        self.kill_point.pass(HANDLER);
        let insert = format!("INSERT INTO {} (notification) VALUES (?1)", self.table);
        transaction.prepare_cached(&insert)?.execute((notification.id,)).map(drop)
    }
}

impl PostgresProjection for Effects {
    type Error = sqlx::Error;

    async fn set_up(&mut self, transaction: &mut sqlx::Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
        let table = &self.table;
        let create =
            format!("CREATE TABLE IF NOT EXISTS {table} (number bigserial PRIMARY KEY, notification bigint)");
        sqlx::query(AssertSqlSafe(create)).execute(&mut **transaction).await.map(drop)
    }

    async fn project(
        &mut self,
        transaction: &mut sqlx::Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), sqlx::Error> {
        self.kill_point.pass(HANDLER);
        let insert = format!("INSERT INTO {} (notification) VALUES ($1)", self.table);
        let insert = sqlx::query(AssertSqlSafe(insert)).bind(notification.id);
        insert.execute(&mut **transaction).await.map(drop)
    }
}

/// The effect of a notification. Its place is a random one: nothing but tracking keeps it from being
/// recorded twice.
fn effect(id: i64) -> StoredEvent {
    Event { aggregate: fastrand::u64(..), version: 1, put: id.to_string(), index: 0 }.stored(0)
}

/// Which notifications have had their effects, in the order in which they had.
///
/// # Errors
/// When the database cannot be read.
pub async fn read(database: &TestDatabase, kind: Kind) -> Result<Vec<i64>> {
    if kind == Kind::Rows {
        return database.numbers(TABLE, "notification", "number").await;
    }
    let recorder = database.open(&KillPoint::new(None)).await?;
    let all = recorder.select_notifications(NotificationSelection::new(usize::MAX)).await?;
    es_core::Recorder::close(&recorder).await?;
    Ok(of(&all))
}

/// The ids of the notifications that had these effects.
pub fn of(effects: &[Notification]) -> Vec<i64> {
    effects.iter().map(|effect| Event::read(&effect.event).put.parse().unwrap_or(-1)).collect()
}

/// Checks that each notification of the topic, up to the recorded position, had its effect once, in order,
/// and those after it none. Returns how many, and the position.
///
/// # Errors
/// Says which one is amiss.
pub async fn check(
    upstream: &[Recorded],
    database: &TestDatabase,
    (kind, topic): (Kind, Option<usize>),
) -> Result<(usize, i64)> {
    let recorder = database.open(&KillPoint::new(None)).await?;
    let position = recorder.max_tracking_id(UPSTREAM).await?.unwrap_or(0);
    es_core::Recorder::close(&recorder).await?;
    let effects = read(database, kind).await?;
    let processed = upstream.iter().take_while(|recorded| recorded.id <= position);
    let expected = processed.filter(|recorded| Event::is_about(recorded.event.aggregate, topic));
    check_effects(&effects, &expected.map(|recorded| recorded.id).collect::<Vec<_>>())?;
    // The position moves past what is of other topics.
    ensure!(
        topic.is_some() || effects.last().copied().unwrap_or(0) == position,
        "position {position} is not the one of the last effect, {:?}",
        effects.last()
    );
    Ok((effects.len(), position))
}

pub(crate) fn check_effects(effects: &[i64], expected: &[i64]) -> Result<()> {
    for (place, id) in expected.iter().enumerate() {
        let effect = effects.get(place);
        ensure!(effect == Some(id), "effect {place} is of notification {effect:?} instead of {id}");
    }
    ensure!(effects.len() == expected.len(), "{} effects of {} notifications", effects.len(), expected.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_effects;

    #[test]
    fn missing_double_and_untimely_effects_are_found() {
        assert!(check_effects(&[1, 2, 4], &[1, 2, 4]).is_ok());
        for effects in [&[1, 2][..], &[1, 4], &[1, 2, 2, 4], &[2, 1, 4], &[1, 2, 4, 5], &[1, 2, 4, 4]] {
            assert!(check_effects(effects, &[1, 2, 4]).is_err(), "{effects:?}");
        }
    }
}
