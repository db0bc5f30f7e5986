//! Subscriptions: recorded notifications after a position, then live ones.

use std::{num::NonZeroUsize, pin::pin, time::Duration};

use futures_core::Stream;
use futures_util::{
    StreamExt, TryStreamExt,
    future::{Either, select},
    stream,
    stream::try_unfold,
};
use uuid::Uuid;

use crate::{
    ApplicationRecorder, DEFAULT_PAGE_BYTES, DEFAULT_PAGE_SIZE, ErrorKind, Listener, Notification,
    NotificationSelection, PersistenceError, Signal, Topic, page_size::PageSize, selection::state_bytes,
};

/// The shortest and the longest pause before a retry after a transient failure; doubled each time.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The default of [`Subscription::poll_interval`].
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// A lower bound, against busy loops.
const SHORTEST_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A subscription to the notifications of a recorder: those recorded after a position, then live ones.
/// Made by [`subscribe`](crate::ApplicationRecorderExt::subscribe).
///
/// There is no switch between the two: all are pages of the log, read by position. At the end of the log the
/// subscription waits for the recorder's signal. No notification is missed or delivered twice, and a slow
/// subscriber keeps one page in memory.
///
/// ```text
///   log   1  2  3  4  5  6  7  8  9 │ 10 …          recorded by any process
///               ╰── page ──╯ ╰page╯ │ ╰ a commit notifies the subscription
///   position  3 ──────▶ 7 ──────▶ 9 │ ──▶ 10
/// ```
///
/// Transient failures (a lost connection, a restart of the server) are retried at the same position without a
/// limit, and logged with `tracing` as warnings. A subscription may be dropped at any point.
///
/// A log that was rolled back (a failover to a lagging standby, the restore of a backup) assigns ids again. A
/// subscription that continued from its position would skip the events with those ids. It fails with
/// [`RolledBack`](crate::ErrorKind::RolledBack) instead: if nothing is found after a notification of the
/// signal or the poll interval and the highest id is before the position, and if the notification that it
/// read last is another one after a failed read. It cannot detect a log that has passed the position
/// again before it is read, without a failed read.
///
/// It holds a handle of the recorder, which stays open until [`close`](crate::Recorder::close) is called;
/// that ends the subscription.
#[derive(Debug)]
pub struct Subscription<R> {
    recorder: R,
    topics: Vec<Topic>,
    position: i64,
    page_size: PageSize,
    poll_interval: Duration,
    listener: Listener,
    /// The last notification that was read: id, originator and version.
    last_read: Option<(i64, Uuid, i64)>,
    /// True if the log is known to contain the position: it was read since the last wait.
    is_in_log: bool,
    /// True if the last page was at the end of the log. The listener is notified of all that the read of that
    /// page has not seen, so the next call waits before it reads.
    is_at_end: bool,
    /// True if a read has failed since the last page.
    is_interrupted: bool,
    /// The handle that stops the subscription, if there is one.
    stop: Option<StopHandle>,
}

/// Stops a [`Subscription`], or a processor of the crate `es-process`, from another task or thread.
///
/// [`Subscription::stop_handle`] returns the handle of one subscription. One handle can stop several, by
/// [`Subscription::stopped_by`]. Dropping it stops nothing.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Signal);

impl StopHandle {
    /// A handle that stops nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the wait of the subscription, and all later ones.
    pub fn stop(&self) {
        self.0.close();
    }

    /// Returns whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until [`stop`](Self::stop) is called.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stopped(&self) {
        self.0.listen::<&str>([]).notified().await;
    }
}

/// A page of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotificationPage {
    /// The notifications, ordered by id; empty if only other topics were recorded.
    pub notifications: Vec<Notification>,
    /// The id up to which the log has been read, other topics included.
    pub position: i64,
    /// The distance in ids to the end of the log when the page was read; 0 at the end.
    pub lag: i64,
}

