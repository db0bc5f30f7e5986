//! Streams that fetch a page at a time, in bounded memory.
//!
//! Keyset pagination holds nothing between pages: no transaction, no cursor, no connection. A stream may be
//! slow, or dropped at any point.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use futures_core::Stream;
use futures_util::{
    TryStreamExt,
    stream::{iter, try_unfold},
};
use uuid::Uuid;

use crate::{
    AggregateRecorder, ApplicationRecorder, DEFAULT_PAGE_BYTES, DEFAULT_PAGE_SIZE, ErrorKind, EventRange,
    Notification, NotificationSelection, PersistenceError, StoredEvent, Subscription, Topic,
    page_size::PageSize, selection::state_bytes,
};

/// The longest wait for a notification of the signal before the log is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Streams of the events of one aggregate, for every recorder.
pub trait AggregateRecorderExt: AggregateRecorder {
    /// Streams the events of an aggregate within a range, in bounded memory.
    ///
    /// The items are those of [`select_events`](AggregateRecorder::select_events). An error is the last
    /// item.
    fn stream_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Stream<Item = Result<StoredEvent, PersistenceError>> + Send {
        self.stream_events_by(DEFAULT_PAGE_SIZE, originator_id, range)
    }

    /// The same, with pages of `page_size` events, or fewer with [`DEFAULT_PAGE_BYTES`] together.
    fn stream_events_by(
        &self,
        page_size: NonZeroUsize,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Stream<Item = Result<StoredEvent, PersistenceError>> + Send {
        flatten(event_pages(self, page_size, originator_id, range))
    }
}

impl<R: AggregateRecorder + ?Sized> AggregateRecorderExt for R {}

/// Streams of and subscriptions to notifications, for every application recorder.
///
/// ```
/// use std::pin::pin;
/// use es_core::{ApplicationRecorder, ApplicationRecorderExt, NotificationSelection, PersistenceError};
/// use futures_util::TryStreamExt;
///
/// async fn count<R: ApplicationRecorder>(recorder: &R) -> Result<usize, PersistenceError> {
///     let everything = NotificationSelection::new(usize::MAX);
///     let mut notifications = pin!(recorder.stream_notifications(everything));
///     let mut counted = 0;
///     while let Some(_notification) = notifications.try_next().await? {
///         counted += 1;
///     }
///     Ok(counted)
/// }
/// ```
pub trait ApplicationRecorderExt: ApplicationRecorder + Sized {
    /// Streams the notifications of a selection, in bounded memory.
    ///
    /// The items are those of [`select_notifications`](ApplicationRecorder::select_notifications). An error
    /// is the last item. Use `usize::MAX` as the selection's limit to read to the end.
    fn stream_notifications(
        &self,
        selection: NotificationSelection,
    ) -> impl Stream<Item = Result<Notification, PersistenceError>> + Send {
        self.stream_notifications_by(DEFAULT_PAGE_SIZE, selection)
    }

    /// The same, with pages of `page_size` notifications, or fewer with [`DEFAULT_PAGE_BYTES`] together.
    fn stream_notifications_by(
        &self,
        page_size: NonZeroUsize,
        selection: NotificationSelection,
    ) -> impl Stream<Item = Result<Notification, PersistenceError>> + Send {
        let limit = selection.limit;
        let pages = Pages::new(selection, Some(limit), page_size);
        let pages = try_unfold(pages, move |pages| async move {
            let Some((selection, limit)) = pages.next() else { return Ok(None) };
            let selection = NotificationSelection { limit, ..selection }.max_bytes(DEFAULT_PAGE_BYTES.get());
            let page = self.select_notifications(selection.clone()).await?;
            let last = page.last().filter(|_| selection.is_filled_by(&page)).map(|last| last.id);
            let rest = last.map(|last| selection.after(last));
            let bytes = state_bytes(page.iter().map(|read| &read.event));
            let pages = pages.after(page.len(), bytes, rest);
            Ok(Some((page, pages)))
        });
        flatten(pages)
    }

    /// Subscribes to the notifications after `position` (0: from the beginning), first recorded and then
    /// live ones; only those with one of `topics`, unless that is empty: `E::TOPICS`, an array, a vector.
    ///
    /// ```
    /// use std::pin::pin;
    /// use es_core::{ApplicationRecorder, ApplicationRecorderExt, PersistenceError};
    /// use futures_util::TryStreamExt;
    ///
    /// async fn tail<R: ApplicationRecorder + Clone>(recorder: &R) -> Result<(), PersistenceError> {
    ///     let mut notifications = pin!(recorder.subscribe(0, []).into_stream());
    ///     while let Some(notification) = notifications.try_next().await? {
    ///         println!("{} {}", notification.id, notification.event.topic);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    fn subscribe(&self, position: i64, topics: impl AsRef<[Topic]>) -> Subscription<Self>
    where
        Self: Clone,
    {
        Subscription::new(self.clone(), position, topics.as_ref())
    }

