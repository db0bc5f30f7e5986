//! The account by its events, as `testdata/python/bank.py` applies them. `tools/interop` includes this file.

use es_persistence::DomainEvent;

use crate::bank::{Account, AccountEvent};

/// Returns the account after one more event, or `None` if the event must not follow: an account is opened
/// once, by its first event.
pub(crate) fn apply(account: Option<Account>, event: DomainEvent<AccountEvent>) -> Option<Account> {
    let modified_on = event.timestamp;
    match (account, event.payload) {
        (None, AccountEvent::Opened { owner, owner_id, birthday, limit, .. }) => Some(Account {
            created_on: modified_on,
            modified_on,
            owner,
            owner_id,
            birthday,
            limit,
            balance: 0.into(),
            notes: Vec::new(),
            proof: None,
            closed: None,
        }),
        (Some(mut account), AccountEvent::Credited { amount, note, .. }) => {
            account.balance += amount;
            account.notes.push(note);
            Some(Account { modified_on, ..account })
        }
        (Some(account), AccountEvent::Verified { proof, .. }) => {
            Some(Account { modified_on, proof: Some(proof), ..account })
        }
        (Some(account), AccountEvent::Closed) => Some(Account { modified_on, closed: Some(true), ..account }),
        (None, _) | (Some(_), AccountEvent::Opened { .. }) => None,
    }
}
