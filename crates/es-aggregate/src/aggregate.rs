//! The aggregate: a state that is folded from its events.

use es_core::{DomainEvent, Event, PersistenceError, next_version, uuid::Uuid};

/// The state of an aggregate. [`Default`] is the state before the first event.
///
/// Decisions are methods of the type that return new events, or an error of your own.
/// [`Repository::execute`](crate::Repository::execute) calls and records them.
///
/// ```
/// use es_aggregate::Aggregate;
/// use es_derive::Event;
///
/// #[derive(Event)]
/// #[event(topic = "bank:Account")]
/// enum AccountEvent {
///     Credited { cents: i64 },
///     Debited { cents: i64 },
/// }
///
/// #[derive(Default)]
/// struct Account {
///     balance: i64,
/// }
///
/// impl Aggregate for Account {
///     type Event = AccountEvent;
///
///     fn apply(&mut self, event: &AccountEvent) {
///         match event {
///             AccountEvent::Credited { cents } => self.balance += cents,
///             AccountEvent::Debited { cents } => self.balance -= cents,
///         }
///     }
/// }
///
/// #[derive(Debug)]
/// struct Overdrawn;
///
/// impl Account {
///     fn debit(&self, cents: i64) -> Result<Option<AccountEvent>, Overdrawn> {
///         if cents > self.balance { Err(Overdrawn) } else { Ok(Some(AccountEvent::Debited { cents })) }
///     }
/// }
/// ```
pub trait Aggregate: Default + Send + 'static {
    /// The type of its events: usually an enum.
    type Event: Event;

    /// Changes the state by an event. Decisions have checked it before it was recorded, so `apply` does not
    /// fail and has no other effects.
    fn apply(&mut self, event: &Self::Event);
}

/// An aggregate, loaded by [`Repository::load`](crate::Repository::load).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<A> {
    /// The id of the aggregate.
    pub id: Uuid,
    /// The version of the last event that is applied to the state; 0 if there are no events.
    pub version: i64,
    /// The state.
    pub state: A,
}

impl<A> Loaded<A> {
    /// Returns whether the aggregate has events.
    pub fn exists(&self) -> bool {
        self.version > 0
    }
}

impl<A: Aggregate> Loaded<A> {
    pub(crate) fn empty(id: Uuid) -> Self {
        Self { id, version: 0, state: A::default() }
    }

    /// Applies the next event.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if it is not the next: a state that lacks events is never returned.
    pub(crate) fn apply(&mut self, event: &DomainEvent<A::Event>) -> Result<(), PersistenceError> {
        if event.originator_version != next_version(self.version)? {
            return Err(PersistenceError::data(format!(
                "originator {} has an event of version {} after version {}; an aggregate has the versions 1, 2, \
                 3 and so on",
                self.id, event.originator_version, self.version
            )));
        }
        self.state.apply(&event.payload);
        self.version = event.originator_version;
        Ok(())
    }
}
