//! Following: signals for waiting tasks, polling for the commits of others, and `NOTIFY`.

mod listener;
mod notify_sender;
mod poller;
mod signals;

pub(crate) use listener::Listener;
pub(crate) use notify_sender::{send, send_in};
pub(crate) use poller::poll;
pub(crate) use signals::Signals;
