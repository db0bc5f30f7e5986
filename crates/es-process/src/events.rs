//! Handlers of domain events, which return new domain events.

use std::{
    fmt,
    future::{Future, ready},
    marker::PhantomData,
};

use es_core::{
    ApplicationRecorder, DomainEvent, Event, EventNotification, EventStore, HandlerError, Mapper, Metadata,
    Notification, PersistenceError, ProcessRecorder, StoredEvent, Transcoder,
};

use crate::{Handler, HandlerConsumer, Processor, span::ConsumerSpan};

/// Converts an event of type `E` to new events, of any types; `T` is the transcoder of the store that records
/// them.
///
/// Implemented by every `FnMut(EventNotification<E>) -> impl Future<Output = Result<NewEvents<T>, Error>>`. A
/// closure that uses what it captures, such as a repository, clones it for each call:
///
/// ```
/// # use es_core::{DomainEvent, EventNotification, Metadata, PersistenceError};
/// # use es_process::{EventHandler, NewEvents};
/// # #[derive(es_derive::Event)]
/// # #[event(topic = "shop:Order")]
/// # enum OrderEvent {
/// #     Placed,
/// # }
/// # #[derive(es_derive::Event)]
/// # #[event(topic = "shop:Stock")]
/// # enum StockEvent {
/// #     Reserved,
/// # }
/// # type T = es_transcode::JsonTranscoder;
/// # #[derive(Clone)]
/// # struct Repository;
/// # impl Repository {
/// #     async fn decide(&self) -> Result<Vec<DomainEvent<StockEvent>>, PersistenceError> {
/// #         Ok(Vec::new())
/// #     }
/// # }
/// # fn accepted(_: impl EventHandler<OrderEvent, T>) {}
/// # let stock = Repository;
/// let handler = move |notification: EventNotification<OrderEvent>| {
///     let stock = stock.clone();
///     async move {
///         let mut new = NewEvents::new();
///         if let OrderEvent::Placed = notification.event.payload {
///             new.extend(stock.decide().await?);
///         }
///         Ok::<_, PersistenceError>(new)
///     }
/// };
/// # accepted(handler);
/// ```
///
/// Implement it for a type of your own to keep state in it, or to [park](Self::park) notifications. For
/// several event types, `E` is an enum that wraps them: see `transparent` of `derive(Event)`.
///
/// It is called for one notification at a time, and for some more than once, after a crash or a conflict for
/// example: the events that it returns are recorded once.
pub trait EventHandler<E, T>: Send {
    /// The error of a notification that cannot be handled; see [`Handler::Error`].
    type Error: Into<HandlerError>;

    /// Returns the new events that follow from an event, to be committed with the position.
    fn handle(
        &mut self,
        notification: EventNotification<E>,
    ) -> impl Future<Output = Result<NewEvents<T>, Self::Error>> + Send;

    /// Returns the events to record for a notification that failed for the last time, such as one that
    /// reports the failure, so that the processor continues after it. It gets the stored event: the failure
    /// may be that this cannot be decoded.
    ///
    /// The default implementation returns the failure, and the processor stops.
    ///
    /// # Errors
    /// The failure, or another error: the processor stops at this notification.
    fn park(
        &mut self,
        notification: Notification,
        failure: HandlerError,
    ) -> impl Future<Output = Result<NewEvents<T>, HandlerError>> + Send {
        let _ = notification;
        ready(Err(failure))
    }
}

impl<F, N, E, T, Error> EventHandler<E, T> for F
where
    F: FnMut(EventNotification<E>) -> N + Send,
    N: Future<Output = Result<NewEvents<T>, Error>> + Send,
    Error: Into<HandlerError>,
{
    type Error = Error;

    fn handle(
        &mut self,
        notification: EventNotification<E>,
    ) -> impl Future<Output = Result<NewEvents<T>, Error>> + Send {
        self(notification)
    }
}

