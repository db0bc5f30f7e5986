//! The repository of an aggregate type.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use es_core::{
    AggregateRecorder, DomainEvent, EventRange, EventStore, PersistenceError, SnapshotState, Transcoder,
    uuid::Uuid,
};
use futures_core::Stream;
use futures_util::TryStreamExt;

use crate::{
    Aggregate, Loaded, SnapshotPolicy,
    locks::Locks,
    snapshots::{SnapshotStore, Snapshots},
};

/// The default time limit of the retries of a command.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// Loads the aggregates of a type, and executes commands on them.
///
/// A repository is a handle: its clones, and [repositories](Self::repository) of other types that are made
/// from it, share the store and the locks by which the commands of one aggregate take turns. Use one for each
/// store in a process. Commands of other processes are met by optimistic concurrency.
///
/// See the [crate's documentation](crate) for an example.
pub struct Repository<A, R, T> {
    pub(crate) shared: Arc<Shared<R, T>>,
    snapshots: Option<Arc<dyn Snapshots<A>>>,
    pub(crate) retry_for: Duration,
}

/// The parts that repositories of one store share.
pub(crate) struct Shared<R, T> {
    pub(crate) store: EventStore<R, T>,
    pub(crate) locks: Locks,
}

impl<A, R, T> Repository<A, R, T>
where
    A: Aggregate,
    R: AggregateRecorder + 'static,
    T: Transcoder,
{
    /// A repository on a store, without snapshots.
    pub fn new(store: EventStore<R, T>) -> Self {
        Self::on(Arc::new(Shared { store, locks: Locks::default() }))
    }

    /// Returns a repository of another aggregate type on the same store, without snapshots. Commands of both
    /// can be recorded in one commit: see [`execute_together`](crate::execute_together).
    pub fn repository<B: Aggregate>(&self) -> Repository<B, R, T> {
        Repository { retry_for: self.retry_for, ..Repository::on(Arc::clone(&self.shared)) }
    }

    fn on(shared: Arc<Shared<R, T>>) -> Self {
        Self { shared, snapshots: None, retry_for: RETRY_FOR }
    }

    /// Loads aggregates from snapshots, and has commands take them by a policy. The store is usually one over
    /// an aggregate recorder for the purpose `snapshots`.
    ///
    /// A snapshot saves time, and nothing depends on it:
    /// - It is written after the command's events: on a tokio runtime by a task, for which the command does
    ///   not wait, otherwise before the command returns. A failure is logged by `tracing` as a warning.
    /// - A snapshot that cannot be read, is of another [class version](SnapshotState::CLASS_VERSION) and not
    ///   upcast, or is of a version that the aggregate does not have (after the restore of a backup), is
    ///   ignored with a warning. The aggregate is then loaded from all its events.
    ///
    /// A snapshot has the results of [`apply`](Aggregate::apply) at its time. Raise the class version if
    /// `apply` changes.
    #[must_use]
    pub fn snapshots<SR, ST>(mut self, store: EventStore<SR, ST>, policy: SnapshotPolicy) -> Self
    where
        A: SnapshotState,
        SR: AggregateRecorder + 'static,
        ST: Transcoder,
    {
        self.snapshots = Some(Arc::new(SnapshotStore::new(store, policy)));
        self
    }

    /// The time after the first attempt of a command during which it is repeated after conflicts; 10 s by
    /// default. Zero is for no retries.
    #[must_use]
    pub fn retry_for(mut self, time_limit: Duration) -> Self {
        self.retry_for = time_limit;
        self
    }

    /// Returns the store.
    pub fn store(&self) -> &EventStore<R, T> {
        &self.shared.store
    }

    /// Loads an aggregate: the newest snapshot, if there is one, and the events after it. The events are
    /// read in pages and not collected. An aggregate without events has version 0 and the default state.
    ///
    /// # Errors
    /// Any error of selecting and mapping events; [`Data`](es_core::ErrorKind::Data) if a version is missing
    /// among them.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[expect(
        clippy::manual_async_fn,
        reason = "callers with a recorder behind a `dyn` need the declared `Send`"
    )]
    pub fn load(&self, id: Uuid) -> impl Future<Output = Result<Loaded<A>, PersistenceError>> + Send {
        async move {
            if let Some(loaded) = self.load_from_snapshot(id).await? {
                return Ok(loaded);
            }
            let mut loaded = Loaded::empty(id);
            self.catch_up(&mut loaded).await?;
            Ok(loaded)
        }
    }

    /// Applies the events since the loaded version.
    pub(crate) async fn catch_up(&self, loaded: &mut Loaded<A>) -> Result<(), PersistenceError> {
        fold(loaded, self.shared.store.stream(loaded.id, EventRange::all().after(loaded.version))).await
    }

    /// Returns `None` without a snapshot that can be used.
    async fn load_from_snapshot(&self, id: Uuid) -> Result<Option<Loaded<A>>, PersistenceError> {
        let Some(snapshots) = &self.snapshots else { return Ok(None) };
        let (version, state) = match snapshots.newest(id).await {
            Ok(Some(newest)) => newest,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(originator_id = %id, %error, "a snapshot cannot be read and is ignored");
                return Ok(None);
            }
        };
        // With the event of the snapshot's own version, which a restored backup may lack.
        let range = EventRange::from(version..);
        let mut events = pin!(self.shared.store.stream::<A::Event>(id, range));
        if events.try_next().await?.is_none_or(|event| event.originator_version != version) {
            tracing::warn!(originator_id = %id, version, "the event of a snapshot is missing; it is ignored");
            return Ok(None);
        }
        let mut loaded = Loaded { id, version, state };
        fold(&mut loaded, events).await?;
        Ok(Some(loaded))
    }

    /// Writes a snapshot if the events of a command are a reason for one by the policy.
    pub(crate) async fn write_snapshot(&self, mut loaded: Loaded<A>, events: &[DomainEvent<A::Event>]) {
        let Some((snapshots, last)) = self.snapshots.as_ref().zip(events.last()) else { return };
        if snapshots.is_due(loaded.version, last.originator_version)
            && events.iter().all(|event| loaded.apply(event).is_ok())
        {
            // Its failures are logged.
            let _ = snapshots.write(loaded.id, loaded.version, loaded.state).await;
        }
    }
}

/// Applies events to a state as they arrive.
async fn fold<A: Aggregate>(
    loaded: &mut Loaded<A>,
    events: impl Stream<Item = Result<DomainEvent<A::Event>, PersistenceError>>,
) -> Result<(), PersistenceError> {
    let mut events = pin!(events);
    while let Some(event) = events.try_next().await? {
        loaded.apply(&event)?;
    }
    Ok(())
}

impl<A, R, T> Clone for Repository<A, R, T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            snapshots: self.snapshots.clone(),
            retry_for: self.retry_for,
        }
    }
}

impl<A, R: fmt::Debug, T: fmt::Debug> fmt::Debug for Repository<A, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("store", &self.shared.store)
            .field("snapshots", &self.snapshots)
            .field("retry_for", &self.retry_for)
            .finish()
    }
}
