//! Connections: which host, which password, how long, and how many.

use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicUsize, Ordering as Atomic},
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult},
};
use es_core::PersistenceError;
use sqlx::{
    ConnectOptions, Connection, Row,
    postgres::{PgConnectOptions, PgConnection},
};

use crate::{
    error,
    options::{Password, PostgresOptions},
    schema,
};

/// Makes the session's transactions `READ COMMITTED` where the role's or the database's default is
/// another. A stricter one takes its snapshot before it has the table's lock, and would check an append
/// against what stood before it waited. Not as a startup option, which poolers refuse.
const READ_COMMITTED: &str = "SELECT pg_catalog.set_config(name, 'read committed', false) \
    FROM (VALUES ('default_transaction_isolation')) AS setting (name) \
    WHERE pg_catalog.current_setting(name) <> 'read committed'";

/// The connections of a datastore.
#[derive(Debug)]
pub(crate) struct Connections {
    pool: managed::Pool<Connector>,
    keep: usize,
    max_waiting: usize,
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
        Ok(Self { pool, keep: options.pool_size, max_waiting: options.max_waiting })
    }

    /// A connection of the pool, or a new one.
    pub(crate) async fn lease(&self) -> Result<Lease<'_>, LeaseError> {
        if self.max_waiting > 0 && self.pool.status().waiting >= self.max_waiting {
            let message = format!("{} callers wait for a connection already", self.max_waiting);
            return Err(LeaseError::NoneFree(PersistenceError::operational(message).transient()));
        }
        let connection = self.pool.get().await.map_err(|failed| match failed {
            PoolError::Backend(error) => LeaseError::NotConnected(error),
            other => LeaseError::NoneFree(error::from_pool(other)),
        })?;
        Ok(Lease { connection: Some(connection), reusable: false, connections: self })
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
            let _ = connection.close().await;
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
}

impl Lease<'_> {
    /// Gives back a connection that has done what it was asked.
    pub(crate) fn finish(mut self) {
        self.reusable = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let overflow = self.connections.pool.status().size > self.connections.keep;
        if overflow || !self.reusable {
            drop(Object::take(connection));
        }
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
    transaction_pooler: bool,
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
        Ok(Self {
            hosts: options.hosts.iter().map(|(host, port)| Host::new(host, *port, options)).collect(),
            preferred: AtomicUsize::new(0),
            password: options.password.clone(),
            connect_timeout: options.connect_timeout,
            max_age: options.conn_max_age,
            pre_ping: options.pre_ping,
            transaction_pooler: options.transaction_pooler,
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

    async fn connect(&self, host: &Host) -> Result<PgConnection, PersistenceError> {
        let connecting = async {
            let mut options = host.options.clone();
            if let Some(password) = self.password().await? {
                options = options.password(&password);
            }
            let connected = async {
                let mut connection = options.connect().await?;
                if !self.transaction_pooler {
                    schema::run(&mut connection, READ_COMMITTED).await?;
                }
                let writable = self.hosts.len() == 1 || is_writable(&mut connection).await?;
                Ok((connection, writable))
            };
            connected.await.map_err(|error| error::from_connecting(&host.name, error))
        };
        let connected = tokio::time::timeout(self.connect_timeout, connecting).await.map_err(|_| {
            let seconds = self.connect_timeout.as_secs_f64();
            PersistenceError::operational(format!(
                "connecting to PostgreSQL at {} took over {seconds} s",
                host.name
            ))
            .transient()
        })?;
        match connected? {
            (connection, true) => Ok(connection),
            (_, false) => Err(PersistenceError::operational(format!(
                "PostgreSQL at {} does not accept writes",
                host.name
            ))
            .transient()),
        }
    }
}

impl Host {
    fn new(host: &str, port: u16, options: &PostgresOptions) -> Self {
        let mut connect = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .username(&options.user)
            .database(&options.dbname)
            .application_name("es-postgres")
            // No floats are read, and pgbouncer refuses the parameter.
            .extra_float_digits(None)
            .disable_statement_logging();
        if let Some(mode) = options.tls.mode {
            connect = connect.ssl_mode(mode);
        }
        if let Some(path) = &options.tls.root_certificate {
            connect = connect.ssl_root_cert(path);
        }
        if let (Some(certificate), Some(key)) = (&options.tls.client_certificate, &options.tls.client_key) {
            connect = connect.ssl_client_cert(certificate).ssl_client_key(key);
        }
        if options.transaction_pooler {
            connect = connect.statement_cache_capacity(0);
        } else if !options.idle_in_transaction_session_timeout.is_zero() {
            let timeout = options.idle_in_transaction_session_timeout.as_millis().to_string();
            connect = connect.options([("idle_in_transaction_session_timeout", timeout)]);
        }
        Self { name: format!("{host}:{port}"), options: connect }
    }
}

impl managed::Manager for Connector {
    type Type = PgConnection;
    type Error = PersistenceError;

    async fn create(&self) -> Result<PgConnection, PersistenceError> {
        let first = self.preferred.load(Atomic::Relaxed);
        let mut failed = None;
        for offset in 0..self.hosts.len() {
            let index = (first + offset) % self.hosts.len();
            let Some(host) = self.hosts.get(index) else { continue };
            match self.connect(host).await {
                Ok(connection) => {
                    self.preferred.store(index, Atomic::Relaxed);
                    return Ok(connection);
                }
                Err(error) => {
                    tracing::debug!(host = host.name, %error, "cannot use this host");
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| PersistenceError::internal("there is no host to connect to")))
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> RecycleResult<PersistenceError> {
        if self.max_age.is_some_and(|max_age| metrics.age() >= max_age) {
            return Err(RecycleError::message("the connection has reached its age"));
        }
        if self.pre_ping {
            connection.ping().await.map_err(|_| RecycleError::message("the connection is lost"))?;
        }
        Ok(())
    }
}

/// Whether the server is a primary whose sessions may write.
async fn is_writable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let query = "SELECT NOT pg_catalog.pg_is_in_recovery() \
                 AND pg_catalog.current_setting('transaction_read_only') = 'off'";
    sqlx::query(query).persistent(false).fetch_one(connection).await?.try_get(0)
}
