//! Projections of domain events into the program's own tables, on SQLite or PostgreSQL.

use std::{fmt, marker::PhantomData, sync::Arc};

use es_core::{
    ConsumerError, DynTrackingRecorder, Event, EventNotification, HandlerError, LoadingConsumer, Mapper,
    Notification, NotificationBatch, NotificationConsumer,
};
use es_transcode::JsonTranscoder;

use crate::{BoxConsumer, Sql};

/// Projects the events of one type into tables of the program's own, by statements that run on SQLite or
/// PostgreSQL, as the environment says.
///
/// The statements for a notification are committed together with its position: exactly once, despite crashes
/// and errors. They run in the order in which they are returned, and each sees what those before it wrote,
/// also for earlier notifications. A projection gets no rows: let SQL read, as in `UPDATE … SET n = n + 1` or
/// `INSERT … SELECT`. A projection that must read is written for one database: `SqliteProjection` of
/// es-sqlite or `PostgresProjection` of es-postgres.
///
/// [`InfrastructureFactory::projector`](crate::InfrastructureFactory::projector) returns the consumer for a
/// processor.
///
/// ```
/// use es_core::{Event, EventNotification, HandlerError};
/// use es_factory::{Sql, SqlProjection};
///
/// # use es_core::{PersistenceError, StateReader, Topic, Transcoder, serde::ser::SerializeMap};
/// # struct Placed { customer: String, cents: i64 }
/// # impl Event for Placed {
/// #     const TOPICS: &[Topic] = &[Topic::from_static("shop:Order.Placed")];
/// #     fn topic(&self) -> Topic { Self::TOPICS[0].clone() }
/// #     fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> { Ok(()) }
/// #     fn decode<T: Transcoder>(_: &str, _: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
/// #         Ok(Placed { customer: String::new(), cents: 0 })
/// #     }
/// # }
/// /// The sales of each customer.
/// struct Sales;
///
/// impl SqlProjection for Sales {
///     type Event = Placed; // usually an enum with `#[derive(Event)]`
///
///     fn set_up(&self) -> Vec<Sql> {
///         let columns = "customer TEXT PRIMARY KEY, cents BIGINT NOT NULL";
///         vec![Sql::new(format!("CREATE TABLE IF NOT EXISTS sales ({columns})"))]
///     }
///
///     fn project(&self, notification: EventNotification<Placed>) -> Result<Vec<Sql>, HandlerError> {
///         let Placed { customer, cents } = notification.event.payload;
///         let add = "INSERT INTO sales VALUES ($1, $2) \
///                    ON CONFLICT (customer) DO UPDATE SET cents = sales.cents + excluded.cents";
///         Ok(vec![Sql::new(add).bind(customer).bind(cents)])
///     }
/// }
/// ```
pub trait SqlProjection: Send + 'static {
    /// The type of the events. Notifications with other topics are skipped; give a processor
    /// [`E::TOPICS`](Event::TOPICS), so that they are not read.
    type Event: Event;

    /// Returns the statements that create the missing tables (`CREATE TABLE IF NOT EXISTS`), one in each
    /// [`Sql`]. They are run in a transaction of their own when a projector is made; by default none.
    fn set_up(&self) -> Vec<Sql> {
        Vec::new()
    }

    /// Returns the statements for a notification.
    ///
    /// # Errors
    /// If the notification cannot be projected: nothing of it is recorded.
    fn project(&self, notification: EventNotification<Self::Event>) -> Result<Vec<Sql>, HandlerError>;

    /// Returns the statements for a notification that failed for the last time, for example one that records
    /// it in a table of failures, so that later notifications can be projected. By default it returns the
    /// failure, and the processor stops.
    ///
    /// # Errors
    /// The failure, or another.
    fn park(&self, notification: &Notification, failure: HandlerError) -> Result<Vec<Sql>, HandlerError> {
        let _ = notification;
        Err(failure)
    }
}

/// The object-safe version of [`SqlProjection`], which decodes the events itself; for a
/// [`Backend`](crate::Backend).
pub trait DynSqlProjection: Send {
    /// As [`SqlProjection::set_up`].
    fn set_up(&self) -> Vec<Sql>;

    /// As [`SqlProjection::project`]; no statements for other topics.
    ///
    /// # Errors
    /// If the event cannot be decoded or projected.
    fn project(&self, notification: &Notification) -> Result<Vec<Sql>, HandlerError>;

    /// As [`SqlProjection::park`].
    ///
    /// # Errors
    /// The failure, or another.
    fn park(&self, notification: &Notification, failure: HandlerError) -> Result<Vec<Sql>, HandlerError>;
}

/// A projection and the mapper that decodes its events.
pub(crate) struct Typed<P> {
    pub(crate) projection: P,
    pub(crate) mapper: Mapper<JsonTranscoder>,
}

impl<P: SqlProjection> DynSqlProjection for Typed<P> {
    fn set_up(&self) -> Vec<Sql> {
        self.projection.set_up()
    }

    fn project(&self, Notification { id, event }: &Notification) -> Result<Vec<Sql>, HandlerError> {
        if !P::Event::TOPICS.contains(&event.topic) {
            return Ok(Vec::new());
        }
        self.projection.project(EventNotification::new(*id, self.mapper.to_domain_event(event)?))
    }

    fn park(&self, notification: &Notification, failure: HandlerError) -> Result<Vec<Sql>, HandlerError> {
        self.projection.park(notification, failure)
    }
}

/// Statements to run in one transaction: a backend runs those that set up a projection.
pub(crate) struct Statements(pub(crate) Vec<Sql>);

impl DynSqlProjection for Statements {
    fn set_up(&self) -> Vec<Sql> {
        self.0.clone()
    }

    fn project(&self, _: &Notification) -> Result<Vec<Sql>, HandlerError> {
        Ok(Vec::new())
    }

    fn park(&self, _: &Notification, failure: HandlerError) -> Result<Vec<Sql>, HandlerError> {
        Err(failure)
    }
}

/// Runs a [`SqlProjection`] and records the position in the same commit. It is a [`NotificationConsumer`] for
/// a processor of the crate `es-process`.
///
/// Made by [`InfrastructureFactory::projector`](crate::InfrastructureFactory::projector).
pub struct SqlProjector<P: SqlProjection> {
    consumer: LoadingConsumer<BoxConsumer, JsonTranscoder, P::Event>,
    /// Projectors of different projections are different types, so that a processor can distinguish them.
    projection: PhantomData<fn() -> P>,
}

impl<P: SqlProjection> SqlProjector<P> {
    pub(crate) fn new(consumer: BoxConsumer, mapper: Mapper<JsonTranscoder>) -> Self {
        Self { consumer: LoadingConsumer::new(consumer, mapper), projection: PhantomData }
    }
}

impl<P: SqlProjection> NotificationConsumer for SqlProjector<P> {
    type Recorder = Arc<dyn DynTrackingRecorder>;

    fn recorder(&self) -> &Self::Recorder {
        self.consumer.recorder()
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        self.consumer.process(batch).await
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        self.consumer.park(batch, failure).await
    }
}

impl<P: SqlProjection> fmt::Debug for SqlProjector<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlProjector").field("recorder", self.recorder()).finish_non_exhaustive()
    }
}
