//! Following a log: first everything recorded after a position, then live, without a seam.

use std::{num::NonZeroUsize, time::Duration};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream, stream::try_unfold};
use uuid::Uuid;

use crate::{
    ApplicationRecorder, DEFAULT_PAGE_BYTES, DEFAULT_PAGE_SIZE, ErrorKind, Listener, Notification,
    NotificationSelection, PersistenceError, Topic, selection::state_bytes, streams::PageSize,
};

/// How long to wait before reading again after a failure that may pass: doubled each time, from the
/// first to the second.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long a subscription waits before it looks by itself; see [`Subscription::poll_interval`].
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Nobody wants a processor core to look without a pause.
const SHORTEST_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Follows the notifications of a recorder: what is recorded after a position, then what is recorded
/// from now on. Made by [`subscribe`](crate::ApplicationRecorderExt::subscribe).
///
/// There is no change-over between the two: both are pages of the log, read by position, and when
/// nothing is left to read the subscription waits to be woken. Nothing is missed or seen twice, and a
/// subscriber that lags keeps one page in memory.
///
/// ```text
///   log   1  2  3  4  5  6  7  8  9 │ 10 …          recorded by anybody
///               ╰── page ──╯ ╰page╯ │ ╰ a commit wakes the subscription
///   position  3 ──────▶ 7 ──────▶ 9 │ ──▶ 10
/// ```
///
/// Failures that may pass (a lost connection, a restart of the server) are tried again at the same
/// position for as long as it takes, told to `tracing` as warnings. Dropping a subscription at any
/// point does no harm.
///
/// A log that was rolled back (a failover to a lagging standby, the restore of a backup) gives ids out
/// again, and a subscription that went on from its position would skip the events that get them. It
/// fails with [`RolledBack`](crate::ErrorKind::RolledBack) instead, when nothing is found after a
/// wake-up or the poll interval and the highest id is before the position, and when the last
/// notification that it has read is not the same any more after a read that failed. What it cannot
/// notice is a log that has overtaken the position again before it is read, without a failed read.
///
/// It holds a handle of the recorder, which therefore stays open until it is closed by
/// [`close`](crate::Recorder::close); that ends the subscription.
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
    /// Whether the log has the position: it was read since the last wait.
    is_in_log: bool,
    /// Whether a read has failed since the last page.
    is_interrupted: bool,
}

/// What a subscription read at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The notifications, in the order of their ids; none when all that was recorded is of other
    /// topics.
    pub notifications: Vec<Notification>,
    /// Everything up to this id has been read, notifications of other topics included.
    pub position: i64,
    /// How many ids were known to be left after the position when the page was read: 0 when it
    /// reaches the end of the log.
    pub lag: i64,
}

impl<R: ApplicationRecorder> Subscription<R> {
    pub(crate) fn new(recorder: R, position: i64, topics: impl IntoIterator<Item = Topic>) -> Self {
        let topics: Vec<Topic> = topics.into_iter().collect();
        let listener = recorder.commit_signal().listen(&topics);
        Self {
            recorder,
            topics,
            position,
            page_size: PageSize::new(DEFAULT_PAGE_SIZE, DEFAULT_PAGE_BYTES),
            poll_interval: POLL_INTERVAL,
            listener,
            last_read: None,
            is_in_log: false,
            is_interrupted: false,
        }
    }

    /// Reads so many notifications at a time, at most; [`DEFAULT_PAGE_SIZE`] by default. A page ends
    /// earlier with the event with which the states have [`DEFAULT_PAGE_BYTES`] together.
    #[must_use]
    pub fn page_size(mut self, page_size: NonZeroUsize) -> Self {
        self.page_size = PageSize::new(page_size, DEFAULT_PAGE_BYTES);
        self
    }

