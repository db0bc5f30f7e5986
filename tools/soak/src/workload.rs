//! The work on one datastore: one database after the other is filled, read to its end, checked, and
//! deleted.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use es_core::ApplicationRecorder;
use es_faults::{
    kill_point::KillPoint,
    test_database::{self, Backend, ProcessRecorder, Recorder, TestDatabase},
};
use sqlx::PgConnection;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{ledger::Ledger, meters::Meters, projection, readers, writers};

/// The number of events after which a database is replaced by an empty one, to bound the disk usage.
const EVENTS_PER_DATABASE: u64 = 200_000;

/// The time after the last event after which a reader that has not reached the end is stuck.
const CATCH_UP: Duration = Duration::from_secs(60);

/// The interval of measurements of the database's size.
const MEASURE_PAUSE: Duration = Duration::from_secs(2);

/// One database, and the state of the tasks that use it.
#[derive(Debug)]
pub struct Workload {
    /// The database.
    pub database: TestDatabase,
    /// The recorder that most tasks share, whose resources must not grow.
    pub process: ProcessRecorder,
    /// The same recorder, without its type.
    pub recorder: Recorder,
    /// The acknowledged events.
    pub ledger: Ledger,
    /// The metrics over all databases of the datastore.
    pub meters: Arc<Meters>,
    stop: watch::Receiver<bool>,
    /// The last id, once all writers have ended.
    end: watch::Sender<Option<i64>>,
}

/// Runs on one database after the other until it is stopped.
///
/// # Errors
/// When a reader missed an event or received one twice, or anything fails.
pub async fn run(backend: Backend, meters: Arc<Meters>, stop: watch::Receiver<bool>) -> Result<()> {
    let mut number = 0;
    while !*stop.borrow() {
        number += 1;
        meters.begin_database();
        let directory = tempfile::tempdir()?;
        let database =
            TestDatabase::create(backend, directory.path(), &format!("soak_{backend:?}_{number}")).await?;
        let worked = Workload::work(&database, directory.path(), &meters, &stop).await;
        database.delete().await?;
        worked.with_context(|| format!("{backend:?}, database {number}"))?;
    }
    Ok(())
}

impl Workload {
    async fn work(
        database: &TestDatabase,
        directory: &Path,
        meters: &Arc<Meters>,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let process = database.open_process(KillPoint::new(None), true).await?;
        let workload = Arc::new(Self {
            database: database.clone(),
            recorder: process.clone().into(),
            process,
            ledger: Ledger::default(),
            meters: Arc::clone(meters),
            stop: stop.clone(),
            end: watch::Sender::new(None),
        });
        let mut scale = Scale::new(database, directory).await?;
        tokio::select! {
            worked = Arc::clone(&workload).write_and_read() => worked?,
            failed = scale.measure(meters) => failed?,
        }
        scale.measure_once(meters).await?;
        es_core::Recorder::close(&workload.recorder).await?;
        Ok(())
    }

    /// Runs writers and readers; when all writers have ended, the readers read to the end.
    async fn write_and_read(self: Arc<Self>) -> Result<()> {
        // Both are aborted when they are dropped.
        let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
        writers::spawn(&self, &mut writers);
        readers::spawn(&self, &mut readers);
        readers.spawn(projection::follow(Arc::clone(&self)));
        tokio::select! {
            written = all(&mut writers) => written.context("a writer")?,
            read = readers.join_next() => match read {
                Some(ended) => { ended?.context("a reader")?; bail!("a reader ended before the writers") }
                None => bail!("there are no readers"),
            },
        }
        let end = self.recorder.max_notification_id().await?.context("nothing was written")?;
        ensure!(
            end == self.ledger.last_id(),
            "{end} is the last id, and {} acknowledged",
            self.ledger.last_id()
        );
        self.end.send_replace(Some(end));
        let read = timeout(CATCH_UP, all(&mut readers)).await;
        read.context("readers do not reach the end")?.context("a reader")
    }

    /// Returns whether writers continue.
    pub fn continues(&self) -> bool {
        !*self.stop.borrow() && self.ledger.events() < EVENTS_PER_DATABASE
    }

    /// Returns whether the log ends at a position.
    pub fn ends_at(&self, position: i64) -> bool {
        self.end.borrow().is_some_and(|end| position >= end)
    }

    /// Waits until all writers have ended, and returns the last id.
    pub async fn ended(&self) -> i64 {
        let mut end = self.end.subscribe();
        // The sender is `self`'s: it is there as long as this waits.
        let last = end.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        last.unwrap_or(i64::MAX)
    }
}

async fn all(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Weighs a database.
enum Scale<'a> {
    Directory(&'a Path),
    Schema(Box<PgConnection>, &'a str),
}

impl<'a> Scale<'a> {
    async fn new(database: &'a TestDatabase, directory: &'a Path) -> Result<Self> {
        Ok(match database {
            TestDatabase::Postgres { schema, .. } => {
                Self::Schema(Box::new(test_database::connect().await?), schema)
            }
            _ => Self::Directory(directory),
        })
    }

    /// Measures until it fails.
    async fn measure(&mut self, meters: &Meters) -> Result<()> {
        loop {
            self.measure_once(meters).await?;
            sleep(MEASURE_PAUSE).await;
        }
    }

    async fn measure_once(&mut self, meters: &Meters) -> Result<()> {
        let (bytes, wal) = match self {
            Self::Directory(directory) => weigh(directory)?,
            Self::Schema(connection, schema) => {
                let sizes: (i64, i64) = sqlx::query_as(
                    "SELECT (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c \
                     WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r'), \
                     (SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir())",
                )
                .bind(format!("\"{schema}\""))
                .fetch_one(&mut **connection)
                .await?;
                (u64::try_from(sizes.0)?, u64::try_from(sizes.1)?)
            }
        };
        meters.bytes.fetch_max(bytes, Ordering::Relaxed);
        meters.wal.store(wal, Ordering::Relaxed);
        Ok(())
    }
}

/// The bytes of all files, and those of write-ahead logs.
fn weigh(directory: &Path) -> Result<(u64, u64)> {
    let (mut all, mut wal) = (0, 0);
    for entry in directory.read_dir()? {
        let entry = entry?;
        let bytes = entry.metadata()?.len();
        all += bytes;
        if entry.file_name().as_encoded_bytes().ends_with(b"-wal") {
            wal += bytes;
        }
    }
    Ok((all, wal))
}
