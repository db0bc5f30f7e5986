//! How much memory a stream takes, measured by a process that does nothing else.

use anyhow::{Result, ensure};
use es_core::{ApplicationRecorder, ApplicationRecorderExt, NotificationSelection};
use futures_util::TryStreamExt;

use crate::child::{self, Child, Job};
use crate::machine;

/// MiB above idle that a stream may take, however long it is.
pub(crate) const BOUND: f64 = 20.0;

/// The peak of a child's memory above its idle memory, in MiB.
pub(crate) fn weigh(job: &Job) -> Result<f64> {
    let mut child = Child::spawn(job)?;
    child.start()?;
    child.finish()
}

/// The child's side: streams every notification.
pub(crate) async fn serve_stream(recorder: &impl ApplicationRecorder, events: usize) -> Result<()> {
    child::serve(async || {
        let idle = machine::resident()?;
        let stream = recorder.stream_notifications(NotificationSelection::new(usize::MAX));
        let seen = stream.try_fold(0, async |seen, _| Ok(seen + 1)).await?;
        ensure!(seen == events, "{seen} notifications were streamed, not {events}");
        Ok(machine::peak_resident()?.saturating_sub(idle) as f64 / 1024.0)
    })
    .await
}
