//! The rotation of keys in a database that is in use, on SQLite and PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test unwraps what it expects")]

mod database;
mod killed;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use database::{Database, on_each_backend};
use es_persistence::{
    AggregateRecorder, ApplicationRecorder, Bytes, Cipher, DomainEvent, ErrorKind, Event, EventKey,
    EventRange, EventStore, Expected, Mapper, NotificationSelection, PersistenceError, Recorder,
    StateMaintenance, StateReplacement, StoredEvent, Topic,
    crypto::{AesCipher, AesKey, KeyProvider, KeyRing, KeyUsage, Reencryption},
    transcode::JsonTranscoder,
    uuid::Uuid,
};

on_each_backend!(
    events_are_selected_by_key_and_replaced_only_if_they_are_as_expected,
    a_table_is_encrypted_again_while_it_is_written_and_read,
    rotations_at_the_same_time_leave_every_state_readable,
    states_that_are_swapped_between_rows_and_tables_are_refused,
    snapshots_are_encrypted_again_in_their_own_table,
    a_state_that_no_key_decrypts_stops_a_rotation_and_is_named,
    a_provider_that_fails_within_a_page_leaves_the_page_to_the_next_call,
    a_closed_recorder_maintains_nothing,
);

pub(crate) fn key(byte: u8) -> AesKey {
    AesKey::from_bytes(&[byte; 32]).unwrap()
}

/// A ring with a legacy key and two keys, of which the second one is new.
pub(crate) fn ring(primary: u32) -> KeyRing {
    let ring = KeyRing::builder().key(1, key(1)).key(2, key(2)).legacy_key(key(9));
    ring.primary(primary).build().unwrap()
}

/// An event with an encrypted state, whose plaintext names it.
pub(crate) fn encrypted(cipher: &impl Cipher, originator: u128, version: i64) -> StoredEvent {
    let mut event = StoredEvent {
        originator_id: Uuid::from_u128(originator),
        originator_version: version,
        topic: Topic::from_static("bank:Account.Credited"),
        state: Default::default(),
    };
    let mut state = Vec::new();
    cipher.encrypt(&event.context(), plaintext(&event.key()).as_bytes(), &mut state).unwrap();
    event.state = state.into();
    event
}

fn plaintext(key: &EventKey) -> String {
    format!(r#"{{"id":"{}","version":{}}}"#, key.originator_id, key.originator_version)
}

/// Checks that a ring decrypts each event to its own plaintext.
pub(crate) fn check(ring: &KeyRing, event: &StoredEvent) {
    let mut state = Vec::new();
    ring.decrypt(&event.context(), &event.state, &mut state).unwrap();
    assert_eq!(state, plaintext(&event.key()).as_bytes());
}

async fn reencrypt(recorder: &impl StateMaintenance, ring: &KeyRing) -> (usize, usize) {
    let mut reencryption = Reencryption::new(recorder, ring);
    let (mut read, mut replaced) = (0, 0);
    while let Some(page) = reencryption.next_page().await.unwrap() {
        read += page.read;
        replaced += page.replaced;
    }
    (read, replaced)
}

async fn notifications(recorder: &impl ApplicationRecorder) -> Vec<(i64, EventKey)> {
    let all = recorder.select_notifications(NotificationSelection::new(10_000)).await.unwrap();
    all.iter().map(|notification| (notification.id, notification.event.key())).collect()
}

async fn events_are_selected_by_key_and_replaced_only_if_they_are_as_expected(database: impl Database) {
    let recorder = database.process_recorder().await;
    let cipher = ring(1);
    // Negative versions, and ids on both sides of the sign bit of their first byte.
    let keys = [(u128::MAX, 1), (1, -5), (1, 3), (2, i64::MIN), (u128::MAX / 2, 7), (1, i64::MAX)];
    let events: Vec<_> = keys.map(|(id, version)| encrypted(&cipher, id, version)).into();
    recorder.insert_events(events.clone()).await.unwrap();
    let mut sorted = events.clone();
    sorted.sort_by_key(StoredEvent::key);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = recorder.select_by_key(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key());
        paged.extend(page);
    }
    assert_eq!(paged, sorted);

    let before = notifications(&recorder).await;
    let replace = |event: &StoredEvent, current: &[u8], replacement: &'static [u8]| StateReplacement {
        key: event.key(),
        current: current.to_vec().into(),
        replacement: replacement.into(),
    };
    let missing = encrypted(&cipher, 3, 1);
    let replacements = vec![
        replace(&events[0], &events[0].state, b"new"),
        replace(&events[1], b"another", b"not written"),
        replace(&missing, &missing.state, b"not written"),
    ];
    assert_eq!(recorder.replace_states(replacements).await.unwrap(), 1);
    assert_eq!(recorder.replace_states(Vec::new()).await.unwrap(), 0);
    let all = recorder.select_notifications(NotificationSelection::new(10)).await.unwrap();
    assert_eq!(all[0].event, StoredEvent { state: "new".into(), ..events[0].clone() });
    assert!(all.iter().skip(1).zip(&events[1..]).all(|(found, event)| found.event == *event));
    assert_eq!(notifications(&recorder).await, before, "ids and order are unchanged");
    assert_eq!(recorder.insert_events(vec![missing]).await.unwrap(), [7]);
}

