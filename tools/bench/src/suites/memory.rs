//! Memory of a stream, measured in a process that does nothing else.

use anyhow::{Result, ensure};
use es_core::{ApplicationRecorder, ApplicationRecorderExt, NotificationSelection};
use futures_util::TryStreamExt;

use crate::{child, machine};

/// The limit of a stream in MiB above idle, for any length.
pub(crate) const BOUND: f64 = 20.0;

/// Streams every notification, and returns the peak of the memory above idle, in MiB.
pub(crate) async fn serve_stream(recorder: &impl ApplicationRecorder, events: usize) -> Result<()> {
    child::serve(async || {
        let idle = machine::resident()?;
        let stream = recorder.stream_notifications(NotificationSelection::new(usize::MAX));
        let seen = stream.try_fold(0, async |seen, _| Ok(seen + 1)).await?;
        ensure!(seen == events, "{seen} notifications were streamed, not {events}");
        machine::above(idle)
    })
    .await
}
