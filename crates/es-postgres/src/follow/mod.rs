//! Following: signals for waiting tasks, polling, and notifications by `NOTIFY`.

pub(crate) mod listener;
pub(crate) mod notify_sender;
pub(crate) mod poller;
pub(crate) mod signals;
