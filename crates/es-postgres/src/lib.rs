//! Recorders on PostgreSQL: the same tables as the Python library's.
//!
//! A [`PostgresDatastore`] is an open database. Its recorders share a pool of connections. Each has a queue,
//! from which waiting requests are committed in groups:
//!
//! - [`PostgresAggregateRecorder`] keeps events, or snapshots, of aggregates by version,
//! - [`PostgresApplicationRecorder`] also keeps them in one total order,
//! - [`PostgresProcessRecorder`] also keeps tracking records, in the same commit,
//! - [`PostgresTrackingRecorder`] keeps tracking records alone.
//!
//! A [`PostgresProjection`] writes tables of the program's own in the commit that records a position: see
//! [`PostgresTrackingRecorder::projector`].
//!
//! Recorders run on tokio, in the runtime in which they were made. An acknowledged event is committed, as
//! durably as the server is configured to commit. Any number of processes, in Rust or Python, may share a
//! database.
//!
//! # Example
//! ```no_run
//! use es_core::{AggregateRecorder, ApplicationRecorder, Bytes, EventRange, NotificationSelection};
//! use es_core::{PersistenceError, Recorder, StoredEvent, Topic, uuid::Uuid};
//! use es_postgres::PostgresOptions;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), PersistenceError> {
//! let options = PostgresOptions::new("eventsourcing").host("127.0.0.1").user("bank").password("secret");
//! let datastore = options.open().await?;
//! // Creates the tables `bank_events` and `bank_tracking` if they are missing.
//! let recorder = datastore.process_recorder("bank").await?;
//!
//! let opened = StoredEvent {
//!     originator_id: Uuid::from_u128(1),
//!     originator_version: 1,
//!     topic: Topic::from_static("bank:Account.Opened"),
//!     state: Bytes::from_static(br#"{"owner":"Alice"}"#),
//! };
//! assert_eq!(recorder.insert_events(vec![opened.clone()]).await?, [1]);
//! assert_eq!(recorder.select_events(opened.originator_id, EventRange::all()).await?, [opened.clone()]);
//!
//! // The same version again is a conflict.
//! let refused = recorder.insert_events(vec![opened]).await.unwrap_err();
//! assert!(refused.is_conflict());
//!
//! let page = recorder.select_notifications(NotificationSelection::new(100)).await?;
//! assert_eq!(page[0].id, 1);
//! recorder.close().await
//! # }
//! ```
//!
//! # The total order
//! Notification ids come from a sequence, which allocates them before the transactions that use them commit:
//! with several writers, a higher id can become visible before a lower one, and a reader that has read past
//! it never sees the lower one. There are two ways to prevent that:
//!
//! - [`NotificationOrdering::Serialized`], the default. Writers exclude each other from before the first id
//!   is allocated until after the commit is visible. Ids become visible in ascending order, for every reader,
//!   the Python library's included. An append is one statement that takes a transaction-level advisory lock
//!   of the table and inserts; `INSERT` itself excludes the Python library's writers, which lock the table.
//!   One statement carries all waiting requests, so that the lock costs one flush of the disk for each group.
//!   A conflict may use up ids.
//! - [`NotificationOrdering::Parallel`]. Writers do not exclude each other. A reader that meets a gap
//!   determines which transactions were writing, waits until they have ended, and reads again. Every process
//!   must use this library in this mode, and notifications are read from the primary. A transaction that
//!   writes and stays open delays readers: they warn (`tracing`), and fail if a
//!   [bound](PostgresOptions::fence_timeout) is set, but never skip the gap. Continue after the last id of a
//!   page; or, after a page with fewer events than its limit, after its
//!   [`stop`](es_core::NotificationSelection::stop), if that was the highest id before. An empty page without
//!   a `stop`, or a short page beyond its last id, does not cover transactions in progress. Two writers of
//!   the same aggregate wait for each other's commit, because the second one has to know whether the version
//!   is free.
//!
//! A recorder inspects its tables when it is opened. Open it again after an events table was replaced: in the
//! parallel ordering it allocates ids from the sequence that it found.
//!
//! Both need ids that are allocated one by one: a sequence with `CACHE 1`, `NO CYCLE`, ascending, as is the
//! default. The serialized ordering needs writers that take one of the two locks. Those of the Python library
//! do, unless `POSTGRES_ENABLE_DB_FUNCTIONS` is on: its function takes none, so leave that off. Earlier
//! builds of this library lock the table, and may run at the same time.
//!
//! # Following
//! A commit of the datastore's own recorders wakes the tasks that wait for it before its caller gets the
//! result. Commits of others (other processes, the Python library, transactions of the caller's) are found
//! within the [poll interval](PostgresOptions::poll_interval): while tasks wait, one task for each table
//! reads its highest notification id, and wakes those that wait for one of the new topics. With
//! [`notify`](PostgresOptions::notify), processes also notify each other after commits.
//!
//! A subscription survives a restart of the server: it retries at its position.
//!
//! # Lost connections
//! Reads are retried on a new connection, for up to the [connect timeout](PostgresOptions::connect_timeout).
//! If a connection is lost while a commit is in flight, the recorder first checks whether exactly these
//! events, and their tracking position, are recorded: if so, they are acknowledged, and if not, they are
//! recorded. Events of another writer at the same versions count as these if topic and state are the same
//! bytes, unless their ids show that they are older than the request; states with a timestamp differ. The
//! outcome is [unknown](es_core::ErrorKind::OutcomeUnknown) if the server does not return within the
//! [connect timeout](PostgresOptions::connect_timeout), if the same events have ids from before the request,
//! if a later position is recorded, or if the request cannot be recorded again. A position that is recorded
//! without events counts as recorded if the table has exactly it, regardless of its writer.
//!
//! A connection that stays silent without an error, because a network loses packets, is detected by asking
//! the server on another connection; see [`PostgresOptions::response_timeout`].
//!
//! After a failover to a server that has lost acknowledged events, ids are allocated again:
//! [`validated_position`](es_core::TrackingRecorderExt::validated_position) detects it. A synchronous standby
//! has all acknowledged events. Readers see no more than it has, with one exception that is PostgreSQL's own:
//! if only the first process of a primary is killed, the others may for a moment show commits that no standby
//! has.
//!
//! # Roles
//! - To create tables: `CREATE` on the schema. Other roles run without
//!   [`create_table`](PostgresOptions::create_table).
//! - To read: `SELECT` on the tables.
//! - To record: `SELECT` and `INSERT` on the events table, `USAGE` on its sequence, and
//!   `SELECT, INSERT, UPDATE` on the tracking table.
//!
//! Statements of the library run with `search_path = pg_catalog, pg_temp`, so that objects of another role in
//! `public` are not used in their place (CVE-2018-1058), and with planner settings of their own. Triggers of
//! the tables run with these settings too: qualify the names that they use. A [`PostgresProjection`] and the
//! caller's own transactions run with the settings of their role. Reads include child tables; each needs the
//! same indexes.
//!
//! libpq's environment variables have no effect; see [`PostgresOptions::open`].
//!
//! # Synchronous standbys
//! An acknowledged event is on the synchronous standby, with one exception: if the wait for the standby is
//! cancelled (`pg_cancel_backend`, `pg_terminate_backend`, a fast shutdown), the server reports success with
//! a warning, which the driver does not pass on. The event is then committed on the primary, and may be lost
//! in a failover.
//!
//! # Reads from standbys
//! With [`read_hosts`](PostgresOptions::read_hosts), pages of notifications, and so streams and
//! subscriptions, are read from standbys. A reader may rely on the same as without them, in the serialized
//! ordering:
//!
//! - It misses nothing, and reads nothing twice or that is not visible on the primary. Each page ends with
//!   a notification that the primary has confirmed, at the cost of one index lookup there.
//! - A read has what the same process has recorded or read before, whichever server it reaches. It waits
//!   for the standby up to [`standby_wait`](PostgresOptions::standby_wait). What other processes have
//!   recorded may come later:
//!   [`wait_for_notification`](es_core::ApplicationRecorderExt::wait_for_notification) waits for it.
//! - The primary answers, and a warning is logged, if no standby is reached within 2 seconds, does not
//!   answer within the [response timeout](PostgresOptions::response_timeout), does not catch up in time, or
//!   was promoted. A standby is tried again after 5 seconds. A read that the standby cancels, because of a
//!   conflict with what it replays, is repeated.
//! - While there is no primary, reads fail as they do without standbys: a standby alone does not know which
//!   events are acknowledged.
//!
//! Events of an aggregate, positions and the highest notification id are always read from the primary. States
//! that were [replaced](es_core::StateMaintenance) are read from a standby when it has replayed them.
//!
//! # Behind pgbouncer
//! In session mode no option is needed; a pgbouncer that refuses the startup parameter of
//! [`idle_in_transaction_session_timeout`](PostgresOptions::idle_in_transaction_session_timeout) needs
//! `ignore_startup_parameters = options`. In transaction mode set
//! [`transaction_pooler`](PostgresOptions::transaction_pooler), whether or not pgbouncer (from 1.21) has
//! `max_prepared_statements`. The option applies to the connections to standbys, too.
//!
//! # Features
//! - `tls`: encrypted connections, by rustls on ring; see [`PostgresOptions::sslmode`].

mod connection;
mod datastore;
mod error;
mod external_transaction;
mod fault_hooks;
mod follow;
mod limits;
mod maintenance;
mod options;
mod projection;
mod quote;
mod read;
mod recorder;
mod resources;
mod runtime;
mod schema;
mod segments;
mod task_permit;
mod write;

pub use datastore::PostgresDatastore;
#[cfg(feature = "test-hooks")]
pub use fault_hooks::{FaultHooks, FaultPoint, HookFuture};
pub use options::{NotificationOrdering, PostgresOptions};
pub use projection::{PostgresProjection, PostgresProjector};
pub use recorder::{
    PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder, PostgresTrackingRecorder,
};
/// The library that projections are written against.
pub use sqlx;

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
