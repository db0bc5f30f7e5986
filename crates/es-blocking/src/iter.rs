//! Streams as iterators.

use std::fmt;

use es_core::PersistenceError;
use futures_core::{Stream, stream::BoxStream};
use futures_util::TryStreamExt;

use crate::Runtime;

/// Waits for the items of a stream, one after the other. Made by [`Runtime::iter`].
pub struct Iter<'a, T> {
    runtime: Runtime,
    /// `None` after the end.
    items: Option<BoxStream<'a, Result<T, PersistenceError>>>,
}

impl Runtime {
    /// Converts a stream to an iterator. It ends as the stream does, and after an error.
    ///
    /// Inside of a tokio runtime, the first item is an error, as that of [`run`](Self::run).
    pub fn iter<'a, T>(
        &self,
        items: impl Stream<Item = Result<T, PersistenceError>> + Send + 'a,
    ) -> Iter<'a, T> {
        Iter { runtime: self.clone(), items: Some(Box::pin(items)) }
    }
}

impl<T> Iterator for Iter<'_, T> {
    type Item = Result<T, PersistenceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.runtime.run(self.items.as_mut()?.try_next()).transpose();
        if !matches!(item, Some(Ok(_))) {
            self.items = None;
        }
        item
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("has_ended", &self.items.is_none()).finish_non_exhaustive()
    }
}
