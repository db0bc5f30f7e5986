//! How a PostgreSQL datastore is opened.

use std::{
    env, fmt,
    fs::File,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use es_core::PersistenceError;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgSslMode;

use crate::{
    PostgresDatastore,
    fault_hooks::{FaultHooks, InstalledHooks},
};

/// The port of PostgreSQL unless told otherwise.
const DEFAULT_PORT: u16 = 5432;

/// An [`Instant`](std::time::Instant) cannot be arbitrarily far in the future.
const LONGEST_WAIT: Duration = Duration::from_hours(365 * 24);

/// How a PostgreSQL datastore is opened.
///
/// ```
/// use std::time::Duration;
/// use es_postgres::PostgresOptions;
///
/// let options = PostgresOptions::new("eventsourcing")
///     .host("127.0.0.1")
///     .user("eventsourcing")
///     .password("secret")
///     .lock_timeout(Duration::from_secs(5));
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    pub(crate) dbname: String,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) user: String,
    pub(crate) password: Password,
    pub(crate) schema: String,
    pub(crate) create_table: bool,
    pub(crate) ordering: NotificationOrdering,
    pub(crate) writers: NonZeroUsize,
    pub(crate) fence_timeout: Option<Duration>,
    pub(crate) stall_warning: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) idle_in_transaction_session_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) conn_max_age: Option<Duration>,
    pub(crate) pre_ping: bool,
    pub(crate) pool_size: usize,
    pub(crate) max_overflow: usize,
    pub(crate) max_waiting: usize,
    pub(crate) transaction_pooler: bool,
    pub(crate) tls: TlsOptions,
    pub(crate) poll_interval: Duration,
    pub(crate) notify: bool,
    pub(crate) group: GroupBounds,
    pub(crate) queue_bytes: NonZeroU32,
    pub(crate) hooks: InstalledHooks,
}

/// How the order of notifications is kept while several writers write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotificationOrdering {
    /// Writers exclude each other from before the first id is drawn until after the commit is visible, so that
    /// ids become visible in ascending order: safe for every reader, the Python library's included.
    #[default]
    Serialized,
    /// Writers never wait for each other; readers that meet a gap wait for the transactions that were writing.
    /// Only where every reader uses this library, on the primary, in this mode.
    Parallel,
}

impl std::str::FromStr for NotificationOrdering {
    type Err = PersistenceError;

    /// Parses the setting `POSTGRES_ORDERING`: `serialized` (or `table-lock`, its name in earlier builds) or
    /// `parallel`.
    fn from_str(text: &str) -> Result<Self, PersistenceError> {
        match text {
            "serialized" | "table-lock" => Ok(Self::Serialized),
            "parallel" => Ok(Self::Parallel),
            _ => Err(PersistenceError::programming(format!(
                "ordering {text:?} is not known: expected \"serialized\" or \"parallel\""
            ))),
        }
    }
}

/// What one group commit takes at most; a larger request is a group of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupBounds {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// Calls for a password; see [`PostgresOptions::password_provider`].
type PasswordProvider = Arc<
    dyn Fn() -> BoxFuture<'static, Result<String, Box<dyn std::error::Error + Send + Sync>>> + Send + Sync,
>;

/// Where the password comes from. Never shown.
#[derive(Clone)]
pub(crate) enum Password {
    None,
    Fixed(String),
    Provided(PasswordProvider),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Fixed(_) => "fixed",
            Self::Provided(_) => "provided",
        })
    }
}

/// How connections are encrypted.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    pub(crate) mode: Option<PgSslMode>,
    pub(crate) root_certificate: Option<PathBuf>,
    pub(crate) client_certificate: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
}

impl TlsOptions {
    /// Fails when a file cannot be read: the driver would not say which.
    pub(crate) fn require_files(&self) -> Result<(), PersistenceError> {
        for path in [&self.root_certificate, &self.client_certificate, &self.client_key].into_iter().flatten()
        {
            File::open(path).map_err(|error| {
                PersistenceError::operational(format!("cannot read {path:?}, which is set for TLS"))
                    .with_source(error)
            })?;
        }
        Ok(())
    }
}

