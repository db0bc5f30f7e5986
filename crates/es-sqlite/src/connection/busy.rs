//! Waiting for the locks that SQLite itself does not wait for.
//!
//! Its own waiting, the busy timeout, leaves two cases out: a switch to the write-ahead log while
//! another connection does the same, and the table locks of connections that share a cache
//! (`cache=shared`).

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(5);

/// Does something until no lock is in its way, at most for the lock timeout.
pub(crate) fn wait_for_lock<T, E>(
    timeout: Duration,
    is_locked: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_locked(&error) && began.elapsed() < timeout => thread::sleep(PAUSE),
            result => return result,
        }
    }
}
