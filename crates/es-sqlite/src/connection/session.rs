//! A connection with the state that reading keeps between queries, and jobs for the thread that owns it.

use std::sync::Arc;

use es_core::{ErrorKind, PersistenceError};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::file_identity::FileIdentity;
use crate::{error::from_sqlite, schema::Topics};

/// SQLite checks for cancellation once every this many of its steps; a row takes some ten.
const STEPS_BETWEEN_CHECKS: i32 = 4_096;

/// A connection with the state that reading keeps between queries.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) file_identity: FileIdentity,
    pub(crate) topics: Topics,
}

/// Work on a session, for the thread that owns it.
pub(crate) type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// Returns a job that sends the result of `work`. If the receiver is dropped, the work does not start, or
/// SQLite interrupts it soon.
pub(crate) fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Session) -> Result<T, PersistenceError> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, PersistenceError>>) {
    let (reply, result) = oneshot::channel();
    let job = move |session: &mut Session| {
        if reply.is_closed() {
            return;
        }
        let reply = Arc::new(reply);
        let observed = Arc::clone(&reply);
        let result = session.run_unless(move || observed.is_closed(), work);
        if let Some(reply) = Arc::into_inner(reply) {
            let _ = reply.send(result);
        }
    };
    (Box::new(job), result)
}

impl Session {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { file_identity: FileIdentity::of(&connection), connection, topics: Topics::default() }
    }

    /// Runs `work` until it ends or is cancelled; SQLite then interrupts it.
    fn run_unless<T>(
        &mut self,
        is_cancelled: impl FnMut() -> bool + Send + 'static,
        work: impl FnOnce(&mut Self) -> Result<T, PersistenceError>,
    ) -> Result<T, PersistenceError> {
        self.connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(is_cancelled)).map_err(from_sqlite)?;
        let result = work(self);
        self.connection.progress_handler(0, None::<fn() -> bool>).map_err(from_sqlite)?;
        result
    }

    /// Runs a read. If SQLite refuses it, reloads the schema and tries once more.
    ///
    /// SQLite also reports a missing table where it could not check whether another connection created it.
    pub(crate) fn read<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, PersistenceError>,
    ) -> Result<T, PersistenceError> {
        match read(self) {
            Err(error) if error.kind() == ErrorKind::Programming => {
                let select = self.connection.prepare_cached("SELECT COUNT(*) FROM sqlite_schema");
                select.and_then(|mut select| select.query_row((), |_| Ok(()))).map_err(from_sqlite)?;
                read(self)
            }
            result => result,
        }
    }
}
