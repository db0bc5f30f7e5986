//! Snapshots: read before the events, and written after the command.

use std::{fmt::Debug, sync::Arc};

use es_core::{
    AggregateRecorder, BoxFuture, DomainEvent, EventRange, EventStore, PersistenceError, Snapshot,
    SnapshotState, Transcoder, uuid::Uuid,
};
use tokio::{runtime::Handle, sync::Semaphore};

/// The highest number of snapshots that are written at the same time. Each holds a state in memory; further
/// ones are left out.
const MAX_WRITES: usize = 16;

/// The versions at which snapshots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    every: u32,
}

impl SnapshotPolicy {
    /// A snapshot by each command that reaches or passes a multiple of this version; none for 0.
    pub const fn every(events: u32) -> Self {
        Self { every: events }
    }

    /// Returns whether a command takes a snapshot that moves an aggregate from one version to another.
    fn is_due(self, from: i64, to: i64) -> bool {
        let every = i64::from(self.every);
        every > 0 && from / every < to / every
    }
}

/// The snapshots of an aggregate type. Object-safe, so that the type of a repository does not depend on it.
pub(crate) trait Snapshots<A>: Debug + Send + Sync {
    /// Returns the newest snapshot: version and state.
    fn newest(&self, id: Uuid) -> BoxFuture<'_, Option<(i64, A)>>;

    /// Returns whether a command takes a snapshot that moves an aggregate from one version to another.
    fn is_due(&self, from: i64, to: i64) -> bool;

    /// Writes a snapshot: in a task on a tokio runtime, otherwise before it returns.
    fn write(&self, id: Uuid, version: i64, state: A) -> BoxFuture<'static, ()>;
}

#[derive(Debug)]
pub(crate) struct SnapshotStore<R, T> {
    store: Arc<EventStore<R, T>>,
    policy: SnapshotPolicy,
    permits: Arc<Semaphore>,
}

impl<R, T> SnapshotStore<R, T> {
    pub(crate) fn new(store: EventStore<R, T>, policy: SnapshotPolicy) -> Self {
        Self { store: Arc::new(store), policy, permits: Arc::new(Semaphore::new(MAX_WRITES)) }
    }
}

impl<A, R, T> Snapshots<A> for SnapshotStore<R, T>
where
    A: SnapshotState,
    R: AggregateRecorder + 'static,
    T: Transcoder,
{
    fn newest(&self, id: Uuid) -> BoxFuture<'_, Option<(i64, A)>> {
        Box::pin(async move {
            let newest = self.store.get::<Snapshot<A>>(id, EventRange::all().desc().limit(1)).await?;
            Ok(newest.into_iter().next().map(|event| (event.originator_version, event.payload.state)))
        })
    }

    fn is_due(&self, from: i64, to: i64) -> bool {
        self.policy.is_due(from, to)
    }

    fn write(&self, id: Uuid, version: i64, state: A) -> BoxFuture<'static, ()> {
        let store = Arc::clone(&self.store);
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        Box::pin(async move {
            let Ok(permit) = permit else {
                tracing::debug!(originator_id = %id, version, "too many snapshots at a time; left out");
                return Ok(());
            };
            let write = async move {
                let _permit = permit;
                let snapshot = DomainEvent::new(id, version, Snapshot { state });
                log(id, version, store.put(&[snapshot]).await);
            };
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(write)),
                Err(_) => write.await,
            }
            Ok(())
        })
    }
}

/// Logs a failure. A conflict is none: the snapshot of this version exists, by a command of another process.
fn log(id: Uuid, version: i64, written: Result<Vec<i64>, PersistenceError>) {
    match written {
        Err(error) if !error.is_conflict() => {
            tracing::warn!(originator_id = %id, version, %error, "a snapshot was not written");
        }
        _ => tracing::debug!(originator_id = %id, version, "a snapshot was written"),
    }
}

#[cfg(test)]
mod tests {
    use super::SnapshotPolicy;

    #[test]
    fn a_snapshot_is_due_at_multiples_that_are_reached_or_passed() {
        let policy = SnapshotPolicy::every(50);
        let due = [(0, 49), (49, 50), (50, 51), (48, 53), (99, 100), (0, 500)];
        assert_eq!(due.map(|(from, to)| policy.is_due(from, to)), [false, true, false, true, true, true]);
        assert!(!SnapshotPolicy::every(0).is_due(0, i64::MAX));
        assert!(SnapshotPolicy::every(1).is_due(7, 8));
    }
}