/// New events of an [`EventHandler`], of any types.
///
/// ```
/// use es_core::{DomainEvent, Mapper, Metadata, uuid::Uuid};
/// use es_derive::Event;
/// use es_process::NewEvents;
/// use es_transcode::JsonTranscoder;
///
/// #[derive(Event)]
/// #[event(topic = "shop:Reserved")]
/// struct Reserved {
///     pieces: u32,
/// }
///
/// let mut new = NewEvents::new();
/// new.push(DomainEvent::new(Uuid::now_v7(), 1, Reserved { pieces: 2 }));
/// let stored = new.into_stored(&Mapper::new(JsonTranscoder::new()), &Metadata::new())?;
/// assert_eq!(stored[0].topic, "shop:Reserved");
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
pub struct NewEvents<T>(Vec<Encode<T>>);

/// Encodes an event, with the texts of the metadata that it does not have itself.
type Encode<T> = Box<dyn FnOnce(&Mapper<T>, &Metadata) -> Result<StoredEvent, PersistenceError> + Send>;

impl<T: Transcoder> NewEvents<T> {
    /// No events.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an event.
    pub fn push<E: Event>(&mut self, mut event: DomainEvent<E>) {
        self.0.push(Box::new(move |mapper, metadata| {
            event.metadata = event.metadata.with_defaults(metadata);
            mapper.to_stored_event(&event)
        }));
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the stored events, with the [default](Metadata::with_defaults) texts of their metadata: what
    /// the processor records, and a test of a handler may look at.
    ///
    /// # Errors
    /// Any error of mapping, with the event's context.
    pub fn into_stored(
        self,
        mapper: &Mapper<T>,
        defaults: &Metadata,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.0.into_iter().map(|encode| encode(mapper, defaults)).collect()
    }
}

impl<E: Event, T: Transcoder> Extend<DomainEvent<E>> for NewEvents<T> {
    fn extend<I: IntoIterator<Item = DomainEvent<E>>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.push(event));
    }
}

impl<E: Event, T: Transcoder> FromIterator<DomainEvent<E>> for NewEvents<T> {
    fn from_iter<I: IntoIterator<Item = DomainEvent<E>>>(events: I) -> Self {
        let mut new = Self::new();
        new.extend(events);
        new
    }
}

impl<T: Transcoder> Default for NewEvents<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for NewEvents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEvents").field("len", &self.0.len()).finish()
    }
}

impl<U, R, H, E, S, T> Processor<U, HandlerConsumer<R, DecodingHandler<H, E, S, T>>>
where
    U: ApplicationRecorder + Clone,
    R: ProcessRecorder + Clone,
    H: EventHandler<E, T>,
    E: Event,
    S: Transcoder + Clone,
    T: Transcoder + Clone,
{
    /// Passes the events of type `E` of one store to `handler`, and records the events that it returns with
    /// another store, or the same, together with the position of the consumer `name`.
    ///
    /// - `E` is the type of the handler's argument. The processor selects its [topics](Event::TOPICS).
    /// - The handler can read in the downstream store what follows from earlier notifications: a commit ends
    ///   with the first notification for which it returns events. If its calls do not depend on each other's
    ///   events, raise [`events_per_commit`](Self::events_per_commit).
    /// - If the version of a new event is recorded meanwhile, the handler is called again.
    /// - In one store, a handler also gets those events of type `E` that it has returned itself.
    /// - **Metadata:** a new event gets the correlation id of the event that it follows from, or that event's
    ///   [id](DomainEvent::event_id) if it has none, and its id as the causation id (see
    ///   [`Metadata::caused_by`]). With the feature `opentelemetry` it gets the span of the handler as its
    ///   `traceparent`. Texts that the handler has set are kept.
    ///
    /// ```
    /// use es_core::{DomainEvent, EventNotification, EventStore, Expected, Mapper, PersistenceError};
    /// use es_core::{TrackingRecorderExt, uuid::Uuid};
    /// use es_derive::Event;
    /// use es_popo::{PopoApplicationRecorder, PopoProcessRecorder};
    /// use es_process::{NewEvents, Processor};
    /// use es_transcode::JsonTranscoder;
    /// # use std::time::Duration;
    ///
    /// #[derive(Event)]
    /// #[event(topic = "shop:Order")]
    /// enum OrderEvent {
    ///     Placed { item: String },
    ///     Shipped,
    /// }
    ///
    /// #[derive(Event)]
    /// #[event(topic = "shop:Stock")]
    /// enum StockEvent {
    ///     Reserved { item: String },
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mapper = Mapper::new(JsonTranscoder::new());
    /// let orders = EventStore::new(PopoApplicationRecorder::new(), mapper.clone());
    /// let stock = EventStore::new(PopoProcessRecorder::new(), mapper);
    ///
    /// let handler = async |notification: EventNotification<OrderEvent>| {
    ///     let mut new = NewEvents::new();
    ///     if let OrderEvent::Placed { item } = notification.event.payload {
    ///         // A reservation of its own for each order.
    ///         let order = notification.event.originator_id;
    ///         new.push(DomainEvent::new(order, 1, StockEvent::Reserved { item }));
    ///     }
    ///     Ok::<_, PersistenceError>(new)
    /// };
    /// let mut fulfilment = Processor::for_events("fulfilment", &orders, &stock, handler).spawn()?;
    ///
    /// let placed = OrderEvent::Placed { item: "book".to_owned() };
    /// let ids = orders.append(Uuid::now_v7(), Expected::New, [placed]).await?;
    /// # let timeout = Duration::from_secs(5);
    /// stock.recorder().wait("fulfilment", ids[0], timeout).await?;
    /// fulfilment.stop();
    /// fulfilment.join().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_events(
        name: impl Into<String>,
        upstream: &EventStore<U, S>,
        downstream: &EventStore<R, T>,
        handler: H,
    ) -> Self {
        let name = name.into();
        let (decoder, encoder) = (upstream.mapper().clone(), downstream.mapper().clone());
        let handler = DecodingHandler::new(name.clone(), handler, decoder, encoder);
        let consumer = HandlerConsumer::new(downstream.recorder().clone(), handler).events_per_commit(1);
        Self::with_consumer(name, upstream.recorder().clone(), consumer).topics(E::TOPICS)
    }
}

