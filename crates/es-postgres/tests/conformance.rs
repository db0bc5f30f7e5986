//! The recorders on PostgreSQL keep every rule, in both modes, concrete and boxed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use std::marker::PhantomData;

use common::prelude::*;
use es_conformance::Fixture;
use es_postgres::PostgresAggregateRecorder;

/// A recorder that is made on a datastore.
trait Tier: Recorder + Clone + 'static {
    fn on(datastore: PostgresDatastore) -> impl Future<Output = Self> + Send;
}

impl Tier for PostgresAggregateRecorder {
    async fn on(datastore: PostgresDatastore) -> Self {
        datastore.aggregate_recorder("bank", "snapshots").await.unwrap()
    }
}

impl Tier for PostgresApplicationRecorder {
    async fn on(datastore: PostgresDatastore) -> Self {
        datastore.application_recorder("bank").await.unwrap()
    }
}

impl Tier for PostgresProcessRecorder {
    async fn on(datastore: PostgresDatastore) -> Self {
        datastore.process_recorder("bank").await.unwrap()
    }
}

impl Tier for PostgresTrackingRecorder {
    async fn on(datastore: PostgresDatastore) -> Self {
        datastore.tracking_recorder("bank").await.unwrap()
    }
}

/// A schema, in which each recorder has connections of its own, as another process would.
struct Database<R> {
    schema: Schema,
    ordering: NotificationOrdering,
    recorder: PhantomData<fn() -> R>,
}

impl<R> Database<R> {
    async fn datastore(&self) -> PostgresDatastore {
        // Many tests run at once, on a server of 100 connections or so.
        let options = self.schema.options().ordering(self.ordering).pool_size(2).max_overflow(2);
        options.open().await.unwrap()
    }

    async fn table_lock() -> Self {
        Self {
            schema: Schema::create().await,
            ordering: NotificationOrdering::Serialized,
            recorder: PhantomData,
        }
    }

    async fn parallel() -> Self {
        Self {
            schema: Schema::create().await,
            ordering: NotificationOrdering::Parallel,
            recorder: PhantomData,
        }
    }
}

impl<R: Tier> Fixture for Database<R> {
    type Recorder = R;

    async fn open(&self) -> R {
        R::on(self.datastore().await).await
    }

    async fn open_two(&self) -> [R; 2] {
        let datastore = self.datastore().await;
        [R::on(datastore.clone()).await, R::on(datastore).await]
    }
}

macro_rules! in_mode {
    ($mode:ident) => {
        mod $mode {
            mod aggregate_recorder {
                use crate::{Database, PostgresAggregateRecorder};
                es_conformance::aggregate_recorder_tests!(Database::<PostgresAggregateRecorder>::$mode);
            }
            mod application_recorder {
                use crate::{Database, PostgresApplicationRecorder};
                es_conformance::application_recorder_tests!(Database::<PostgresApplicationRecorder>::$mode);
            }
            mod tracking_recorder {
                use crate::{Database, PostgresTrackingRecorder};
                es_conformance::tracking_recorder_tests!(Database::<PostgresTrackingRecorder>::$mode);
            }
            mod process_recorder {
                use crate::{Database, PostgresProcessRecorder};
                es_conformance::process_recorder_tests!(Database::<PostgresProcessRecorder>::$mode);
            }
        }
    };
}

in_mode!(table_lock);
in_mode!(parallel);
