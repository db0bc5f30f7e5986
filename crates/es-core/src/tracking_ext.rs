//! Waiting for a position, and validating it.

use std::time::{Duration, Instant};

use crate::{ApplicationRecorder, ErrorKind, PersistenceError, TrackingRecorder, subscription::verify_end};

/// The longest wait for a notification of the signal before the position is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Waiting for and validation of positions, for every recorder that tracks.
pub trait TrackingRecorderExt: TrackingRecorder {
    /// Waits until the notification `notification_id` of an upstream application, or a later one, has
    /// been processed, so that a writer can read the effects of its events.
    ///
    /// A commit of the same process that records the position ends the wait at once; positions that other
    /// processes record are found at the recorder's poll interval.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use es_core::{PersistenceError, TrackingRecorder, TrackingRecorderExt};
    /// # async fn example<R: TrackingRecorder>(balances: &R, ids: &[i64]) -> Result<(), PersistenceError> {
    /// // `ids` was returned by putting the events.
    /// if let Some(id) = ids.last() {
    ///     balances.wait("bank", *id, Duration::from_secs(2)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) after `timeout`; [`Interface`](ErrorKind::Interface) if the
    /// recorder is closed meanwhile; any error of reading the position.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn wait(
        &self,
        application_name: &str,
        notification_id: i64,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), PersistenceError>> + Send {
        async move {
            let began = Instant::now();
            let mut listener = self.tracking_signal().listen([application_name]);
            loop {
                if self.has_tracking_id(application_name, notification_id).await? {
                    return Ok(());
                }
                let left = timeout.saturating_sub(began.elapsed());
                if left.is_zero() {
                    return Err(timed_out(application_name, notification_id, timeout));
                }
                if !listener.notified_timeout(left.min(POLL_INTERVAL)).await {
                    return Err(PersistenceError::interface("the recorder was closed during the wait"));
                }
            }
        }
    }

    /// Returns the position of an upstream application, after validating it against the upstream log.
    ///
    /// After a failover to a server that has lost acknowledged events, or after the restore of a backup,
    /// ids are assigned again. A consumer that continues from its position would skip the new events with
    /// those ids.
    ///
    /// # Errors
    /// [`RolledBack`](ErrorKind::RolledBack) if the position is after the highest notification id of the
    /// upstream; any error of reading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn validated_position<R: ApplicationRecorder>(
        &self,
        application_name: &str,
        upstream: &R,
    ) -> impl Future<Output = Result<Option<i64>, PersistenceError>> + Send {
        async move {
            let position = self.max_tracking_id(application_name).await?;
            let Some(recorded) = position else { return Ok(None) };
            verify_end(recorded, upstream.max_notification_id().await?)
                .map_err(|error| error.with_context(format_args!("application {application_name:?}")))?;
            Ok(position)
        }
    }
}

impl<R: TrackingRecorder + ?Sized> TrackingRecorderExt for R {}

fn timed_out(application_name: &str, notification_id: i64, timeout: Duration) -> PersistenceError {
    let message = format!(
        "notification {notification_id} of application {application_name:?} was not processed within \
         {timeout:?}"
    );
    PersistenceError::new(ErrorKind::TimedOut, message).transient()
}
