//! Checks of the tokio runtime that the connections and the background tasks need.

use std::{net::UdpSocket, panic::catch_unwind, time::Duration};

use es_core::PersistenceError;
use tokio::runtime::Handle;

/// Returns the current runtime.
///
/// # Errors
/// [`Interface`](es_core::ErrorKind::Interface) outside of a tokio runtime.
pub(crate) fn current() -> Result<Handle, PersistenceError> {
    Handle::try_current().map_err(|error| {
        let message =
            "PostgreSQL is used outside of a tokio runtime: call it in a task of one, or in its block_on";
        PersistenceError::interface(message).with_source(error)
    })
}

/// Verifies that the current runtime has timers and input/output, without which connecting panics.
///
/// tokio reports a missing driver by a panic only. It is caught here, before anything is started; the panic
/// hook prints it.
///
/// # Errors
/// [`Interface`](es_core::ErrorKind::Interface) without a runtime, or with one that lacks a driver.
pub(crate) fn verify_drivers() -> Result<(), PersistenceError> {
    current()?;
    let missing = |driver: &str, method: &str| {
        let message =
            format!("the tokio runtime has no {driver}: call `{method}` or `enable_all` on its builder");
        Err(PersistenceError::interface(message))
    };
    if catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_err() {
        return missing("timers", "enable_time");
    }
    let register = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    };
    // A failure without a panic says nothing about the runtime.
    if catch_unwind(register).is_err() {
        return missing("input/output driver", "enable_io");
    }
    Ok(())
}
