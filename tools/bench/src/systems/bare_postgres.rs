//! Bare sqlx, as a careful programmer would write it: prepared statements, each call on a ready connection,
//! rows decoded into owned values. sqlx's own pool, which is measured too, pings the server with every use.

use std::{
    hint::black_box,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use anyhow::{Context, Result};
use es_core::StoredEvent;
use sqlx::{
    Connection, PgConnection, PgPool, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::QueryScalar,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::{OwnedEvent, postgres_schema::Schema, recorder::TRACKED};
use crate::workload::{Page, Store};

const INSERT: &str = "INSERT INTO stored_events (originator_id, originator_version, topic, state) \
     VALUES ($1, $2, $3, $4) RETURNING notification_id";
const INSERT_MANY: &str = "INSERT INTO stored_events (originator_id, originator_version, topic, state) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[]) RETURNING notification_id";
const TRACK: &str = "INSERT INTO tracking (application_name, notification_id) VALUES ($1, $2) \
     ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id";
const COPY: &str =
    "COPY stored_events (originator_id, originator_version, topic, state) FROM STDIN (FORMAT binary)";
const SELECT_EVENTS: &str = "SELECT originator_id, originator_version, topic, state FROM stored_events \
     WHERE originator_id = $1 ORDER BY originator_version";
const SELECT_LAST: &str = "SELECT originator_version FROM stored_events WHERE originator_id = $1 \
     ORDER BY originator_version DESC LIMIT 1";
const SELECT_NOTIFICATIONS: &str = "SELECT originator_id, originator_version, topic, state, notification_id \
     FROM stored_events WHERE notification_id > $1 ORDER BY notification_id LIMIT $2";

/// Bytes sent at a time.
const COPY_BUFFER: usize = 64 * 1024;

/// The least number of rows for `COPY`. No program would use it for fewer: it takes one round trip more than
/// an insert, and sqlx sends its end separately on a socket without `TCP_NODELAY`, where it waits 40 ms for
/// the acknowledgement of the rows.
const FEWEST_TO_COPY: usize = 100;

/// A fixed number of connections, which tasks use in turns.
pub(crate) struct Connections {
    free: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
}

impl Connections {
    pub(crate) async fn open(schema: &Schema, count: usize) -> Result<Self> {
        let mut free = Vec::with_capacity(count);
        for _ in 0..count {
            free.push(schema.connect().await?);
        }
        Ok(Self { free: Mutex::new(free), permits: Semaphore::new(count) })
    }

    /// Returns a connection for exclusive use until it is dropped.
    async fn take(&self) -> Result<Taken<'_>> {
        let permit = self.permits.acquire().await?;
        let connection = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Taken { connection, connections: self, _permit: permit })
    }
}

struct Taken<'a> {
    connection: Option<PgConnection>,
    connections: &'a Connections,
    /// Released after the connection, since fields are dropped after `drop`.
    _permit: SemaphorePermit<'a>,
}

impl Taken<'_> {
    fn get(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_mut().context("there are fewer connections than permits")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut free = self.connections.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.connection.take());
    }
}

/// sqlx's own pool with all its defaults, which most programs use: ten connections, each pinged before and
/// after each use.
pub(crate) struct Pool(PgPool);

impl Pool {
    pub(crate) fn open(schema: &Schema) -> Self {
        Self(PgPool::connect_lazy_with(schema.connect_options()))
    }
}

impl Store for Pool {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        for event in events {
            black_box(insert(&event).fetch_one(&self.0).await?);
        }
        Ok(())
    }
}

