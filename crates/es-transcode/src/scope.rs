//! Which registry the encode or decode call that is under way on this thread has.
//!
//! serde hands nothing but a serializer to the fields of a type, so a field that needs the registry
//! finds it here. It is there only during the synchronous call; a call within a call, as a
//! transcoding may make, has its own, and what stood before is put back, in a panic too.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use es_core::PersistenceError;

use crate::registry::Registry;

/// How many representations pile up before one starts afresh; values are rarely nested as deep.
const MAX_PILE: usize = 8;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scope>>> = const { RefCell::new(None) };
}

/// An encode or decode call that is under way.
pub(crate) struct Scope {
    registry: Arc<Registry>,
    /// Errors pass through serde as text; here they keep their kind.
    failure: RefCell<Option<PersistenceError>>,
    /// How many arrays and objects are open where something is written.
    depth: Cell<usize>,
    /// How many representations are open where something is written or read.
    nesting: Cell<usize>,
}

impl Scope {
    /// Why there is no current scope, for a value that needs one.
    pub(crate) const MISSING: &str = "registered transcodings are known only while a JsonTranscoder works";

    /// Begins a call; it ends when the guard is dropped.
    pub(crate) fn enter(registry: Arc<Registry>) -> Entered {
        let scope = Rc::new(Self {
            registry,
            failure: RefCell::default(),
            depth: Cell::default(),
            nesting: Cell::default(),
        });
        let outer = replace_current(Some(Rc::clone(&scope)));
        Entered { scope, outer }
    }

    /// The innermost call that is under way on this thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How many arrays and objects are open where something is written.
    pub(crate) fn depth(&self) -> &Cell<usize> {
        &self.depth
    }

    /// Opens a representation, until the guard is dropped.
    pub(crate) fn nest(&self) -> Nested<'_> {
        self.nesting.set(self.nesting.get() + 1);
        Nested(&self.nesting)
    }

    /// Whether a representation that is about to be opened starts with fresh JSON text.
    ///
    /// Each one wraps serde's traits of the one around it, and every call passes through all wrappers.
    /// Time and stack would grow with the square of the nesting; so the pile ends now and then.
    pub(crate) fn starts_afresh(&self) -> bool {
        let nesting = self.nesting.get();
        nesting > 0 && nesting.is_multiple_of(MAX_PILE)
    }

    /// Keeps an error, and gives the text that passes through serde instead.
    pub(crate) fn fail(&self, error: PersistenceError) -> String {
        let text = error.to_string();
        *self.failure.borrow_mut() = Some(error);
        text
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
    scope: Rc<Scope>,
    outer: Option<Rc<Scope>>,
}

impl Entered {
    pub(crate) fn scope(&self) -> &Rc<Scope> {
        &self.scope
    }

    /// The error of the call: the one that was kept, if that is what serde's error tells of.
    ///
    /// A kept error may be an old one: an untagged enum tries one variant after the other.
    pub(crate) fn explain(&self, what_failed: &str, error: serde_json::Error) -> PersistenceError {
        match self.scope.failure.take() {
            Some(kept) if error.to_string().contains(&kept.to_string()) => kept,
            _ => PersistenceError::data(what_failed).with_source(error),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        replace_current(self.outer.take());
    }
}

/// On a thread that is being torn down there is no current scope, and fields that need one fail.
fn replace_current(scope: Option<Rc<Scope>>) -> Option<Rc<Scope>> {
    CURRENT.try_with(|current| current.replace(scope)).ok().flatten()
}
