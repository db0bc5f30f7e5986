//! Customers.

use es_persistence::prelude::*;

#[derive(Debug, PartialEq, Event)]
#[event(topic = "shop:Customer")]
pub(crate) enum CustomerEvent {
    Registered { name: String },
}

#[derive(Default)]
pub(crate) struct Customer {
    is_registered: bool,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the customer is registered already")]
pub(crate) struct AlreadyRegistered;

impl Aggregate for Customer {
    type Event = CustomerEvent;

    fn apply(&mut self, event: &CustomerEvent) {
        match event {
            CustomerEvent::Registered { .. } => self.is_registered = true,
        }
    }
}

impl Customer {
    pub(crate) fn register(&self, name: &str) -> Result<[CustomerEvent; 1], AlreadyRegistered> {
        if self.is_registered {
            return Err(AlreadyRegistered);
        }
        Ok([CustomerEvent::Registered { name: name.to_owned() }])
    }
}
