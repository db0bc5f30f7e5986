//! Warnings of the library, on standard error.
//!
//! They are lines of text. While a progress bar is shown, they are printed above it; while a screen is shown,
//! they are kept until it ends.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::ProgressBar;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// The prefix of the names of the library's crates. Other crates report errors only.
const LIBRARY: &str = "es_";
/// The number of lines that are kept while a screen is shown.
const KEPT_LINES: usize = 100;

static STATE: Mutex<State> = Mutex::new(State { destination: Destination::Stderr, last: String::new() });

struct State {
    destination: Destination,
    /// The last line. It is not repeated: several recorders report the same about one database.
    last: String,
}

/// The destination of lines.
enum Destination {
    Stderr,
    Bar(ProgressBar),
    /// The newest lines, for after the screen, and the one that was not yet taken.
    Kept(VecDeque<String>, Option<String>),
}

/// Prints warnings from now on; further levels by the number of `--verbose`.
pub(crate) fn start(verbosity: u8, has_color: bool) {
    let level = match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let lines = fmt::layer()
        .compact()
        .without_time()
        .with_target(verbosity > 0)
        .with_ansi(has_color)
        .with_writer(|| Lines);
    let levels = Targets::new().with_default(LevelFilter::ERROR).with_target(LIBRARY, level);
    registry().with(lines.with_filter(levels)).init();
}

/// Prints lines above a progress bar, until it is dropped.
pub(crate) fn show_above(bar: &ProgressBar) -> Redirection {
    state().destination = Destination::Bar(bar.clone());
    Redirection
}

/// Keeps lines until the result is dropped, which prints them.
pub(crate) fn keep() -> Redirection {
    state().destination = Destination::Kept(VecDeque::new(), None);
    Redirection
}

/// Returns the newest line that is kept, once.
pub(crate) fn take_newest() -> Option<String> {
    match &mut state().destination {
        Destination::Kept(_, newest) => newest.take(),
        _ => None,
    }
}

/// Another destination of lines than standard error, until it is dropped.
pub(crate) struct Redirection;

impl Drop for Redirection {
    fn drop(&mut self) {
        let previous = std::mem::replace(&mut state().destination, Destination::Stderr);
        if let Destination::Kept(lines, _) = previous {
            lines.iter().for_each(|line| eprint!("{line}"));
        }
    }
}

/// A writer of lines; each write is a line.
struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let mut state = state();
        if state.last == line {
            return Ok(bytes.len());
        }
        match &mut state.destination {
            Destination::Stderr => io::stderr().write_all(bytes)?,
            Destination::Bar(bar) => bar.suspend(|| io::stderr().write_all(bytes))?,
            Destination::Kept(lines, newest) => {
                *newest = Some(line.to_string());
                lines.push_back(line.to_string());
                if lines.len() > KEPT_LINES {
                    lines.pop_front();
                }
            }
        }
        state.last = line.into_owned();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