impl Store for Connections {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        let mut connection = self.take().await?;
        match events.as_slice() {
            [event] => {
                black_box(insert(event).fetch_one(connection.get()?).await?);
            }
            few if few.len() < FEWEST_TO_COPY => {
                black_box(insert_many(few).fetch_all(connection.get()?).await?);
            }
            _ => copy(connection.get()?, events.into_iter()).await?,
        }
        Ok(())
    }

    async fn append_if_new(&self, event: StoredEvent) -> Result<bool> {
        let mut connection = self.take().await?;
        match insert(&event).fetch_one(connection.get()?).await {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn last_version(&self, originator_id: Uuid) -> Result<i64> {
        let mut connection = self.take().await?;
        let select = sqlx::query_scalar(SELECT_LAST).bind(originator_id);
        Ok(select.fetch_optional(connection.get()?).await?.unwrap_or(0))
    }

    async fn load(&self, originator_id: Uuid) -> Result<usize> {
        let mut connection = self.take().await?;
        let select = sqlx::query(SELECT_EVENTS).bind(originator_id).try_map(decode);
        let events = select.fetch_all(connection.get()?).await?;
        Ok(black_box(events).len())
    }

    async fn page(&self, after: i64, limit: usize) -> Result<Page> {
        let mut connection = self.take().await?;
        let select = sqlx::query(SELECT_NOTIFICATIONS)
            .bind(after)
            .bind(i64::try_from(limit)?)
            .try_map(|row: PgRow| Ok((row.try_get::<i64, _>(4)?, decode(row)?)));
        let notifications = black_box(select.fetch_all(connection.get()?).await?);
        Ok(Page { count: notifications.len(), last: notifications.last().map_or(0, |(id, _)| *id) })
    }
}

/// A connection that appends each event and the position of an application in one transaction.
pub(crate) struct Tracking {
    connections: Connections,
    position: AtomicI64,
}

impl Tracking {
    pub(crate) async fn open(schema: &Schema) -> Result<Self> {
        Ok(Self { connections: Connections::open(schema, 1).await?, position: AtomicI64::new(1) })
    }
}

impl Store for Tracking {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        let mut connection = self.connections.take().await?;
        let mut transaction = connection.get()?.begin().await?;
        for event in events {
            black_box(insert(&event).fetch_one(&mut *transaction).await?);
        }
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        sqlx::query(TRACK).bind(TRACKED).bind(position).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}

fn decode(row: PgRow) -> Result<OwnedEvent, sqlx::Error> {
    Ok(OwnedEvent {
        originator_id: row.try_get(0)?,
        originator_version: row.try_get(1)?,
        topic: row.try_get(2)?,
        state: row.try_get(3)?,
    })
}

fn insert(event: &StoredEvent) -> QueryScalar<'_, Postgres, i64, PgArguments> {
    sqlx::query_scalar(INSERT)
        .bind(event.originator_id)
        .bind(event.originator_version)
        .bind(event.topic.as_str())
        .bind(&*event.state)
}

fn insert_many(events: &[StoredEvent]) -> QueryScalar<'_, Postgres, i64, PgArguments> {
    sqlx::query_scalar(INSERT_MANY)
        .bind(events.iter().map(|event| event.originator_id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.originator_version).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.topic.as_str()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| &*event.state).collect::<Vec<&[u8]>>())
}

/// `COPY` in its binary format: the fastest way into a table.
pub(crate) async fn copy(
    connection: &mut PgConnection,
    events: impl Iterator<Item = StoredEvent>,
) -> Result<()> {
    let mut copy = connection.copy_in_raw(COPY).await?;
    let mut buffer = b"PGCOPY\n\xff\r\n\0".to_vec();
    // No flags, no further header.
    buffer.extend_from_slice(&[0; 8]);
    for event in events {
        write_row(&mut buffer, &event)?;
        if buffer.len() >= COPY_BUFFER {
            copy.send(buffer.as_slice()).await?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(buffer.as_slice()).await?;
    copy.finish().await?;
    Ok(())
}

fn write_row(buffer: &mut Vec<u8>, event: &StoredEvent) -> Result<()> {
    let version = event.originator_version.to_be_bytes();
    let fields: [&[u8]; 4] = [event.originator_id.as_bytes(), &version, event.topic.as_bytes(), &event.state];
    buffer.extend_from_slice(&4_i16.to_be_bytes());
    for field in fields {
        buffer.extend_from_slice(&i32::try_from(field.len())?.to_be_bytes());
        buffer.extend_from_slice(field);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Connections;
    use crate::{systems::postgres_schema::Schema, workload::tests::writes_and_reads};

    #[tokio::test]
    async fn single_inserts_and_copies_are_read_back() {
        if std::env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
            return;
        }
        let schema = Schema::create("test").await.unwrap();
        schema.create_table().await.unwrap();
        writes_and_reads(Connections::open(&schema, 2).await.unwrap()).await;
        schema.drop().await.unwrap();
    }
}
