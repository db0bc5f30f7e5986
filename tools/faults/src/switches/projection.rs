//! The projection whose versions are switched.

use es_core::{
    Event, EventNotification, HandlerError, PersistenceError, StateReader, Topic, Transcoder,
    serde::ser::SerializeMap,
};
use es_factory::{ProjectionContext, Sql, VersionedProjection};

use super::Planted;
use crate::kill_point::{HANDLER, KillPoint};

/// The name of the projection.
pub(super) const NAME: &str = "counted";

/// The table of side effects: the notifications that have had one.
pub(super) const OUTBOX: &str = "outbox";

/// An event without a content.
#[derive(Debug)]
pub(super) struct Counts;

impl Event for Counts {
    const TOPICS: &[Topic] = &[Topic::from_static("faults:Counted")];

    fn topic(&self) -> Topic {
        Self::TOPICS[0].clone()
    }

    fn encode<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn decode<T: Transcoder>(_: &str, _: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        Ok(Self)
    }
}

/// Keeps all notifications in `numbers`, and their number and sum in `sums`. Each row shows its version. Odd
/// versions have a column more.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    kill_point: KillPoint,
    planted: Option<Planted>,
}

impl Counted {
    pub(super) fn new(kill_point: KillPoint, planted: Option<Planted>) -> Self {
        Self { kill_point, planted }
    }

    /// Returns whether the side effect of a notification is recorded: once, unless a fault is planted.
    fn has_effect(&self, id: i64, context: &ProjectionContext) -> bool {
        match self.planted {
            Some(Planted::Double) if id % 5 == 0 && context.version() > 1 => true,
            Some(Planted::Skip) if id % 5 == 0 => false,
            _ => !context.is_replay(),
        }
    }
}

impl VersionedProjection for Counted {
    type Event = Counts;
    const TABLES: &[&str] = &["numbers", "sums"];

    fn set_up(&self, context: &ProjectionContext) -> Vec<Sql> {
        let (numbers, sums) = (context.table("numbers"), context.table("sums"));
        let more = if context.version() % 2 == 1 { ", more BIGINT" } else { "" };
        vec![
            Sql::new(format!(
                "CREATE TABLE IF NOT EXISTS {numbers} (notification BIGINT PRIMARY KEY, version BIGINT{more})"
            )),
            Sql::new(format!(
                "CREATE TABLE IF NOT EXISTS {sums} (version BIGINT PRIMARY KEY, notifications BIGINT, total BIGINT)"
            )),
            Sql::new(format!(
                "CREATE TABLE IF NOT EXISTS {OUTBOX} (number INTEGER PRIMARY KEY AUTOINCREMENT, notification BIGINT)"
            ))
            .postgres(format!(
                "CREATE TABLE IF NOT EXISTS {OUTBOX} (number bigserial PRIMARY KEY, notification bigint)"
            )),
        ]
    }

    fn project(
        &self,
        notification: EventNotification<Counts>,
        context: &ProjectionContext,
    ) -> Result<Vec<Sql>, HandlerError> {
        self.kill_point.pass(HANDLER);
        let (numbers, sums) = (context.table("numbers"), context.table("sums"));
        let (id, version) = (notification.id, context.version());
        let mut statements = vec![
            Sql::new(format!("INSERT INTO {numbers} (notification, version) VALUES ($1, $2)"))
                .bind(id)
                .bind(version),
            Sql::new(format!(
                "INSERT INTO {sums} VALUES ($1, 1, $2) ON CONFLICT (version) DO UPDATE \
                 SET notifications = {sums}.notifications + 1, total = {sums}.total + excluded.total"
            ))
            .bind(version)
            .bind(id),
        ];
        if self.has_effect(id, context) {
            statements.push(Sql::new(format!("INSERT INTO {OUTBOX} (notification) VALUES ($1)")).bind(id));
        }
        Ok(statements)
    }
}
