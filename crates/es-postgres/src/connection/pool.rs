//! Connections: which host, which password, how long, and how many.

use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicUsize, Ordering as Atomic},
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{
        self, Manager, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
    },
};
use es_core::PersistenceError;
use sqlx::{
    ConnectOptions, Connection, Row,
    postgres::{PgConnectOptions, PgConnection, PgSslMode},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{
    connection::{
        idle_reaper::Spares,
        session::{self, Backend, Session, Silence},
    },
    error,
    options::{Password, PostgresOptions},
};

/// The connections of a datastore.
#[derive(Debug)]
pub(crate) struct Connections {
    pool: managed::Pool<Connector>,
    /// The connections that projections may use: they keep one while their handlers run, which may read and
    /// append through the same pool. All but one, unless there is only one.
    for_projections: Semaphore,
    is_single: bool,
    spares: Spares,
    max_waiting: usize,
    connect_timeout: Duration,
    response_timeout: Duration,
}

/// Who wants a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// One who is told when there is none.
    Reader,
    /// One who has accepted what is to be written, and waits until there is one. There are few.
    Writer,
    /// A projection, which keeps the connection while its handlers run.
    Projection,
}

impl Connections {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, PersistenceError> {
        let size = options.pool_size.saturating_add(options.max_overflow);
        if size == 0 {
            return Err(PersistenceError::programming("pool size and overflow allow no connection at all"));
        }
        let pool = managed::Pool::builder(Connector::new(options)?)
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
            for_projections: Semaphore::new((size - 1).clamp(1, Semaphore::MAX_PERMITS)),
            is_single: size == 1,
            spares: Spares::beyond(options.pool_size),
            max_waiting: options.max_waiting,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        })
    }

    /// A connection of the pool, or a new one.
    pub(crate) async fn lease(&self, caller: Caller) -> Result<Lease<'_>, LeaseError> {
        if caller != Caller::Writer && self.max_waiting > 0 && self.pool.status().waiting >= self.max_waiting
        {
            let message = format!("{} callers wait for a connection already", self.max_waiting);
            return Err(LeaseError::NoneFree(PersistenceError::operational(message).transient()));
        }
        let projection = match caller {
            Caller::Projection => Some(self.projection_permit().await?),
            Caller::Reader | Caller::Writer => None,
        };
        let mut timeouts = self.pool.timeouts();
        if caller == Caller::Writer && !self.is_single {
            timeouts.wait = None;
        }
        loop {
            match self.pool.timeout_get(&timeouts).await {
                Ok(connection) => {
                    let connection = Some(connection);
                    return Ok(Lease {
                        connection,
                        reusable: false,
                        connections: self,
                        _projection: projection,
                    });
                }
                Err(PoolError::Backend(error)) => return Err(LeaseError::NotConnected(error)),
                // It may be the projection's own handler that waits, and then would for ever.
                Err(PoolError::Timeout(TimeoutType::Wait)) if self.is_used_by_projection() => {
                    return Err(LeaseError::NoneFree(PersistenceError::operational(
                        "no connection became free within the connect timeout: a projection uses the only \
                         connection of the pool; to read or append while its handlers run, allow a second one \
                         (pool size or overflow)",
                    )));
                }
                Err(PoolError::Timeout(TimeoutType::Wait)) if caller == Caller::Writer => {
                    tokio::task::yield_now().await;
                }
                Err(other) => return Err(LeaseError::NoneFree(error::from_pool(other))),
            }
        }
    }

    async fn projection_permit(&self) -> Result<SemaphorePermit<'_>, LeaseError> {
        match timeout(self.connect_timeout, self.for_projections.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(LeaseError::NoneFree(error::datastore_closed())),
            Err(_) => Err(LeaseError::NoneFree(
                PersistenceError::operational(
                    "no connection became free within the connect timeout: projections use all connections of \
                     the pool but the one that is reserved for reads and appends",
                )
                .transient(),
            )),
        }
    }

    fn is_used_by_projection(&self) -> bool {
        self.is_single && self.for_projections.available_permits() == 0
    }

    /// Waits for an answer of a server process, as long as it is at work on it.
    ///
    /// # Errors
    /// When no answer will come: the connection is lost.
    ///
    /// # Cancel safety
    /// As the answer's.
    pub(crate) async fn answered<T>(
        &self,
        backend: Option<Backend>,
        answer: impl Future<Output = T>,
    ) -> Result<T, sqlx::Error> {
        self.answered_unless_idle(backend, answer, self.response_timeout).await
    }

    /// The same for code of the user's, which may do other things between its statements: its transaction is
    /// given up when it has been idle for the whole response timeout.
    ///
    /// # Errors
    /// As [`answered`](Self::answered).
    ///
    /// # Cancel safety
    /// As [`answered`](Self::answered).
    pub(crate) async fn handled<T>(
        &self,
        backend: Option<Backend>,
        handling: impl Future<Output = T>,
    ) -> Result<T, sqlx::Error> {
        self.answered_unless_idle(backend, handling, self.response_timeout.saturating_mul(2)).await
    }

    async fn answered_unless_idle<T>(
        &self,
        backend: Option<Backend>,
        answer: impl Future<Output = T>,
        patience: Duration,
    ) -> Result<T, sqlx::Error> {
        match backend {
            Some(backend) if !self.response_timeout.is_zero() => {
                session::answered(answer, self.response_timeout, || self.look_at(backend, patience)).await
            }
            _ => Ok(answer.await),
        }
    }

    /// Looks at a server process on a connection of its own: those of the pool may be as silent.
    async fn look_at(&self, backend: Backend, patience: Duration) -> Silence {
        let mut asking = match self.pool.manager().create().await {
            Ok(session) => session,
            // It lives, but lets nobody in at the moment.
            Err(failed) if error::is_told_by_server(&failed) => return Silence::AtWork,
            Err(_) => return Silence::Lost,
        };
        match timeout(self.connect_timeout, session::look_at(&mut asking, backend, patience)).await {
            Ok(Ok(silence)) => silence,
            _ => Silence::Lost,
        }
    }

    /// How to connect to the host that was connected to last, and its name: for a connection that is
    /// none of the pool's.
    pub(crate) async fn preferred(&self) -> Result<(&str, PgConnectOptions), PersistenceError> {
        let connector = self.pool.manager();
        let host = connector.hosts.get(connector.preferred.load(Atomic::Relaxed));
        let host = host.ok_or_else(|| PersistenceError::internal("there is no host to connect to"))?;
        Ok((&host.name, connector.options(host).await?))
    }

    /// Drops the connections that nobody uses: where one was lost, or leads to a server that accepts
    /// no writes, so are and do the others.
    pub(crate) fn purge(&self) {
        drop(self.pool.retain(|_, _| false));
    }

    pub(crate) async fn close(&self) {
        self.pool.close();
        for connection in self.pool.retain(|_, _| false).removed {
            // The server notices by itself when the farewell does not reach it.
            let _ = timeout(self.connect_timeout, connection.into_connection().close()).await;
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum LeaseError {
    /// All are in use, and will be for a while.
    NoneFree(PersistenceError),
    /// The server does not let us in; it may do so later, where the error is transient.
    NotConnected(PersistenceError),
}

impl From<LeaseError> for PersistenceError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::NoneFree(error) | LeaseError::NotConnected(error) => error,
        }
    }
}

