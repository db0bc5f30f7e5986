//! A database for one scenario, removed after it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgConnection},
};

use crate::configuration::Datastore;

/// The database of one scenario.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Database {
    /// A new one. Files are put into `directory`, which is on the disk of the target directory: a temporary
    /// directory may be in memory.
    pub(crate) async fn create(datastore: Datastore, directory: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("interop_{}_{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        match datastore {
            Datastore::Sqlite => {
                let path = directory.join("databases").join(name);
                fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
                Ok(Self::Sqlite(path))
            }
            Datastore::Postgres => {
                execute(format!("CREATE DATABASE {name}")).await?;
                Ok(Self::Postgres(name))
            }
        }
    }

    /// The settings that say where it is, for both languages. On SQLite the ledger has a file of its own,
    /// since the names of the tables are the same for every application there.
    pub(crate) fn settings(&self) -> Result<Vec<(&'static str, String)>> {
        match self {
            Self::Sqlite(directory) => Ok(vec![
                ("BANK_SQLITE_DBNAME", directory.join("bank.db").display().to_string()),
                ("LEDGER_SQLITE_DBNAME", directory.join("ledger.db").display().to_string()),
                ("SQLITE_LOCK_TIMEOUT", "30".to_owned()),
            ]),
            Self::Postgres(name) => {
                let mut settings = vec![("POSTGRES_DBNAME", name.clone())];
                for given in ["POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD"] {
                    settings.push((given, variable(given)?));
                }
                Ok(settings)
            }
        }
    }

    pub(crate) async fn remove(self) -> Result<()> {
        match self {
            Self::Sqlite(path) => {
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))
            }
            // A participant that was ended may still be connected.
            Self::Postgres(name) => execute(format!("DROP DATABASE {name} WITH (FORCE)")).await,
        }
    }
}

/// Names of databases cannot be parameters; ours are made of letters, digits and underscores.
async fn execute(statement: String) -> Result<()> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&variable("POSTGRES_HOST")?)
        .port(variable("POSTGRES_PORT")?.parse().context("POSTGRES_PORT is no port")?)
        .database(&variable("POSTGRES_DBNAME")?)
        .username(&variable("POSTGRES_USER")?)
        .password(&variable("POSTGRES_PASSWORD")?);
    let mut connection: PgConnection = options.connect().await.context("cannot connect to PostgreSQL")?;
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; `cargo xtask interop` gives a server"))
}
