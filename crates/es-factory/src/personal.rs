//! The personal values of an environment: the key store and the keys of data subjects.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use es_core::PersistenceError;
use es_personal::{
    DynKeyStore, Erasure, KeyRecord, KeyReplacement, KeyStore, Subject, SubjectKeys, WrappedKey,
};
use es_transcode::JsonTranscoder;
use tokio::sync::OnceCell;

use crate::{Environment, database_url, key_ring::key_ring};

const URL: &str = "PERSONAL_KEYS_URL";
const MAX_AGE: &str = "PERSONAL_KEYS_MAX_AGE";

/// Registers a type of personal values.
pub(crate) type Register = fn(&SubjectKeys, &mut JsonTranscoder);

/// The types of personal values, and their keys once they are needed.
#[derive(Debug, Default)]
pub(crate) struct PersonalValues {
    pub(crate) types: Vec<Register>,
    keys: OnceLock<SubjectKeys>,
}

impl PersonalValues {
    /// Registers the types with a transcoder, if a key store is set.
    ///
    /// # Errors
    /// As [`keys`](Self::keys); if there are types, and no key store is set.
    pub(crate) fn register(
        &self,
        environment: &Environment,
        transcoder: &mut JsonTranscoder,
    ) -> Result<(), PersistenceError> {
        if !self.types.is_empty() {
            environment.required(URL)?;
        }
        let Some(keys) = self.keys(environment)? else { return Ok(()) };
        self.types.iter().for_each(|register| register(&keys, transcoder));
        keys.register_events(transcoder);
        Ok(())
    }

    /// Returns the keys, if a key store is set.
    ///
    /// # Errors
    /// If a setting is missing or cannot be used.
    pub(crate) fn keys(&self, environment: &Environment) -> Result<Option<SubjectKeys>, PersistenceError> {
        let Some(store) = EnvironmentKeyStore::of(environment)? else { return Ok(None) };
        if let Some(keys) = self.keys.get() {
            return Ok(Some(keys.clone()));
        }
        let max_age: Duration = environment.seconds(MAX_AGE)?.unwrap_or(SubjectKeys::DEFAULT_LIFETIME);
        let ring = key_ring(environment)?;
        let keys = SubjectKeys::with_cache(store, ring, SubjectKeys::DEFAULT_CAPACITY, max_age);
        Ok(Some(self.keys.get_or_init(|| keys).clone()))
    }
}

/// The key store of an environment: SQLite or PostgreSQL, as `PERSONAL_KEYS_URL` says. It is opened at its
/// first use, and creates what is missing unless `CREATE_TABLE` says no.
///
/// A handle: its clones share the connections.
#[derive(Clone)]
pub struct EnvironmentKeyStore(Arc<Inner>);

struct Inner {
    settings: Environment,
    creates_table: bool,
    opened: OnceCell<Arc<dyn DynKeyStore>>,
}

impl EnvironmentKeyStore {
    pub(crate) fn of(environment: &Environment) -> Result<Option<Self>, PersistenceError> {
        let Some(url) = environment.get(URL) else { return Ok(None) };
        let unusable = |reason| environment.unusable(URL, &PersistenceError::programming(reason));
        let settings = Environment::new("", database_url::settings(url).map_err(unusable)?);
        let creates_table = environment.boolean("CREATE_TABLE", true)?;
        Ok(Some(Self(Arc::new(Inner { settings, creates_table, opened: OnceCell::new() }))))
    }

    async fn opened(&self) -> Result<&Arc<dyn DynKeyStore>, PersistenceError> {
        let open = || async {
            let opened = open(&self.0.settings, self.0.creates_table).await;
            opened.map_err(|error| error.with_context(format_args!("environment variable {URL}")))
        };
        self.0.opened.get_or_try_init(open).await
    }
}

#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(unused_variables, reason = "no store is compiled in")
)]
async fn open(settings: &Environment, creates_table: bool) -> Result<Arc<dyn DynKeyStore>, PersistenceError> {
    match settings.required("PERSISTENCE_MODULE")? {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let path = settings.required("SQLITE_DBNAME")?;
            Ok(Arc::new(match creates_table {
                true => es_personal::SqliteKeyStore::open(path).await?,
                false => es_personal::SqliteKeyStore::open_existing(path).await?,
            }))
        }
        #[cfg(feature = "postgres")]
        "postgres" => {
            let pool = pool(settings)?;
            Ok(Arc::new(match creates_table {
                true => es_personal::PostgresKeyStore::open(pool).await?,
                false => es_personal::PostgresKeyStore::open_existing(pool).await?,
            }))
        }
        module => Err(PersistenceError::not_supported(format!(
            "the key store {module:?} is not compiled in: enable the feature `{module}` of es-persistence or \
             es-factory"
        ))),
    }
}

/// The pool of a key store: few connections, because keys are loaded for pages, and kept in memory.
#[cfg(feature = "postgres")]
fn pool(settings: &Environment) -> Result<sqlx::PgPool, PersistenceError> {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    const CONNECTIONS: u32 = 3;
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(settings.required("POSTGRES_HOST")?)
        .port(settings.count("POSTGRES_PORT")?.and_then(|port| port.try_into().ok()).unwrap_or(5432))
        .database(settings.required("POSTGRES_DBNAME")?)
        .username(settings.required("POSTGRES_USER")?)
        // No floats are read, and pgbouncer refuses the parameter.
        .extra_float_digits(None);
    if let Some(password) = settings.get("POSTGRES_PASSWORD") {
        options = options.password(password);
    }
    if let Some(mode) = settings.get("POSTGRES_SSLMODE") {
        let mode = mode.parse().map_err(|_| PersistenceError::programming("sslmode is none of libpq's"))?;
        options = options.ssl_mode(mode);
    }
    if let Some(certificate) = settings.get("POSTGRES_SSLROOTCERT") {
        options = options.ssl_root_cert(certificate);
    }
    Ok(PgPoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(options))
}

impl KeyStore for EnvironmentKeyStore {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, PersistenceError> {
        self.opened().await?.select(subjects).await
    }

    async fn insert(&self, keys: Vec<WrappedKey>) -> Result<(), PersistenceError> {
        self.opened().await?.insert(keys).await
    }

    async fn erase(&self, erasure: Erasure) -> Result<Erasure, PersistenceError> {
        self.opened().await?.erase(erasure).await
    }

    async fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<WrappedKey>, PersistenceError> {
        self.opened().await?.select_keys(after, limit).await
    }

    async fn replace_keys(&self, replacements: Vec<KeyReplacement>) -> Result<usize, PersistenceError> {
        self.opened().await?.replace_keys(replacements).await
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, PersistenceError> {
        self.opened().await?.select_erasures(after, limit).await
    }
}

impl fmt::Debug for EnvironmentKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvironmentKeyStore").field("opened", &self.0.opened.get()).finish_non_exhaustive()
    }
}
