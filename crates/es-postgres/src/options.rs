//! Options of a PostgreSQL datastore.

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

use crate::{fault_hooks::InstalledHooks, limits::GroupLimits, schema::TableName};

const DEFAULT_PORT: u16 = 5432;

/// The default schema of the tables.
pub(crate) const DEFAULT_SCHEMA: &str = "public";

/// An [`Instant`](std::time::Instant) cannot be arbitrarily far in the future.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Options of a PostgreSQL datastore. Waiting times above 365 days count as 365 days.
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
    pub(crate) read_hosts: Vec<(String, u16)>,
    pub(crate) standby_wait: Duration,
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
    pub(crate) group: GroupLimits,
    pub(crate) queue_bytes: NonZeroU32,
    pub(crate) hooks: InstalledHooks,
}

/// The way in which the total order of notifications is kept while several writers write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotificationOrdering {
    /// Writers exclude each other from before the first id is allocated until after the commit is visible, so
    /// that ids become visible in ascending order. Safe for every reader, the Python library's included.
    #[default]
    Serialized,
    /// Writers never wait for each other; readers that meet a gap wait for the transactions that were
    /// writing. Safe only if every reader uses this library, on the primary, in this mode.
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
                "unknown ordering {text:?}: expected \"serialized\" or \"parallel\""
            ))),
        }
    }
}

/// A function that returns a password; see [`PostgresOptions::password_provider`].
type PasswordProvider = Arc<
    dyn Fn() -> BoxFuture<'static, Result<String, Box<dyn std::error::Error + Send + Sync>>> + Send + Sync,
>;

/// The source of the password. `Debug` does not show it.
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

/// The encryption of connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    pub(crate) mode: Option<PgSslMode>,
    pub(crate) root_certificate: Option<PathBuf>,
    pub(crate) client_certificate: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
}

impl TlsOptions {
    /// Checks that the files can be read: the error of the driver would not name the file.
    pub(crate) fn check_files(&self) -> Result<(), PersistenceError> {
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
    /// [`idle_in_transaction_session_timeout`](Self::idle_in_transaction_session_timeout), in whole seconds:
    /// the server counts milliseconds in a signed 32-bit integer.
    pub const MAX_SERVER_TIMEOUT: Duration = Duration::from_secs(i32::MAX as u64 / 1_000);

    /// Returns the default options for the database `dbname`: host `localhost`, user `postgres`.
    pub fn new(dbname: impl Into<String>) -> Self {
        Self {
            dbname: dbname.into(),
            hosts: vec![("localhost".to_owned(), DEFAULT_PORT)],
            read_hosts: Vec::new(),
            standby_wait: Duration::from_secs(1),
            user: "postgres".to_owned(),
            password: Password::None,
            schema: DEFAULT_SCHEMA.to_owned(),
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
            group: GroupLimits { rows: 4_096, bytes: 4 << 20 },
            queue_bytes: const { NonZeroU32::new(64 << 20).unwrap() },
            hooks: InstalledHooks::default(),
        }
    }

    /// Sets the server: a host name, an address, or the directory of a Unix socket. Keeps the port.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        let port = self.hosts.first().map_or(DEFAULT_PORT, |(_, port)| *port);
        self.hosts = vec![(host.into(), port)];
        self
    }