impl PostgresOptions {
    /// The longest [`lock_timeout`](Self::lock_timeout) and
    /// [`idle_in_transaction_session_timeout`](Self::idle_in_transaction_session_timeout) in whole
    /// seconds: the server counts milliseconds in a signed integer of 32 bits.
    pub const MAX_SERVER_TIMEOUT: Duration = Duration::from_secs(i32::MAX as u64 / 1_000);

    /// Opens the database `dbname`, on `localhost` as user `postgres` unless told otherwise.
    pub fn new(dbname: impl Into<String>) -> Self {
        Self {
            dbname: dbname.into(),
            hosts: vec![("localhost".to_owned(), DEFAULT_PORT)],
            user: "postgres".to_owned(),
            password: Password::None,
            schema: "public".to_owned(),
            create_table: true,
            ordering: NotificationOrdering::default(),
            writers: const { NonZeroUsize::new(2).unwrap() },
            fence_timeout: None,
            stall_warning: Duration::from_secs(5),
            lock_timeout: Duration::ZERO,
            idle_in_transaction_session_timeout: Duration::ZERO,
            connect_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(30),
            conn_max_age: None,
            pre_ping: false,
            pool_size: 5,
            max_overflow: 10,
            max_waiting: 0,
            transaction_pooler: false,
            tls: TlsOptions::default(),
            poll_interval: Duration::from_millis(250),
            notify: false,
            group: GroupBounds { rows: 4_096, bytes: 4 << 20 },
            queue_bytes: const { NonZeroU32::new(64 << 20).unwrap() },
            hooks: InstalledHooks::default(),
        }
    }

