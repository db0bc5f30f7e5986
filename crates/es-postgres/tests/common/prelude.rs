//! The imports that most tests share.
#![allow(unused_imports, reason = "each test uses some of them")]

pub use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering as Atomic},
    },
    time::Duration,
};

pub use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, Bytes, Conflict, ConsumerError,
    ErrorKind, EventRange, HandlerError, Notification, NotificationBatch, NotificationConsumer,
    NotificationSelection, PersistenceError, ProcessRecorder, Recorder, RecorderTables, StoredEvent,
    Subscription, Topic, Tracking, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
pub use es_postgres::{
    FaultHooks, FaultPoint, HookFuture, NotificationOrdering, PostgresApplicationRecorder, PostgresDatastore,
    PostgresOptions, PostgresProcessRecorder, PostgresProjection, PostgresTrackingRecorder,
};
pub use futures_util::FutureExt;
pub use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};
pub use tokio::sync::{Semaphore, mpsc};

pub use super::{Database, Role, Schema, Server, event, first, run, scalar, until};
