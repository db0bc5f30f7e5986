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
    PersistenceError, StoredEvent, Subscription, Topic,
};

/// How many rows a stream or subscription fetches at a time unless told otherwise.
///
/// Reading a million notifications takes half the time of pages of 100 on SQLite and PostgreSQL. Pages
/// of 10,000 gain about a tenth on PostgreSQL, and take twice the time on SQLite (`catch up` of `cargo
/// xtask bench`).
pub const DEFAULT_PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

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

    /// The same, fetching `page_size` events at a time.
    fn stream_events_by(
        &self,
        page_size: NonZeroUsize,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Stream<Item = Result<StoredEvent, PersistenceError>> + Send {
        let pages = Pages { rest: Some(range), remaining: range.limit.unwrap_or(usize::MAX) };
        let pages = try_unfold(pages, move |pages| async move {
            let Some((range, limit)) = pages.next(page_size) else { return Ok(None) };
            let page = self.select_events(originator_id, range.limit(limit)).await?;
            let pages = pages.after(&page, limit, |last| range_beyond(range, last.originator_version));
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

    /// The same, fetching `page_size` notifications at a time.
    fn stream_notifications_by(
        &self,
        page_size: NonZeroUsize,
        selection: NotificationSelection,
    ) -> impl Stream<Item = Result<Notification, PersistenceError>> + Send {
        let pages = Pages { remaining: selection.limit, rest: Some(selection) };
        let pages = try_unfold(pages, move |pages| async move {
            let Some((mut selection, limit)) = pages.next(page_size) else { return Ok(None) };
            selection.limit = limit;
            let page = self.select_notifications(selection.clone()).await?;
            let pages = pages.after(&page, limit, |last| Some(selection.after(last.id)));
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
    /// What is not fetched yet; nothing when the last page has arrived.
    rest: Option<Q>,
    /// How many items of the query's own limit are left.
    remaining: usize,
}

impl<Q: Clone> Pages<Q> {
    /// What to fetch now, and at most how much of it; nothing at the end.
    fn next(&self, page_size: NonZeroUsize) -> Option<(Q, usize)> {
        let limit = page_size.get().min(self.remaining);
        self.rest.clone().filter(|_| limit > 0).map(|rest| (rest, limit))
    }

    /// The pages after this one, of which so many items were asked.
    fn after<T>(self, page: &[T], asked: usize, rest: impl FnOnce(&T) -> Option<Q>) -> Self {
        Self {
            // A short page is the last one.
            rest: if page.len() < asked { None } else { page.last().and_then(rest) },
            remaining: self.remaining.saturating_sub(page.len()),
        }
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
