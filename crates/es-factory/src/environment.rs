//! Settings by name: an application's own before the common ones.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use es_core::PersistenceError;

use crate::{PasswordProvider, database_url};

/// The settings that an application reads, by name.
///
/// `get("CIPHER_KEY")` of the application `Bank` looks for `BANK_CIPHER_KEY`, then `CIPHER_KEY`.
///
/// The values may hold secrets: `Debug` shows names only, and an error shows a value only where the
/// setting is not secret.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `DATABASE_URL` | | `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/DBNAME`, see below |
/// | `SQLITE_DBNAME` | required | path, `:memory:`, or a `file:` URI |
/// | `SQLITE_LOCK_TIMEOUT` | 5 | seconds to wait for a lock of another process |
/// | `POSTGRES_DBNAME`, `POSTGRES_USER` | required | |
/// | `POSTGRES_PASSWORD` | required, unless there is a provider | |
/// | `POSTGRES_GET_PASSWORD_TOPIC` | none | the name of a [registered](crate::Registry) password provider |
/// | `POSTGRES_HOST` | required | one host, or a list separated by commas |
/// | `POSTGRES_PORT` | 5432 | one port, or a list separated by commas |
/// | `POSTGRES_READ_HOST` | none | standbys to read notifications from, as `POSTGRES_HOST` |
/// | `POSTGRES_READ_PORT` | 5432 | their port, or a list separated by commas |
/// | `POSTGRES_SCHEMA` | `public` | the schema of the tables |
/// | `POSTGRES_CONN_MAX_AGE` | never | the maximum age of a connection in seconds; 0: one transaction |
/// | `POSTGRES_PRE_PING` | no | check a connection before it is used |
/// | `POSTGRES_LOCK_TIMEOUT` | 0, no limit | whole seconds to wait for the lock on the events table |
/// | `POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT` | 0, never | whole seconds |
/// | `POSTGRES_CONNECT_TIMEOUT` | 30 | seconds to wait for a connection |
/// | `POSTGRES_RESPONSE_TIMEOUT` | 30 | seconds without a response until the server is checked; 0: never |
/// | `POSTGRES_POOL_SIZE` | 5 | the connections that are kept open |
/// | `POSTGRES_MAX_OVERFLOW` | 10 | additional temporary connections |
/// | `POSTGRES_MAX_WAITING` | 0, no limit | the callers that may wait for a connection |
/// | `POSTGRES_SSLMODE`, `POSTGRES_SSLROOTCERT` | `prefer` | as libpq's `sslmode` and `sslrootcert` |
/// | `POSTGRES_ORDERING` | `serialized` | or `parallel`, if all readers use this library |
/// | `POSTGRES_TRANSACTION_POOLER` | no | connect through a pooler in transaction mode, such as pgbouncer |
/// | `POSTGRES_NOTIFY` | no | notify other processes of commits; enable it for subscriptions in Python |
///
/// `DATABASE_URL` sets the module and the database where the other variables do not. For PostgreSQL it may
/// have the parameters `sslmode` and `sslrootcert`.
///
/// Timeouts that the server enforces are at most 2147483 s, others 4294967295 s; a larger value is an error.
///
/// The Python library's `SINGLE_ROW_TRACKING` has no effect; a factory
/// warns of them. libpq's variables, such as `PGPASSWORD` and `PGSSLMODE`, have none either; `PGOPTIONS`,
/// `PGSSLCERT` and `PGSSLKEY` must not be set.
#[derive(Clone, Default)]
pub struct Environment {
    application_name: String,
    variables: HashMap<String, String>,
    password_provider: Option<Result<Arc<dyn PasswordProvider>, PersistenceError>>,
}

