//! What SQLite's errors mean to users of recorders.

use std::path::Path;

use es_core::{ErrorKind, PersistenceError};
use rusqlite::{Error, ErrorCode, ffi};

/// The error of a recorder for one of SQLite's, which stays behind it as the source.
pub(crate) fn from_sqlite(error: Error) -> PersistenceError {
    let (kind, message) = describe(&error);
    let translated = PersistenceError::new(kind, message);
    let translated = if is_locked(&error) { translated.transient() } else { translated };
    translated.with_source(error)
}

/// The same for opening the database `path`.
pub(crate) fn from_opening(path: &Path, error: Error) -> PersistenceError {
    from_sqlite(error).with_context(format_args!("database {path:?}"))
}

/// Names the database in an error that is about it as a whole, rather than about what was asked of it.
pub(crate) fn name_database(path: &Path, error: PersistenceError) -> PersistenceError {
    match error.kind() {
        ErrorKind::Operational | ErrorKind::OutcomeUnknown | ErrorKind::Database => {
            error.with_context(format_args!("database {path:?}"))
        }
        _ => error,
    }
}

/// Whether another connection was in the way, and may be out of it soon.
pub(crate) fn is_locked(error: &Error) -> bool {
    matches!(code(error), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) && !is_outdated(error)
}

/// Whether a transaction that has read wants to write after another has: it never can.
fn is_outdated(error: &Error) -> bool {
    cause(error).is_some_and(|cause| cause.extended_code == ffi::SQLITE_BUSY_SNAPSHOT)
}

/// Whether the file is no longer the one under its name.
fn is_moved(error: &Error) -> bool {
    cause(error).is_some_and(|cause| cause.extended_code == ffi::SQLITE_READONLY_DBMOVED)
}

/// Whether what was to be written may not be.
pub(crate) fn is_read_only(error: &Error) -> bool {
    code(error) == Some(ErrorCode::ReadOnly)
}

/// Whether there was no room for what was to be written: less may still fit.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(code(error), Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory))
}

/// Whether the value is larger than SQLite holds.
pub(crate) fn is_too_big(error: &Error) -> bool {
    code(error) == Some(ErrorCode::TooBig)
}

/// Whether SQLite cannot make sense of a statement: it names what is not there.
pub(crate) fn is_refused_statement(error: &Error) -> bool {
    code(error) == Some(ErrorCode::Unknown)
}

/// Whether a row with this primary key exists.
pub(crate) fn is_taken_key(error: &Error) -> bool {
    cause(error).is_some_and(|cause| cause.extended_code == ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
}

/// Whether a commit that failed so has certainly left nothing behind.
///
/// SQLite is told to wait, or finds no room, before the record that makes a commit count. After a
/// failure of the disk that record may stand in the log, to come back when the log is recovered.
pub(crate) fn leaves_nothing(error: &Error) -> bool {
    let is_forbidden = is_read_only(error) || code(error) == Some(ErrorCode::PermissionDenied);
    is_locked(error) || is_full(error) || is_forbidden
}

fn describe(error: &Error) -> (ErrorKind, String) {
    if let Some(table) = missing_table(error) {
        return (ErrorKind::Programming, format!("table {table:?} does not exist"));
    }
    if matches!(error, Error::NulError(_) | Error::InvalidPath(_)) {
        return (ErrorKind::Programming, "the path cannot be a file's".to_owned());
    }
    if is_outdated(error) {
        let message =
            "the transaction has read what another has changed since: begin it with BEGIN IMMEDIATE";
        return (ErrorKind::Operational, message.to_owned());
    }
    if is_moved(error) {
        let message = "the database, or its write-ahead log, was moved, deleted or replaced while it is open";
        return (ErrorKind::Operational, message.to_owned());
    }
    let (kind, message) = match code(error) {
        Some(ErrorCode::NotADatabase) => (ErrorKind::Database, "the file is not a database"),
        Some(ErrorCode::DatabaseCorrupt) => (ErrorKind::Database, "the database is damaged"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Operational, "another connection held its lock beyond the lock timeout")
        }
        Some(ErrorCode::DiskFull) => (ErrorKind::Operational, "there is no room for what is to be written"),
        Some(ErrorCode::ReadOnly) => (ErrorKind::Operational, "the database cannot be written"),
        Some(ErrorCode::CannotOpen) => (ErrorKind::Operational, "the database, or its log, cannot be opened"),
        Some(ErrorCode::PermissionDenied) => {
            (ErrorKind::Operational, "there is no permission to see whether the database is still there")
        }
        Some(ErrorCode::SystemIoFailure) => (ErrorKind::Operational, "the disk failed"),
        Some(ErrorCode::OutOfMemory) => (ErrorKind::Operational, "SQLite is out of memory"),
        Some(ErrorCode::OperationInterrupted | ErrorCode::OperationAborted) => {
            (ErrorKind::Operational, "SQLite stopped the operation")
        }
        Some(ErrorCode::TooBig) => (ErrorKind::Data, "a value is larger than the database holds"),
        Some(ErrorCode::TypeMismatch) => (ErrorKind::Data, "a value is not of its column's type"),
        Some(ErrorCode::ConstraintViolation) => (ErrorKind::Integrity, "a constraint was violated"),
        Some(ErrorCode::InternalMalfunction | ErrorCode::ApiMisuse) => {
            (ErrorKind::Internal, "SQLite was misused")
        }
        Some(ErrorCode::Unknown) => (ErrorKind::Programming, "SQLite refused a statement"),
        _ => (ErrorKind::Database, "SQLite failed"),
    };
    (kind, message.to_owned())
}

fn code(error: &Error) -> Option<ErrorCode> {
    cause(error).map(|cause| cause.code)
}

/// What SQLite reported, also where it refused the text of a statement.
fn cause(error: &Error) -> Option<&ffi::Error> {
    match error {
        Error::SqliteFailure(cause, _) | Error::SqlInputError { error: cause, .. } => Some(cause),
        _ => None,
    }
}

/// The table that a statement needs and the database lacks. SQLite tells it in words alone.
fn missing_table(error: &Error) -> Option<&str> {
    let message = match error {
        Error::SqliteFailure(_, Some(message)) => message,
        Error::SqlInputError { msg, .. } => msg,
        _ => return None,
    };
    message.strip_prefix("no such table: ")
}