/// A connection on loan.
///
/// It goes back to the pool by [`finish`](Self::finish) alone. One that is dropped has perhaps a
/// statement half done, because a caller went away or the connection broke, and is closed.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    connection: Option<Object<Connector>>,
    reusable: bool,
    connections: &'a Connections,
    _projection: Option<SemaphorePermit<'a>>,
}

impl Lease<'_> {
    /// Gives back a connection that has done what it was asked.
    pub(crate) fn finish(mut self) {
        self.reusable = true;
    }

    /// The server process at its other end, where that is known.
    pub(crate) fn backend(&self) -> Option<Backend> {
        self.connection.as_ref()?.backend
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !self.reusable {
            drop(Object::take(connection));
            return;
        }
        drop(connection);
        self.connections.spares.watch(&self.connections.pool);
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

/// Makes connections, and says whether one may be used again.
#[derive(Debug)]
struct Connector {
    hosts: Vec<Host>,
    /// The host that was connected to last: where to try first.
    preferred: AtomicUsize,
    password: Password,
    connect_timeout: Duration,
    max_age: Option<Duration>,
    pre_ping: bool,
    options: PostgresOptions,
}

struct Host {
    /// For messages.
    name: String,
    options: PgConnectOptions,
}

impl std::fmt::Debug for Host {
    // The driver's options hold the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Connector {
    fn new(options: &PostgresOptions) -> Result<Self, PersistenceError> {
        if options.hosts.is_empty() {
            return Err(PersistenceError::programming("no host of PostgreSQL is given"));
        }
        for (what, text) in [("database name", &options.dbname), ("user", &options.user)] {
            if text.is_empty() || text.contains('\0') {
                return Err(PersistenceError::programming(format!("{what} {text:?} is empty or has a NUL")));
            }
        }
        options.tls.require_files()?;
        Ok(Self {
            hosts: options.hosts.iter().map(|(host, port)| Host::new(host, *port, options)).collect(),
            preferred: AtomicUsize::new(0),
            password: options.password.clone(),
            connect_timeout: options.connect_timeout,
            max_age: options.conn_max_age,
            pre_ping: options.pre_ping,
            options: options.clone(),
        })
    }

    async fn password(&self) -> Result<Option<String>, PersistenceError> {
        match &self.password {
            Password::None => Ok(None),
            Password::Fixed(password) => Ok(Some(password.clone())),
            Password::Provided(provider) => provider().await.map(Some).map_err(|error| {
                PersistenceError::operational("the password provider failed").with_source(error).transient()
            }),
        }
    }

    /// How to connect to a host now.
    async fn options(&self, host: &Host) -> Result<PgConnectOptions, PersistenceError> {
        let options = host.options.clone();
        Ok(match self.password().await? {
            Some(password) => options.password(&password),
            None => options,
        })
    }

    async fn connect(&self, host: &Host) -> Result<Session, PersistenceError> {
        let connecting = async {
            let options = self.options(host).await?;
            let connected = async {
                let connection = options.connect().await?;
                let mut session = match self.options.transaction_pooler {
                    true => Session::pooled(connection),
                    false => Session::start(connection, &self.options).await?,
                };
                let writable = self.hosts.len() == 1 || is_writable(&mut session).await?;
                Ok((session, writable))
            };
            connected.await.map_err(|error| error::from_connecting(&host.name, error))
        };
        let connected = timeout(self.connect_timeout, connecting).await.map_err(|_| {
            let seconds = self.connect_timeout.as_secs_f64();
            PersistenceError::operational(format!(
                "connecting to PostgreSQL at {} took over {seconds} s",
                host.name
            ))
            .transient()
        })?;
        match connected? {
            (session, true) => Ok(session),
            (_, false) => Err(PersistenceError::operational(format!(
                "PostgreSQL at {} does not accept writes",
                host.name
            ))
            .transient()),
        }
    }
}

impl Host {
    /// Sets whatever the driver would otherwise read from environment variables: see
    /// [`PostgresOptions::open`] for those that it offers no way to replace.
    fn new(host: &str, port: u16, options: &PostgresOptions) -> Self {
        let mut connect = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .username(&options.user)
            // The driver answers with an empty password where it has none.
            .password("")
            .database(&options.dbname)
            .application_name("es-postgres")
            .ssl_mode(options.tls.mode.unwrap_or(PgSslMode::Prefer))
            .ssl_root_cert_from_pem(Vec::new())
            // No floats are read, and pgbouncer refuses the parameter.
            .extra_float_digits(None)
            .disable_statement_logging();
        if let Some(path) = &options.tls.root_certificate {
            connect = connect.ssl_root_cert(path);
        }
        if let (Some(certificate), Some(key)) = (&options.tls.client_certificate, &options.tls.client_key) {
            connect = connect.ssl_client_cert(certificate).ssl_client_key(key);
        }
        if options.transaction_pooler {
            connect = connect.statement_cache_capacity(0);
        } else if !options.idle_in_transaction_session_timeout.is_zero() {
            let timeout = session::milliseconds(options.idle_in_transaction_session_timeout).to_string();
            connect = connect.options([("idle_in_transaction_session_timeout", timeout)]);
        }
        Self { name: format!("{host}:{port}"), options: connect }
    }
}

impl Manager for Connector {
    type Type = Session;
    type Error = PersistenceError;

    async fn create(&self) -> Result<Session, PersistenceError> {
        let first = self.preferred.load(Atomic::Relaxed);
        let mut failed = None;
        for offset in 0..self.hosts.len() {
            let index = (first + offset) % self.hosts.len();
            let Some(host) = self.hosts.get(index) else { continue };
            match self.connect(host).await {
                Ok(session) => {
                    self.preferred.store(index, Atomic::Relaxed);
                    return Ok(session);
                }
                Err(error) => {
                    tracing::debug!(host = host.name, %error, "cannot use this host");
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| PersistenceError::internal("there is no host to connect to")))
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> RecycleResult<PersistenceError> {
        if self.max_age.is_some_and(|max_age| metrics.age() >= max_age) {
            return Err(RecycleError::message("the connection has reached its age"));
        }
        if self.pre_ping {
            session.ping().await.map_err(|_| RecycleError::message("the connection is lost"))?;
        }
        Ok(())
    }
}

/// Whether the server is a primary whose sessions may write. One message: behind a pooler, several could be
/// answered by several servers.
async fn is_writable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let query = "SELECT NOT pg_catalog.pg_is_in_recovery() \
                 AND pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'off'";
    sqlx::raw_sql(query).fetch_one(connection).await?.try_get(0)
}
