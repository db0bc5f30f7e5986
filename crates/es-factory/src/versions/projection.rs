//! The public API of versioned projections.

use std::sync::{Arc, PoisonError, RwLock};

use es_core::{Event, EventNotification, HandlerError, Mapper, Notification};
use es_transcode::JsonTranscoder;

use super::statements::{guard, version_table};
use crate::{DynSqlProjection, Sql};

/// A [`SqlProjection`](crate::SqlProjection) of which several versions can exist beside each other, under
/// one name.
///
/// Each version has tables and a position of its own. A new version is built while the old one is read:
/// it processes all notifications up to the old one's position. [`Projections::switch`] then replaces the
/// old version in one commit. Programs read views with the plain names of the tables, and see the tables of
/// the old version or of the new one.
///
/// Side effects, such as the rows of an outbox, are written to other tables, which the versions share, if the
/// [context](ProjectionContext::is_replay) is no replay: once for each notification, whatever versions have
/// processed it.
///
/// [`InfrastructureFactory::versioned_projector`](crate::InfrastructureFactory::versioned_projector) returns
/// the consumer for a processor.
///
/// ```
/// use es_core::{Event, EventNotification, HandlerError};
/// use es_factory::{ProjectionContext, Sql, VersionedProjection};
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
/// /// The sales of each customer, and a mail for each order.
/// struct Sales;
///
/// impl VersionedProjection for Sales {
///     type Event = Placed; // usually an enum with `#[derive(Event)]`
///     const TABLES: &[&str] = &["sales"];
///
///     fn set_up(&self, context: &ProjectionContext) -> Vec<Sql> {
///         let sales = context.table("sales"); // "sales_v1", and then "sales_v2"
///         let columns = "customer TEXT PRIMARY KEY, cents BIGINT NOT NULL";
///         vec![
///             Sql::new(format!("CREATE TABLE IF NOT EXISTS {sales} ({columns})")),
///             Sql::new("CREATE TABLE IF NOT EXISTS mails (customer TEXT NOT NULL)"),
///         ]
///     }
///
///     fn project(
///         &self,
///         notification: EventNotification<Placed>,
///         context: &ProjectionContext,
///     ) -> Result<Vec<Sql>, HandlerError> {
///         let Placed { customer, cents } = notification.event.payload;
///         let sales = context.table("sales");
///         let add = format!(
///             "INSERT INTO {sales} VALUES ($1, $2) \
///              ON CONFLICT (customer) DO UPDATE SET cents = {sales}.cents + excluded.cents"
///         );
///         let mut statements = vec![Sql::new(add).bind(&customer).bind(cents)];
///         if !context.is_replay() {
///             statements.push(Sql::new("INSERT INTO mails VALUES ($1)").bind(customer));
///         }
///         Ok(statements)
///     }
/// }
/// ```
///
/// [`Projections::switch`]: crate::Projections::switch
pub trait VersionedProjection: Send + 'static {
    /// The type of the events. Notifications with other topics are skipped; give a processor
    /// [`E::TOPICS`](Event::TOPICS), so that they are not read.
    type Event: Event;

    /// The tables of a version, by the names under which programs read them: lower-case letters, digits and
    /// underscores. The context returns the [name](ProjectionContext::table) that a table has in the version.
    const TABLES: &[&str];

    /// Returns the statements that create the missing tables (`CREATE TABLE IF NOT EXISTS`), one in each
    /// [`Sql`]: those of the version, and those that versions share. They are run in one transaction when a
    /// projector is made.
    fn set_up(&self, context: &ProjectionContext) -> Vec<Sql>;

    /// Returns the statements for a notification.
    ///
    /// # Errors
    /// If the notification cannot be projected: nothing of it is recorded.
    fn project(
        &self,
        notification: EventNotification<Self::Event>,
        context: &ProjectionContext,
    ) -> Result<Vec<Sql>, HandlerError>;

    /// Returns the statements for a notification that failed for the last time, as
    /// [`SqlProjection::park`](crate::SqlProjection::park) does. By default it returns the failure, and the
    /// processor stops.
    ///
    /// # Errors
    /// The failure, or another.
    fn park(
        &self,
        notification: &Notification,
        failure: HandlerError,
        context: &ProjectionContext,
    ) -> Result<Vec<Sql>, HandlerError> {
        let _ = (notification, context);
        Err(failure)
    }
}

/// The version for which a [`VersionedProjection`] returns statements.
#[derive(Clone, Debug)]
pub struct ProjectionContext {
    version: u32,
    is_replay: bool,
}

impl ProjectionContext {
    pub(super) fn new(version: u32, is_replay: bool) -> Self {
        Self { version, is_replay }
    }

    /// Returns the number of the version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the name that a table has in this version: `sales_v2`.
    pub fn table(&self, name: &str) -> String {
        version_table(name, self.version)
    }

    /// Returns whether another version has processed the notification, or this one before a reset: its side
    /// effects are made.
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }
}

/// The part of a version's state on which the statements of a batch depend. The projector sets it before each
/// batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchState {
    /// The first notification of the transaction, whose statements begin with the guard.
    pub(super) first: i64,
    pub(super) epoch: i64,
    /// The position up to which notifications are replayed.
    pub(super) live_from: i64,
}

/// A projection of a version, and the mapper that decodes its events.
pub(super) struct TypedVersion<P> {
    pub(super) projection: P,
    pub(super) mapper: Mapper<JsonTranscoder>,
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) state: Arc<RwLock<BatchState>>,
}

impl<P: VersionedProjection> TypedVersion<P> {
    /// Returns the context of a notification, and the statement that must come first.
    fn begin(&self, id: i64) -> (ProjectionContext, Vec<Sql>) {
        let state = *self.state.read().unwrap_or_else(PoisonError::into_inner);
        let guard = (id == state.first).then(|| guard(&self.name, self.version, state.epoch));
        (ProjectionContext::new(self.version, id <= state.live_from), guard.into_iter().collect())
    }
}

impl<P: VersionedProjection> DynSqlProjection for TypedVersion<P> {
    /// Nothing: the tables of a version are created with its registration.
    fn set_up(&self) -> Vec<Sql> {
        Vec::new()
    }

    fn project(&self, Notification { id, event }: &Notification) -> Result<Vec<Sql>, HandlerError> {
        let (context, mut statements) = self.begin(*id);
        if P::Event::TOPICS.contains(&event.topic) {
            let notification = EventNotification::new(*id, self.mapper.to_domain_event(event)?);
            statements.extend(self.projection.project(notification, &context)?);
        }
        Ok(statements)
    }

    fn park(&self, notification: &Notification, failure: HandlerError) -> Result<Vec<Sql>, HandlerError> {
        let (context, mut statements) = self.begin(notification.id);
        statements.extend(self.projection.park(notification, failure, &context)?);
        Ok(statements)
    }
}