    /// Looks for something new after so long, even if nothing woke the subscription; 10 s by default,
    /// and 1 ms at least.
    ///
    /// Recorders wake their subscriptions. This stands behind that, whatever the recorder, and moves
    /// the position past notifications of other topics, which wake nobody: after a restart, at most
    /// so much of the log is looked through again.
    #[must_use]
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.poll_interval = poll_interval.max(SHORTEST_POLL_INTERVAL);
        self
    }

    /// Everything up to this id has been read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Goes on after `position`, wherever the subscription was.
    pub fn seek(&mut self, position: i64) {
        self.position = position;
        self.is_in_log = false;
    }

    /// The recorder that is followed.
    pub fn recorder(&self) -> &R {
        &self.recorder
    }

    /// The next page, as soon as there is one; nothing when the recorder is closed.
    ///
    /// A subscription to some topics returns a page without notifications when all that was recorded
    /// since is of other topics: its position has moved.
    ///
    /// # Errors
    /// [`RolledBack`](crate::ErrorKind::RolledBack) when the log ends before the position, or has lost
    /// what was read; what selecting notifications fails with, unless it may pass. The next call tries
    /// again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the position moves when a page is returned.
    pub async fn next_page(&mut self) -> Result<Option<Page>, PersistenceError> {
        loop {
            if let Some(page) = self.read_with_retry().await? {
                self.position = page.position;
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

    /// The notifications one by one; the stream ends when the recorder is closed, and after an error,
    /// which is the last item.
    pub fn into_stream(self) -> impl Stream<Item = Result<Notification, PersistenceError>> + Send {
        let pages = try_unfold(self, |mut subscription| async move {
            let page = subscription.next_page().await?;
            Ok::<_, PersistenceError>(page.map(|page| (page, subscription)))
        });
        pages.map_ok(|page| stream::iter(page.notifications).map(Ok)).try_flatten()
    }

    /// Reads what is there now, again after failures that may pass.
    async fn read_with_retry(&mut self) -> Result<Option<Page>, PersistenceError> {
        let (mut pause, longest_pause) = RETRY_PAUSES;
        loop {
            match self.read().await {
                Err(_) if self.recorder.commit_signal().is_closed() => return Ok(None),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, position = self.position, "following the log failed; trying again");
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

    async fn read(&mut self) -> Result<Option<Page>, PersistenceError> {
        if self.is_interrupted {
            self.verify_last_read().await?;
            self.is_interrupted = false;
        }
        let selection = NotificationSelection::new(self.page_size.rows())
            .max_bytes(self.page_size.bytes())
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
        Ok(Some(Page { notifications, position, lag: lag(end, position) }))
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
            "notification {id} was version {originator_version} of originator {originator_id}, and is not any \
             more: the log has lost events that were acknowledged"
        );
        Err(PersistenceError::new(ErrorKind::RolledBack, message))
    }

    /// Moves on past notifications of other topics too: what is selected up to an id that was
    /// recorded before is complete.
    async fn read_topics(&self, selection: NotificationSelection) -> Result<Option<Page>, PersistenceError> {
        let highest = self.recorder.max_notification_id().await?;
        verify_end(self.position, highest)?;
        let Some(end) = highest.filter(|end| *end > self.position) else { return Ok(None) };
        let selection = selection.stop(end).topics(self.topics.iter().cloned());
        let notifications = self.recorder.select_notifications(selection.clone()).await?;
        let is_last = !selection.is_filled_by(&notifications);
        let position = if is_last { end } else { notifications.last().map_or(end, |last| last.id) };
        Ok(Some(Page { notifications, position, lag: lag(Some(end), position) }))
    }
}

/// Verifies that the log has what was read or processed up to `position`.
pub(crate) fn verify_end(position: i64, highest: Option<i64>) -> Result<(), PersistenceError> {
    if position <= highest.unwrap_or(0) {
        return Ok(());
    }
    let highest = highest.map_or_else(|| "none".to_owned(), |highest| highest.to_string());
    let message = format!(
        "the position is {position}, but the highest notification id is {highest}: the log has lost events \
         that were acknowledged"
    );
    Err(PersistenceError::new(ErrorKind::RolledBack, message))
}

fn lag(end: Option<i64>, position: i64) -> i64 {
    end.map_or(0, |end| end.saturating_sub(position).max(0))
}
