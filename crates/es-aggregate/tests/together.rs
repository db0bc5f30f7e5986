//! Commands on several aggregates.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod support;

use std::{convert::Infallible, sync::atomic::Ordering};

use es_aggregate::{Aggregate, CommandError, Repository, execute_together};
use es_core::{AggregateRecorder, ErrorKind, EventRange, Metadata, PersistenceError, uuid::Uuid};
use es_derive::Event;
use es_popo::PopoApplicationRecorder;
use es_sqlite::SqliteOptions;
use es_transcode::JsonTranscoder;
use futures_util::FutureExt;
use support::{A, Account, AccountEvent, B, Credited, Overdrawn, TestRecorder, accounts, credit};

const LEDGER: Uuid = Uuid::from_u128(1);

#[derive(Debug, Event)]
#[event(topic = "bank:Ledger")]
enum LedgerEvent {
    Booked { cents: i64 },
}

#[derive(Default)]
struct Ledger {
    total: i64,
}

impl Aggregate for Ledger {
    type Event = LedgerEvent;

    fn apply(&mut self, LedgerEvent::Booked { cents }: &LedgerEvent) {
        self.total += cents;
    }
}

fn interface_error<E: std::fmt::Debug>(result: Result<Vec<i64>, CommandError<E>>) -> PersistenceError {
    match result {
        Err(CommandError::Persistence(error)) if error.kind() == ErrorKind::Interface => error,
        other => panic!("{other:?}"),
    }
}

/// Moves cents from one account to another, and books them.
async fn transfer<R: AggregateRecorder + 'static>(
    accounts: &Repository<Account, R, JsonTranscoder>,
    [from, to]: [Uuid; 2],
    cents: i64,
) -> Result<Vec<i64>, CommandError<Overdrawn>> {
    let ledger = accounts.repository::<Ledger>().aggregate(LEDGER);
    let aggregates = ((accounts.aggregate(from), accounts.aggregate(to)), ledger);
    execute_together(aggregates, Metadata::new(), |((from, _), _)| {
        Ok(((from.debit(cents)?, vec![Credited { cents }]), vec![LedgerEvent::Booked { cents }]))
    })
    .await
}

#[tokio::test]
async fn events_of_several_aggregates_are_recorded_in_one_commit() {
    let recorder = TestRecorder::new();
    credit(&recorder.inner, B, 5).await;
    let accounts = accounts(recorder.clone());
    assert_eq!(transfer(&accounts, [B, A], 2).await.unwrap(), [6, 7, 8], "in the order of the aggregates");
    assert_eq!(recorder.attempts.load(Ordering::SeqCst), 1);
    assert_eq!(accounts.load(A).await.unwrap().state, Account { balance: 2, events: 1 });
    assert_eq!(accounts.load(B).await.unwrap().state, Account { balance: 3, events: 6 });
    assert_eq!(accounts.repository::<Ledger>().load(LEDGER).await.unwrap().state.total, 2);

    let error = transfer(&accounts, [B, A], 4).await.unwrap_err();
    assert_eq!(error.rejection(), Some(&Overdrawn));
    assert_eq!(recorder.attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_conflict_about_one_aggregate_repeats_the_decision_about_all() {
    let recorder = PopoApplicationRecorder::new();
    let accounts = accounts(recorder.clone());
    let aggregates: Vec<_> = [A, B].into_iter().map(|id| accounts.aggregate(id)).collect();
    let mut decisions = Vec::new();
    let decide = |states: Vec<&Account>| {
        if decisions.is_empty() {
            credit(&recorder, B, 7).now_or_never().unwrap();
        }
        decisions.push(states.iter().map(|account| account.balance).collect::<Vec<_>>());
        Ok::<_, Infallible>(vec![vec![Credited { cents: 1 }], vec![Credited { cents: 2 }]])
    };
    execute_together(aggregates, Metadata::new(), decide).await.unwrap();
    assert_eq!(decisions, [[0, 0], [0, 7]]);
    assert_eq!(accounts.load(A).await.unwrap().state, Account { balance: 1, events: 1 }, "recorded once");
    assert_eq!(accounts.load(B).await.unwrap().state, Account { balance: 9, events: 8 });
}

#[tokio::test]
async fn aggregates_that_cannot_be_one_commit_are_refused() {
    let (one, other) = (accounts(TestRecorder::new()), accounts(TestRecorder::new()));
    let nothing = |_: (&Account, &Account)| Ok::<_, Infallible>((vec![], vec![]));
    let stores = execute_together((one.aggregate(A), other.aggregate(B)), Metadata::new(), nothing).await;
    assert!(interface_error(stores).to_string().contains("do not share a store"));
    let twice =
        execute_together((one.aggregate(A), one.clone().aggregate(A)), Metadata::new(), nothing).await;
    assert!(interface_error(twice).to_string().ends_with("twice"));

    let vector = vec![one.aggregate(A), one.aggregate(B)];
    let too_few = |_: Vec<&Account>| Ok::<_, Infallible>(vec![vec![Credited { cents: 1 }]]);
    let lengths = execute_together(vector, Metadata::new(), too_few).await;
    assert!(interface_error(lengths).to_string().contains("events for 1 of 2 aggregates"));
    assert!(one.store().get::<AccountEvent>(A, EventRange::all()).await.unwrap().is_empty());

    let none: Vec<_> = Vec::from_iter(None.map(|id| one.aggregate(id)));
    let ids = execute_together(none, Metadata::new(), |_| Ok::<_, Infallible>(vec![])).await;
    assert!(ids.unwrap().is_empty());
}

/// Each pair of tasks names two accounts in opposite orders: without one order of locks they deadlock.
#[tokio::test(flavor = "multi_thread")]
async fn transfers_in_opposite_directions_do_not_deadlock_and_keep_the_sum() {
    let directory = tempfile::tempdir().unwrap();
    let datastore = SqliteOptions::new(directory.path().join("bank.db")).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();
    credit(&recorder, A, 100).await;
    credit(&recorder, B, 100).await;
    let accounts = accounts(recorder);
    let transfers: Vec<_> = (0..60)
        .map(|number| {
            let accounts = accounts.clone();
            let pair = if number % 2 == 0 { [A, B] } else { [B, A] };
            tokio::spawn(async move { transfer(&accounts, pair, 1 + number % 3).await })
        })
        .collect();
    for transfer in transfers {
        transfer.await.unwrap().unwrap();
    }
    let balance = async |id| accounts.load(id).await.unwrap().state.balance;
    assert_eq!(balance(A).await + balance(B).await, 200);
    assert_eq!(accounts.repository::<Ledger>().load(LEDGER).await.unwrap().state.total, 120);
}
