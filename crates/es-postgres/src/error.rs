//! Errors of the driver and the server as [`PersistenceError`].

use std::{error::Error, fmt, iter::successors};

use deadpool::managed::{PoolError, TimeoutType};
use es_core::{ErrorKind, PersistenceError};
use sqlx::{
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};

/// The SQLSTATE of a unique violation.
pub(crate) const UNIQUE_VIOLATION: &str = "23505";

/// The class of an error of the driver, for a statement that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// The connection is lost; the statement may have been committed.
    Lost,
    /// Nothing was written, because of a conflict between transactions: a retry shows whether it remains.
    Contended,
    /// Nothing was written, because the server is unavailable, for every request.
    Unavailable,
    /// Nothing was written, for a reason that may be specific to the request.
    Refused,
}

/// An error of the driver with a text that neither repeats its source nor shows a row.
///
/// The driver's own text repeats the text of its source, and adds the line of the server's C source. The
/// detail that the server reports is left out: it may show the values of a row.
pub(crate) struct DriverError(sqlx::Error);

impl DriverError {
    pub(crate) fn new(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => write_server_error(f, error),
                None => f.write_str(error.message()),
            },
            sqlx::Error::Configuration(_) => f.write_str("the configuration of the connection is invalid"),
            sqlx::Error::Io(_) => f.write_str("the connection failed"),
            sqlx::Error::Tls(_) => f.write_str("the connection cannot be encrypted"),
            sqlx::Error::ColumnDecode { index, .. } => write!(f, "column {index} cannot be decoded"),
            sqlx::Error::Encode(_) => f.write_str("a value cannot be encoded"),
            sqlx::Error::Decode(_) => f.write_str("a value cannot be decoded"),
            other => other.fmt(f),
        }
    }
}

fn write_server_error(f: &mut fmt::Formatter<'_>, error: &PgDatabaseError) -> fmt::Result {
    write!(f, "PostgreSQL reported {}: {}", error.code(), error.message())?;
    for (what, name) in
        [("table", error.table()), ("column", error.column()), ("constraint", error.constraint())]
    {
        // The message often names it.
        if let Some(name) = name.filter(|name| !error.message().contains(*name)) {
            write!(f, ", {what} {name:?}")?;
        }
    }
    error.hint().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
}

impl fmt::Debug for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            sqlx::Error::Database(_) => write!(f, "DriverError({self})"),
            other => f.debug_tuple("DriverError").field(other).finish(),
        }
    }
}

impl Error for DriverError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            sqlx::Error::Database(_) => None,
            other => other.source(),
        }
    }
}

/// Classifies an error of the driver by its SQLSTATE.
pub(crate) fn classify(error: &sqlx::Error) -> ErrorClass {
    // A server that crashes during a commit, for example because its disk is full, reports the same code as
    // for a statement that has written nothing.
    if matches!(severity(error), Some(PgSeverity::Fatal | PgSeverity::Panic)) {
        return ErrorClass::Lost;
    }
    let Some(code) = sqlstate(error) else {
        return match error {
            sqlx::Error::Encode(_) => ErrorClass::Refused,
            // The state of the connection is unknown, and an answer that cannot be read may be that of a
            // commit.
            _ => ErrorClass::Lost,
        };
    };
    match (class(&code), &*code) {
        // A backend that is terminated may have committed before: it waits for a synchronous standby after
        // its commit.
        ("08", _) | (_, "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04") => {
            ErrorClass::Lost
        }
        (_, UNIQUE_VIOLATION | "40001" | "40P01") => ErrorClass::Contended,
        // The statement timeout of the server; other requests may take less time.
        (_, "57014") => ErrorClass::Refused,
        ("53" | "55" | "57" | "58" | "XX", _) | (_, "25006") => ErrorClass::Unavailable,
        _ => ErrorClass::Refused,
    }
}

/// Returns whether the connection is lost.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    classify(error) == ErrorClass::Lost
}

/// Returns whether a statement cannot be executed as it was prepared, because its result has other columns
/// now. SQLSTATE and text are those of other errors, or depend on the server's language.
pub(crate) fn is_plan_outdated(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| error.routine() == Some("RevalidateCachedQuery"))
}

/// Returns whether the server itself has refused the connection, with an error.
pub(crate) fn is_from_server(error: &PersistenceError) -> bool {
    let mut causes = successors(error.source(), |cause| (*cause).source());
    causes.any(|cause| matches!(cause.downcast_ref(), Some(ConnectError::Refused)))
}

/// Returns whether the server accepts no writes.
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25006")
}

/// Returns whether the error has one of these SQLSTATEs.
pub(crate) fn has_sqlstate(error: &sqlx::Error, codes: &[&str]) -> bool {
    sqlstate(error).is_some_and(|code| codes.contains(&&*code))
}

