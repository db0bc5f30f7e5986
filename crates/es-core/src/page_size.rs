//! Page sizes of streams and subscriptions.

use std::num::NonZeroUsize;

/// The default number of rows that a stream or subscription fetches at a time.
///
/// Reading a million notifications takes half the time of pages of 100 on SQLite and PostgreSQL. Pages
/// of 10,000 gain about a tenth on PostgreSQL, and take twice the time on SQLite (`catch up` of `cargo
/// xtask bench`).
pub const DEFAULT_PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// The bytes of states after which a stream or subscription ends a page: 16 MiB. The event that reaches
/// the limit is included.
///
/// Without a limit in bytes, a page of a thousand events of 1 MiB took 1.05 GB.
pub const DEFAULT_PAGE_BYTES: NonZeroUsize = NonZeroUsize::new(16 << 20).unwrap();

/// The size of the next page. After a page that reached the limit in bytes, the next one has no more
/// rows than it had: a server would send the others for nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageSize {
    rows: usize,
    max_rows: usize,
}

impl PageSize {
    pub(crate) fn new(rows: NonZeroUsize) -> Self {
        Self { rows: rows.get(), max_rows: rows.get() }
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    /// Returns the size after a page of `rows` rows and `bytes` bytes.
    pub(crate) fn after(self, rows: usize, bytes: usize) -> Self {
        let next = if bytes >= DEFAULT_PAGE_BYTES.get() { rows } else { self.rows.saturating_mul(2) };
        Self { rows: next.clamp(1, self.max_rows), ..self }
    }
}
