//! The pool: leases of connections, for reads, writes and projections.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{self, Manager, Object, PoolError, QueueMode, TimeoutType},
};
use es_core::PersistenceError;
use sqlx::{
    Connection,
    postgres::{PgConnectOptions, PgConnection},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    connector::{Connector, ServerRole},
    idle_reaper::IdleReaper,
    liveness::{self, BackendState},
    session::Backend,
};
use crate::{error, options::PostgresOptions, runtime};

/// The connections of a datastore.
#[derive(Debug)]
pub(crate) struct Connections {
    pool: managed::Pool<Connector>,
    /// The connections that projections may use: a projection keeps one while its handlers run, which may
    /// read and append through the same pool. All but one, unless there is only one.
    projections: Semaphore,
    is_single: bool,
    reaper: IdleReaper,
    max_waiting: usize,
    connect_timeout: Duration,
    response_timeout: Duration,
}

/// The purpose of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseKind {
    /// Fails if no connection becomes free in time.
    Read,
    /// Waits until a connection is free, since the write was accepted. There are few at a time.
    Write,
    /// Keeps the connection while the handlers of a projection run.
    Projection,
}

impl Connections {
    pub(crate) fn new(options: &PostgresOptions, role: ServerRole) -> Result<Self, PersistenceError> {
        let size = options.pool_size.saturating_add(options.max_overflow);
        if size == 0 {
            return Err(PersistenceError::programming("pool size and overflow allow no connection at all"));
        }
        let pool = managed::Pool::builder(Connector::new(options, role)?)
            .max_size(size)
            .wait_timeout(Some(options.connect_timeout))
            .recycle_timeout(Some(options.connect_timeout))
            .runtime(Runtime::Tokio1)
            // The connection that was used last has its statements prepared.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| PersistenceError::internal("the connection pool failed").with_source(error))?;
        Ok(Self {
            pool,
            projections: Semaphore::new((size - 1).clamp(1, Semaphore::MAX_PERMITS)),
            is_single: size == 1,
            reaper: IdleReaper::beyond(options.pool_size),
            max_waiting: options.max_waiting,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        })
    }

