//! The progress of long commands, on standard error if that is a terminal.

use std::fmt;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

use crate::diagnostics::{Redirection, show_above};

/// A progress bar with rate and remaining time.
pub(crate) struct Progress {
    bar: ProgressBar,
    _warnings: Redirection,
}

impl Progress {
    /// Begins a bar that ends at a number of ids.
    pub(crate) fn new(task: &'static str, ids: i64) -> Self {
        let bar = ProgressBar::new(u64::try_from(ids).unwrap_or(0)).with_message(task);
        let template = "{msg} {bar:30} {human_pos}/{human_len}  {rate}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", write_rate));
        }
        Self { _warnings: show_above(&bar), bar }
    }

    pub(crate) fn set(&self, id: i64) {
        self.bar.set_position(u64::try_from(id).unwrap_or(0));
    }
}

/// Writes the rate without decimals.
fn write_rate(state: &ProgressState, text: &mut dyn fmt::Write) {
    // A bar cannot report an error, and text in memory has none.
    let _ = write!(text, "{}/s", HumanCount(state.per_sec() as u64));
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
