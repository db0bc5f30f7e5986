//! The databases that the processes write to.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use es_core::DynProcessRecorder;
use es_factory::InfrastructureFactory;
use es_postgres::{NotificationOrdering, PostgresOptions, PostgresProcessRecorder};
use es_sqlite::{SqliteOptions, SqliteProcessRecorder, rusqlite};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::kill_point::KillPoint;

/// Set if there is no server for tests.
const WITHOUT_POSTGRES: &str = "ES_TEST_WITHOUT_POSTGRES";

/// The application whose tables are on a server.
const APPLICATION: &str = "faults";

/// Set for a cluster: a server that is paused must not hold up a round.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A recorder of either backend, selected at run time.
pub type Recorder = Arc<dyn DynProcessRecorder>;

/// A process recorder of either backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProcessRecorder {
    /// On SQLite.
    Sqlite(SqliteProcessRecorder),
    /// On PostgreSQL.
    Postgres(PostgresProcessRecorder),
}

/// The kind of datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Backend {
    /// A file of SQLite.
    Sqlite,
    /// PostgreSQL in the serialized ordering.
    Postgres,
    /// PostgreSQL in the parallel ordering.
    Parallel,
}

/// A database of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TestDatabase {
    /// A file.
    Sqlite(PathBuf),
    /// A schema on the server that the environment names.
    Postgres {
        /// Its name.
        schema: String,
        /// Selects the parallel ordering.
        parallel: bool,
        /// Enables `NOTIFY`.
        hints: bool,
        /// Notifications are read from standbys.
        standby_reads: bool,
    },
}

impl Backend {
    /// All that can be had here: PostgreSQL is left out where the environment says that there is none.
    pub fn available() -> &'static [Self] {
        if env::var_os(WITHOUT_POSTGRES).is_some() {
            &[Self::Sqlite]
        } else {
            &[Self::Sqlite, Self::Postgres, Self::Parallel]
        }
    }

    /// The points at which a projecting process can be killed.
    pub fn points_of_projectors(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &["Begin", "Append", "Commit", "Report", "Reply"],
            _ => &["ProjectorBegun", "ProjectorTracked", "ProjectorHandled", "ProjectorCommitted"],
        }
    }

    /// The points at which a process can be killed whose handlers record events.
    pub fn points_of_handlers(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &["Begin", "Append", "Commit", "Report", "Reply"],
            _ => &["GroupFormed", "GroupAnswered"],
        }
    }
}

