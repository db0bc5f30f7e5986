//! Events, ids, errors and the traits of all parts of an event store.