    /// Leases a connection of the pool, or a new one.
    pub(crate) async fn lease(&self, kind: LeaseKind) -> Result<Lease<'_>, LeaseError> {
        runtime::current().map_err(LeaseError::Exhausted)?;
        if kind != LeaseKind::Write && self.max_waiting > 0 && self.pool.status().waiting >= self.max_waiting
        {
            let message = format!("{} callers wait for a connection already", self.max_waiting);
            return Err(LeaseError::Exhausted(PersistenceError::operational(message).transient()));
        }
        let projection = match kind {
            LeaseKind::Projection => Some(self.projection_permit().await?),
            LeaseKind::Read | LeaseKind::Write => None,
        };
        let mut timeouts = self.pool.timeouts();
        if kind == LeaseKind::Write && !self.is_single {
            timeouts.wait = None;
        }
        loop {
            return match self.pool.timeout_get(&timeouts).await {
                Ok(connection) => Ok(Lease {
                    connection: Some(connection),
                    is_reusable: false,
                    connections: self,
                    _projection: projection,
                }),
                Err(PoolError::Backend(error)) => Err(LeaseError::NotConnected(error)),
                // The projection's own handler may be the one that waits, and then would wait forever.
                Err(PoolError::Timeout(TimeoutType::Wait)) if self.is_used_by_projection() => {
                    Err(LeaseError::Exhausted(PersistenceError::operational(
                        "no connection became free within the connect timeout: a projection uses the only \
                         connection of the pool; to read or append while its handlers run, allow a second one \
                         (pool size or overflow)",
                    )))
                }
                Err(PoolError::Timeout(TimeoutType::Wait)) if kind == LeaseKind::Write => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(other) => Err(LeaseError::Exhausted(error::from_pool(other))),
            };
        }
    }

    async fn projection_permit(&self) -> Result<SemaphorePermit<'_>, LeaseError> {
        match timeout(self.connect_timeout, self.projections.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(LeaseError::Exhausted(error::datastore_closed())),
            Err(_) => Err(LeaseError::Exhausted(
                PersistenceError::operational(
                    "no connection became free within the connect timeout: projections use all connections of \
                     the pool but the one that is reserved for reads and appends",
                )
                .transient(),
            )),
        }
    }

    fn is_used_by_projection(&self) -> bool {
        self.is_single && self.projections.available_permits() == 0
    }

    /// Waits for an answer of a server process for as long as the process is working.
    ///
    /// # Errors
    /// If the connection is lost, so that no answer will come.
    pub(crate) async fn with_liveness_check<T>(
        &self,
        backend: Option<Backend>,
        answer: impl Future<Output = T>,
    ) -> Result<T, sqlx::Error> {
        self.check_while(backend, answer, self.response_timeout).await
    }

    /// As [`with_liveness_check`](Self::with_liveness_check) for the user's code, which may do other work
    /// between its statements: its transaction may be idle for the whole response timeout.
    pub(crate) async fn with_handler_liveness_check<T>(
        &self,
        backend: Option<Backend>,
        handling: impl Future<Output = T>,
    ) -> Result<T, sqlx::Error> {
        self.check_while(backend, handling, self.response_timeout.saturating_mul(2)).await
    }

    async fn check_while<T>(
        &self,
        backend: Option<Backend>,
        answer: impl Future<Output = T>,
        idle_time: Duration,
    ) -> Result<T, sqlx::Error> {
        match backend {
            Some(backend) if !self.response_timeout.is_zero() => {
                let check = || self.check_backend(backend, idle_time);
                liveness::with_liveness_check(answer, self.response_timeout, check).await
            }
            _ => Ok(answer.await),
        }
    }

    /// Checks a server process on a new connection: those of the pool may be affected as well.
    async fn check_backend(&self, backend: Backend, idle_time: Duration) -> BackendState {
        let mut session = match self.pool.manager().create().await {
            Ok(session) => session,
            // The server is alive, but refuses connections at the moment.
            Err(failed) if error::is_from_server(&failed) => return BackendState::Working,
            Err(_) => return BackendState::Lost,
        };
        let checking = liveness::check_backend(&mut session, backend, idle_time);
        match timeout(self.connect_timeout, checking).await {
            Ok(Ok(state)) => state,
            _ => BackendState::Lost,
        }
    }

    /// Returns the name of the host of the last connection and how to connect to it, for a connection outside
    /// of the pool.
    pub(crate) async fn preferred_host(&self) -> Result<(&str, PgConnectOptions), PersistenceError> {
        self.pool.manager().preferred_host().await
    }

    /// Closes the idle connections: if one was lost, or leads to a server that accepts no writes, the others
    /// probably are and do as well.
    pub(crate) fn purge(&self) {
        drop(self.pool.retain(|_, _| false));
    }

    pub(crate) async fn close(&self) {
        self.pool.close();
        for connection in self.pool.retain(|_, _| false).removed {
            // If the termination message does not arrive, the server detects the closed connection by itself.
            let _ = timeout(self.connect_timeout, connection.into_connection().close()).await;
        }
    }
}

/// The reason why no connection was leased.
#[derive(Debug)]
pub(crate) enum LeaseError {
    /// All connections are in use, or there is no runtime to connect in.
    Exhausted(PersistenceError),
    /// The server cannot be connected to; if the error is transient, an attempt may succeed later.
    NotConnected(PersistenceError),
}

impl From<LeaseError> for PersistenceError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Exhausted(error) | LeaseError::NotConnected(error) => error,
        }
    }
}

/// A leased connection.
///
/// Only [`finish`](Self::finish) returns it to the pool. A lease that is dropped may have a statement in
/// progress, because a caller was cancelled or the connection was lost, and closes the connection.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    connection: Option<Object<Connector>>,
    is_reusable: bool,
    connections: &'a Connections,
    _projection: Option<SemaphorePermit<'a>>,
}

impl Lease<'_> {
    /// Returns the connection, which has no statement in progress, to the pool.
    pub(crate) fn finish(mut self) {
        self.is_reusable = true;
    }

    /// The server process of the connection, if it is known.
    pub(crate) fn backend(&self) -> Option<Backend> {
        self.connection.as_ref()?.backend
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !self.is_reusable {
            drop(Object::take(connection));
            return;
        }
        drop(connection);
        self.connections.reaper.watch(&self.connections.pool);
    }
}

impl Deref for Lease<'_> {
    type Target = PgConnection;

    #[expect(clippy::expect_used, reason = "only dropping takes the connection")]
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("a lease has its connection until it is dropped")
    }
}

impl DerefMut for Lease<'_> {
    #[expect(clippy::expect_used, reason = "only dropping takes the connection")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a lease has its connection until it is dropped")
    }
}
