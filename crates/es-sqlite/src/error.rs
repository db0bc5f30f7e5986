//! Translation of SQLite's errors into those of recorders.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use es_core::{ErrorKind, PersistenceError};
use rusqlite::{Error, ErrorCode, ffi};

const CANNOT_OPEN: &str = "the database or its write-ahead log cannot be opened; in a directory that cannot be written, \
                           a database that no process has open is opened as \"file:PATH?immutable=1\"";

/// Converts an error of SQLite, which becomes the source.
pub(crate) fn from_sqlite(error: Error) -> PersistenceError {
    let (kind, message) = describe(&error);
    let converted = PersistenceError::new(kind, message);
    let converted = if is_busy(&error) { converted.transient() } else { converted };
    converted.with_source(error)
}

/// Calls the program's code and converts a panic into an error: it must not end a thread of the datastore.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, PersistenceError> {
    // The program's code is responsible for its own state after a panic.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_error(&*panic))
}

fn panic_error(panic: &(dyn Any + Send)) -> PersistenceError {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    PersistenceError::programming(format!("the program's code panicked: {}", message.unwrap_or("no message")))
}

/// Converts an error of opening the database `path`.
pub(crate) fn from_opening(path: &Path, error: Error) -> PersistenceError {
    // Opening writes nothing but the files of the write-ahead log.
    let converted = match is_read_only(&error) {
        true => PersistenceError::operational(CANNOT_OPEN).with_source(error),
        false => from_sqlite(error),
    };
    converted.with_context(format_args!("database {path:?}"))
}

/// Names the database in an error that concerns it as a whole rather than one request.
pub(crate) fn name_database(path: &Path, error: PersistenceError) -> PersistenceError {
    match error.kind() {
        ErrorKind::Operational | ErrorKind::OutcomeUnknown | ErrorKind::Database => {
            error.with_context(format_args!("database {path:?}"))
        }
        _ => error,
    }
}

/// Returns true if a lock of another connection prevented the operation: a retry may succeed.
pub(crate) fn is_busy(error: &Error) -> bool {
    matches!(code(error), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
        && !is_busy_snapshot(error)
}

/// Returns true if a transaction that has read cannot write, because another one has written since.
fn is_busy_snapshot(error: &Error) -> bool {
    cause(error).is_some_and(|cause| cause.extended_code == ffi::SQLITE_BUSY_SNAPSHOT)
}

/// Returns true if the path names another file than the open one.
fn is_moved(error: &Error) -> bool {
    cause(error).is_some_and(|cause| cause.extended_code == ffi::SQLITE_READONLY_DBMOVED)
}

/// Returns true if the database cannot be written.
pub(crate) fn is_read_only(error: &Error) -> bool {
    code(error) == Some(ErrorCode::ReadOnly)
}

/// Returns true if the disk or the memory is full: a smaller write may succeed.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(code(error), Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory))
}

/// Returns true if a value is larger than SQLite's limit.
pub(crate) fn is_too_big(error: &Error) -> bool {
    code(error) == Some(ErrorCode::TooBig)
}

/// Returns true if a statement is invalid: it names a missing table or column.
pub(crate) fn is_refused_statement(error: &Error) -> bool {
    code(error) == Some(ErrorCode::Unknown)
}

/// Returns true if a row with this primary key exists.
pub(crate) fn is_duplicate_key(error: &Error) -> bool {
    cause(error).is_some_and(|cause| cause.extended_code == ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
}

/// Returns true if a failed commit is certainly rolled back.
///
/// A lock or a full disk stops SQLite before it writes the record that completes a commit. After a failure of
/// the disk that record may be in the log, and take effect when the log is recovered.
pub(crate) fn is_definitely_rolled_back(error: &Error) -> bool {
    let is_forbidden = is_read_only(error) || code(error) == Some(ErrorCode::PermissionDenied);
    is_busy(error) || is_full(error) || is_forbidden
}

fn describe(error: &Error) -> (ErrorKind, String) {
    if let Some(table) = missing_table(error) {
        return (ErrorKind::Programming, format!("table {table:?} does not exist"));
    }
    if matches!(error, Error::NulError(_) | Error::InvalidPath(_)) {
        return (ErrorKind::Programming, "the path is not a valid file name".to_owned());
    }
    if is_busy_snapshot(error) {
        let message = "another transaction changed what this one had read: begin it with BEGIN IMMEDIATE";
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
            (ErrorKind::Operational, "another connection held its lock longer than the lock timeout")
        }
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::Operational, "the disk is full, or the database has its maximum size")
        }
        Some(ErrorCode::ReadOnly) => (ErrorKind::Operational, "the database cannot be written"),
        Some(ErrorCode::CannotOpen) => (ErrorKind::Operational, CANNOT_OPEN),
        Some(ErrorCode::PermissionDenied) => {
            (ErrorKind::Operational, "there is no permission to access the file of the database")
        }
        Some(ErrorCode::SystemIoFailure) => (ErrorKind::Operational, "the disk failed"),
        Some(ErrorCode::OutOfMemory) => (ErrorKind::Operational, "SQLite is out of memory"),
        Some(ErrorCode::OperationInterrupted | ErrorCode::OperationAborted) => {
            (ErrorKind::Operational, "SQLite stopped the operation")
        }
        Some(ErrorCode::TooBig) => (ErrorKind::Data, "a value is larger than the database allows"),
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

/// Returns SQLite's own error, also where it refused the text of a statement.
fn cause(error: &Error) -> Option<&ffi::Error> {
    match error {
        Error::SqliteFailure(cause, _) | Error::SqlInputError { error: cause, .. } => Some(cause),
        _ => None,
    }
}

/// Returns the name of a missing table, which SQLite reports only in the message.
fn missing_table(error: &Error) -> Option<&str> {
    let message = match error {
        Error::SqliteFailure(_, Some(message)) => message,
        Error::SqlInputError { msg, .. } => msg,
        _ => return None,
    };
    message.strip_prefix("no such table: ")
}
