//! A PostgreSQL server for whoever needs one: given by the environment, started from installed binaries, or from
//! Docker; in this order.

mod account;
mod cluster;
mod connection;
mod directory;
mod docker;
mod locate;
mod people;

pub(crate) use connection::Connection;
pub(crate) use people::{Command, run};

use anyhow::{Result, bail};

use cluster::{Cluster, Lifetime};
use directory::ClusterDirectory;
use docker::Compose;

/// A running server, which is stopped and deleted when dropped if we have started it.
#[derive(Debug)]
pub(crate) enum Server {
    Given(Connection),
    Cluster(Cluster),
    Docker(Compose),
}

impl Server {
    /// Finds or starts a server that lasts as long as the returned value.
    pub(crate) fn provide() -> Result<Self> {
        if let Some(connection) = Connection::from_environment()? {
            eprintln!("xtask: PostgreSQL as given by POSTGRES_*: {connection}");
            return Ok(Self::Given(connection));
        }
        let server = match Source::find()? {
            Source::Binaries(binaries) => {
                let directory = ClusterDirectory::throw_away()?;
                Self::Cluster(Cluster::start(binaries, directory, None, Lifetime::ThisProcess)?)
            }
            Source::Docker => Self::Docker(Compose::throw_away()?),
        };
        eprintln!("xtask: PostgreSQL for this run: {}", server.connection());
        Ok(server)
    }

    pub(crate) fn connection(&self) -> &Connection {
        match self {
            Self::Given(connection) => connection,
            Self::Cluster(cluster) => cluster.connection(),
            Self::Docker(compose) => compose.connection(),
        }
    }
}

/// What a server can be started from on this machine.
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
  a server of yours: set POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DBNAME, POSTGRES_USER (a superuser), POSTGRES_PASSWORD
Or leave PostgreSQL out: --without-postgres"
    )
}
