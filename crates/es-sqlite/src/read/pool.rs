//! The reader threads.

use std::sync::mpsc;

use async_channel::{Receiver, Sender};
use es_core::PersistenceError;
use rusqlite::Connection;

use crate::connection::{Job, Session, Threads};

/// The number of reads that wait for a thread before callers wait.
const QUEUE_LENGTH: usize = 1_024;

/// Starts a thread for each connection. They take jobs until the queue is closed and empty; then they drop
/// first the connection and then `running`.
///
/// # Errors
/// If a thread cannot be started.
pub(crate) fn start(
    connections: Vec<Connection>,
    threads: &Threads,
    running: &mpsc::Sender<()>,
) -> Result<Sender<Job>, PersistenceError> {
    let (sender, receiver) = async_channel::bounded(QUEUE_LENGTH);
    for connection in connections {
        let jobs: Receiver<Job> = receiver.clone();
        let running = running.clone();
        threads.spawn("es-sqlite-reader", move || {
            let _running = running;
            let mut session = Session::new(connection);
            while let Ok(job) = jobs.recv_blocking() {
                job(&mut session);
            }
        })?;
    }
    Ok(sender)
}
