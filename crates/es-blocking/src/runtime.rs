//! The runtime that blocking calls wait on.

use std::{fmt, sync::Arc};

use es_core::PersistenceError;
use tokio::runtime::{self, Handle};

/// A tokio runtime for blocking calls: its one thread runs the background tasks of datastores, and each call
/// runs on the thread of its caller.
///
/// It ends, without waiting for its tasks, when it and all that it has made are dropped.
#[derive(Clone)]
pub struct Runtime(Arc<Owned>);

/// The runtime; present until it is dropped.
struct Owned(Option<runtime::Runtime>);

impl Runtime {
    /// Starts a runtime.
    ///
    /// # Errors
    /// [`Operational`](es_core::ErrorKind::Operational) if its thread cannot be started.
    pub fn new() -> Result<Self, PersistenceError> {
        let mut builder = runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name("es-blocking").enable_all().build();
        let runtime = built.map_err(|error| {
            PersistenceError::operational("the runtime for blocking calls cannot be started")
                .with_source(error)
        })?;
        Ok(Self(Arc::new(Owned(Some(runtime)))))
    }

    /// Runs a call to its end on the current thread.
    ///
    /// The error may be any that a [`PersistenceError`] converts to, such as `Box<dyn Error>`.
    ///
    /// ```
    /// # use es_blocking::Runtime;
    /// use es_sqlite::SqliteOptions;
    ///
    /// let runtime = Runtime::new()?;
    /// let datastore = runtime.run(SqliteOptions::new(":memory:").open())?;
    /// let recorder = runtime.run(datastore.process_recorder())?;
    /// # let _ = recorder;
    /// # Ok::<(), es_core::PersistenceError>(())
    /// ```
    ///
    /// # Errors
    /// Those of the call; of kind [`Interface`](es_core::ErrorKind::Interface) inside of a tokio runtime,
    /// where the call is not begun.
    pub fn run<T, E: From<PersistenceError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // Tokio panics if a runtime is entered within another one.
        if Handle::try_current().is_ok() {
            return Err(inside_a_runtime().into());
        }
        match &self.0.0 {
            Some(runtime) => runtime.block_on(call),
            None => Err(PersistenceError::internal("the runtime for blocking calls has ended").into()),
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

/// A runtime that waits for its tasks when it is dropped panics inside of another one.
impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn inside_a_runtime() -> PersistenceError {
    PersistenceError::interface(
        "a blocking call was made inside of a tokio runtime: use the asynchronous API there, in `spawn_blocking` by \
         `Handle::block_on`",
    )
}
