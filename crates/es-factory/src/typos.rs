//! Variables whose names look like those of settings, but are none.

use strsim::osa_distance;

use crate::Environment;

/// The most insertions, deletions, replacements and transpositions between a name and the meant one.
const MAX_DISTANCE: usize = 2;

/// All settings, with those of the Python library that have no effect here.
const SETTINGS: [&str; 41] = [
    "DATABASE_URL",
    "PERSISTENCE_MODULE",
    "INFRASTRUCTURE_FACTORY",
    "COMPRESSOR_TOPIC",
    "CIPHER_TOPIC",
    "CIPHER_KEY",
    "CIPHER_KEYS",
    "CIPHER_KEYS_FILE",
    "CIPHER_PRIMARY_KEY_ID",
    "CIPHER_ALGORITHM",
    "PERSONAL_KEYS_URL",
    "PERSONAL_KEYS_MAX_AGE",
    "IS_SNAPSHOTTING_ENABLED",
    "CREATE_TABLE",
    "ORIGINATOR_ID_TYPE",
    "SINGLE_ROW_TRACKING",
    "SQLITE_DBNAME",
    "SQLITE_LOCK_TIMEOUT",
    "POSTGRES_DBNAME",
    "POSTGRES_HOST",
    "POSTGRES_PORT",
    "POSTGRES_READ_HOST",
    "POSTGRES_READ_PORT",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "POSTGRES_GET_PASSWORD_TOPIC",
    "POSTGRES_SCHEMA",
    "POSTGRES_CONN_MAX_AGE",
    "POSTGRES_PRE_PING",
    "POSTGRES_LOCK_TIMEOUT",
    "POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
    "POSTGRES_CONNECT_TIMEOUT",
    "POSTGRES_RESPONSE_TIMEOUT",
    "POSTGRES_POOL_SIZE",
    "POSTGRES_MAX_OVERFLOW",
    "POSTGRES_MAX_WAITING",
    "POSTGRES_ORDERING",
    "POSTGRES_NOTIFY",
    "POSTGRES_TRANSACTION_POOLER",
    "POSTGRES_SSLMODE",
    "POSTGRES_SSLROOTCERT",
];

/// Logs a warning for each variable whose name is like that of a setting.
pub(crate) fn warn_of_typos(environment: &Environment) {
    let own = format!("{}_", environment.application_name().to_uppercase());
    for variable in environment.names() {
        let name = variable.strip_prefix(&own).unwrap_or(variable);
        if SETTINGS.contains(&name) {
            continue;
        }
        let upper = name.to_uppercase();
        if let Some(setting) = SETTINGS.iter().find(|setting| is_like(&upper, setting)) {
            tracing::warn!(
                variable,
                setting,
                "a variable of the environment has no effect: is the setting meant?"
            );
        }
    }
}

fn is_like(name: &str, setting: &str) -> bool {
    name.len().abs_diff(setting.len()) <= MAX_DISTANCE && osa_distance(name, setting) <= MAX_DISTANCE
}
