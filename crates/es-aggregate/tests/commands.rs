//! Commands: decisions, conflicts, retries and unknown outcomes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod support;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use es_aggregate::{CommandError, Loaded};
use es_core::{DomainEvent, DynAggregateRecorder, ErrorKind, EventRange, Metadata};
use es_popo::PopoApplicationRecorder;
use es_sqlite::SqliteOptions;
use futures_util::FutureExt;
use support::{
    A, Account, AccountEvent, B, Credited, Debited, Overdrawn, TestRecorder, accounts, contend, credit,
};

#[tokio::test]
async fn an_aggregate_without_events_has_version_0_and_the_default_state() {
    let loaded = accounts(PopoApplicationRecorder::new()).load(A).await.unwrap();
    assert_eq!(loaded, Loaded { id: A, version: 0, state: Account::default() });
    assert!(!loaded.exists());
}

#[tokio::test]
async fn events_of_a_decision_are_appended_with_versions_and_metadata() {
    let accounts = accounts(PopoApplicationRecorder::new());
    let metadata = Metadata::new().with_actor("alice");
    let ids = accounts.execute(A, metadata.clone(), |account| account.credit(500)).await.unwrap();
    assert_eq!(ids, [1]);
    let decide = |account: &Account| {
        Ok::<_, Infallible>(vec![Debited { cents: account.balance }, Credited { cents: 3 }])
    };
    assert_eq!(accounts.execute(A, Metadata::new(), decide).await.unwrap(), [2, 3]);

    let events = accounts.store().get::<AccountEvent>(A, EventRange::all()).await.unwrap();
    assert_eq!(events.iter().map(|event| event.originator_version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        events.iter().map(|event| &event.metadata).collect::<Vec<_>>(),
        [&metadata, &Metadata::new(), &Metadata::new()]
    );
    let loaded = accounts.load(A).await.unwrap();
    assert_eq!(loaded, Loaded { id: A, version: 3, state: Account { balance: 3, events: 3 } });
    assert!(loaded.exists() && !accounts.load(B).await.unwrap().exists());
}

#[tokio::test]
async fn the_error_of_a_decision_is_returned_and_nothing_is_recorded() {
    let recorder = TestRecorder::new();
    let accounts = accounts(recorder.clone());
    let error = accounts.execute(A, Metadata::new(), |account| account.debit(1)).await.unwrap_err();
    assert_eq!(error.rejection(), Some(&Overdrawn));
    assert_eq!(recorder.attempts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_decision_without_events_records_nothing() {
    let accounts = accounts(PopoApplicationRecorder::new());
    let ids = accounts.execute(A, Metadata::new(), |_| Ok::<_, Infallible>(None)).await.unwrap();
    assert!(ids.is_empty());
    assert!(!accounts.load(A).await.unwrap().exists());
}

#[tokio::test]
async fn after_a_conflict_the_decision_is_made_again_with_the_events_since() {
    let recorder = TestRecorder::new();
    credit(&recorder.inner, A, 3).await;
    let accounts = accounts(recorder.clone());
    let mut decided_on = Vec::new();
    let decide = |account: &Account| {
        // A rival process is faster, twice.
        if decided_on.len() < 2 {
            credit(&recorder.inner, A, 2).now_or_never().unwrap();
        }
        decided_on.push(account.clone());
        account.debit(account.balance)
    };
    let ids = accounts.execute(A, Metadata::new(), decide).await.unwrap();
    assert_eq!(ids, [8]);
    assert_eq!(decided_on, [3, 5, 7].map(|events| Account { balance: events, events }));
    assert_eq!(accounts.load(A).await.unwrap().state, Account { balance: 0, events: 8 });
    let starts: Vec<_> = recorder.reads.lock().unwrap().iter().map(|range| range.gt).collect();
    assert_eq!(starts[..3], [Some(0), Some(3), Some(5)], "only the events since are read");
}

#[tokio::test]
async fn the_last_conflict_is_returned_after_the_time_limit() {
    let recorder = PopoApplicationRecorder::new();
    let accounts = accounts(recorder.clone()).retry_for(Duration::ZERO);
    let mut decisions = 0;
    let decide = |account: &Account| {
        decisions += 1;
        credit(&recorder, A, 1).now_or_never().unwrap();
        account.credit(100)
    };
    let error = accounts.execute(A, Metadata::new(), decide).await.unwrap_err();
    assert!(matches!(&error, CommandError::Persistence(error) if error.is_conflict()), "{error:?}");
    assert_eq!(decisions, 1);
    assert_eq!(accounts.load(A).await.unwrap().state.balance, 1);
}

/// A repeated command could be executed twice.
#[tokio::test]
async fn a_command_whose_outcome_is_unknown_is_not_repeated() {
    let recorder = TestRecorder { loses_outcomes: true, ..TestRecorder::new() };
    let accounts = accounts(recorder.clone());
    let error = accounts.execute(A, Metadata::new(), |account| account.credit(1)).await.unwrap_err();
    assert!(matches!(&error, CommandError::Persistence(error) if error.is_outcome_unknown()), "{error:?}");
    assert_eq!(recorder.attempts.load(Ordering::SeqCst), 1);
    assert_eq!(accounts.load(A).await.unwrap().state.balance, 1);
}

#[tokio::test]
async fn an_aggregate_that_lacks_a_version_is_not_loaded() {
    let accounts = accounts(PopoApplicationRecorder::new());
    let at = |id, version| [DomainEvent::new(id, version, Credited { cents: 1 })];
    for (id, versions, lacks) in
        [(A, [1, 3], "version 3 after version 1"), (B, [2, 3], "version 2 after version 0")]
    {
        for version in versions {
            accounts.store().put(&at(id, version)).await.unwrap();
        }
        let error = accounts.load(id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains(lacks), "{error}");
        assert!(accounts.execute(id, Metadata::new(), |account| account.credit(1)).await.is_err());
    }
}

#[tokio::test]
async fn a_dropped_command_does_not_block_the_next() {
    let recorder = TestRecorder::blocked();
    let accounts = accounts(recorder.clone());
    let command = || accounts.execute(A, Metadata::new(), |account| account.credit(1));
    {
        let mut first = Box::pin(command());
        assert!(first.as_mut().now_or_never().is_none(), "it waits for its write");
        assert!(command().now_or_never().is_none(), "a second one waits for the first, and is dropped");
        assert_eq!(recorder.attempts.load(Ordering::SeqCst), 1);
    }
    recorder.writes.add_permits(1);
    command().await.unwrap();
    assert_eq!(accounts.load(A).await.unwrap().version, 1);
}

/// A naive loop of ten attempts failed for a third of these commands: `benches/contention.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_contending_commands_all_succeed_without_a_conflict() {
    let recorder = TestRecorder::new();
    contend(&[accounts(recorder.clone())]).await;
    assert_eq!(recorder.attempts.load(Ordering::SeqCst), 60, "commands of one process take turns");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_contending_commands_all_succeed_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let datastore = SqliteOptions::new(directory.path().join("bank.db")).open().await.unwrap();
    contend(&[accounts(datastore.application_recorder().await.unwrap())]).await;
}

/// Repositories that do not share their locks are to each other as processes are.
#[tokio::test(flavor = "multi_thread")]
async fn contending_commands_of_several_processes_all_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let mut repositories = Vec::new();
    for _ in 0..4 {
        let datastore = SqliteOptions::new(&path).open().await.unwrap();
        let recorder = datastore.application_recorder().await.unwrap();
        repositories.push(accounts(recorder).retry_for(Duration::from_secs(600)));
    }
    contend(&repositories).await;
}

#[test]
fn commands_need_no_runtime() {
    let accounts = accounts(PopoApplicationRecorder::new());
    let ids = accounts.execute(A, Metadata::new(), |account| account.credit(1)).now_or_never().unwrap();
    assert_eq!(ids.unwrap(), [1]);
}

#[tokio::test]
async fn errors_display_as_their_content() {
    let error = CommandError::Rejected(std::io::Error::other("the shop is closed"));
    assert_eq!(error.to_string(), "the shop is closed");
    let accounts = accounts(PopoApplicationRecorder::new());
    accounts.store().put(&[DomainEvent::new(A, 1, Credited { cents: 1 })]).await.unwrap();
    let conflict = accounts.store().put(&[DomainEvent::new(A, 1, Credited { cents: 1 })]).await.unwrap_err();
    let text = conflict.to_string();
    let error: CommandError<std::io::Error> = conflict.into();
    assert_eq!(error.to_string(), text);
    assert!(error.rejection().is_none());
}

#[tokio::test]
async fn the_recorder_may_be_a_trait_object() {
    let recorder: Arc<dyn DynAggregateRecorder> = Arc::new(PopoApplicationRecorder::new());
    let accounts = accounts(recorder);
    accounts.execute(A, Metadata::new(), |account| account.credit(1)).await.unwrap();
    assert_eq!(accounts.load(A).await.unwrap().version, 1);
}