impl TestDatabase {
    /// An empty database.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn create(backend: Backend, directory: &std::path::Path, name: &str) -> Result<Self> {
        if backend == Backend::Sqlite {
            return Ok(Self::Sqlite(directory.join(name)));
        }
        let schema = format!("es_faults_{}_{name}", std::process::id());
        execute(format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE; CREATE SCHEMA \"{schema}\"")).await?;
        Ok(Self::Postgres {
            schema,
            parallel: backend == Backend::Parallel,
            hints: false,
            standby_reads: false,
        })
    }

    /// The same with `NOTIFY` on a server.
    #[must_use]
    pub fn with_hints(mut self) -> Self {
        if let Self::Postgres { hints, .. } = &mut self {
            *hints = true;
        }
        self
    }

    /// The same with reads from the standbys of a cluster, in the ordering that allows them.
    #[must_use]
    pub fn with_standby_reads(mut self) -> Self {
        if let Self::Postgres { parallel: false, standby_reads, .. } = &mut self {
            *standby_reads = true;
        }
        self
    }

    /// Returns whether notifications are read from standbys.
    pub fn reads_from_standbys(&self) -> bool {
        matches!(self, Self::Postgres { standby_reads: true, .. })
    }

    /// Creates the tracking table as version 9.1 of the Python library does: with a row for each position.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn create_row_per_position(&self) -> Result<()> {
        let columns = "application_name text, notification_id bigint, \
                       PRIMARY KEY (application_name, notification_id)";
        match self {
            Self::Sqlite(path) => {
                let create = format!("CREATE TABLE tracking ({columns}) WITHOUT ROWID");
                Ok(rusqlite::Connection::open(path)?.execute_batch(&create)?)
            }
            Self::Postgres { .. } => {
                let table = self.table(&format!("{APPLICATION}_tracking"));
                execute(format!("CREATE TABLE {table} ({columns})")).await
            }
        }
    }

    /// The points at which a writing and reading process can be killed.
    pub fn points(&self) -> Vec<&'static str> {
        let Self::Postgres { parallel, hints, .. } = self else {
            return Backend::Sqlite.points_of_handlers().to_vec();
        };
        let mut points = vec!["GroupFormed", "GroupAnswered", "Polled"];
        if *parallel {
            points.extend(["GapFound", "HorizonTaken", "HorizonPassed"]);
        }
        if *hints {
            points.extend(["Notifying", "Listening"]);
        }
        points
    }

    /// Deletes what is on a server.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn delete(&self) -> Result<()> {
        let Self::Postgres { schema, .. } = self else { return Ok(()) };
        execute(format!("DROP SCHEMA \"{schema}\" CASCADE")).await
    }

    /// Opens a recorder with `kill_point` as its fault hooks.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub async fn open(&self, kill_point: &KillPoint) -> Result<Recorder> {
        Ok(self.open_process(kill_point.clone(), true).await?.into())
    }

    /// The same, of which projectors can be made, with hooks of the caller's.
    ///
    /// On SQLite these may be called by threads of the runtime only if `may_inline_commits`: hooks that
    /// hold a step would hold up the runtime.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub async fn open_process<H>(&self, hooks: H, may_inline_commits: bool) -> Result<ProcessRecorder>
    where
        H: es_sqlite::FaultHooks + es_postgres::FaultHooks,
    {
        match self {
            Self::Sqlite(path) => {
                let options = SqliteOptions::new(path).inline_commits(may_inline_commits).hooks(hooks);
                let datastore = options.open().await?;
                Ok(ProcessRecorder::Sqlite(datastore.process_recorder().await?))
            }
            Self::Postgres { schema, parallel, hints, standby_reads } => {
                let server = Server::from_environment()?;
                let ordering =
                    if *parallel { NotificationOrdering::Parallel } else { NotificationOrdering::Serialized };
                let options = PostgresOptions::new(server.dbname)
                    .host_list(&server.hosts, &server.ports)?
                    .user(server.user)
                    .password(server.password)
                    .schema(schema)
                    .ordering(ordering)
                    .notify(*hints)
                    .hooks(hooks);
                let options = match server.hosts.contains(',') {
                    true => options.response_timeout(RESPONSE_TIMEOUT),
                    false => options,
                };
                let options = match standby_reads {
                    true => options.read_host_list(&server.hosts, &server.ports)?,
                    false => options,
                };
                Ok(ProcessRecorder::Postgres(options.open().await?.process_recorder(APPLICATION).await?))
            }
        }
    }

    /// A factory on the database.
    ///
    /// # Errors
    /// When the server is not known.
    pub fn factory(&self) -> Result<InfrastructureFactory> {
        let mut settings = Vec::new();
        let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
        match self {
            Self::Sqlite(path) => {
                set("PERSISTENCE_MODULE", "sqlite".to_owned());
                set("SQLITE_DBNAME", path.display().to_string());
            }
            Self::Postgres { schema, parallel, .. } => {
                let Server { hosts, ports, dbname, user, password } = Server::from_environment()?;
                set("PERSISTENCE_MODULE", "postgres".to_owned());
                set("POSTGRES_HOST", hosts);
                set("POSTGRES_PORT", ports);
                set("POSTGRES_DBNAME", dbname);
                set("POSTGRES_USER", user);
                set("POSTGRES_PASSWORD", password);
                set("POSTGRES_SCHEMA", schema.clone());
                set("POSTGRES_ORDERING", if *parallel { "parallel" } else { "serialized" }.to_owned());
            }
        }
        Ok(InfrastructureFactory::builder(APPLICATION).environment(settings).build()?)
    }

    /// Executes statements, in one transaction.
    ///
    /// # Errors
    /// When they fail.
    pub async fn execute(&self, statements: String) -> Result<()> {
        match self {
            Self::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path)?;
                Ok(connection.execute_batch(&format!("BEGIN IMMEDIATE; {statements}; COMMIT"))?)
            }
            Self::Postgres { schema, .. } => {
                execute(format!("SET search_path TO \"{schema}\"; {statements}")).await
            }
        }
    }

    /// Returns whether another process holds the lock that all writers of a file need. On a server there is
    /// none, and a paused process does not hold the lock of all leases for long: the server ends its session.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn is_locked(&self) -> Result<bool> {
        let Self::Sqlite(path) = self else { return Ok(false) };
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(Duration::ZERO)?;
        match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Ok(()) => Ok(false),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for transactions of killed processes, whose last statement a server may still execute.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn wait_for_transactions(&self) -> Result<()> {
        let Self::Postgres { schema, .. } = self else { return Ok(()) };
        let mut connection = connect().await?;
        let held = "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
                    WHERE c.relnamespace = to_regnamespace($1) AND l.pid <> pg_backend_pid())";
        while sqlx::query_scalar(held).bind(format!("\"{schema}\"")).fetch_one(&mut connection).await? {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The numbers in a column of a table, in the order of another column; none without the table.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn numbers(&self, table: &str, column: &str, order: &str) -> Result<Vec<i64>> {
        let table = self.table(table);
        let select = format!("SELECT {column} FROM {table} ORDER BY {order}");
        match self {
            Self::Sqlite(path) => {
                let database = rusqlite::Connection::open(path)?;
                if !database.table_exists(None, table.as_str())? {
                    return Ok(Vec::new());
                }
                let mut select = database.prepare(&select)?;
                let numbers = select.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?;
                Ok(numbers)
            }
            Self::Postgres { .. } => {
                let mut connection = connect().await?;
                let exists = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&table);
                if !exists.fetch_one(&mut connection).await? {
                    return Ok(Vec::new());
                }
                Ok(sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&mut connection).await?)
            }
        }
    }

    /// The name of a table of this database in statements.
    pub fn table(&self, name: &str) -> String {
        match self {
            Self::Sqlite(_) => name.to_owned(),
            Self::Postgres { schema, .. } => format!("\"{schema}\".{name}"),
        }
    }
}

