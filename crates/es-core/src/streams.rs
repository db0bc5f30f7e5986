//! Reading without end in bounded memory: streams that fetch a page at a time.
//!
//! Paging by key needs nothing held open between pages: no transaction, no cursor, no connection.
//! A stream can be slow, or dropped at any point, without harm to anybody.

use std::num::NonZeroUsize;

use futures_core::Stream;
use futures_util::{
    TryStreamExt,
    stream::{iter, try_unfold},
};
use uuid::Uuid;

use crate::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, StoredEvent, Subscription, Topic, selection::state_bytes,
};

/// How many rows a stream or subscription fetches at a time unless told otherwise.
///
/// Reading a million notifications takes half the time of pages of 100 on SQLite and PostgreSQL. Pages
/// of 10,000 gain about a tenth on PostgreSQL, and take twice the time on SQLite (`catch up` of `cargo
/// xtask bench`).
pub const DEFAULT_PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// How many bytes of states a stream or subscription fetches at a time, about: a page ends with the event
/// that reaches it. 16 MiB.
///
/// A thousand events of 1 MiB took 1.05 GB before pages were bounded in bytes.
pub const DEFAULT_PAGE_BYTES: NonZeroUsize = NonZeroUsize::new(16 << 20).unwrap();

/// Streams of the events of one aggregate, for every recorder.
pub trait AggregateRecorderExt: AggregateRecorder {
    /// The events of an aggregate within a range, in bounded memory.
    ///
    /// Items are what [`select_events`](AggregateRecorder::select_events) selects; an error is the
    /// last item.
    fn stream_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Stream<Item = Result<StoredEvent, PersistenceError>> + Send {
        self.stream_events_by(DEFAULT_PAGE_SIZE, originator_id, range)
    }

    /// The same, fetching `page_size` events at a time, or fewer of [`DEFAULT_PAGE_BYTES`] together.
    fn stream_events_by(
        &self,
        page_size: NonZeroUsize,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Stream<Item = Result<StoredEvent, PersistenceError>> + Send {
        let pages = Pages::new(range, range.limit, page_size);
        let pages = try_unfold(pages, move |pages| async move {
            let Some((range, limit)) = pages.next() else { return Ok(None) };
            let range = range.limit(limit).max_bytes(DEFAULT_PAGE_BYTES.get());
            let page = self.select_events(originator_id, range).await?;
            let last = page.last().filter(|_| range.is_filled_by(&page));
            let rest = last.and_then(|last| range_beyond(range, last.originator_version));
            let size = pages.size.after(page.len(), state_bytes(page.iter()));
            let pages = pages.after(page.len(), size, rest);
            Ok(Some((page, pages)))
        });
        flatten(pages)
    }
}

impl<R: AggregateRecorder + ?Sized> AggregateRecorderExt for R {}

/// Streams of notifications and subscriptions to them, for every recorder that has them.
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
    /// The notifications of a selection, in bounded memory.
    ///
    /// Items are what [`select_notifications`](ApplicationRecorder::select_notifications) selects;
    /// an error is the last item. Use `usize::MAX` as the selection's limit to read to the end.
    fn stream_notifications(
        &self,
        selection: NotificationSelection,
    ) -> impl Stream<Item = Result<Notification, PersistenceError>> + Send {
        self.stream_notifications_by(DEFAULT_PAGE_SIZE, selection)
    }

    /// The same, fetching `page_size` notifications at a time, or fewer of [`DEFAULT_PAGE_BYTES`] together.
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
            let size = pages.size.after(page.len(), state_bytes(page.iter().map(|read| &read.event)));
            let pages = pages.after(page.len(), size, rest);
            Ok(Some((page, pages)))
        });
        flatten(pages)
    }

    /// Follows the notifications after `position` (0: from the beginning): first what is recorded,
    /// then live. Those of some topics only, or all when there are none.
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
    fn subscribe(&self, position: i64, topics: impl IntoIterator<Item = Topic>) -> Subscription<Self>
    where
        Self: Clone,
    {
        Subscription::new(self.clone(), position, topics)
    }
}

impl<R: ApplicationRecorder> ApplicationRecorderExt for R {}

/// The part of `range` that lies beyond a version, in the range's direction; nothing at the end of
/// the versions.
fn range_beyond(range: EventRange, version: i64) -> Option<EventRange> {
    if range.desc { version.checked_sub(1).map(|lower| range.lte(lower)) } else { Some(range.gt(version)) }
}

/// A query that is answered a page at a time.
struct Pages<Q> {
    size: PageSize,
    /// What is not fetched yet; nothing when the last page has arrived.
    rest: Option<Q>,
    /// How many items of the query's own limit are left.
    remaining: usize,
}

impl<Q: Clone> Pages<Q> {
    fn new(query: Q, limit: Option<usize>, page_size: NonZeroUsize) -> Self {
        let size = PageSize::new(page_size, DEFAULT_PAGE_BYTES);
        Self { size, rest: Some(query), remaining: limit.unwrap_or(usize::MAX) }
    }

    /// What to fetch now, and at most how much of it; nothing at the end.
    fn next(&self) -> Option<(Q, usize)> {
        let limit = self.size.rows().min(self.remaining);
        self.rest.clone().filter(|_| limit > 0).map(|rest| (rest, limit))
    }

    /// The pages after one of so many items.
    fn after(self, items: usize, size: PageSize, rest: Option<Q>) -> Self {
        Self { size, rest, remaining: self.remaining.saturating_sub(items) }
    }
}

/// The size of the next page. After a page that was full in bytes, no more rows are asked for than it
/// had: a server would send the others for nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageSize {
    rows: usize,
    max_rows: usize,
    max_bytes: usize,
}

impl PageSize {
    pub(crate) fn new(rows: NonZeroUsize, bytes: NonZeroUsize) -> Self {
        Self { rows: rows.get(), max_rows: rows.get(), max_bytes: bytes.get() }
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    pub(crate) fn bytes(self) -> usize {
        self.max_bytes
    }

    /// The size after a page of so many rows and bytes.
    pub(crate) fn after(self, rows: usize, bytes: usize) -> Self {
        let next = if bytes >= self.max_bytes { rows } else { self.rows.saturating_mul(2) };
        Self { rows: next.clamp(1, self.max_rows), ..self }
    }
}

/// The items of the pages.
///
/// A future for each item, rather than for each page, would have to be moved for each, with all that
/// fetching a page needs.
fn flatten<T>(
    pages: impl Stream<Item = Result<Vec<T>, PersistenceError>>,
) -> impl Stream<Item = Result<T, PersistenceError>> {
    pages.map_ok(|page| iter(page.into_iter().map(Ok))).try_flatten()
}