async fn a_table_is_encrypted_again_while_it_is_written_and_read(database: impl Database) {
    let recorder = database.process_recorder().await;
    let legacy = AesCipher::new(&key(9));
    let (old, new) = (ring(1), ring(2));
    let legacy_events = (1..=400).map(|version| encrypted(&legacy, 1, version)).collect();
    recorder.insert_events(legacy_events).await.unwrap();
    let old_events = (1..=800).map(|id| encrypted(&old, 100 + id, 1)).collect();
    recorder.insert_events(old_events).await.unwrap();
    assert_eq!(
        KeyUsage::of(&recorder).await.unwrap().iter().collect::<Vec<_>>(),
        [(None, 400), (Some(1), 800)]
    );

    let writing = async {
        for id in 1..=50 {
            recorder.insert_events(vec![encrypted(&new, 10_000 * id, 1)]).await.unwrap();
            let events = recorder.select_events(Uuid::from_u128(1), EventRange::all()).await.unwrap();
            events.iter().for_each(|event| check(&old, event));
        }
    };
    let (_, (_, replaced)) = tokio::join!(writing, reencrypt(&recorder, &new));
    assert_eq!(replaced, 1_200);
    let usage = KeyUsage::of(&recorder).await.unwrap();
    assert_eq!(usage.iter().collect::<Vec<_>>(), [(Some(2), 1_250)]);
    assert_eq!(reencrypt(&recorder, &new).await, (1_250, 0));
    // Ids are dense, and each event is there once.
    let all = notifications(&recorder).await;
    assert_eq!(all.iter().map(|(_, key)| key).collect::<HashSet<_>>().len(), 1_250);
    let only_new = KeyRing::builder().key(2, key(2)).build().unwrap();
    for notification in recorder.select_notifications(NotificationSelection::new(2_000)).await.unwrap() {
        check(&only_new, &notification.event);
    }
}