    /// The server: a host name, an address, or the directory of a Unix socket. The port stays.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        let port = self.hosts.first().map_or(DEFAULT_PORT, |(_, port)| *port);
        self.hosts = vec![(host.into(), port)];
        self
    }

    /// The port; 5432 by default. Of several hosts, the port of each.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        for host in &mut self.hosts {
            host.1 = port;
        }
        self
    }

    /// Several servers, of which the first that accepts writes is used, and looked for again when
    /// it does not any more.
    #[must_use]
    pub fn hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        self.hosts = hosts.into_iter().map(|(host, port)| (host.into(), port)).collect();
        self
    }

    /// Several servers as the settings `POSTGRES_HOST` and `POSTGRES_PORT` name them: separated by
    /// commas, with one port for all, or as many ports as hosts.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when a host is empty, a port is not a
    /// number, or there are neither one port nor as many as hosts.
    pub fn host_list(self, hosts: &str, ports: &str) -> Result<Self, PersistenceError> {
        let wrong = |what: String| Err(PersistenceError::programming(what));
        let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
        if hosts.contains(&"") {
            return wrong("a host of PostgreSQL has no name".to_owned());
        }
        let mut numbers = Vec::new();
        for port in ports.split(',').map(str::trim) {
            match port.parse::<u16>() {
                Ok(number) if number > 0 => numbers.push(number),
                _ => return wrong(format!("port {port:?} is not a number from 1 to 65535")),
            }
        }
        match *numbers {
            [port] => Ok(self.hosts(hosts.into_iter().map(|host| (host, port)))),
            _ if numbers.len() == hosts.len() => Ok(self.hosts(hosts.into_iter().zip(numbers))),
            _ => {
                wrong(format!("{} ports for {} hosts: expected one, or as many", numbers.len(), hosts.len()))
            }
        }
    }

    /// The role to connect as; `postgres` by default.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The password; none by default.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Password::Fixed(password.into());
        self
    }

    /// Where to get a password for each new connection, such as a token that expires.
    ///
    /// ```
    /// use es_postgres::PostgresOptions;
    ///
    /// async fn fetch_token() -> Result<String, std::io::Error> {
    ///     Ok("token".to_owned())
    /// }
    /// let options = PostgresOptions::new("events").password_provider(fetch_token);
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn password_provider<P, F, E>(mut self, provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.password = Password::Provided(Arc::new(move || {
            let password = provider();
            Box::pin(async move { password.await.map_err(Into::into) })
        }));
        self
    }

    /// The schema that the tables are in; `public` by default. It is not created.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Whether missing tables and indexes are created when a recorder is made; yes by default. Without it, a
    /// missing table is an error that names it.
    #[must_use]
    pub fn create_table(mut self, create: bool) -> Self {
        self.create_table = create;
        self
    }

    /// How the order of notifications is kept; [`NotificationOrdering::Serialized`] by default, which is safe
    /// for every reader. All processes that share a database must agree.
    #[must_use]
    pub fn ordering(mut self, ordering: NotificationOrdering) -> Self {
        self.ordering = ordering;
        self
    }

    /// How many connections of one recorder write at the same time in [`NotificationOrdering::Parallel`]; 2 by
    /// default. In the serialized ordering it is one: more would wait for each other.
    #[must_use]
    pub fn writers(mut self, connections: NonZeroUsize) -> Self {
        self.writers = connections;
        self
    }

    /// How long a reader in [`NotificationOrdering::Parallel`] waits for those who are writing, before it fails
    /// with a transient error that names who holds it up; without end by default, since going on
    /// would be to miss events. Values above 365 days count as that.
    #[must_use]
    pub fn fence_timeout(mut self, timeout: Duration) -> Self {
        self.fence_timeout = Some(timeout.min(LONGEST_WAIT));
        self
    }

    /// How long a reader in [`NotificationOrdering::Parallel`] waits before it warns (an event of `tracing`) who
    /// holds it up, again and again; 5 seconds by default. Values above 365 days count as that.
    #[must_use]
    pub fn stall_warning(mut self, after: Duration) -> Self {
        self.stall_warning = after.min(LONGEST_WAIT);
        self
    }

    /// How long to wait for the lock of the events table before recording fails with a transient
    /// error; zero, the default, waits for ever. Opening fails if it exceeds
    /// [`MAX_SERVER_TIMEOUT`](Self::MAX_SERVER_TIMEOUT).
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How long a session may idle in a transaction before the server ends it; zero, the default,
    /// is for ever. Opening fails if it exceeds [`MAX_SERVER_TIMEOUT`](Self::MAX_SERVER_TIMEOUT).
    #[must_use]
    pub fn idle_in_transaction_session_timeout(mut self, timeout: Duration) -> Self {
        self.idle_in_transaction_session_timeout = timeout;
        self
    }

    /// How long to wait for a connection, a free one of the pool or a new one to each host, and for
    /// a lost server to return before the outcome of a commit is given up; 30 seconds by default.
    /// Values above 365 days count as that.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// How long the server may keep silent before it is asked, on another connection, whether it is
    /// still at work on an answer; 30 seconds by default, and never at zero. It may be, for a lock or a
    /// disk can take long, and is asked again after the same time. If it is not, or cannot be reached,
    /// the network has lost what was sent or the answer: the connection counts as
    /// [lost](crate#lost-connections). So this is to be more than the largest request takes on its way. The server is told to give up a client that it cannot reach after
    /// the same time, unless it has settings of its own (`tcp_user_timeout`, `tcp_keepalives_idle`). Values above 365 days count as that.
    ///
    /// Behind a [pooler in transaction mode](Self::transaction_pooler) it has no effect: set the pooler's
    /// `query_timeout` and `tcp_keepalive`.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// How long a connection is used; for ever by default. At zero, every connection serves one
    /// transaction.
    #[must_use]
    pub fn conn_max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.conn_max_age = age.into();
        self
    }

    /// Whether a pooled connection is tried before it is used, at the price of a round trip; no by
    /// default, since reads are retried and writes are found out when a connection is lost.
    #[must_use]
    pub fn pre_ping(mut self, ping: bool) -> Self {
        self.pre_ping = ping;
        self
    }

    /// How many connections are kept open; 5 by default.
    #[must_use]
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections;
        self
    }

    /// How many more connections are opened when all are in use, and closed when nobody has needed
    /// them for 10 to 20 seconds; 10 by default.
    #[must_use]
    pub fn max_overflow(mut self, connections: usize) -> Self {
        self.max_overflow = connections;
        self
    }

    /// How many readers may wait for a connection before the next one fails at once; zero, the
    /// default, is any number. What was accepted to be recorded waits its turn.
    #[must_use]
    pub fn max_waiting(mut self, callers: usize) -> Self {
        self.max_waiting = callers;
        self
    }

    /// Whether connections go through a pooler in transaction mode, such as pgbouncer; no by
    /// default. Then nothing is left in a session: statements are not kept prepared, and each runs
    /// within a transaction of its own, which costs round trips. A pooler that tracks prepared
    /// statements (pgbouncer from 1.21 with `max_prepared_statements`) needs it, too: without it, the
    /// settings and locks of a session stay behind for other clients of the pooler, which then do not
    /// find their tables (`search_path`).
    #[must_use]
    pub fn transaction_pooler(mut self, pooler: bool) -> Self {
        self.transaction_pooler = pooler;
        self
    }

    /// Whether and how connections are encrypted, under the names of libpq's `sslmode`: `disable`,
    /// `prefer` (the default, whatever `PGSSLMODE` is), `require`, `verify-ca`, `verify-full`. The driver does not try again
    /// encrypted where libpq's `allow` does.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when the name is not known;
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) when it asks for encryption and the feature
    /// `tls` is off.
    pub fn sslmode(mut self, name: &str) -> Result<Self, PersistenceError> {
        let mode: PgSslMode = name.parse().map_err(|_| {
            PersistenceError::programming(format!(
                "sslmode {name:?} is not known: expected disable, allow, prefer, require, verify-ca or \
                 verify-full"
            ))
        })?;
        let required = matches!(mode, PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        if required && !cfg!(feature = "tls") {
            return Err(PersistenceError::not_supported(format!(
                "sslmode {name:?} needs the feature `tls` of es-postgres, which is not compiled in"
            )));
        }
        self.tls.mode = Some(mode);
        Ok(self)
    }

    /// The file of certificates that the server's is verified against (PEM). Opening fails when it cannot be read.
    #[must_use]
    pub fn ssl_root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.root_certificate = Some(path.into());
        self
    }

    /// The files of this client's certificate and key (PEM). Opening fails when they cannot be read.
    #[must_use]
    pub fn ssl_client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls.client_certificate = Some(certificate.into());
        self.tls.client_key = Some(key.into());
        self
    }

    /// How long it takes at most until those who wait for events or positions notice what another
    /// process has recorded, or a transaction of the caller's own; 250 ms by default.
    ///
    /// What a recorder of the same datastore records wakes them at once. For the rest, one task for
    /// each table asks for its highest notification id this often, and only while somebody waits: at
    /// the default, four times a second, a look at one index entry. People hardly notice a
    /// quarter of a second, nor does the server notice four such queries. Values above 365 days count as that.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.min(LONGEST_WAIT);
        self
    }

    /// Whether other processes are told by `NOTIFY` when events were recorded, and listened to while
    /// somebody follows a recorder here; no by default, since each such process notices by itself within
    /// its [poll interval](Self::poll_interval).
    ///
    /// The channel is the events table's name (with `_` for `.`), as in the Python library, whose
    /// subscriptions wait for such hints alone: switch this on where they follow events of this
    /// library. A hint is sent after each group commit, or once after several, in a transaction of its own
    /// that is not flushed; no caller waits for it, and closing a recorder waits until it was
    /// sent. Appending inside [a transaction of the caller's](crate::PostgresApplicationRecorder::insert_events_in)
    /// sends it in that transaction, where `NOTIFY` takes a lock of the whole instance until the commit
    /// is durable.
    ///
    /// What it costs 64 writers was less than the noise of a busy machine: in five pairs of rounds, with the
    /// table lock, hints made 0.98 to 1.85 of the events a second that there were without. From a
    /// commit in one process to its delivery in another it took 3.9 ms instead of 240 (medians of 60).
    ///
    /// Listening takes one connection beyond the pool's. Behind a
    /// [pooler in transaction mode](Self::transaction_pooler) hints are sent, and not listened to.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// How many events one group commit takes at most; 4,096 by default. A request that has more is
    /// a group of its own.
    #[must_use]
    pub fn group_rows(mut self, rows: NonZeroUsize) -> Self {
        self.group.rows = rows.get();
        self
    }

    /// How many bytes of events one group commit takes at most; 4 MiB by default. A request that
    /// has more is a group of its own.
    #[must_use]
    pub fn group_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.group.bytes = bytes.get();
        self
    }

    /// How many bytes of events may wait for the writer or be on their way; 64 MiB by default.
    /// Callers wait beyond that. Each event counts 128 bytes more than its topic and state, so that
    /// this bounds the number of events too.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: NonZeroU32) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Tells `hooks` the points that recorders pass: for tests.
    #[must_use]
    pub fn hooks(mut self, hooks: impl FaultHooks) -> Self {
        self.hooks = InstalledHooks::new(hooks);
        self
    }

    /// Connects to the server.
    ///
    /// The environment variables of libpq (`PGHOST`, `PGPASSWORD`, `PGSSLMODE` and others) and the password
    /// file have no effect. `PGOPTIONS`, `PGSSLCERT` and `PGSSLKEY`, which the driver reads and nothing
    /// can override, must not be set: opening fails, except that those of a client certificate are ignored
    /// where [`ssl_client_certificate`](Self::ssl_client_certificate) is given.
    ///
    /// # Errors
    /// [`Operational`](es_core::ErrorKind::Operational) when no host can be reached, or none of
    /// several accepts writes; [`Programming`](es_core::ErrorKind::Programming) for options that
    /// make no sense.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn open(self) -> Result<PostgresDatastore, PersistenceError> {
        self.require_valid_timeouts()?;
        self.require_no_libpq_variables()?;
        PostgresDatastore::open(self).await
    }

    /// Refuses variables that the driver would obey without being asked to.
    fn require_no_libpq_variables(&self) -> Result<(), PersistenceError> {
        let certificates: &[&str] = match (&self.tls.client_certificate, &self.tls.mode) {
            (None, mode) if cfg!(feature = "tls") && !matches!(mode, Some(PgSslMode::Disable)) => {
                &["PGSSLCERT", "PGSSLKEY"]
            }
            _ => &[],
        };
        match ["PGOPTIONS"].iter().chain(certificates).find(|name| env::var_os(name).is_some()) {
            None => Ok(()),
            Some(name) => Err(PersistenceError::programming(format!(
                "environment variable {name} is set, which would change connections: unset it for this program"
            ))),
        }
    }

    /// Refuses timeouts that the server would refuse, with an error of its own for each statement.
    fn require_valid_timeouts(&self) -> Result<(), PersistenceError> {
        let timeouts = [
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_session_timeout),
        ];
        match timeouts.into_iter().find(|(_, timeout)| *timeout > Self::MAX_SERVER_TIMEOUT) {
            None => Ok(()),
            Some((name, timeout)) => Err(PersistenceError::programming(format!(
                "{name} is {} s, but the server takes at most {} s",
                timeout.as_secs(),
                Self::MAX_SERVER_TIMEOUT.as_secs()
            ))),
        }
    }
}