    /// Sets the port of each host; 5432 by default.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        for host in &mut self.hosts {
            host.1 = port;
        }
        self
    }

    /// Sets several servers. The first that accepts writes is used; when it no longer does, another one is
    /// sought.
    #[must_use]
    pub fn hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        self.hosts = hosts.into_iter().map(|(host, port)| (host.into(), port)).collect();
        self
    }

    /// Sets several servers from lists separated by commas, as in `POSTGRES_HOST` and `POSTGRES_PORT`: with
    /// one port for all, or as many ports as hosts.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if a host is empty, a port is not a number, or the
    /// numbers of hosts and ports do not match.
    pub fn host_list(self, hosts: &str, ports: &str) -> Result<Self, PersistenceError> {
        Ok(self.hosts(parse_hosts(hosts, ports)?))
    }

    /// Sets standbys, from which notifications are read: pages, streams and subscriptions; none by default.
    ///
    /// Their connections are a second pool of the same size. The events of an aggregate, tracking positions
    /// and the highest notification id are read from the primary, and so are notifications if no standby can
    /// be used. See [the crate](crate#reads-from-standbys) for what a reader may rely on. Only for
    /// [`NotificationOrdering::Serialized`]; opening fails otherwise.
    ///
    /// Servers that are no standbys are skipped, so all servers of a cluster may be given here and as
    /// [`hosts`](Self::hosts).
    #[must_use]
    pub fn read_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        self.read_hosts = hosts.into_iter().map(|(host, port)| (host.into(), port)).collect();
        self
    }

    /// Sets [standbys](Self::read_hosts) from lists, as [`host_list`](Self::host_list) does.
    ///
    /// # Errors
    /// As [`host_list`](Self::host_list).
    pub fn read_host_list(self, hosts: &str, ports: &str) -> Result<Self, PersistenceError> {
        Ok(self.read_hosts(parse_hosts(hosts, ports)?))
    }

    /// Sets how long a read waits for a [standby](Self::read_hosts) that has not replayed an event of which
    /// this process knows, before it is made on the primary; 1 second by default.
    #[must_use]
    pub fn standby_wait(mut self, timeout: Duration) -> Self {
        self.standby_wait = timeout.min(LONGEST_WAIT);
        self
    }

    /// Sets the role to connect as; `postgres` by default.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the password; none by default.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Password::Fixed(password.into());
        self
    }

    /// Sets a function that returns a password for each new connection, such as a token that expires.
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

    /// Sets the schema of the tables; `public` by default. It is not created.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Returns the table of tracking records of an application, with its schema and quoted, for statements of
    /// the program's own.
    ///
    /// ```
    /// # use es_postgres::PostgresOptions;
    /// let options = PostgresOptions::new("shop").schema("sales");
    /// assert_eq!(options.quoted_tracking_table("Orders")?, "\"sales\".\"orders_tracking\"");
    /// # Ok::<(), es_core::PersistenceError>(())
    /// ```
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the schema or the application's name cannot be a
    /// part of a table's name.
    pub fn quoted_tracking_table(&self, application_name: &str) -> Result<String, PersistenceError> {
        let table =
            TableName::of_application(&self.schema, application_name, "tracking", "notification_tracking")?;
        Ok(table.quoted())
    }

    /// Creates missing tables and indexes when a recorder is made; on by default. If off, a missing table is
    /// an error.
    #[must_use]
    pub fn create_table(mut self, create: bool) -> Self {
        self.create_table = create;
        self
    }

    /// Sets the way in which the total order is kept; [`NotificationOrdering::Serialized`] by default, which
    /// is safe for every reader. All processes that share a database must use the same.
    #[must_use]
    pub fn ordering(mut self, ordering: NotificationOrdering) -> Self {
        self.ordering = ordering;
        self
    }

    /// Sets the number of connections of one recorder that write at the same time in
    /// [`NotificationOrdering::Parallel`]; 2 by default. Requests with a tracking position have one more, so
    /// that the positions of an application are recorded in their order. In the serialized ordering it is
    /// always one in all: more would wait for each other.
    #[must_use]
    pub fn writers(mut self, connections: NonZeroUsize) -> Self {
        self.writers = connections;
        self
    }

    /// Sets how long a reader in [`NotificationOrdering::Parallel`] waits for writing transactions before it
    /// fails with a transient error that names one; unlimited by default. A reader never skips the gap, since
    /// that would miss events.
    #[must_use]
    pub fn fence_timeout(mut self, timeout: Duration) -> Self {
        self.fence_timeout = Some(timeout.min(LONGEST_WAIT));
        self
    }

    /// Sets the interval of warnings (events of `tracing`) of a reader in [`NotificationOrdering::Parallel`]
    /// that waits for a writing transaction, which they name; 5 seconds by default.
    #[must_use]
    pub fn stall_warning(mut self, after: Duration) -> Self {
        self.stall_warning = after.min(LONGEST_WAIT);
        self
    }

    /// Sets how long an append waits for the lock of the events table before it fails with a transient error;
    /// zero, the default, waits forever. The longest is [`MAX_SERVER_TIMEOUT`](Self::MAX_SERVER_TIMEOUT).
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets how long a session may be idle in a transaction before the server terminates it; zero, the
    /// default, is unlimited. The longest is [`MAX_SERVER_TIMEOUT`](Self::MAX_SERVER_TIMEOUT).
    #[must_use]
    pub fn idle_in_transaction_session_timeout(mut self, timeout: Duration) -> Self {
        self.idle_in_transaction_session_timeout = timeout;
        self
    }

    /// Sets how long a caller waits for a free connection of the pool or a new one to each host, and how long
    /// after a lost connection reads are retried and the outcome of a commit is recovered; 30 seconds by
    /// default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// Sets the interval at which, while no answer comes, another connection queries the server for whether
    /// it is still working on it; 30 seconds by default, and never at zero. If it is, because a lock or a
    /// disk takes long, the wait continues. If it is not, or cannot be reached, the network has lost the
    /// request or the answer: the connection counts as [lost](crate#lost-connections). Set it to more than
    /// the transfer of the largest request takes. The server closes a connection to a client that it cannot
    /// reach after the same time, unless it has settings of its own (`tcp_user_timeout`,
    /// `tcp_keepalives_idle`).
    ///
    /// Behind a [pooler in transaction mode](Self::transaction_pooler) it has no effect: set the pooler's
    /// `query_timeout` and `tcp_keepalive`.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// Sets the maximum age of a connection; unlimited by default. At zero, a connection serves one
    /// transaction.
    #[must_use]
    pub fn conn_max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.conn_max_age = age.into();
        self
    }

    /// Tests a pooled connection before it is used, at the cost of a round trip; off by default, since reads
    /// are retried and writes are recovered when a connection is lost.
    #[must_use]
    pub fn pre_ping(mut self, ping: bool) -> Self {
        self.pre_ping = ping;
        self
    }

    /// Sets the number of connections that are kept open; 5 by default.
    #[must_use]
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections;
        self
    }

    /// Sets the number of additional connections that are opened when all are in use, and closed after 10 to
    /// 20 seconds without use; 10 by default.
    #[must_use]
    pub fn max_overflow(mut self, connections: usize) -> Self {
        self.max_overflow = connections;
        self
    }

    /// Sets the number of readers that may wait for a connection before the next one fails at once; zero, the
    /// default, is unlimited. Accepted writes always wait.
    #[must_use]
    pub fn max_waiting(mut self, callers: usize) -> Self {
        self.max_waiting = callers;
        self
    }

    /// Connects through a pooler in transaction mode, such as pgbouncer; off by default. If on, nothing is
    /// left in a session: statements are not kept prepared, and each runs in a transaction of its own, which
    /// costs round trips. A pooler that tracks prepared statements (pgbouncer from 1.21 with
    /// `max_prepared_statements`) needs it, too: without it, other clients of the pooler get sessions with
    /// this library's settings and locks, and do not find their tables (`search_path`).
    #[must_use]
    pub fn transaction_pooler(mut self, pooler: bool) -> Self {
        self.transaction_pooler = pooler;
        self
    }

    /// Sets the encryption of connections by the names of libpq's `sslmode`: `disable`, `allow`, `prefer`
    /// (the default, also if `PGSSLMODE` is set), `require`, `verify-ca`, `verify-full`. With `allow`, the
    /// driver does not retry with encryption as libpq does.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the name is unknown;
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) if it requires encryption and the feature `tls` is
    /// off.
    pub fn sslmode(mut self, name: &str) -> Result<Self, PersistenceError> {
        let mode: PgSslMode = name.parse().map_err(|_| {
            PersistenceError::programming(format!(
                "unknown sslmode {name:?}: expected disable, allow, prefer, require, verify-ca or \
                 verify-full"
            ))
        })?;
        let required = matches!(mode, PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        if required && !cfg!(feature = "tls") {
            return Err(PersistenceError::not_supported(format!(
                "sslmode {name:?} needs the feature `tls` of es-persistence or es-postgres, which is not compiled in"
            )));
        }
        self.tls.mode = Some(mode);
        Ok(self)
    }

    /// Sets the file of the root certificates (PEM). Opening fails if it cannot be read.
    #[must_use]
    pub fn ssl_root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.root_certificate = Some(path.into());
        self
    }

    /// Sets the files of the client's certificate and key (PEM). Opening fails if they cannot be read.
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

    /// Sets the interval at which a waiting task polls for commits of other processes, and of the caller's
    /// own transactions; 250 ms by default. Commits of recorders of the same datastore wake it at once.
    ///
    /// One task for each table reads its highest notification id, while any task waits. Cost: four index
    /// lookups per second.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.min(LONGEST_WAIT);
        self
    }

    /// Sends a `NOTIFY` after commits, and listens while a recorder is followed; off by default, since each
    /// process also polls at its [poll interval](Self::poll_interval).
    ///
    /// The channel is the events table's name (with `_` for `.`), as in the Python library, whose
    /// subscriptions rely on notifications alone: switch this on if they follow events of this library. A
    /// notification is sent after each group commit, or once after several, in a transaction of its own that
    /// is not flushed. No caller waits for it, but closing a recorder does. An append inside [a transaction
    /// of the caller's](crate::PostgresApplicationRecorder::insert_events_in) sends it in that transaction,
    /// where `NOTIFY` takes a lock of the whole instance until the commit is durable.
    ///
    /// Its cost for 64 writers was below the noise of a busy machine: in five pairs of rounds, with the table
    /// lock, 0.98 to 1.85 of the events per second without it. The delay from a commit in one process to its
    /// delivery in another was 3.9 ms instead of 240 ms (medians of 60).
    ///
    /// Listening takes one connection beyond the pool. Behind a
    /// [pooler in transaction mode](Self::transaction_pooler) notifications are sent, but not received.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Sets the maximum number of events of a group commit; 4,096 by default. A larger request is a group of
    /// its own.
    #[must_use]
    pub fn group_rows(mut self, rows: NonZeroUsize) -> Self {
        self.group.rows = rows.get();
        self
    }

    /// Sets the maximum number of bytes of a group commit; 4 MiB by default. A larger request is a group of
    /// its own.
    #[must_use]
    pub fn group_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.group.bytes = bytes.get();
        self
    }

    /// Sets the maximum number of bytes of events in the queue and in progress; 64 MiB by default. Beyond
    /// that, callers wait. Each event counts 128 bytes more than its topic and state, which bounds the number
    /// of events too.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: NonZeroU32) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Installs fault hooks, for tests.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn hooks(mut self, hooks: impl crate::FaultHooks) -> Self {
        self.hooks = InstalledHooks::new(hooks);
        self
    }

    /// Checks the options, and that no environment variable changes them.
    pub(crate) fn check(&self) -> Result<(), PersistenceError> {
        self.check_timeouts()?;
        self.check_read_hosts()?;
        self.check_environment()
    }

    /// Refuses standbys in the parallel ordering, in which ids become visible on a standby in another order
    /// than on the primary: a page of it would need a fence, and each of its events a check on the primary.
    fn check_read_hosts(&self) -> Result<(), PersistenceError> {
        if self.read_hosts.is_empty() || self.ordering == NotificationOrdering::Serialized {
            return Ok(());
        }
        Err(PersistenceError::programming(
            "read_hosts (POSTGRES_READ_HOST) needs the serialized ordering: with parallel ordering a standby \
             does not know the writing transactions, and shows events that are not yet visible on the primary",
        ))
    }

    /// Refuses environment variables that the driver would apply.
    fn check_environment(&self) -> Result<(), PersistenceError> {
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

    /// Refuses timeouts that the server would refuse, in each statement.
    fn check_timeouts(&self) -> Result<(), PersistenceError> {
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

/// Parses lists of hosts and ports, separated by commas: one port for all, or as many ports as hosts.
fn parse_hosts(hosts: &str, ports: &str) -> Result<Vec<(String, u16)>, PersistenceError> {
    let wrong = |what: String| Err(PersistenceError::programming(what));
    let hosts: Vec<String> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
    if hosts.iter().any(String::is_empty) {
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
        [port] => Ok(hosts.into_iter().map(|host| (host, port)).collect()),
        _ if numbers.len() == hosts.len() => Ok(hosts.into_iter().zip(numbers).collect()),
        _ => wrong(format!("{} ports for {} hosts: expected one, or as many", numbers.len(), hosts.len())),
    }
}