/// Three re-encryptions with different keys run at the same time. One of them changes its key between the
/// pages, and so does a writer between its events.
async fn rotations_at_the_same_time_leave_every_state_readable(database: impl Database) {
    let recorder = database.process_recorder().await;
    let legacy = AesCipher::new(&key(9));
    recorder.insert_events((1..=1_200).map(|id| encrypted(&legacy, id, 1)).collect()).await.unwrap();
    let writing = async {
        let writer = ring(1);
        for id in 1..=40 {
            writer.set_primary_key_id(1 + u32::from(id % 2 == 0)).unwrap();
            recorder.insert_events(vec![encrypted(&writer, 10_000 * id, 1)]).await.unwrap();
        }
    };
    let undecided = async {
        let ring = ring(1);
        let mut reencryption = Reencryption::new(&recorder, &ring);
        while reencryption.next_page().await.unwrap().is_some() {
            ring.set_primary_key_id(3 - ring.primary_key_id()).unwrap();
        }
    };
    let (one, two) = (ring(1), ring(2));
    tokio::join!(writing, undecided, reencrypt(&recorder, &one), reencrypt(&recorder, &two));
    let all = recorder.select_notifications(NotificationSelection::new(2_000)).await.unwrap();
    all.iter().for_each(|notification| check(&one, &notification.event));
    let usage = KeyUsage::of(&recorder).await.unwrap();
    assert_eq!((usage.states(None), usage.states(Some(1)) + usage.states(Some(2))), (0, 1_240));
    reencrypt(&recorder, &two).await;
    let usage = KeyUsage::of(&recorder).await.unwrap();
    assert_eq!(usage.iter().collect::<Vec<_>>(), [(Some(2), 1_240)]);
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account")]
enum AccountEvent {
    Credited { amount: u32 },
    Debited { amount: u32 },
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Statement")]
struct Statement {
    balance: u32,
}

/// Swaps the states of two rows, as someone can who writes to the database and has no key.
async fn swap(one: (&impl StateMaintenance, EventKey), other: (&impl StateMaintenance, EventKey)) {
    async fn state(recorder: &impl StateMaintenance, key: EventKey) -> Bytes {
        let events = recorder.select_by_key(None, 100).await.unwrap();
        events.into_iter().find(|event| event.key() == key).unwrap().state
    }
    let states = (state(one.0, one.1).await, state(other.0, other.1).await);
    let first = StateReplacement { key: one.1, current: states.0.clone(), replacement: states.1.clone() };
    let second = StateReplacement { key: other.1, current: states.1, replacement: states.0 };
    assert_eq!(one.0.replace_states(vec![first]).await.unwrap(), 1);
    assert_eq!(other.0.replace_states(vec![second]).await.unwrap(), 1);
}

async fn states_that_are_swapped_between_rows_and_tables_are_refused(database: impl Database) {
    let events = Arc::new(database.process_recorder().await);
    let snapshots = Arc::new(database.snapshot_recorder().await);
    let mapper = || Mapper::new(JsonTranscoder::new()).with_cipher(ring(1));
    let accounts = EventStore::new(Arc::clone(&events), mapper());
    let statements = EventStore::new(Arc::clone(&snapshots), mapper());
    let (id, other_id) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let credited = |amount| AccountEvent::Credited { amount };
    let recorded = [credited(1), credited(2), AccountEvent::Debited { amount: 1 }];
    accounts.append(id, Expected::New, recorded.clone()).await.unwrap();
    accounts.append(other_id, Expected::New, [credited(3)]).await.unwrap();
    statements.put(&[DomainEvent::new(id, 1, Statement { balance: 1 })]).await.unwrap();

    let key = |originator_id, originator_version| EventKey { originator_id, originator_version };
    let first = (&*events, key(id, 1));
    let refused = async |is_snapshot: bool| {
        let read = accounts.get::<AccountEvent>(id, EventRange::all()).await.map(drop);
        let read_snapshot = statements.get::<Statement>(id, EventRange::all()).await.map(drop);
        let reencrypted = Reencryption::new(&*events, &ring(2)).next_page().await.map(drop);
        let mut errors = vec![read.unwrap_err(), reencrypted.unwrap_err()];
        match is_snapshot {
            true => errors.push(read_snapshot.unwrap_err()),
            false => read_snapshot.unwrap(),
        }
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains("version 1 of originator"), "{error}");
        }
    };
    // Of another version, of another version and topic, and of another aggregate.
    for other in [key(id, 2), key(id, 3), key(other_id, 1)] {
        swap(first, (&*events, other)).await;
        refused(false).await;
        swap(first, (&*events, other)).await;
    }
    // Of the same aggregate and version, in the other table: only the topic differs.
    swap(first, (&*snapshots, key(id, 1))).await;
    refused(true).await;
    swap(first, (&*snapshots, key(id, 1))).await;
    let read = accounts.get::<AccountEvent>(id, EventRange::all()).await.unwrap();
    assert!(read.into_iter().map(|event| event.payload).eq(recorded));
    assert_eq!(KeyUsage::of(&*events).await.unwrap().states(Some(1)), 4, "nothing was encrypted again");
}

