//! Sessions that write, read and maintain the events table by SQL of their own.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use es_core::uuid::Uuid;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::sleep;

use super::{Shared, Stage, journal};
use crate::writers::pause;

/// The first key of the advisory lock of an append.
const APPEND_CLASS: i32 = 0x6573_6c6b;

/// The way a session writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Locks the table in the transaction of the insert, as earlier builds of this library did.
    TableLock,
    /// Takes the advisory lock in the same transaction, as earlier builds did with a role that may only
    /// insert.
    AdvisoryLock,
    /// Holds the lock of the table for up to a second.
    LongLock,
    /// Takes no lock, as parallel ordering allows.
    Unlocked,
    /// Takes no lock and uses two-phase commit.
    Prepared,
    /// A defect: draws ids before it takes the lock.
    EarlyId,
}

/// A session that writes.
struct Session {
    shared: Arc<Shared>,
    name: String,
    kind: Kind,
    connection: Option<PgConnection>,
}

/// Writes until writers are stopped.
pub(crate) async fn write(shared: Arc<Shared>, name: String, kind: Kind) -> Result<()> {
    let mut session = Session { shared, name, kind, connection: None };
    let mut number = 0_u64;
    while session.shared.stage() == Stage::Write {
        number += 1;
        let key = format!("{}.{number}", session.name);
        if session.put(&key).await.is_err() {
            session.connection = None;
            sleep(Duration::from_millis(50)).await;
        }
        pause(Duration::from_millis(if kind == Kind::LongLock { 3_000 } else { 60 })).await;
    }
    Ok(())
}

impl Session {
    async fn put(&mut self, key: &str) -> Result<()> {
        let events = fastrand::usize(1..5);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shared.address.connect().await?,
        };
        let skipped = format!("{key}.skipped");
        self.shared.journal().begin(key, events);
        self.shared.journal().begin(&skipped, 1);
        // It is rolled back to a savepoint, or with everything.
        self.shared.journal().finish(&skipped, None);
        let ids = match self.insert(&mut connection, key, &skipped, events).await {
            Ok(ids) => ids,
            // What is not committed is rolled back.
            Err(error) => {
                self.shared.journal().finish(key, None);
                return Err(error);
            }
        };
        if fastrand::u32(0..7) == 0 {
            self.shared.journal().finish(key, None);
            run(&mut connection, "ROLLBACK".to_owned()).await?;
        } else if self.kind == Kind::Prepared {
            self.commit_prepared(connection, key, ids).await?;
            return Ok(());
        } else {
            // A commit that fails may have been made.
            run(&mut connection, "COMMIT".to_owned()).await?;
            self.shared.journal().finish(key, Some(ids));
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        key: &str,
        skipped: &str,
        events: usize,
    ) -> Result<Vec<i64>> {
        run(connection, "BEGIN".to_owned()).await?;
        let mut early = None;
        match self.kind {
            Kind::TableLock | Kind::LongLock => {
                run(connection, "LOCK TABLE mixed_events IN EXCLUSIVE MODE".to_owned()).await?;
            }
            Kind::AdvisoryLock => self.lock(connection).await?,
            Kind::EarlyId => {
                let draw = "SELECT nextval('mixed_events_notification_id_seq')";
                early = Some(sqlx::query_scalar::<_, i64>(draw).fetch_one(&mut *connection).await?);
                sleep(Duration::from_millis(20)).await;
                self.lock(connection).await?;
            }
            Kind::Unlocked | Kind::Prepared => {}
        }
        let aggregate = Uuid::from_u64_pair(fastrand::u64(..), fastrand::u64(..));
        if fastrand::bool() {
            run(connection, "SAVEPOINT one".to_owned()).await?;
            insert_event(connection, aggregate, 1, journal::state(skipped, 0, 1), None).await?;
            run(connection, "ROLLBACK TO one".to_owned()).await?;
        }
        let mut ids = Vec::new();
        for index in 0..events {
            if fastrand::u32(0..4) == 0 {
                run(connection, "SAVEPOINT two".to_owned()).await?;
            }
            if index > 0 && self.kind != Kind::AdvisoryLock {
                pause(Duration::from_millis(5)).await;
            }
            let early = early.take();
            let state = journal::state(key, index, events);
            ids.push(insert_event(connection, aggregate, index as i64 + 1, state, early).await?);
        }
        match self.kind {
            Kind::LongLock => sleep(Duration::from_millis(fastrand::u64(..1_000))).await,
            Kind::Unlocked if fastrand::u32(0..20) == 0 => pause(Duration::from_millis(500)).await,
            _ => {}
        }
        Ok(ids)
    }

    async fn lock(&self, connection: &mut PgConnection) -> Result<()> {
        let lock =
            format!("SELECT pg_advisory_xact_lock({APPEND_CLASS}, 'mixed_events'::regclass::oid::integer)");
        run(connection, lock).await
    }

