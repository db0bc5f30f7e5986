//! Positions of consumers: waiting for one, validating it, and its distance to the end of the log.

use std::time::{Duration, Instant};

use crate::{ApplicationRecorder, ErrorKind, PersistenceError, TrackingRecorder, subscription::verify_end};

/// The longest wait for a notification of the signal before the position is read.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The position of a consumer and the end of its upstream log; returned by
/// [`consumer_lag`](TrackingRecorderExt::consumer_lag).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerLag {
    /// The id up to which all notifications are processed; 0 before the first.
    pub position: i64,
    /// The highest notification id of the upstream; 0 if its log is empty.
    pub head: i64,
}

impl ConsumerLag {
    /// Returns the distance in ids from the position to the end of the log. It is an upper bound of the
    /// notifications left, as ids have gaps and other topics count.
    pub fn lag(&self) -> i64 {
        self.head.saturating_sub(self.position).max(0)
    }
}

/// Waiting for, validation and monitoring of positions, for every recorder that tracks.
pub trait TrackingRecorderExt: TrackingRecorder {
    /// Waits until a consumer has processed the notification `notification_id` of its upstream, or a later
    /// one, so that a writer can read the effects of its events.
    ///
    /// `application_name` is the name under which the position is recorded: the consumer's.
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
    ///     balances.wait("balances", *id, Duration::from_secs(2)).await?;
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

    /// Returns the position of a consumer, after validating it against the upstream log.
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
                .map_err(|error| error.with_context(format_args!("consumer {application_name:?}")))?;
            Ok(position)
        }
    }

    /// Returns the position of a consumer and the end of its upstream log, as recorded: also if no processor
    /// runs, or it runs in another process.
    ///
    /// ```
    /// # use es_core::{ApplicationRecorder, PersistenceError, TrackingRecorder, TrackingRecorderExt};
    /// # async fn example<B, R>(bank: B, balances: R) -> Result<(), PersistenceError>
    /// # where
    /// #     B: ApplicationRecorder,
    /// #     R: TrackingRecorder,
    /// # {
    /// let lag = balances.consumer_lag("balances", &bank).await?;
    /// println!("at {} of {}: {} behind", lag.position, lag.head, lag.lag());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Any error of reading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn consumer_lag<R: ApplicationRecorder>(
        &self,
        application_name: &str,
        upstream: &R,
    ) -> impl Future<Output = Result<ConsumerLag, PersistenceError>> + Send {
        async move {
            // First the position: it does not pass the head that is read after it.
            let position = self.max_tracking_id(application_name).await?.unwrap_or(0);
            let head = upstream.max_notification_id().await?.unwrap_or(0);
            Ok(ConsumerLag { position, head })
        }
    }
}

impl<R: TrackingRecorder + ?Sized> TrackingRecorderExt for R {}

pub(crate) fn timed_out(application_name: &str, notification_id: i64, timeout: Duration) -> PersistenceError {
    let message = format!(
        "notification {notification_id} was not processed by consumer {application_name:?} within {timeout:?}"
    );
    PersistenceError::new(ErrorKind::TimedOut, message)
        .transient()
        .about(|context| context.notification_id = Some(notification_id))
}
