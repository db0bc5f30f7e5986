//! Opens connections: host, password, settings, age.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering as Atomic},
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use es_core::PersistenceError;
use futures_util::{StreamExt, stream::FuturesUnordered};
use sqlx::{
    ConnectOptions, Connection, Row,
    postgres::{PgConnectOptions, PgConnection, PgSslMode},
};
use tokio::time::timeout;

use super::session::{self, Session};
use crate::{
    error,
    options::{Password, PostgresOptions},
};

/// The longest time of one attempt to connect to a standby: the primary can answer in its place.
const STANDBY_CONNECT_TIME: Duration = Duration::from_secs(2);

/// The time after which the next host is tried as well. A host that does not respond would otherwise delay a
/// failover by the connect timeout.
const HEAD_START: Duration = Duration::from_secs(1);

/// Opens connections, and decides whether one can be reused.
#[derive(Debug)]
pub(super) struct Connector {
    hosts: Vec<Host>,
    role: ServerRole,
    /// The host of the last connection to a primary, which is tried first. For standbys, the host after it
    /// is, so that connections are spread.
    preferred: AtomicUsize,
    options: PostgresOptions,
}

/// The servers that are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerRole {
    /// The first host that accepts writes, or the only one, whatever it accepts.
    Primary,
    /// The read hosts that are in recovery.
    Standby,
}

struct Host {
    /// The address, for messages.
    name: String,
    options: PgConnectOptions,
}

impl std::fmt::Debug for Host {
    // The driver's options contain the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Connector {
    pub(super) fn new(options: &PostgresOptions, role: ServerRole) -> Result<Self, PersistenceError> {
        let hosts = match role {
            ServerRole::Primary => &options.hosts,
            ServerRole::Standby => &options.read_hosts,
        };
        if hosts.is_empty() {
            return Err(PersistenceError::programming("no PostgreSQL host is given"));
        }
        for (what, text) in [("database name", &options.dbname), ("user", &options.user)] {
            if text.is_empty() || text.contains('\0') {
                let message = format!("{what} {text:?} is empty or contains a NUL character");
                return Err(PersistenceError::programming(message));
            }
        }
        options.tls.check_files()?;
        Ok(Self {
            hosts: hosts.iter().map(|(host, port)| Host::new(host, *port, options)).collect(),
            role,
            preferred: AtomicUsize::new(0),
            options: options.clone(),
        })
    }

    /// Returns the name of the host of the last connection and how to connect to it, for a connection outside
    /// of the pool.
    pub(super) async fn preferred_host(&self) -> Result<(&str, PgConnectOptions), PersistenceError> {
        let host = self.hosts.get(self.preferred.load(Atomic::Relaxed));
        let host = host.ok_or_else(no_host)?;
        Ok((&host.name, self.connect_options(host).await?))
    }

    async fn connect_options(&self, host: &Host) -> Result<PgConnectOptions, PersistenceError> {
        let options = host.options.clone();
        match &self.options.password {
            Password::None => Ok(options),
            Password::Fixed(password) => Ok(options.password(password)),
            Password::Provided(provider) => match provider().await {
                Ok(password) => Ok(options.password(&password)),
                Err(error) => Err(transient("the password provider failed".to_owned()).with_source(error)),
            },
        }
    }

    async fn connect(&self, host: &Host) -> Result<Session, PersistenceError> {
        let connecting = async {
            let options = self.connect_options(host).await?;
            let connected = async {
                let connection = options.connect().await?;
                let mut session = match self.options.transaction_pooler {
                    true => Session::pooled(connection),
                    false => Session::start(connection, &self.options).await?,
                };
                let suits = match self.role {
                    ServerRole::Primary => self.hosts.len() == 1 || is_writable(&mut session).await?,
                    ServerRole::Standby => is_in_recovery(&mut session).await?,
                };
                Ok((session, suits))
            };
            connected.await.map_err(|error| error::from_connecting(&host.name, error))
        };
        let connect_timeout = match self.role {
            ServerRole::Primary => self.options.connect_timeout,
            ServerRole::Standby => self.options.connect_timeout.min(STANDBY_CONNECT_TIME),
        };
        let connected = timeout(connect_timeout, connecting).await.map_err(|_| {
            let seconds = connect_timeout.as_secs_f64();
            transient(format!("connecting to PostgreSQL at {} took over {seconds} s", host.name))
        })?;
        match connected? {
            (session, true) => Ok(session),
            (_, false) => Err(transient(match self.role {
                ServerRole::Primary => format!("PostgreSQL at {} does not accept writes", host.name),
                ServerRole::Standby => format!("PostgreSQL at {} is not a standby", host.name),
            })),
        }
    }
}

impl Host {
    /// Sets everything that the driver would otherwise read from environment variables; see
    /// [`PostgresOptions::open`] for those that cannot be overridden.
    fn new(host: &str, port: u16, options: &PostgresOptions) -> Self {
        let mut connect = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .username(&options.user)
            // The driver sends an empty password if it has none.
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

    /// Tries the hosts in turn. While one does not respond, the others are tried again: a standby that
    /// refuses writes may be the primary by then.
    async fn create(&self) -> Result<Session, PersistenceError> {
        let first = match self.role {
            ServerRole::Primary => self.preferred.load(Atomic::Relaxed),
            ServerRole::Standby => self.preferred.load(Atomic::Relaxed).wrapping_add(1) % self.hosts.len(),
        };
        let (before, after) = self.hosts.split_at(first);
        let mut next: VecDeque<&Host> = after.iter().chain(before).collect();
        let (mut refused, mut failed, mut attempts) = (Vec::new(), None, FuturesUnordered::new());
        loop {
            match next.pop_front() {
                Some(host) => attempts.push(async move { (host, self.connect(host).await) }),
                None if attempts.is_empty() => return Err(failed.unwrap_or_else(no_host)),
                None => {}
            }
            match timeout(HEAD_START, attempts.next()).await {
                Ok(Some((host, Ok(session)))) => {
                    let index = self.hosts.iter().position(|other| std::ptr::eq(other, host));
                    self.preferred.store(index.unwrap_or(0), Atomic::Relaxed);
                    return Ok(session);
                }
                Ok(Some((host, Err(error)))) => {
                    tracing::debug!(host = host.name, %error, "this host cannot be used");
                    failed.get_or_insert(error);
                    refused.push(host);
                }
                Err(_) if next.is_empty() => next.extend(refused.drain(..)),
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> RecycleResult<PersistenceError> {
        if self.options.conn_max_age.is_some_and(|max_age| metrics.age() >= max_age) {
            return Err(RecycleError::message("the connection has reached its maximum age"));
        }
        if self.options.pre_ping {
            session.ping().await.map_err(|_| RecycleError::message("the connection is lost"))?;
        }
        Ok(())
    }
}

/// Returns whether the server is a primary whose sessions may write. It is one message: behind a pooler,
/// several could be answered by several servers.
async fn is_writable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let query = "SELECT NOT pg_catalog.pg_is_in_recovery() \
                 AND pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'off'";
    sqlx::raw_sql(query).fetch_one(connection).await?.try_get(0)
}

/// Returns whether the server is a standby.
async fn is_in_recovery(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_catalog.pg_is_in_recovery()").fetch_one(connection).await?.try_get(0)
}

fn transient(message: String) -> PersistenceError {
    PersistenceError::operational(message).transient()
}

fn no_host() -> PersistenceError {
    PersistenceError::internal("there is no host to connect to")
}