    /// Waits until this recorder reads a notification, which another process may have recorded: then its
    /// later reads and those of its clones have it, too.
    ///
    /// The id that an append returned is the token of a read of one's own write: the writer passes it on, for
    /// example in a request, and the reader waits for it. A recorder that reads from the database that it
    /// writes to has it at once. One that reads from standbys waits for a standby, or reads the primary.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use es_core::{ApplicationRecorder, ApplicationRecorderExt, NotificationSelection, PersistenceError};
    /// # async fn example<R: ApplicationRecorder>(reader: &R, id: i64) -> Result<(), PersistenceError> {
    /// // `id` was returned by an append in another process.
    /// reader.wait_for_notification(id, Duration::from_secs(2)).await?;
    /// let page = reader.select_notifications(NotificationSelection::new(10).start(id)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut) after `timeout`, also if there is no notification of this id;
    /// [`Interface`](ErrorKind::Interface) if the recorder is closed meanwhile; any error of reading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn wait_for_notification(
        &self,
        notification_id: i64,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), PersistenceError>> + Send {
        async move {
            let began = Instant::now();
            let mut listener = self.commit_signal().listen::<&str>([]);
            // A selection with a `stop` is complete up to it: it does not miss what is recorded already.
            let selection = NotificationSelection::new(1).start(notification_id).stop(notification_id);
            while self.select_notifications(selection.clone()).await?.is_empty() {
                let left = timeout.saturating_sub(began.elapsed());
                if left.is_zero() {
                    return Err(timed_out(notification_id, timeout));
                }
                if !listener.notified_timeout(left.min(POLL_INTERVAL)).await {
                    return Err(PersistenceError::interface("the recorder was closed during the wait"));
                }
            }
            Ok(())
        }
    }
}

impl<R: ApplicationRecorder> ApplicationRecorderExt for R {}

fn timed_out(notification_id: i64, timeout: Duration) -> PersistenceError {
    let message = format!("notification {notification_id} was not recorded within {timeout:?}");
    PersistenceError::new(ErrorKind::TimedOut, message)
        .transient()
        .about(|context| context.notification_id = Some(notification_id))
}

/// Streams the events of an aggregate within a range, a page at a time.
pub(crate) fn event_pages<R: AggregateRecorder + ?Sized>(
    recorder: &R,
    page_size: NonZeroUsize,
    originator_id: Uuid,
    range: EventRange,
) -> impl Stream<Item = Result<Vec<StoredEvent>, PersistenceError>> + Send {
    let pages = Pages::new(range, range.limit, page_size);
    try_unfold(pages, move |pages| async move {
        let Some((range, limit)) = pages.next() else { return Ok(None) };
        let range = range.limit(limit).max_bytes(DEFAULT_PAGE_BYTES.get());
        let page = recorder.select_events(originator_id, range).await?;
        let last = page.last().filter(|_| range.is_filled_by(&page));
        let rest = last.and_then(|last| range_beyond(range, last.originator_version));
        let pages = pages.after(page.len(), state_bytes(page.iter()), rest);
        Ok(Some((page, pages)))
    })
}

/// Returns the rest of `range` after a version, in the direction of the range, if there is any.
fn range_beyond(range: EventRange, version: i64) -> Option<EventRange> {
    if range.desc { version.checked_sub(1).map(|lower| range.lte(lower)) } else { Some(range.gt(version)) }
}

/// The state of a paged query.
struct Pages<Q> {
    size: PageSize,
    /// The rest to fetch; `None` after the last page.
    rest: Option<Q>,
    /// The rest of the query's own limit.
    remaining: usize,
}

impl<Q: Clone> Pages<Q> {
    fn new(query: Q, limit: Option<usize>, page_size: NonZeroUsize) -> Self {
        Self { size: PageSize::new(page_size), rest: Some(query), remaining: limit.unwrap_or(usize::MAX) }
    }

    /// Returns the next query and its limit; `None` at the end.
    fn next(&self) -> Option<(Q, usize)> {
        let limit = self.size.rows().min(self.remaining);
        self.rest.clone().filter(|_| limit > 0).map(|rest| (rest, limit))
    }

    /// Returns the state after a page.
    fn after(self, rows: usize, bytes: usize, rest: Option<Q>) -> Self {
        Self { size: self.size.after(rows, bytes), rest, remaining: self.remaining.saturating_sub(rows) }
    }
}

/// Flattens pages to items.
///
/// A future for each item instead of for each page would be moved for each, with all the state of a query.
fn flatten<T>(
    pages: impl Stream<Item = Result<Vec<T>, PersistenceError>>,
) -> impl Stream<Item = Result<T, PersistenceError>> {
    pages.map_ok(|page| iter(page.into_iter().map(Ok))).try_flatten()
}
