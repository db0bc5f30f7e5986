//! SQLite recorders behave as the in-memory recorders do, for random operations.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

use std::{sync::Arc, time::Duration};

use es_conformance::{
    Fixture,
    machine::{Recorders, agrees},
};
use es_popo::{PopoAggregateRecorder, PopoProcessRecorder};
use es_sqlite::{SqliteDatastore, SqliteOptions};
use tempfile::TempDir;

/// A file, which each handle opens for itself, as another process would.
struct File(TempDir);

/// A database in memory, which the handles share, and which ends with them.
struct Memory(SqliteDatastore);

impl Fixture for File {
    type Recorder = Recorders;

    async fn open(&self) -> Recorders {
        recorders(&open(SqliteOptions::new(self.0.path().join("events.db"))).await).await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

impl Fixture for Memory {
    type Recorder = Recorders;

    async fn open(&self) -> Recorders {
        recorders(&self.0).await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

async fn open(options: SqliteOptions) -> SqliteDatastore {
    // Tests wait for commits of the other handle repeatedly.
    options.poll_interval(Duration::from_millis(2)).open().await.unwrap()
}

async fn recorders(datastore: &SqliteDatastore) -> Recorders {
    Recorders {
        process: Arc::new(datastore.process_recorder().await.unwrap()),
        application: Arc::new(datastore.application_recorder().await.unwrap()),
        tracking: Arc::new(datastore.tracking_recorder().await.unwrap()),
        snapshots: Arc::new(datastore.aggregate_recorder("snapshots").await.unwrap()),
    }
}

fn oracle() -> Recorders {
    Recorders::of(PopoProcessRecorder::new(), PopoAggregateRecorder::new())
}

#[test]
fn a_file_answers_as_the_oracle_does() {
    agrees(32, oracle, async || File(tempfile::tempdir().unwrap()));
}

#[test]
fn a_database_in_memory_answers_as_the_oracle_does() {
    agrees(32, oracle, async || Memory(open(SqliteOptions::new(":memory:")).await));
}
