//! The progress of long commands, on standard error if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar with rate and remaining time.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Begins a bar that ends at a number of ids.
    pub(crate) fn new(task: &'static str, ids: i64) -> Self {
        let bar = ProgressBar::new(u64::try_from(ids).unwrap_or(0)).with_message(task);
        let template = "{msg} {bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(crate) fn set(&self, id: i64) {
        self.0.set_position(u64::try_from(id).unwrap_or(0));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
