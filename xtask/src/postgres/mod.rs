//! A PostgreSQL server: given by the environment, started from installed binaries, or from Docker; in this
//! order.

mod account;
mod cluster;
mod connection;
mod dev_server;
mod directory;
mod docker;
mod locate;
mod patroni;
mod versions;

use std::ffi::OsString;

use anyhow::{Result, bail};
use cluster::{Cluster, Lifetime};
pub(crate) use connection::Connection;
pub(crate) use dev_server::{Command, run};
use directory::ClusterDirectory;
use docker::Compose;
pub(crate) use patroni::TestCluster;
pub(crate) use versions::{Selection, Version, availability};

/// Names the directory of the programs of the server under test to tests that start servers of their own.
const PROGRAMS: &str = "ES_TEST_POSTGRES_PROGRAMS";

/// A running server, which is stopped and deleted when dropped if we have started it.
#[derive(Debug)]
pub(crate) enum Server {
    Given(Connection),
    Cluster(Cluster),
    Docker(Compose),
}

impl Server {
    /// Finds or starts a server that lasts as long as the returned value: one of this version, if one is
    /// named.
    pub(crate) fn provide(version: Option<Version>) -> Result<Self> {
        if let Some(version) = version {
            return Self::start(version.install()?);
        }
        if let Some(connection) = Connection::from_environment()? {
            eprintln!("xtask: PostgreSQL as given by POSTGRES_*: {connection}");
            return Ok(Self::Given(connection));
        }
        match Source::find()? {
            Source::Binaries(binaries) => Self::start(binaries),
            Source::Docker => Ok(Self::Docker(Compose::throw_away()?).announced()),
        }
    }

    fn start(binaries: locate::Binaries) -> Result<Self> {
        let directory = ClusterDirectory::throw_away("")?;
        Ok(Self::Cluster(Cluster::start(binaries, directory, None, Lifetime::ThisProcess)?).announced())
    }

    fn announced(self) -> Self {
        eprintln!("xtask: PostgreSQL for this run: {}", self.connection());
        self
    }

    /// The variables that tests read: connection settings and, if the server was started from installed
    /// programs, their directory.
    pub(crate) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let connection = self.connection().variables().map(|(name, value)| (name, value.into()));
        let programs = match self {
            Self::Cluster(cluster) => Some((PROGRAMS, cluster.programs().as_os_str().to_owned())),
            Self::Given(_) | Self::Docker(_) => None,
        };
        connection.into_iter().chain(programs).collect()
    }

    pub(crate) fn connection(&self) -> &Connection {
        match self {
            Self::Given(connection) => connection,
            Self::Cluster(cluster) => cluster.connection(),
            Self::Docker(compose) => compose.connection(),
        }
    }
}

/// The installed programs or Docker, to start a server from.
enum Source {
    Binaries(locate::Binaries),
    Docker,
}

impl Source {
    fn find() -> Result<Self> {
        if let Some(binaries) = locate::binaries() {
            return Ok(Self::Binaries(binaries));
        }
        match docker::unavailable() {
            None => Ok(Self::Docker),
            Some(reason) => bail!("{}", how_to_get_a_server(reason)),
        }
    }
}

fn how_to_get_a_server(docker: &str) -> String {
    format!(
        "no PostgreSQL server was found.
  POSTGRES_* is not set; there is no initdb, postgres and pg_ctl on PATH, in /usr/lib/postgresql/*/bin or where
  pg_config points; Docker {docker}.
Any one of these will do:
  Debian, Ubuntu:  sudo apt-get install postgresql
  Fedora:          sudo dnf install postgresql-server
  macOS:           brew install postgresql
  Docker:          start it; its Compose plugin is needed, too
  npm, on Linux:   cargo xtask postgres install 18, and --postgres 18
  a server of yours: set POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DBNAME, POSTGRES_USER (a superuser), POSTGRES_PASSWORD
Or leave PostgreSQL out: --without-postgres"
    )
}
