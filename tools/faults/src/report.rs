//! The reports of clients about their operations.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::time::{ClockId, clock_gettime};

use crate::history::{Answer, Call, Message};

/// Reports the operations of one process.
pub struct Report {
    name: String,
    operations: AtomicU64,
    send: Mutex<Box<dyn FnMut(Message) + Send>>,
}

impl Report {
    /// Creates a report whose operations have keys that begin with `name`, and which sends messages to
    /// `send`.
    pub fn new(name: impl Into<String>, send: impl FnMut(Message) + Send + 'static) -> Self {
        Self { name: name.into(), operations: AtomicU64::new(0), send: Mutex::new(Box::new(send)) }
    }

    /// Writes a line for each message to the standard output: bytes in a pipe are there for its
    /// reader though the writer is killed.
    pub fn to_stdout(name: impl Into<String>) -> Self {
        Self::new(name, |message| {
            let written = serde_json::to_vec(&message).map_err(io::Error::from).and_then(|mut line| {
                line.push(b'\n');
                let mut stdout = io::stdout().lock();
                stdout.write_all(&line).and_then(|()| stdout.flush())
            });
            if written.is_err() {
                // The parent that checks the messages is gone.
                std::process::exit(3);
            }
        })
    }

    /// Sends a message.
    pub fn say(&self, message: Message) {
        let mut send = self.send.lock().unwrap_or_else(PoisonError::into_inner);
        send(message);
    }

    /// The key of the next operation.
    pub fn key(&self) -> String {
        format!("{}.{}", self.name, self.operations.fetch_add(1, Ordering::Relaxed))
    }

    /// An operation begins now.
    pub fn invoked(&self, key: &str, call: Call) {
        self.say(Message::Invoked { key: key.to_owned(), at: now(), call });
    }

    /// An operation is over now.
    pub fn returned(&self, key: String, answer: Answer) {
        self.say(Message::Returned { key, at: now(), answer });
    }
}

/// Nanoseconds of the clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(0)
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("name", &self.name).finish_non_exhaustive()
    }
}