impl Environment {
    /// The environment of this process.
    ///
    /// Variables that are not Unicode are skipped.
    pub fn of_process(application_name: impl Into<String>) -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            application_name: application_name.into(),
            variables: std::env::vars_os().filter_map(unicode).collect(),
            password_provider: None,
        }
    }

    /// An environment of only these variables.
    pub fn new<N: Into<String>, V: Into<String>>(
        application_name: impl Into<String>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self {
            application_name: application_name.into(),
            variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            password_provider: None,
        }
    }

    /// Adds the settings that `DATABASE_URL` stands for, where they are not set themselves.
    pub(crate) fn with_database_url(mut self) -> Result<Self, PersistenceError> {
        const KEY: &str = "DATABASE_URL";
        let Some(url) = self.get(KEY) else { return Ok(self) };
        let settings = database_url::settings(url)
            .map_err(|reason| self.unusable(KEY, &PersistenceError::programming(reason)))?;
        for (setting, value) in settings {
            if self.get(setting).is_none() {
                self.variables.insert(setting.to_owned(), value);
            }
        }
        Ok(self)
    }

    /// Sets the selected password provider, or the reason why there is none of that name.
    pub(crate) fn with_password_provider(
        mut self,
        provider: Option<Result<Arc<dyn PasswordProvider>, PersistenceError>>,
    ) -> Self {
        self.password_provider = provider;
        self
    }

    /// Returns the password provider that `POSTGRES_GET_PASSWORD_TOPIC` selects, if that is set.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if none is registered under that name; those of its
    /// construction.
    pub fn password_provider(&self) -> Result<Option<Arc<dyn PasswordProvider>>, PersistenceError> {
        self.password_provider.clone().transpose()
    }

    /// The name of the application; empty when it has none.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The value of a setting, the application's own before the common one; an empty value counts as
    /// not set.
    pub fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.entry(key)?;
        (!value.is_empty()).then_some(value)
    }

    /// The value of a setting that has no default.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if it is not set; the error names the variable.
    pub fn required(&self, key: &str) -> Result<&str, PersistenceError> {
        self.get(key).ok_or_else(|| {
            PersistenceError::programming(format!(
                "environment variable {} is required and not set",
                self.named(key)
            ))
        })
    }

    /// A setting that is yes or no: `y`, `yes`, `t`, `true`, `on`, `1`, or `n`, `no`, `f`, `false`,
    /// `off`, `0`, in any case.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for any other value, naming key and value.
    pub fn boolean(&self, key: &str, default: bool) -> Result<bool, PersistenceError> {
        self.parsed(key, "y, yes, t, true, on, 1, n, no, f, false, off or 0", |value| {
            match value.to_ascii_lowercase().as_str() {
                "y" | "yes" | "t" | "true" | "on" | "1" => Some(true),
                "n" | "no" | "f" | "false" | "off" | "0" => Some(false),
                _ => None,
            }
        })
        .map(|value| value.unwrap_or(default))
    }

    /// A setting in seconds, with fractions, from 0 to [`u32::MAX`].
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for any other value; names key, value and range.
    pub fn seconds(&self, key: &str) -> Result<Option<Duration>, PersistenceError> {
        self.parsed(key, &format!("a number of seconds from 0 to {}", u32::MAX), |value| {
            let duration = Duration::try_from_secs_f64(value.parse().ok()?).ok()?;
            (duration.as_secs() <= u32::MAX.into()).then_some(duration)
        })
    }

    /// A setting in whole seconds, from 0 to [`u32::MAX`].
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for any other value; names key, value and range.
    pub fn whole_seconds(&self, key: &str) -> Result<Option<Duration>, PersistenceError> {
        self.whole_seconds_up_to(key, u32::MAX.into())
    }

    /// A setting in whole seconds, from 0 to `max`.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for any other value; names key, value and range.
    pub fn whole_seconds_up_to(&self, key: &str, max: u64) -> Result<Option<Duration>, PersistenceError> {
        self.parsed(key, &format!("a whole number of seconds from 0 to {max}"), |value| {
            value.parse().ok().filter(|seconds| *seconds <= max).map(Duration::from_secs)
        })
    }

    /// A setting that is a count.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for any other value; names key and value.
    pub fn count(&self, key: &str) -> Result<Option<u32>, PersistenceError> {
        self.parsed(key, "a whole number, 0 or more", |value| value.parse().ok())
    }

    /// The error for a value that cannot be read. Not for secrets: it shows the value.
    pub fn unreadable(&self, key: &str, value: &str, expected: &str) -> PersistenceError {
        let name = self.entry(key).map_or_else(|| key.to_owned(), |(name, _)| name);
        PersistenceError::programming(format!(
            "environment variable {name} has the value {value:?}, expected {expected}"
        ))
    }

    /// The error for a setting that a part rejected; it does not contain the value.
    pub fn unusable(&self, key: &str, refusal: &PersistenceError) -> PersistenceError {
        let name = self.entry(key).map_or_else(|| key.to_owned(), |(name, _)| name);
        PersistenceError::new(refusal.kind(), format!("environment variable {name}: {refusal}"))
    }

    fn parsed<V>(
        &self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<V>,
    ) -> Result<Option<V>, PersistenceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        parse(value.trim()).map(Some).ok_or_else(|| self.unreadable(key, value, expected))
    }

    /// The variable that defines a setting: its full name and its value.
    fn entry(&self, key: &str) -> Option<(String, &str)> {
        self.candidates(key).find_map(|name| {
            let value = self.variables.get(&name)?;
            Some((name, value.as_str()))
        })
    }

    /// The names that a setting is looked up by, in order.
    fn candidates<'a>(&'a self, key: &'a str) -> impl Iterator<Item = String> + 'a {
        let own = (!self.application_name.is_empty())
            .then(|| format!("{}_{key}", self.application_name.to_uppercase()));
        own.into_iter().chain([key.to_owned()])
    }

    /// The names that a setting is looked up by, for an error.
    fn named(&self, key: &str) -> String {
        self.candidates(key).collect::<Vec<_>>().join(" or ")
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.variables.keys().collect();
        names.sort();
        f.debug_struct("Environment")
            .field("application_name", &self.application_name)
            .field("names", &names)
            .finish_non_exhaustive()
    }
}
