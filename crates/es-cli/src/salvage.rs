//! Reads a log that may have rows which cannot be read: each is reported, and the others are read.
//!
//! A recorder never skips a row: a page with such a row is an error. Smaller pages are then read up to the
//! row, whose id is found by bisection.

use es_core::{
    ApplicationRecorder, DEFAULT_PAGE_BYTES, DEFAULT_PAGE_SIZE, ErrorKind, Notification,
    NotificationSelection, PersistenceError,
};

/// A reader of a log up to an id.
pub(crate) struct SalvagingReader<R> {
    recorder: R,
    /// The id after which the next page begins; `None` before the first.
    position: Option<i64>,
    stop: i64,
    page_size: usize,
}

/// The next part of a log.
pub(crate) enum Part {
    Page(Vec<Notification>),
    /// A row that cannot be read, with its id.
    Unreadable(i64, PersistenceError),
}

impl<R: ApplicationRecorder> SalvagingReader<R> {
    pub(crate) fn new(recorder: R, stop: i64) -> Self {
        Self { recorder, position: None, stop, page_size: DEFAULT_PAGE_SIZE.get() }
    }

    /// Returns the next part; `None` at the end.
    ///
    /// # Errors
    /// If the database itself cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Option<Part>, PersistenceError> {
        loop {
            match self.select(self.page_size, self.stop).await {
                Ok(page) => {
                    let Some(last) = page.last() else { return Ok(None) };
                    self.position = Some(last.id);
                    return Ok(Some(Part::Page(page)));
                }
                Err(error) if error.kind() == ErrorKind::Operational => return Err(error),
                Err(error) if self.page_size == 1 => {
                    let id = self.next_id().await.ok_or_else(|| error.clone())?;
                    self.position = Some(id);
                    self.page_size = DEFAULT_PAGE_SIZE.get();
                    return Ok(Some(Part::Unreadable(id, error)));
                }
                Err(_) => self.page_size /= 2,
            }
        }
    }

    async fn select(&self, limit: usize, stop: i64) -> Result<Vec<Notification>, PersistenceError> {
        let selection = NotificationSelection::new(limit).max_bytes(DEFAULT_PAGE_BYTES.get()).stop(stop);
        let selection = self.position.map_or(selection.clone(), |position| selection.after(position));
        self.recorder.select_notifications(selection).await
    }

    /// Returns the id of the next row, which cannot be read: the lowest `stop` with which a selection fails.
    /// `None` if a selection without that row fails too, so that the database is damaged.
    async fn next_id(&self) -> Option<i64> {
        let (mut readable, mut unreadable) = (self.position.unwrap_or(i64::MIN), self.stop);
        if self.select(1, readable).await.is_err() {
            return None;
        }
        while unreadable.checked_sub(readable).is_none_or(|distance| distance > 1) {
            let middle = i64::midpoint(readable, unreadable);
            match self.select(1, middle).await {
                Ok(_) => readable = middle,
                Err(_) => unreadable = middle,
            }
        }
        Some(unreadable)
    }
}
