//! Retries for the locks that SQLite's busy timeout does not cover.
//!
//! There are two: a switch to the write-ahead log while another connection does the same, and the table locks
//! of connections that share a cache (`cache=shared`).

use std::{
    thread,
    time::{Duration, Instant},
};

const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Retries an operation while another connection's lock blocks it, for at most the lock timeout.
pub(crate) fn retry_while_busy<T, E>(
    timeout: Duration,
    is_busy: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && began.elapsed() < timeout => thread::sleep(RETRY_INTERVAL),
            result => return result,
        }
    }
}
