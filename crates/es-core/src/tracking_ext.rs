//! Waiting until something has been processed, and looking at positions.

use std::time::{Duration, Instant};

use crate::{ApplicationRecorder, ErrorKind, PersistenceError, TrackingRecorder, subscription::verify_end};

/// How long to wait for a wake-up before looking nevertheless: recorders wake those who wait.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What can be asked of every recorder that tracks.
pub trait TrackingRecorderExt: TrackingRecorder {
    /// Waits until the notification `notification_id` of an upstream application, or a later one, has
    /// been processed: who has written can then read what became of it.
    ///
    /// Within one process the commit that records the position ends the waiting; what other processes
    /// record is noticed at the recorder's poll interval.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use es_core::{PersistenceError, TrackingRecorder, TrackingRecorderExt};
    /// # async fn example<R: TrackingRecorder>(balances: &R, ids: &[i64]) -> Result<(), PersistenceError> {
    /// // `ids` is what putting the events returned.
    /// if let Some(id) = ids.last() {
    ///     balances.wait("bank", *id, Duration::from_secs(2)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) after `timeout`;
    /// [`Interface`](ErrorKind::Interface) when the recorder is closed meanwhile; what reading the
    /// position fails with.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
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
                    return Err(PersistenceError::interface(
                        "the recorder was closed while it was waited for",
                    ));
                }
            }
        }
    }

    /// How far an upstream application has been processed, having made sure that the upstream
    /// recorder still has what was processed.
    ///
    /// After a failover to a server that has lost acknowledged events, or when a backup was restored,
    /// ids are given out again, and a consumer that goes on from its position would skip the new
    /// events that get them.
    ///
    /// # Errors
    /// [`RolledBack`](ErrorKind::RolledBack) when the position is beyond the highest notification id of
    /// the upstream; what reading fails with.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    fn validated_position<R: ApplicationRecorder>(
        &self,
        application_name: &str,
        upstream: &R,
    ) -> impl Future<Output = Result<Option<i64>, PersistenceError>> + Send {
        async move {
            let position = self.max_tracking_id(application_name).await?;
            let Some(recorded) = position else { return Ok(None) };
            verify_end(recorded, upstream.max_notification_id().await?)
                .map_err(|error| error.about(format_args!("application {application_name:?}")))?;
            Ok(position)
        }
    }
}

impl<R: TrackingRecorder + ?Sized> TrackingRecorderExt for R {}

fn timed_out(application_name: &str, notification_id: i64, timeout: Duration) -> PersistenceError {
    let message = format!(
        "notification {notification_id} of application {application_name:?} was not processed within {timeout:?}"
    );
    PersistenceError::new(ErrorKind::TimedOut, message).transient()
}
