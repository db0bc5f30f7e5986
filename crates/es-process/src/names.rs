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
    identity: Identity,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    consumer: TypeId,
    upstream: Signal,
    topics: Vec<Topic>,
}

impl NameClaim {
    /// Claims a name for a consumer of type `C`.
    ///
    /// # Errors
    /// If a different consumer runs under the same name.
    pub(crate) fn new<C>(
        name: &str,
        positions: &Signal,
        upstream: &Signal,
        topics: &[Topic],
    ) -> Result<Self, PersistenceError> {
        let mut topics = topics.to_vec();
        topics.sort_unstable();
        topics.dedup();
        let identity = Identity { consumer: typeid::of::<C>(), upstream: upstream.clone(), topics };
        let claimed = Consumer { name: name.to_owned(), positions: positions.clone(), identity };
        let mut running = RUNNING.lock();
        let mut same_name =
            running.iter().filter(|other| other.name == name && other.positions == claimed.positions);
        if same_name.any(|other| other.identity != claimed.identity) {
            let message = "a different consumer is running under this name: give each one a name of its own, the key \
                           of its position";
            return Err(PersistenceError::programming(message));
        }
        running.push(claimed.clone());
        Ok(Self(claimed))
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