    /// Prepares, and commits or rolls back later, on other connections if need be.
    async fn commit_prepared(
        &mut self,
        mut connection: PgConnection,
        key: &str,
        ids: Vec<i64>,
    ) -> Result<()> {
        // If this fails, the end of the soak rolls back what was prepared.
        run(&mut connection, format!("PREPARE TRANSACTION '{key}'")).await?;
        pause(Duration::from_millis(150)).await;
        let commits = fastrand::u32(0..5) != 0;
        let end = format!("{} PREPARED '{key}'", if commits { "COMMIT" } else { "ROLLBACK" });
        loop {
            match run(&mut connection, end.clone()).await {
                Ok(()) => break,
                // An earlier attempt succeeded, whose answer was lost: only this session ends it.
                Err(error) if is_missing(&error) => break,
                Err(_) => {}
            }
            if let Ok(another) = self.shared.address.connect().await {
                connection = another;
            }
        }
        self.shared.journal().finish(key, commits.then_some(ids));
        self.connection = Some(connection);
        Ok(())
    }
}

/// Returns whether the server has no such prepared transaction.
fn is_missing(error: &anyhow::Error) -> bool {
    let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    database.is_some_and(|error| error.code().as_deref() == Some("42704"))
}

async fn insert_event(
    connection: &mut PgConnection,
    aggregate: Uuid,
    version: i64,
    state: String,
    id: Option<i64>,
) -> Result<i64> {
    let insert = "INSERT INTO mixed_events VALUES ($1, $2, $3, $4, \
                  coalesce($5, nextval('mixed_events_notification_id_seq'))) RETURNING notification_id";
    let insert = sqlx::query_scalar(insert).bind(aggregate).bind(version);
    let insert = insert.bind(journal::topic(0)).bind(state.into_bytes()).bind(id);
    Ok(insert.fetch_one(connection).await?)
}

async fn run(connection: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// Reads without any protection, until it has read up to the end; and skips some ids, as a defect.
pub(crate) async fn read(shared: Arc<Shared>, name: String, skips: bool) -> Result<()> {
    let select = "SELECT notification_id FROM mixed_events WHERE notification_id > $1 \
                  ORDER BY notification_id LIMIT 200";
    let mut connection = None;
    let mut position = 0_i64;
    loop {
        let stage = shared.stage();
        if matches!(stage, Stage::Read(end) if position >= end) {
            return Ok(());
        }
        let Ok(mut session) = (match connection.take() {
            Some(session) => Ok(session),
            None => shared.address.connect().await,
        }) else {
            continue;
        };
        let page = sqlx::query_scalar(select).bind(position).fetch_all(&mut session).await;
        let Ok(mut page): Result<Vec<i64>, _> = page else { continue };
        connection = Some(session);
        match page.last() {
            Some(last) => position = *last,
            None => sleep(Duration::from_millis(2)).await,
        }
        page.retain(|id| !(skips && id % 50 == 7));
        shared.journal().saw(&name, &page);
    }
}

/// Vacuums, analyses, and changes settings of the table.
pub(crate) async fn maintain(shared: Arc<Shared>) -> Result<()> {
    while shared.stage() == Stage::Write {
        let statement = match fastrand::u32(0..4) {
            0 => "VACUUM mixed_events".to_owned(),
            1 => "ANALYZE mixed_events".to_owned(),
            2 => "VACUUM ANALYZE mixed_tracking".to_owned(),
            _ => format!(
                "ALTER TABLE mixed_events SET (autovacuum_vacuum_threshold = {})",
                fastrand::u32(50..9_999)
            ),
        };
        // It may be terminated.
        if let Ok(mut session) = shared.address.connect().await {
            let _ = run(&mut session, statement).await;
        }
        pause(Duration::from_millis(700)).await;
    }
    Ok(())
}

/// Reads the recorded positions again and again: none goes back.
pub(crate) async fn watch_positions(shared: Arc<Shared>) -> Result<()> {
    let mut control = shared.address.control().await?;
    let mut highest = std::collections::HashMap::new();
    while !shared.is_over() {
        for (name, position) in positions(&mut control).await? {
            let before = highest.insert(name.clone(), position).unwrap_or(0);
            if position < before {
                shared
                    .journal()
                    .violation(format!("the position of {name:?} went from {before} back to {position}"));
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// All recorded positions; those of processors have the names of their tables before them.
pub(crate) async fn positions(control: &mut PgConnection) -> Result<Vec<(String, i64)>> {
    let select = "SELECT application_name, notification_id FROM mixed_tracking \
                  UNION ALL SELECT 'rows/' || application_name, notification_id FROM rows_tracking \
                  UNION ALL SELECT 'ledger/' || application_name, notification_id FROM ledger_tracking";
    sqlx::query_as(select).fetch_all(control).await.context("cannot read the positions")
}
