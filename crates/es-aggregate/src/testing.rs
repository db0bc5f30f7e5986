//! Tests of decisions without a database: given events, when a decision is made, then events or an error.
//!
//! ```
//! use es_aggregate::{Aggregate, testing::given};
//! # use es_derive::Event;
//! #
//! # #[derive(Debug, PartialEq, Event)]
//! # #[event(topic = "bank:Account")]
//! # enum AccountEvent {
//! #     Credited { cents: i64 },
//! #     Debited { cents: i64 },
//! # }
//! # #[derive(Debug, PartialEq)]
//! # struct Overdrawn;
//! # #[derive(Default)]
//! # struct Account {
//! #     balance: i64,
//! # }
//! # impl Aggregate for Account {
//! #     type Event = AccountEvent;
//! #     fn apply(&mut self, event: &AccountEvent) {
//! #         match event {
//! #             AccountEvent::Credited { cents } => self.balance += cents,
//! #             AccountEvent::Debited { cents } => self.balance -= cents,
//! #         }
//! #     }
//! # }
//! # impl Account {
//! #     fn debit(&self, cents: i64) -> Result<Option<AccountEvent>, Overdrawn> {
//! #         if cents > self.balance { Err(Overdrawn) } else { Ok(Some(AccountEvent::Debited { cents })) }
//! #     }
//! # }
//!
//! given::<Account>([AccountEvent::Credited { cents: 500 }])
//!     .when(|account| account.debit(200))
//!     .then([AccountEvent::Debited { cents: 200 }])
//!     .when(|account| account.debit(301))
//!     .then_rejected(Overdrawn);
//! ```

use std::fmt::Debug;

use crate::Aggregate;

/// An aggregate after these events.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::default();
    events.into_iter().for_each(|event| state.apply(&event));
    Given { state }
}

/// An aggregate, before a decision.
#[derive(Debug)]
pub struct Given<A> {
    /// The state.
    pub state: A,
}

impl<A: Aggregate> Given<A> {
    /// Makes a decision, as [`Repository::execute`](crate::Repository::execute) does.
    pub fn when<I, E>(self, decide: impl FnOnce(&A) -> Result<I, E>) -> When<A, E>
    where
        I: IntoIterator<Item = A::Event>,
    {
        let decided = decide(&self.state).map(|events| events.into_iter().collect());
        When { state: self.state, decided }
    }
}

/// An aggregate, after a decision.
#[derive(Debug)]
#[must_use = "nothing is tested without `then` or `then_rejected`"]
pub struct When<A: Aggregate, E> {
    state: A,
    /// The result of the decision.
    pub decided: Result<Vec<A::Event>, E>,
}

#[expect(clippy::panic, reason = "an assertion of a test")]
impl<A: Aggregate, E: Debug> When<A, E> {
    /// Asserts that the decision returned these events, and applies them.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> Given<A>
    where
        A::Event: Debug + PartialEq,
    {
        let Self { mut state, decided } = self;
        let expected: Vec<_> = expected.into_iter().collect();
        match decided {
            Ok(events) => assert_eq!(events, expected, "the decision returned other events"),
            Err(error) => panic!("the decision failed with {error:?} instead of returning {expected:?}"),
        }
        expected.iter().for_each(|event| state.apply(event));
        Given { state }
    }

    /// Asserts that the decision failed with this error.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn then_rejected(self, expected: E) -> Given<A>
    where
        A::Event: Debug,
        E: PartialEq,
    {
        match self.decided {
            Ok(events) => panic!("the decision returned {events:?} instead of failing with {expected:?}"),
            Err(error) => assert_eq!(error, expected, "the decision failed with another error"),
        }
        Given { state: self.state }
    }
}
