//! Processors that run in a task of their own.

use es_core::{ApplicationRecorder, NotificationConsumer, PersistenceError, SegmentRecorder, StopHandle};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{PartitionedProcessor, Processor, ProcessorError, ProcessorState, Progress};

/// A processor that runs in a task, returned by [`Processor::spawn`].
///
/// Dropping it stops the processor as [`stop`](Self::stop) does: a processor does not run without a handle
/// by which its failure can be noticed.
#[derive(Debug)]
#[must_use = "dropping it stops the processor"]
pub struct Running {
    consumer_name: String,
    progress: Progress,
    stop: StopHandle,
    /// `None` after the result was returned.
    task: Option<JoinHandle<Result<(), ProcessorError>>>,
}

impl<R, C> Processor<R, C>
where
    R: ApplicationRecorder + Clone + 'static,
    C: NotificationConsumer + 'static,
{
    /// Runs the processor in a task of the current tokio runtime, as [`run`](Self::run) does.
    ///
    /// ```no_run
    /// # use es_process::{ProcessorError, Running};
    /// # async fn shutdown() {}
    /// # async fn example(mut running: Running) -> Result<(), ProcessorError> {
    /// tokio::select! {
    ///     ended = running.join() => ended, // it failed, or its upstream was closed
    ///     () = shutdown() => {
    ///         running.stop(); // after the batch in progress
    ///         running.join().await
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Interface`](es_core::ErrorKind::Interface) outside of a tokio runtime.
    pub fn spawn(mut self) -> Result<Running, PersistenceError> {
        let runtime = runtime()?;
        let (consumer_name, progress) = (self.name().to_owned(), self.progress());
        let stop = self.stop_handle();
        let task = runtime.spawn(async move { self.run().await });
        Ok(Running { consumer_name, progress, stop, task: Some(task) })
    }
}

impl<U, L, C> PartitionedProcessor<U, L, C>
where
    U: ApplicationRecorder + Clone + 'static,
    L: SegmentRecorder + 'static,
    C: NotificationConsumer + 'static,
{
    /// Runs the worker in a task of the current tokio runtime, as [`run`](Self::run) does. Stopping it also
    /// releases its segments.
    ///
    /// # Errors
    /// [`Interface`](es_core::ErrorKind::Interface) outside of a tokio runtime.
    pub fn spawn(mut self) -> Result<Running, PersistenceError> {
        let runtime = runtime()?;
        let (consumer_name, progress) = (self.name().to_owned(), self.progress());
        let stop = self.stop_handle();
        let task = runtime.spawn(async move { self.run().await });
        Ok(Running { consumer_name, progress, stop, task: Some(task) })
    }
}

impl Running {
    /// Stops the processor: the batch in progress is committed, then the run ends without an error.
    ///
    /// It does not wait for the end; [`join`](Self::join) does. It interrupts pauses and waiting, and no
    /// handler.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Returns the state, with the error that stopped the processor: for a health check.
    ///
    /// It is [`NotStarted`](ProcessorState::NotStarted) until the task begins.
    pub fn health(&self) -> ProcessorState {
        self.progress.state()
    }

    /// Returns a handle on the progress.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Waits for the end of the run, and returns its result once; `Ok` at later calls.
    ///
    /// # Errors
    /// As [`Processor::run`]; [`ProcessorError::Aborted`] if it panicked, in the handler for example, or if
    /// the runtime was shut down.
    ///
    /// # Cancel safety
    /// Cancel safe: the processor goes on, and the result is kept for the next call.
    pub async fn join(&mut self) -> Result<(), ProcessorError> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let result = task.await;
        self.task = None;
        result.unwrap_or_else(|error| {
            Err(ProcessorError::Aborted { consumer_name: self.consumer_name.clone(), source: error.into() })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// Returns the current tokio runtime.
fn runtime() -> Result<Handle, PersistenceError> {
    Handle::try_current().map_err(|error| {
        let message = "a processor is spawned outside of a tokio runtime: call `spawn` in a task of one, or in its \
                       block_on";
        PersistenceError::interface(message).with_source(error)
    })
}
