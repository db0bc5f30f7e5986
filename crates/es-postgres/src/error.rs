//! From what the driver and the server report to [`PersistenceError`].

use std::{error::Error, fmt};

use deadpool::managed::{PoolError, TimeoutType};
use es_core::{ErrorKind, PersistenceError};
use sqlx::{
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};

/// What an error of the driver means for a statement that was to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The connection is gone; the statement may have been committed.
    Lost,
    /// Nothing was written, and what is at odds is a matter between transactions: looking again
    /// will tell.
    Contended,
    /// Nothing was written, because the server cannot work as it stands: so with any other request.
    Unavailable,
    /// Nothing was written, for a reason that may lie in the request itself.
    Refused,
}

/// An error of the driver in words that say nothing twice and show no row.
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
        // The message mostly names it.
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

/// Judges an error of the driver by its SQLSTATE.
pub(crate) fn verdict(error: &sqlx::Error) -> Verdict {
    // A server that breaks down in the midst of a commit, for example because there is no room for what comes
    // after it in the log, tells why by the same code as for a statement that has written nothing.
    if matches!(severity(error), Some(PgSeverity::Fatal | PgSeverity::Panic)) {
        return Verdict::Lost;
    }
    let Some(code) = sqlstate(error) else {
        return match error {
            sqlx::Error::Encode(_) => Verdict::Refused,
            // Whatever broke, the state of the connection is not known any more; and an answer that
            // cannot be read may be that of a commit.
            _ => Verdict::Lost,
        };
    };
    match (class(&code), &*code) {
        // A backend that is told to stop may have committed before it says so: it waits for a
        // synchronous standby after its commit.
        ("08", _) | (_, "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04") => Verdict::Lost,
        (_, "23505" | "40001" | "40P01") => Verdict::Contended,
        // Too much for the server's statement timeout, which others need not be.
        (_, "57014") => Verdict::Refused,
        ("53" | "55" | "57" | "58" | "XX", _) | (_, "25006") => Verdict::Unavailable,
        _ => Verdict::Refused,
    }
}

/// Whether the connection is gone.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    verdict(error) == Verdict::Lost
}

/// Whether the server itself has said why it does not let us in.
pub(crate) fn is_told_by_server(error: &PersistenceError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<DriverError>());
    cause.is_some_and(|DriverError(cause)| cause.as_database_error().is_some())
}

/// Whether the server does not accept writes (any more).
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25006")
}

/// Whether the server has this SQLSTATE to tell.
pub(crate) fn has_sqlstate(error: &sqlx::Error, codes: &[&str]) -> bool {
    sqlstate(error).is_some_and(|code| codes.contains(&&*code))
}

/// The table that the server names in an error.
pub(crate) fn table(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(DatabaseError::table)
}

/// The error for a statement that failed; `doing` says what it was to do, and on what.
pub(crate) fn from_statement(doing: &str, error: sqlx::Error) -> PersistenceError {
    let code = sqlstate(&error);
    let kind = match &error {
        sqlx::Error::Database(_) => kind_of(code.as_deref().unwrap_or_default()),
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => ErrorKind::Data,
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => ErrorKind::Programming,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => ErrorKind::Operational,
        _ => ErrorKind::Database,
    };
    let transient = is_transient(&error);
    let failed = PersistenceError::new(kind, format!("{doing} failed")).with_source(DriverError(error));
    if transient { failed.transient() } else { failed }
}

/// The error for a connection that could not be made; `server` is the host and port.
pub(crate) fn from_connecting(server: &str, error: sqlx::Error) -> PersistenceError {
    let kind = match &error {
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => ErrorKind::Programming,
        sqlx::Error::Tls(_) if !cfg!(feature = "tls") => ErrorKind::NotSupported,
        _ => ErrorKind::Operational,
    };
    let transient = is_transient(&error);
    let failed = PersistenceError::new(kind, format!("cannot connect to PostgreSQL at {server}"));
    let failed = failed.with_source(DriverError(error));
    if transient { failed.transient() } else { failed }
}

/// The error for a connection that the pool could not give.
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

/// The error of a datastore that was closed.
pub(crate) fn datastore_closed() -> PersistenceError {
    PersistenceError::interface("the datastore is closed")
}

/// The error of a recorder that was closed.
pub(crate) fn closed() -> PersistenceError {
    PersistenceError::interface("the recorder is closed")
}

/// A failure that may pass by itself, of a statement that has written nothing, or only read.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        // Data that makes no sense, such as a certificate that is not trusted, stays so.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        // The server has closed the connection instead of answering, which the driver takes for a zero byte.
        sqlx::Error::Protocol(message) => message.starts_with("unexpected response from SSLRequest: 0x00"),
        // The server begins anew.
        _ if severity(error) == Some(PgSeverity::Panic) => true,
        _ => sqlstate(error).is_some_and(|code| {
            matches!(class(&code), "08" | "40")
                || matches!(&*code, "25006" | "25P03" | "25P04" | "53300" | "55P03" | "57014")
                || code.starts_with("57P")
        }),
    }
}

/// The kind for a SQLSTATE, class by class as Python's drivers have it.
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
