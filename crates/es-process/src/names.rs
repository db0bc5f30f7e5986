//! Detection of different consumers with one name.
//!
//! Two of them would record their positions under one key, and each would skip what the other has processed.

use std::any::TypeId;

use es_core::{PersistenceError, Signal, Topic};
use parking_lot::Mutex;

/// The consumers that run in this process.
static RUNNING: Mutex<Vec<Consumer>> = Mutex::new(Vec::new());

/// A claim on the name of a consumer, until it is dropped. Instances of one consumer share a name.
#[derive(Debug)]
pub(crate) struct NameClaim(Consumer);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Consumer {
    name: String,
    /// The signal of the recorder that has the position.
    positions: Signal,
    upstream: Signal,
    consumer: TypeId,
    topics: Vec<Topic>,
}

impl NameClaim {
    /// Claims a name for a consumer of type `C`. Logs a warning if the upstream of an instance is another
    /// recorder: that may have the same log, opened separately.
    ///
    /// # Errors
    /// If a consumer of another type, or with other topics, runs under the same name.
    pub(crate) fn new<C>(
        name: &str,
        positions: &Signal,
        upstream: &Signal,
        topics: &[Topic],
    ) -> Result<Self, PersistenceError> {
        let mut topics = topics.to_vec();
        topics.sort_unstable();
        topics.dedup();
        let (positions, upstream) = (positions.clone(), upstream.clone());
        let claimed =
            Consumer { name: name.to_owned(), positions, upstream, consumer: typeid::of::<C>(), topics };
        let mut running = RUNNING.lock();
        let same_name = || running.iter().filter(|other| claimed.shares_position(other));
        if same_name().any(|other| (other.consumer, &other.topics) != (claimed.consumer, &claimed.topics)) {
            let message = "a different consumer is running under this name: give each one a name of its own, the key \
                           of its position";
            return Err(PersistenceError::programming(message));
        }
        if same_name().any(|other| other.upstream != claimed.upstream) {
            tracing::warn!(
                consumer = name,
                "another instance of this consumer has an upstream that was opened separately; if that is \
                 another database, give each consumer a name of its own"
            );
        }
        running.push(claimed.clone());
        Ok(Self(claimed))
    }
}

impl Consumer {
    fn shares_position(&self, other: &Self) -> bool {
        self.name == other.name && self.positions == other.positions
    }
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        let mut running = RUNNING.lock();
        if let Some(index) = running.iter().position(|consumer| *consumer == self.0) {
            running.swap_remove(index);
        }
    }
}