impl From<ProcessRecorder> for Recorder {
    fn from(recorder: ProcessRecorder) -> Self {
        match recorder {
            ProcessRecorder::Sqlite(recorder) => Arc::new(recorder),
            ProcessRecorder::Postgres(recorder) => Arc::new(recorder),
        }
    }
}

/// The server, or several of which one is the primary, that the environment names.
struct Server {
    hosts: String,
    ports: String,
    dbname: String,
    user: String,
    password: String,
}

impl Server {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            env::var(name).with_context(|| {
                format!("{name} is not set: name a server, or set {WITHOUT_POSTGRES} to leave PostgreSQL out")
            })
        };
        Ok(Self {
            hosts: variable("POSTGRES_HOST")?,
            ports: variable("POSTGRES_PORT")?,
            dbname: variable("POSTGRES_DBNAME")?,
            user: variable("POSTGRES_USER")?,
            password: variable("POSTGRES_PASSWORD")?,
        })
    }
}

async fn execute(statements: String) -> Result<()> {
    let mut connection = connect().await?;
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// A connection of its own to the server that the environment names: of several, to the primary.
///
/// # Errors
/// When the server cannot be reached.
pub async fn connect() -> Result<PgConnection> {
    let Server { hosts, ports, dbname, user, password } = Server::from_environment()?;
    let mut failed = anyhow!("there is no primary");
    for (host, port) in hosts.split(',').zip(ports.split(',')) {
        let options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port.parse().context("POSTGRES_PORT is not a port")?)
            .database(&dbname)
            .username(&user)
            .password(&password)
            .options([("client_min_messages", "warning")])
            .disable_statement_logging();
        match options.connect().await {
            Ok(mut connection) => {
                let is_standby = sqlx::query_scalar("SELECT pg_is_in_recovery()");
                if !is_standby.fetch_one(&mut connection).await? {
                    return Ok(connection);
                }
            }
            Err(error) => failed = error.into(),
        }
    }
    Err(failed).context("cannot connect to PostgreSQL")
}