impl<R: ApplicationRecorder> Subscription<R> {
    pub(crate) fn new(recorder: R, position: i64, topics: &[Topic]) -> Self {
        let listener = recorder.commit_signal().listen(topics);
        Self {
            recorder,
            topics: topics.to_vec(),
            position,
            page_size: PageSize::new(DEFAULT_PAGE_SIZE),
            poll_interval: POLL_INTERVAL,
            listener,
            last_read: None,
            is_in_log: false,
            is_at_end: false,
            is_interrupted: false,
            stop: None,
        }
    }

    /// The maximum of notifications per page; [`DEFAULT_PAGE_SIZE`] by default. A page ends earlier when
    /// its states have [`DEFAULT_PAGE_BYTES`] together.
    #[must_use]
    pub fn page_size(mut self, page_size: NonZeroUsize) -> Self {
        self.page_size = PageSize::new(page_size);
        self
    }

    /// The longest wait for a signal before the log is read; 10 s by default, at least 1 ms.
    ///
    /// Recorders notify their subscriptions, so this is a second line of defence. It also moves the
    /// position past notifications of other topics, which do not notify: after a restart, only the
    /// notifications of this time are scanned again.
    #[must_use]
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.poll_interval = poll_interval.max(SHORTEST_POLL_INTERVAL);
        self
    }

    /// Returns the id up to which the log has been read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Continues after `position`.
    pub fn seek(&mut self, position: i64) {
        self.position = position;
        (self.is_in_log, self.is_at_end) = (false, false);
    }

    /// Returns the recorder.
    pub fn recorder(&self) -> &R {
        &self.recorder
    }

    /// Returns a handle that stops the subscription from another task or thread.
    pub fn stop_handle(&mut self) -> StopHandle {
        self.stop.get_or_insert_default().clone()
    }

    /// Has the subscription stopped by this handle, in place of an earlier one.
    #[must_use]
    pub fn stopped_by(mut self, handle: StopHandle) -> Self {
        self.stop = Some(handle);
        self
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(StopHandle::is_stopped)
    }

    /// Waits for the next page; returns `None` when the recorder is closed or the subscription stopped.
    ///
    /// A subscription to some topics returns an empty page if only other topics were recorded: its position
    /// has moved.
    ///
    /// # Errors
    /// [`RolledBack`](crate::ErrorKind::RolledBack) if the log ends before the position, or has lost
    /// notifications that were read; any error of selecting notifications that is not transient. The next
    /// call tries again.
    ///
    /// # Cancel safety
    /// Cancel safe: the position moves when a page is returned.
    pub async fn next_page(&mut self) -> Result<Option<NotificationPage>, PersistenceError> {
        let Some(stop) = self.stop.clone() else { return self.wait_for_page().await };
        // Polled first: a stopped subscription returns no further page.
        match select(pin!(stop.stopped()), pin!(self.wait_for_page())).await {
            Either::Left(_) => Ok(None),
            Either::Right((page, _)) => page,
        }
    }

    async fn wait_for_page(&mut self) -> Result<Option<NotificationPage>, PersistenceError> {
        loop {
            if !std::mem::take(&mut self.is_at_end)
                && let Some(page) = self.read_with_retry().await?
            {
                self.position = page.position;
                self.is_at_end = page.lag == 0;
                let events = page.notifications.iter().map(|notification| &notification.event);
                self.page_size = self.page_size.after(page.notifications.len(), state_bytes(events));
                self.is_in_log = true;
                if let Some(Notification { id, event }) = page.notifications.last() {
                    self.last_read = Some((*id, event.originator_id, event.originator_version));
                }
                return Ok(Some(page));
            }
            if !self.listener.notified_timeout(self.poll_interval).await {
                return Ok(None);
            }
            self.is_in_log = false;
        }
    }

    /// Converts the subscription to a stream of notifications. It ends when the recorder is closed or the
    /// subscription stopped, and after an error, which is the last item.
    pub fn into_stream(self) -> impl Stream<Item = Result<Notification, PersistenceError>> + Send {
        let pages = try_unfold(self, |mut subscription| async move {
            let page = subscription.next_page().await?;
            Ok::<_, PersistenceError>(page.map(|page| (page, subscription)))
        });
        pages.map_ok(|page| stream::iter(page.notifications).map(Ok)).try_flatten()
    }

    /// Reads a page, with retries after transient failures.
    async fn read_with_retry(&mut self) -> Result<Option<NotificationPage>, PersistenceError> {
        let (mut pause, longest_pause) = RETRY_PAUSES;
        loop {
            match self.read().await {
                Err(_) if self.recorder.commit_signal().is_closed() => return Ok(None),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, position = self.position, "reading the log failed; retrying");
                    self.is_in_log = false;
                    self.is_interrupted = true;
                    if self.recorder.commit_signal().closed_timeout(pause).await {
                        return Ok(None);
                    }
                    pause = longest_pause.min(pause * 2);
                }
                result => return result,
            }
        }
    }

    async fn read(&mut self) -> Result<Option<NotificationPage>, PersistenceError> {
        if self.is_interrupted {
            self.verify_last_read().await?;
            self.is_interrupted = false;
        }
        let selection = NotificationSelection::new(self.page_size.rows())
            .max_bytes(DEFAULT_PAGE_BYTES.get())
            .after(self.position);
        if !self.topics.is_empty() {
            return self.read_topics(selection).await;
        }
        let notifications = self.recorder.select_notifications(selection.clone()).await?;
        let Some(position) = notifications.last().map(|last| last.id) else {
            if !self.is_in_log {
                verify_end(self.position, self.recorder.max_notification_id().await?)?;
            }
            return Ok(None);
        };
        let is_last = !selection.is_filled_by(&notifications);
        let end = if is_last { Some(position) } else { self.recorder.max_notification_id().await? };
        Ok(Some(NotificationPage { notifications, position, lag: lag(end, position) }))
    }

    /// Verifies that the log still has the notification that was read last.
    async fn verify_last_read(&self) -> Result<(), PersistenceError> {
        let Some((id, originator_id, originator_version)) = self.last_read else { return Ok(()) };
        let selection = NotificationSelection::new(1).start(id).stop(id);
        let found = self.recorder.select_notifications(selection).await?;
        let is_same = |found: &Notification| {
            (found.event.originator_id, found.event.originator_version) == (originator_id, originator_version)
        };
        if found.first().is_some_and(is_same) {
            return Ok(());
        }
        let message = format!(
            "notification {id} is no longer version {originator_version} of originator {originator_id}: the log \
             has lost acknowledged events"
        );
        Err(PersistenceError::new(ErrorKind::RolledBack, message).about(|context| {
            context.notification_id = Some(id);
            context.originator_id = Some(originator_id);
            context.originator_version = Some(originator_version);
        }))
    }

    /// Reads the subscribed topics and moves past others: a selection that stops at an id that was recorded
    /// before is complete.
    async fn read_topics(
        &self,
        selection: NotificationSelection,
    ) -> Result<Option<NotificationPage>, PersistenceError> {
        let highest = self.recorder.max_notification_id().await?;
        verify_end(self.position, highest)?;
        let Some(end) = highest.filter(|end| *end > self.position) else { return Ok(None) };
        let selection = selection.stop(end).topics(&self.topics);
        let notifications = self.recorder.select_notifications(selection.clone()).await?;
        let is_last = !selection.is_filled_by(&notifications);
        let position = if is_last { end } else { notifications.last().map_or(end, |last| last.id) };
        Ok(Some(NotificationPage { notifications, position, lag: lag(Some(end), position) }))
    }
}

/// Verifies that the log is not behind `position`.
pub(crate) fn verify_end(position: i64, highest: Option<i64>) -> Result<(), PersistenceError> {
    if position <= highest.unwrap_or(0) {
        return Ok(());
    }
    let highest = highest.map_or_else(|| "none".to_owned(), |highest| highest.to_string());
    let message = format!(
        "the position is {position}, but the highest notification id is {highest}: the log has lost \
         acknowledged events"
    );
    Err(PersistenceError::new(ErrorKind::RolledBack, message))
}

fn lag(end: Option<i64>, position: i64) -> i64 {
    end.map_or(0, |end| end.saturating_sub(position).max(0))
}
