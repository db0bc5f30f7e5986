//! The database of a mixed soak, and the ways to reach it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use es_postgres::{PostgresDatastore, PostgresOptions};
use serde::{Deserialize, Serialize};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// The application whose tables are used.
pub(crate) const APPLICATION: &str = "mixed";
/// The application that records effects as events.
pub(crate) const LEDGER: &str = "ledger";
/// The application that records effects as rows of a table.
pub(crate) const ROWS: &str = "rows";
/// The application name of sessions that are left alone.
const CONTROL: &str = "mixed control";
const PASSWORD: &str = "secret";
/// A proxy cuts each connection within this many milliseconds.
const CUT_WITHIN: std::ops::Range<u64> = 500..20_000;

/// The connection of a participant to the database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) dbname: String,
    pub(crate) user: String,
    pub(crate) password: String,
    /// True if a pooler in transaction mode is in between.
    pub(crate) is_pooled: bool,
    pub(crate) is_parallel: bool,
}

impl Address {
    /// The server that the environment names.
    pub(crate) fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            env::var(name).with_context(|| format!("{name} is not set; `cargo xtask soak --mixed` sets it"))
        };
        Ok(Self {
            host: variable("POSTGRES_HOST")?,
            port: variable("POSTGRES_PORT")?.parse().context("POSTGRES_PORT is not a port")?,
            dbname: variable("POSTGRES_DBNAME")?,
            user: variable("POSTGRES_USER")?,
            password: variable("POSTGRES_PASSWORD")?,
            is_pooled: false,
            is_parallel: false,
        })
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.dbname)
            .username(&self.user)
            .password(&self.password)
            // Poolers refuse it.
            .extra_float_digits(None)
            .disable_statement_logging()
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        self.options().connect().await.context("cannot connect to PostgreSQL")
    }

    /// A session that is left alone.
    pub(crate) async fn control(&self) -> Result<PgConnection> {
        let options = self.options().application_name(CONTROL);
        options.connect().await.context("cannot connect to PostgreSQL")
    }

    /// A connection that this library opens.
    pub(crate) async fn open(&self, create_table: bool) -> Result<PostgresDatastore> {
        let ordering = if self.is_parallel { "parallel" } else { "serialized" };
        let options = PostgresOptions::new(&self.dbname)
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .create_table(create_table)
            .ordering(ordering.parse()?)
            .transaction_pooler(self.is_pooled)
            .poll_interval(Duration::from_millis(50))
            .max_overflow(20);
        Ok(options.open().await?)
    }

    /// A pool for transactions of the caller's.
    pub(crate) async fn pool(&self) -> Result<sqlx::PgPool> {
        Ok(PgPoolOptions::new().max_connections(2).connect_with(self.options()).await?)
    }
}

/// Terminates a random session, or cancels what it does; whether there was one.
pub(crate) async fn cut_one(control: &mut PgConnection) -> Result<bool> {
    let terminate = "SELECT CASE WHEN random() < 0.5 THEN pg_terminate_backend(pid) \
                     ELSE pg_cancel_backend(pid) END FROM pg_stat_activity \
                     WHERE datname = current_database() AND backend_type = 'client backend' \
                     AND application_name <> $1 ORDER BY random() LIMIT 1";
    let terminated = sqlx::query_scalar(terminate).bind(CONTROL).fetch_optional(control).await?;
    Ok(terminated.unwrap_or(false))
}

/// A database of its own, which is dropped by [`Database::delete`].
#[derive(Debug)]
pub(crate) struct Database {
    server: Address,
    pub(crate) address: Address,
    /// A role that may select and insert, and nothing else.
    pub(crate) inserter: String,
}

impl Database {
    pub(crate) async fn create(is_parallel: bool) -> Result<Self> {
        let server = Address::from_environment()?;
        let dbname = format!("mixed_{}_{}", std::process::id(), fastrand::u32(..));
        let inserter = format!("{dbname}_inserter");
        let mut connection = server.control().await?;
        for statement in [
            format!("CREATE DATABASE {dbname}"),
            // Writers of earlier builds take the locks in another order, which the server resolves
            // after this time.
            format!("ALTER DATABASE {dbname} SET deadlock_timeout = '100ms'"),
            format!("CREATE ROLE {inserter} LOGIN PASSWORD '{PASSWORD}'"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        connection.close().await?;
        let address = Address { dbname, is_parallel, ..server.clone() };
        Ok(Self { server, address, inserter })
    }

    /// Creates the tables of this library, unless they are there.
    pub(crate) async fn create_tables(&self) -> Result<()> {
        let datastore = self.address.open(true).await?;
        for application in [APPLICATION, LEDGER, ROWS] {
            datastore.process_recorder(application).await?;
        }
        datastore.close().await?;
        let statements = format!(
            "GRANT SELECT, INSERT ON mixed_events TO {0}; \
             GRANT USAGE ON SEQUENCE mixed_events_notification_id_seq TO {0}; \
             CREATE TABLE effects (number bigserial PRIMARY KEY, notification bigint)",
            self.inserter
        );
        let mut control = self.address.control().await?;
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut control).await?;
        Ok(())
    }

    pub(crate) fn inserting(&self, through: &Address) -> Address {
        Address { user: self.inserter.clone(), password: PASSWORD.to_owned(), ..through.clone() }
    }

    pub(crate) async fn delete(self) -> Result<()> {
        let mut connection = self.server.control().await?;
        for statement in [
            format!("DROP DATABASE {} WITH (FORCE)", self.address.dbname),
            format!("DROP ROLE {}", self.inserter),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        Ok(())
    }
}

/// Passes connections on to an address, and cuts each after a random time.
pub(crate) async fn start_proxy(to: &Address) -> Result<Address> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let target = (to.host.clone(), to.port);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move {
                let Ok(mut server) = TcpStream::connect(target).await else { return };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let life = Duration::from_millis(fastrand::u64(CUT_WITHIN));
                let _ = timeout(life, copy_bidirectional(&mut client, &mut server)).await;
            });
        }
    });
    Ok(Address { host: "127.0.0.1".to_owned(), port, ..to.clone() })
}

/// A pgbouncer in transaction mode, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Pooler {
    child: Child,
    directory: PathBuf,
    pub(crate) address: Address,
}

impl Pooler {
    pub(crate) async fn start(program: &Path, database: &Database) -> Result<Self> {
        let to = &database.address;
        let directory = env::temp_dir().join(format!("mixed-pgbouncer-{}", fastrand::u64(..)));
        fs::create_dir(&directory)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let users = directory.join("users");
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 6\n\
             max_client_conn = 500\nunix_socket_dir =\nlogfile = {}\n",
            to.host,
            to.port,
            users.display(),
            directory.join("log").display()
        );
        let file = directory.join("pgbouncer.ini");
        fs::write(&file, settings)?;
        fs::write(
            &users,
            format!("\"{}\" \"{}\"\n\"{}\" \"{PASSWORD}\"\n", to.user, to.password, database.inserter),
        )?;
        let mut command = Command::new(program);
        if is_root().await? {
            // It refuses to run as root.
            Command::new("chown").args(["-R", "nobody"]).arg(&directory).status().await?;
            command.args(["-u", "nobody"]);
        }
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn().context("cannot start pgbouncer")?;
        let address = Address { host: "127.0.0.1".to_owned(), port, is_pooled: true, ..to.clone() };
        let mut pooler = Self { child, directory, address };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(pooler);
            }
            if pooler.child.try_wait()?.is_some() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("pgbouncer does not start")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

async fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().await?;
    Ok(output.stdout.trim_ascii() == b"0")
}
