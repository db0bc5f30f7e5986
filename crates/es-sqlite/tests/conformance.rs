//! The recorders on SQLite keep every rule, on a file and in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

use std::marker::PhantomData;

use es_conformance::Fixture;
use es_core::Recorder;
use es_sqlite::{
    SqliteAggregateRecorder, SqliteApplicationRecorder, SqliteDatastore, SqliteOptions,
    SqliteProcessRecorder, SqliteTrackingRecorder,
};
use tempfile::TempDir;

/// A recorder that is made on a datastore.
trait Tier: Recorder + Clone + 'static {
    fn on(datastore: SqliteDatastore) -> impl Future<Output = Self> + Send;
}

impl Tier for SqliteAggregateRecorder {
    async fn on(datastore: SqliteDatastore) -> Self {
        datastore.aggregate_recorder("snapshots").await.unwrap()
    }
}

impl Tier for SqliteApplicationRecorder {
    async fn on(datastore: SqliteDatastore) -> Self {
        datastore.application_recorder().await.unwrap()
    }
}

impl Tier for SqliteProcessRecorder {
    async fn on(datastore: SqliteDatastore) -> Self {
        datastore.process_recorder().await.unwrap()
    }
}

impl Tier for SqliteTrackingRecorder {
    async fn on(datastore: SqliteDatastore) -> Self {
        datastore.tracking_recorder().await.unwrap()
    }
}

/// A file, which each recorder opens for itself, as another process would.
struct File<R> {
    directory: TempDir,
    recorder: PhantomData<fn() -> R>,
}

impl<R> File<R> {
    async fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), recorder: PhantomData }
    }

    async fn datastore(&self) -> SqliteDatastore {
        SqliteOptions::new(self.directory.path().join("events.db")).open().await.unwrap()
    }
}

impl<R: Tier> Fixture for File<R> {
    type Recorder = R;

    async fn open(&self) -> R {
        R::on(self.datastore().await).await
    }

    async fn open_two(&self) -> [R; 2] {
        let datastore = self.datastore().await;
        [R::on(datastore.clone()).await, R::on(datastore).await]
    }
}

/// A database in memory, which recorders share.
struct Memory<R>(SqliteDatastore, PhantomData<fn() -> R>);

impl<R: Tier> Memory<R> {
    async fn new() -> Self {
        Self(SqliteOptions::new(":memory:").open().await.unwrap(), PhantomData)
    }
}

impl<R: Tier> Fixture for Memory<R> {
    type Recorder = R;

    async fn open(&self) -> R {
        R::on(self.0.clone()).await
    }
}

mod file {
    mod aggregate_recorder {
        use crate::{File, SqliteAggregateRecorder};
        es_conformance::aggregate_recorder_tests!(File::<SqliteAggregateRecorder>::new);
    }
    mod application_recorder {
        use crate::{File, SqliteApplicationRecorder};
        es_conformance::application_recorder_tests!(File::<SqliteApplicationRecorder>::new);
    }
    mod tracking_recorder {
        use crate::{File, SqliteTrackingRecorder};
        es_conformance::tracking_recorder_tests!(File::<SqliteTrackingRecorder>::new);
    }
    mod process_recorder {
        use crate::{File, SqliteProcessRecorder};
        es_conformance::process_recorder_tests!(File::<SqliteProcessRecorder>::new);
    }
}

mod memory {
    mod aggregate_recorder {
        use crate::{Memory, SqliteAggregateRecorder};
        es_conformance::aggregate_recorder_tests!(Memory::<SqliteAggregateRecorder>::new);
    }
    mod application_recorder {
        use crate::{Memory, SqliteApplicationRecorder};
        es_conformance::application_recorder_tests!(Memory::<SqliteApplicationRecorder>::new);
    }
    mod tracking_recorder {
        use crate::{Memory, SqliteTrackingRecorder};
        es_conformance::tracking_recorder_tests!(Memory::<SqliteTrackingRecorder>::new);
    }
    mod process_recorder {
        use crate::{Memory, SqliteProcessRecorder};
        es_conformance::process_recorder_tests!(Memory::<SqliteProcessRecorder>::new);
    }
}
