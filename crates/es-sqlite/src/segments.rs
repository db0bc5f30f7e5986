//! The segments of partitioned consumers: tables beside the one of tracking records.

use es_core::{
    PersistenceError, Segment, SegmentChange, SegmentRecorder, SegmentStep, SegmentWorker, Segments,
};
use rusqlite::{Connection, Row, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::{
    datastore::outcome_lost,
    error::from_sqlite,
    recorder::{SqliteProcessRecorder, SqliteTrackingRecorder, Store},
    schema::tables,
    write::{Command, Committer, WriteConnection, queued_size},
};

const SEGMENTS: &str = "tracking_segments";

const CREATE: &str = "\
    CREATE TABLE IF NOT EXISTS tracking_segments (consumer_name TEXT, first_hash INTEGER, last_hash INTEGER, \
    epoch INTEGER, owner TEXT, tracking_name TEXT, PRIMARY KEY (consumer_name, first_hash)) WITHOUT ROWID; \
    CREATE TABLE IF NOT EXISTS tracking_workers (consumer_name TEXT, worker TEXT, expires_at INTEGER, \
    PRIMARY KEY (consumer_name, worker)) WITHOUT ROWID;";

const SELECT_SEGMENTS: &str = "\
    SELECT s.first_hash, s.last_hash, s.epoch, s.owner, (SELECT MAX(t.notification_id) FROM tracking AS t \
    WHERE t.application_name = s.tracking_name) FROM tracking_segments AS s WHERE s.consumer_name = ?1";

const SELECT_WORKERS: &str = "SELECT worker, expires_at FROM tracking_workers WHERE consumer_name = ?1";

macro_rules! record_segments {
    ($($recorder:ident)*) => {$(
        impl SegmentRecorder for $recorder {
            async fn segments(&self, consumer_name: &str) -> Result<Segments, PersistenceError> {
                let consumer_name = consumer_name.to_owned();
                self.0.read(move |session| read(&session.connection, &consumer_name)).await
            }

            async fn change_segments(
                &self,
                consumer_name: &str,
                change: SegmentChange,
            ) -> Result<Segments, PersistenceError> {
                change_segments(&self.0, consumer_name.to_owned(), change).await
            }
        }
    )*};
}

record_segments!(SqliteProcessRecorder SqliteTrackingRecorder);

async fn change_segments(
    store: &Store,
    consumer_name: String,
    change: SegmentChange,
) -> Result<Segments, PersistenceError> {
    let Store { datastore, lifecycle, .. } = store;
    lifecycle.check_open()?;
    if matches!(change, SegmentChange::Create(_) | SegmentChange::Restore(_)) {
        let create = |connection: &mut Connection| {
            // Writing would wait for a lock, also where there is nothing to create.
            if tables::exists(connection, SEGMENTS).map_err(from_sqlite)? {
                return Ok(());
            }
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let transaction = transaction.map_err(from_sqlite)?;
            transaction.execute_batch(CREATE).map_err(from_sqlite)?;
            transaction.commit().map_err(from_sqlite)
        };
        datastore.create_table(None, create).await?;
    }
    let permit = datastore.acquire_permit(queued_size([])).await?;
    let (reply, outcome) = oneshot::channel();
    let pending = lifecycle.accept()?;
    let run = move |committer: &Committer| {
        if !reply.is_closed() {
            let changed = transact(&committer.writing, &consumer_name, &change);
            drop(permit);
            let _ = reply.send(changed);
        }
        drop(pending);
    };
    datastore.submit(Command::Transact(Box::new(run)))?;
    outcome.await.unwrap_or_else(|_| Err(outcome_lost())).map_err(|error| datastore.with_name(error))
}

fn transact(
    writing: &WriteConnection,
    consumer_name: &str,
    change: &SegmentChange,
) -> Result<Segments, PersistenceError> {
    writing.begin().map_err(from_sqlite)?;
    let changed = apply(writing.connection(), consumer_name, change).inspect_err(|_| {
        if let Err(error) = writing.roll_back() {
            // The next transaction tries again before it begins.
            tracing::warn!(%error, "a change of segments cannot be rolled back");
        }
    })?;
    writing.commit(|_| Ok(None))?;
    Ok(changed)
}

fn apply(
    connection: &Connection,
    consumer_name: &str,
    change: &SegmentChange,
) -> Result<Segments, PersistenceError> {
    let mut segments = load(connection, consumer_name).map_err(from_sqlite)?;
    // In the transaction: after the wait for the lock.
    for step in segments.apply(change, Segments::local_time())? {
        let refused = |name: &str| Err(SegmentStep::refused(name));
        let changed = perform(connection, consumer_name, &step).map_err(from_sqlite)?;
        match step {
            SegmentStep::MovePosition { from: name, .. } | SegmentStep::RemovePosition { name, .. }
                if changed == 0 =>
            {
                return refused(&name);
            }
            _ => {}
        }
    }
    Ok(segments)
}

/// Performs a step. Returns the number of changed rows.
fn perform(connection: &Connection, consumer_name: &str, step: &SegmentStep) -> rusqlite::Result<usize> {
    const MOVE: &str = "UPDATE tracking SET application_name = ?2, \
         notification_id = COALESCE(NULLIF(notification_id, 0), ?4) WHERE application_name = ?1 AND (?3 IS NULL \
         OR ?3 = (SELECT MAX(notification_id) FROM tracking WHERE application_name = ?1))";
    const INSERT: &str = "INSERT INTO tracking (application_name, notification_id) VALUES (?1, ?2)";
    let execute = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters))
    };
    match step {
        SegmentStep::PutSegment(segment) => execute(
            "INSERT OR REPLACE INTO tracking_segments (consumer_name, first_hash, last_hash, epoch, owner, \
             tracking_name) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                consumer_name,
                segment.first_hash,
                segment.last_hash,
                segment.epoch,
                segment.owner,
                segment.tracking_name(consumer_name)
            ],
        ),
        SegmentStep::RemoveSegment { first_hash } => execute(
            "DELETE FROM tracking_segments WHERE consumer_name = ?1 AND first_hash = ?2",
            params![consumer_name, first_hash],
        ),
        SegmentStep::PutWorker(worker) => execute(
            "INSERT OR REPLACE INTO tracking_workers (consumer_name, worker, expires_at) VALUES (?1, ?2, ?3)",
            params![consumer_name, worker.name, worker.expires_at],
        ),
        SegmentStep::RemoveWorker { name } => execute(
            "DELETE FROM tracking_workers WHERE consumer_name = ?1 AND worker = ?2",
            params![consumer_name, name],
        ),
        SegmentStep::BeginPosition { from, to } => {
            match execute(MOVE, params![from, to, None::<i64>, Segment::UNSTARTED])? {
                0 => execute(INSERT, params![to, Segment::UNSTARTED]),
                moved => Ok(moved),
            }
        }
        SegmentStep::MovePosition { from, to, position } => {
            execute(MOVE, params![from, to, position, Segment::UNSTARTED])
        }
        SegmentStep::CopyPosition { from, to } => execute(
            "INSERT INTO tracking (application_name, notification_id) \
             SELECT ?2, MAX(notification_id) FROM tracking WHERE application_name = ?1",
            params![from, to],
        ),
        SegmentStep::InsertPosition { name, position } => execute(INSERT, params![name, position]),
        SegmentStep::RemovePosition { name, position } => execute(
            "DELETE FROM tracking WHERE application_name = ?1 AND ?2 = \
             (SELECT MAX(notification_id) FROM tracking WHERE application_name = ?1)",
            params![name, position],
        ),
        other => Err(rusqlite::Error::ToSqlConversionFailure(format!("unknown step {other:?}").into())),
    }
}

/// Returns the segments of a consumer; none if the tables are missing.
fn read(connection: &Connection, consumer_name: &str) -> Result<Segments, PersistenceError> {
    if !tables::exists(connection, SEGMENTS).map_err(from_sqlite)? {
        return Ok(Segments::new(consumer_name, Vec::new(), Vec::new()));
    }
    load(connection, consumer_name).map_err(from_sqlite)
}

fn load(connection: &Connection, consumer_name: &str) -> rusqlite::Result<Segments> {
    let segment = |row: &Row<'_>| {
        let position: Option<i64> = row.get(4)?;
        let position = position.unwrap_or(Segment::UNSTARTED);
        Ok(Segment::new(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, position))
    };
    let mut select = connection.prepare_cached(SELECT_SEGMENTS)?;
    let segments = select.query_map((consumer_name,), segment)?.collect::<rusqlite::Result<_>>()?;
    let worker = |row: &Row<'_>| Ok(SegmentWorker::new(row.get::<_, String>(0)?, row.get(1)?));
    let mut select = connection.prepare_cached(SELECT_WORKERS)?;
    let workers = select.query_map((consumer_name,), worker)?.collect::<rusqlite::Result<_>>()?;
    Ok(Segments::new(consumer_name, segments, workers))
}