async fn snapshots_are_encrypted_again_in_their_own_table(database: impl Database) {
    let snapshots = database.snapshot_recorder().await;
    let (old, new) = (ring(1), ring(2));
    snapshots.insert_events((1..=3).map(|id| encrypted(&old, id, 9)).collect()).await.unwrap();
    assert_eq!(reencrypt(&snapshots, &new).await, (3, 3));
    assert_eq!(KeyUsage::of(&snapshots).await.unwrap().states(Some(2)), 3);
}

async fn a_state_that_no_key_decrypts_stops_a_rotation_and_is_named(database: impl Database) {
    let recorder = database.process_recorder().await;
    let damaged = StoredEvent { state: "no ciphertext".into(), ..encrypted(&ring(1), 5, 1) };
    recorder.insert_events(vec![damaged.clone()]).await.unwrap();
    let new = ring(2);
    let refused = Reencryption::new(&recorder, &new).next_page().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert!(refused.to_string().contains("version 1 of originator"), "{refused}");
    // It can be passed over by hand.
    let mut after = Reencryption::new(&recorder, &new).after(damaged.key());
    assert_eq!(after.next_page().await.unwrap(), None);
}

/// Has key 1, and no answer for a number of calls.
#[derive(Clone, Debug)]
struct Failing(Arc<AtomicUsize>);

impl KeyProvider for Failing {
    fn key(&self, id: u32) -> Result<Option<AesKey>, PersistenceError> {
        let failures = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match failures {
            Ok(_) => Err(PersistenceError::operational("the key service does not answer").transient()),
            Err(_) => Ok((id == 1).then(|| key(1))),
        }
    }
}

async fn a_provider_that_fails_within_a_page_leaves_the_page_to_the_next_call(database: impl Database) {
    let recorder = database.process_recorder().await;
    // The legacy state is before the others, and could be encrypted again.
    let mut events = vec![encrypted(&AesCipher::new(&key(9)), 1, 1)];
    events.extend((2..=5).map(|id| encrypted(&ring(1), id, 1)));
    recorder.insert_events(events.clone()).await.unwrap();
    let provider = Failing(Arc::new(AtomicUsize::new(2)));
    let ring = KeyRing::builder().key(2, key(2)).legacy_key(key(9)).provider(provider).build().unwrap();
    let mut reencryption = Reencryption::new(&recorder, &ring);
    for _ in 0..2 {
        let error = reencryption.next_page().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert_eq!(recorder.select_by_key(None, 10).await.unwrap(), events);
    }
    assert_eq!(reencryption.next_page().await.unwrap().unwrap().replaced, 5);
    let replaced = recorder.select_by_key(None, 10).await.unwrap();
    replaced.iter().for_each(|event| check(&ring, event));
}

async fn a_closed_recorder_maintains_nothing(database: impl Database) {
    let recorder = database.process_recorder().await;
    recorder.insert_events(vec![encrypted(&ring(1), 1, 1)]).await.unwrap();
    recorder.close().await.unwrap();
    let refused = recorder.select_by_key(None, 1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Interface);
    let event = encrypted(&ring(1), 1, 1);
    let replacement =
        StateReplacement { key: event.key(), current: event.state.clone(), replacement: event.state.clone() };
    let refused = recorder.replace_states(vec![replacement]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Interface);
}
