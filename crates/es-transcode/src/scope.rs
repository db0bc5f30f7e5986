//! The registry of the current encode or decode call of this thread.
//!
//! serde passes only a serializer to the fields of a type, so a field that needs the registry
//! finds it here. It is there only during the synchronous call; a call within a call, as a
//! transcoding may make, has its own, and the previous one is restored, after a panic too.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use es_core::PersistenceError;

use crate::{failure::Failure, registry::Registry};

/// The number of nested representations after which one is buffered; values are rarely nested as deep.
const MAX_NESTED_WRAPPERS: usize = 8;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scope>>> = const { RefCell::new(None) };
}

/// The state of an encode or decode call.
pub(crate) struct Scope {
    pub(crate) registry: Arc<Registry>,
    pub(crate) failure: Failure,
    /// The error with which the call ends: [`fail_later`].
    later: Failure,
    /// The number of open arrays and objects of the writer.
    pub(crate) depth: Cell<usize>,
    /// The number of open representations.
    nesting: Cell<usize>,
}

impl Scope {
    /// The error message if there is no current scope.
    pub(crate) const MISSING: &str = "registered transcodings are known only while a JsonTranscoder works";

    /// Begins a call; it ends when the guard is dropped.
    pub(crate) fn enter(registry: Arc<Registry>) -> Entered {
        let (failure, later, depth, nesting) = Default::default();
        let scope = Rc::new(Self { registry, failure, later, depth, nesting });
        let outer = replace_current(Some(Rc::clone(&scope)));
        Entered { scope, outer }
    }

    /// Returns the innermost current call of this thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Opens a representation, until the guard is dropped.
    pub(crate) fn nest(&self) -> Nested<'_> {
        self.nesting.set(self.nesting.get() + 1);
        Nested(&self.nesting)
    }

    /// Returns whether the next representation is written to, or read from, a JSON text of its own.
    ///
    /// Each representation wraps the serde traits of the one around it, and every call passes through all
    /// wrappers: time and stack would grow with the square of the nesting. A text of its own ends that.
    pub(crate) fn needs_buffering(&self) -> bool {
        let nesting = self.nesting.get();
        nesting > 0 && nesting.is_multiple_of(MAX_NESTED_WRAPPERS)
    }
}

/// An open representation.
pub(crate) struct Nested<'s>(&'s Cell<usize>);

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Ends a call when it is dropped.
pub(crate) struct Entered {
    pub(crate) scope: Rc<Scope>,
    outer: Option<Rc<Scope>>,
}

impl Entered {
    /// Returns the result of the call. Its error is the one for the end of the call, or that of a
    /// transcoding, or else serde's.
    pub(crate) fn finish<V>(
        &self,
        result: Result<V, serde_json::Error>,
        message: &str,
    ) -> Result<V, PersistenceError> {
        if let Some(error) = self.scope.later.take() {
            return Err(error);
        }
        result.map_err(|error| self.scope.failure.error(error, message))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        replace_current(self.outer.take());
    }
}

/// Lets the current call of a [`JsonTranscoder`](crate::JsonTranscoder) fail at its end.
///
/// For a transcoding that lacks something for a value, such as a key. It returns a placeholder, and the call
/// continues with the other values, which may lack something too; then it fails with this error.
///
/// # Errors
/// The error itself if this thread is not in a call.
pub fn fail_later(error: PersistenceError) -> Result<(), PersistenceError> {
    let Some(scope) = Scope::current() else { return Err(error) };
    scope.later.keep(error);
    Ok(())
}

/// On a thread that is being torn down there is no current scope, and fields that need one fail.
fn replace_current(scope: Option<Rc<Scope>>) -> Option<Rc<Scope>> {
    CURRENT.try_with(|current| current.replace(scope)).ok().flatten()
}
