//! Subscriptions to the domain events of one type.

use std::{collections::VecDeque, fmt, marker::PhantomData};

use futures_core::Stream;
use futures_util::stream::try_unfold;

use crate::{
    ApplicationRecorder, ApplicationRecorderExt, DomainEvent, Event, EventStore, Mapper, Notification,
    PersistenceError, StopHandle, Subscription, Transcoder,
};

/// A domain event with the id of its notification.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EventNotification<E> {
    /// The position in the log.
    pub id: i64,
    /// The event.
    pub event: DomainEvent<E>,
}

impl<E> EventNotification<E> {
    /// A notification, as a test of a handler needs it.
    pub fn new(id: i64, event: DomainEvent<E>) -> Self {
        Self { id, event }
    }
}

/// A [`Subscription`] to the topics of one event type, with decoded events. Made by
/// [`EventStore::subscribe`].
pub struct EventSubscription<R, T, E> {
    subscription: Subscription<R>,
    mapper: Mapper<T>,
    page: VecDeque<Notification>,
    position: i64,
    events: PhantomData<fn() -> E>,
}

impl<R: ApplicationRecorder + Clone, T: Transcoder + Clone> EventStore<R, T> {
    /// Subscribes to the events of one type, [from the beginning](EventSubscription::after): first to
    /// recorded and then to live ones.
    ///
    /// ```
    /// use es_core::{ApplicationRecorder, Event, EventStore, PersistenceError, Transcoder};
    ///
    /// async fn follow<R, T, E>(store: &EventStore<R, T>, position: i64) -> Result<(), PersistenceError>
    /// where
    ///     R: ApplicationRecorder + Clone,
    ///     T: Transcoder + Clone,
    ///     E: Event + std::fmt::Debug,
    /// {
    ///     let mut events = store.subscribe::<E>().after(position);
    ///     while let Some(notification) = events.next().await? {
    ///         println!("{} {:?}", notification.id, notification.event.payload);
    ///     }
    ///     Ok(()) // the recorder was closed, or the subscription stopped
    /// }
    /// ```
    pub fn subscribe<E: Event>(&self) -> EventSubscription<R, T, E> {
        EventSubscription {
            subscription: self.recorder().subscribe(0, E::TOPICS),
            mapper: self.mapper().clone(),
            page: VecDeque::new(),
            position: 0,
            events: PhantomData,
        }
    }
}

impl<R: ApplicationRecorder, T: Transcoder, E: Event> EventSubscription<R, T, E> {
    /// Continues after the notification with this id.
    #[must_use]
    pub fn after(mut self, position: i64) -> Self {
        self.subscription.seek(position);
        self.page.clear();
        self.position = position;
        self
    }

    /// Returns the position after which to continue later: the id of the last returned notification, or a
    /// later one if only events of other types follow it.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Returns a handle that [stops](Subscription::stop_handle) the subscription.
    pub fn stop_handle(&mut self) -> StopHandle {
        self.subscription.stop_handle()
    }

    /// Has the subscription [stopped](Subscription::stopped_by) by this handle, in place of an earlier one.
    #[must_use]
    pub fn stopped_by(mut self, handle: StopHandle) -> Self {
        self.subscription = self.subscription.stopped_by(handle);
        self
    }

    /// Waits for the next event; returns `None` when the recorder is closed or the subscription stopped.
    ///
    /// # Errors
    /// As [`Subscription::next_page`], and any error of mapping, which names the event. The next call tries
    /// the same event again: an event is never skipped.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<EventNotification<E>>, PersistenceError> {
        loop {
            if self.subscription.is_stopped() {
                return Ok(None);
            }
            if let Some(Notification { id, event }) = self.page.front() {
                let following = self.page.iter().skip(1).map(|notification| &notification.event);
                let event = self.mapper.read_first(event, following).await;
                let (id, event) = (*id, event.map_err(|error| error.with_notification(*id))?);
                self.page.pop_front();
                self.position = if self.page.is_empty() { self.subscription.position() } else { id };
                return Ok(Some(EventNotification { id, event }));
            }
            let Some(page) = self.subscription.next_page().await? else { return Ok(None) };
            self.page = page.notifications.into();
            if self.page.is_empty() {
                self.position = page.position;
            }
        }
    }

    /// Converts the subscription to a stream. It ends as [`next`](Self::next) does, and after an error, which
    /// is the last item.
    pub fn into_stream(self) -> impl Stream<Item = Result<EventNotification<E>, PersistenceError>> + Send {
        try_unfold(self, |mut events| async move { Ok(events.next().await?.map(|next| (next, events))) })
    }
}

impl<R: fmt::Debug, T, E> fmt::Debug for EventSubscription<R, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSubscription")
            .field("subscription", &self.subscription)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
