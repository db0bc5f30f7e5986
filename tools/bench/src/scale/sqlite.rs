//! The costs on SQLite, by the sizes of its files and by `dbstat`.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use es_core::AggregateRecorder;
use es_sqlite::SqliteOptions;
use rusqlite::Connection;

use super::{Cost, REPEATED, Sample, log};
use crate::{
    data::{Ids, STATE_SIZE, Supply},
    systems::bare_sqlite::Database,
};

const BACKEND: &str = "SQLite";
const TABLE: &str = "stored_events";
const KEY_INDEX: &str = "sqlite_autoindex_stored_events_1";
/// Commits between two checkpoints: fewer pages than those that make SQLite write a checkpoint by itself.
const COMMITS: usize = 100;

pub(super) async fn measure(directory: &Path, ids: Ids, stored: usize) -> Result<Sample> {
    let path = directory.join("scale.db");
    Database::open(&path)?.fill(log::events(ids, stored))?;
    let bytes = |name: &'static str| -> Result<f64> {
        let select = "SELECT pgsize FROM dbstat WHERE name = ?1 AND aggregate = TRUE";
        let size: i64 = Connection::open(&path)?.query_row(select, [name], |row| row.get(0))?;
        Ok(size as f64 / stored as f64)
    };
    let mut costs = vec![
        (Cost::TableBytes, bytes(TABLE)?),
        (Cost::KeyBytes, bytes(KEY_INDEX)?),
        (Cost::KeyLevels, levels(&Connection::open(&path)?)?),
    ];
    let supply = Supply::starting_at(1 << 32).with_ids(ids);
    let log = path.with_extension("db-wal");
    let mut written = 0;
    for _ in 0..REPEATED / COMMITS {
        let recorder = SqliteOptions::new(&path).open().await?.application_recorder().await?;
        recorder.insert_events(supply.events(1, STATE_SIZE)).await?;
        let before = size(&log)?;
        for _ in 0..COMMITS {
            recorder.insert_events(supply.events(1, STATE_SIZE)).await?;
        }
        written += size(&log)?.checked_sub(before).context("the write-ahead log began again")?;
        drop(recorder);
        // A checkpoint empties the log.
        Connection::open(&path)?.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        ensure!(size(&log).unwrap_or(0) == 0, "the write-ahead log is in use");
    }
    costs.push((Cost::AppendLog, written as f64 / REPEATED as f64));
    for file in [&path, &log, &path.with_extension("db-shm")] {
        let _ = fs::remove_file(file);
    }
    Ok(Sample { backend: BACKEND.to_owned(), ids, stored, costs })
}

fn size(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len())
}

/// Returns the pages from the root of the index to a leaf: a path names a child by a slash and its number.
fn levels(connection: &Connection) -> Result<f64> {
    let select = "SELECT path FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' LIMIT 1";
    let path: String = connection.query_row(select, [KEY_INDEX], |row| row.get(0))?;
    Ok(path.matches('/').count() as f64)
}