/// Decodes events for an [`EventHandler`], and encodes those that it returns. Made by
/// [`Processor::for_events`].
pub struct DecodingHandler<H, E, S, T> {
    consumer_name: String,
    handler: H,
    upstream: Mapper<S>,
    downstream: Mapper<T>,
    events: PhantomData<fn() -> E>,
}

impl<H, E, S, T> DecodingHandler<H, E, S, T> {
    pub(crate) fn new(consumer_name: String, handler: H, upstream: Mapper<S>, downstream: Mapper<T>) -> Self {
        Self { consumer_name, handler, upstream, downstream, events: PhantomData }
    }
}

impl<H, E, S, T> Handler for DecodingHandler<H, E, S, T>
where
    H: EventHandler<E, T>,
    E: Event,
    S: Transcoder,
    T: Transcoder,
{
    type Error = HandlerError;

    async fn handle(&mut self, notification: Notification) -> Result<Vec<StoredEvent>, HandlerError> {
        let event = self.upstream.to_domain_event::<E>(&notification.event)?;
        let span = ConsumerSpan::start(&self.consumer_name, &event);
        let metadata = span.add_to(Metadata::caused_by(&event));
        let handling = self.handler.handle(EventNotification::new(notification.id, event));
        let new = span.record(handling).await.map_err(Into::into)?;
        Ok(new.into_stored(&self.downstream, &metadata)?)
    }

    async fn park(
        &mut self,
        notification: Notification,
        failure: HandlerError,
    ) -> Result<Vec<StoredEvent>, HandlerError> {
        let StoredEvent { originator_id, originator_version, .. } = notification.event;
        // Its correlation id is unknown if it cannot be decoded.
        let metadata = match self.upstream.to_domain_event::<E>(&notification.event) {
            Ok(event) => Metadata::caused_by(&event),
            Err(_) => Metadata::caused_by(&DomainEvent::new(originator_id, originator_version, ())),
        };
        let new = self.handler.park(notification, failure).await?;
        Ok(new.into_stored(&self.downstream, &metadata)?)
    }
}

impl<H, E, S, T> fmt::Debug for DecodingHandler<H, E, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodingHandler").field("consumer_name", &self.consumer_name).finish_non_exhaustive()
    }
}