/// Returns the table that the server names in an error.
pub(crate) fn table(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(DatabaseError::table)
}

/// Returns the error for a statement that failed; `operation` says what it did, and on what.
pub(crate) fn from_statement(operation: &str, error: sqlx::Error) -> PersistenceError {
    let code = sqlstate(&error);
    let kind = match &error {
        sqlx::Error::Database(_) => kind_of(code.as_deref().unwrap_or_default()),
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => ErrorKind::Data,
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => ErrorKind::Programming,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => ErrorKind::Operational,
        _ => ErrorKind::Database,
    };
    failure(kind, format!("{operation} failed"), error)
}

/// Returns the error for a connection that could not be opened; `server` is the host and port.
pub(crate) fn from_connecting(server: &str, error: sqlx::Error) -> PersistenceError {
    let kind = match &error {
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => ErrorKind::Programming,
        sqlx::Error::Tls(_) if !cfg!(feature = "tls") => ErrorKind::NotSupported,
        _ => ErrorKind::Operational,
    };
    let is_transient = is_transient(&error);
    let source = match &error {
        sqlx::Error::Database(_) => ConnectError::Refused,
        _ => ConnectError::Failed,
    };
    let error = DriverError(error);
    let reason = match &error.0 {
        sqlx::Error::Io(cause) => cause.to_string(),
        sqlx::Error::Tls(cause) | sqlx::Error::Configuration(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    };
    let message = format!("cannot connect to PostgreSQL at {server}: {reason}");
    let failed = PersistenceError::new(kind, message).with_source(source);
    if is_transient { failed.transient() } else { failed }
}

/// The source of the error of a connection, whose message has the reason.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the server refused the session")]
    Refused,
    #[error("no session was established")]
    Failed,
}

fn failure(kind: ErrorKind, message: String, error: sqlx::Error) -> PersistenceError {
    let is_transient = is_transient(&error);
    let failed = PersistenceError::new(kind, message).with_source(DriverError(error));
    if is_transient { failed.transient() } else { failed }
}

/// Returns the error of the pool.
pub(crate) fn from_pool(error: PoolError<PersistenceError>) -> PersistenceError {
    match error {
        PoolError::Closed => datastore_closed(),
        PoolError::Timeout(TimeoutType::Wait) => PersistenceError::operational(
            "no connection became free within the connect timeout: all connections of the pool are in use",
        )
        .transient(),
        error => PersistenceError::internal("the connection pool failed").with_source(error),
    }
}

/// Returns the error of a closed datastore.
pub(crate) fn datastore_closed() -> PersistenceError {
    PersistenceError::interface("the datastore is closed")
}

/// Returns the error of a closed recorder.
pub(crate) fn closed() -> PersistenceError {
    PersistenceError::interface("the recorder is closed")
}

/// Returns whether a retry may succeed, of a statement that has written nothing, or only read.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        // Invalid data, such as a certificate that is not trusted, remains invalid.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        // The server has closed the connection instead of answering, which the driver reads as a zero byte.
        sqlx::Error::Protocol(message) => message.starts_with("unexpected response from SSLRequest: 0x00"),
        // The server restarts.
        _ if severity(error) == Some(PgSeverity::Panic) => true,
        _ => sqlstate(error).is_some_and(|code| {
            matches!(class(&code), "08" | "40")
                || matches!(&*code, "25006" | "25P03" | "25P04" | "53300" | "55P03" | "57014")
                || code.starts_with("57P")
        }),
    }
}

/// Returns the kind for a SQLSTATE, by its class as in Python's drivers.
fn kind_of(code: &str) -> ErrorKind {
    match (class(code), code) {
        (_, "25006" | "25P03" | "25P04") => ErrorKind::Operational,
        (_, "54000") => ErrorKind::Data,
        ("0A", _) => ErrorKind::NotSupported,
        ("08" | "28" | "40" | "53" | "54" | "55" | "57" | "58", _) => ErrorKind::Operational,
        ("20" | "21" | "26" | "34" | "3D" | "3F" | "42", _) => ErrorKind::Programming,
        ("22", _) => ErrorKind::Data,
        ("23", _) => ErrorKind::Integrity,
        ("24" | "25" | "2B" | "2D" | "XX", _) => ErrorKind::Internal,
        _ => ErrorKind::Database,
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(DatabaseError::code).map(std::borrow::Cow::into_owned)
}

fn severity(error: &sqlx::Error) -> Option<PgSeverity> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    Some(error.severity())
}

fn class(code: &str) -> &str {
    code.get(..2).unwrap_or_default()
}
