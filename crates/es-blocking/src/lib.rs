//! An event store for synchronous callers, on a tokio runtime of its own.
//!
//! A [`Runtime`] waits for calls: [`run`](Runtime::run) for any future of the library (opening a datastore,
//! constructing by a factory, running a processor), [`iter`](Runtime::iter) for a stream. An [`EventStore`]
//! and a [`Recorder`] are those of `es-core` whose methods wait by themselves.
//!
//! Cloning any of these is cheap, and the clones may be used in several threads at the same time.
//!
//! # Example
//! ```
//! use es_blocking::Runtime;
//! use es_core::{EventRange, Expected, PersistenceError, uuid::Uuid};
//! use es_derive::Event;
//! use es_factory::InfrastructureFactory;
//!
//! #[derive(Debug, PartialEq, Event)]
//! #[event(topic = "bank:Opened")]
//! struct Opened {
//!     owner: String,
//! }
//!
//! let runtime = Runtime::new()?;
//! let variables = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:")];
//! let factory = InfrastructureFactory::builder("bank").environment(variables).build()?;
//! let store = runtime.event_store(runtime.run(factory.event_store())?);
//!
//! let account = Uuid::now_v7();
//! store.append(account, Expected::New, [Opened { owner: "Alice".to_owned() }])?;
//! let events = store.get::<Opened>(account, EventRange::all())?;
//! assert_eq!(events[0].payload.owner, "Alice");
//! runtime.run(factory.close())?;
//! # Ok::<(), PersistenceError>(())
//! ```
//!
//! # Following
//! Subscriptions are iterators. They wait for the next notification, and end when the recorder is closed. For
//! a stop handle or other settings, iterate over a subscription of the asynchronous API:
//! ```
//! # use es_core::{ApplicationRecorder, ApplicationRecorderExt, PersistenceError, StopHandle};
//! # use es_blocking::Runtime;
//! # fn follow<R>(runtime: &Runtime, recorder: R, stop: StopHandle) -> Result<(), PersistenceError>
//! # where
//! #     R: ApplicationRecorder + Clone,
//! # {
//! let subscription = recorder.subscribe(0, []).stopped_by(stop);
//! for notification in runtime.iter(subscription.into_stream()) {
//!     println!("{}", notification?.id);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Inside of an async runtime
//! A blocking call in a task of a tokio runtime would block its thread. It returns an error of kind
//! [`Interface`](es_core::ErrorKind::Interface) and does nothing. Use the asynchronous API there, and in
//! `spawn_blocking` by `Handle::block_on`.

mod event_store;
mod iter;
mod recorder;
mod runtime;

pub use event_store::EventStore;
pub use iter::Iter;
pub use recorder::Recorder;
pub use runtime::Runtime;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
