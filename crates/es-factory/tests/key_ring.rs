//! Tests of key rings that are built from an environment.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unused_imports,
    reason = "a test says what it expects by unwrapping it"
)]

mod support;

use std::fs;

use es_core::{AggregateRecorder, ErrorKind, PersistenceError, StoredEvent};
use es_crypto::{KeyRing, KeyUsage, Reencryption};
use es_factory::InfrastructureFactory;
use support::event;

fn build(variables: &[(&str, &str)]) -> Result<InfrastructureFactory, PersistenceError> {
    InfrastructureFactory::builder("Bank").environment(variables.iter().copied()).build()
}

/// Two keys of 256 bits, which occur in no other text.
const RING_KEYS: [&str; 2] =
    ["5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=", "9gdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU="];

fn encrypt(variables: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let cipher = build(variables).unwrap().cipher().unwrap().unwrap();
    cipher.encrypt(&event(1).context(), b"state", &mut out).unwrap();
    out
}

fn decrypt(variables: &[(&str, &str)], state: &[u8]) -> Result<Vec<u8>, PersistenceError> {
    let mut out = Vec::new();
    let cipher = build(variables)?.cipher()?.unwrap();
    cipher.decrypt(&event(1).context(), state, &mut out).map(|()| out)
}

#[test]
fn keys_are_rotated_by_the_environment() {
    let [one, two] = RING_KEYS;
    let (old, both) = (format!("1:{one}"), format!("1:{one},2:{two}"));
    let file = tempfile::NamedTempFile::new().unwrap();
    // As an editor on Windows writes it.
    fs::write(file.path(), format!("2:{two}\r\n1:{one}\r\n")).unwrap();
    let single = ("CIPHER_KEY", "SuvoWcmz3Tg+KemGGGirdQ==");
    let states = [
        (encrypt(&[single]), None),
        (encrypt(&[("CIPHER_KEYS", &old)]), Some(1)),
        // Distributed, then primary.
        (encrypt(&[("CIPHER_KEYS", &both)]), Some(1)),
        (encrypt(&[("BANK_CIPHER_KEYS", &both), ("CIPHER_PRIMARY_KEY_ID", "2")]), Some(2)),
        (encrypt(&[("CIPHER_KEYS_FILE", file.path().to_str().unwrap())]), Some(2)),
        (encrypt(&[("CIPHER_KEYS", &both), ("CIPHER_ALGORITHM", "xaes-256-gcm")]), Some(1)),
    ];
    for (state, key_id) in &states {
        assert_eq!(KeyRing::key_id(state), *key_id);
        assert_eq!(decrypt(&[("CIPHER_KEYS", &both), single], state).unwrap(), b"state");
    }
    assert_eq!(decrypt(&[("CIPHER_KEYS", &old)], &states[3].0).unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn settings_of_a_key_ring_that_cannot_be_used_are_named_and_not_shown() {
    let [one, _] = RING_KEYS;
    let keys = format!("1:{one}");
    for (variables, named) in [
        (&[("CIPHER_KEYS", one)][..], "CIPHER_KEYS: entry 1"),
        (
            &[("BANK_CIPHER_KEYS", &keys), ("CIPHER_PRIMARY_KEY_ID", "2")],
            "BANK_CIPHER_KEYS: the primary key 2",
        ),
        (&[("CIPHER_KEYS", &keys), ("CIPHER_PRIMARY_KEY_ID", "one")], "CIPHER_PRIMARY_KEY_ID"),
        (&[("CIPHER_KEYS", &keys), ("CIPHER_ALGORITHM", "rot13")], "CIPHER_ALGORITHM"),
        (&[("CIPHER_KEYS_FILE", "/missing/keys")], "CIPHER_KEYS_FILE: reading the cipher keys"),
        (&[("CIPHER_KEYS", &keys), ("CIPHER_KEY", one.trim_end_matches('='))], "CIPHER_KEY:"),
        (&[("CIPHER_TOPIC", "key-ring")], "needs a key"),
    ] {
        let refused = build(variables).and_then(|factory| factory.cipher().map(|_| ())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Programming, "{refused}");
        assert!(refused.to_string().contains(named), "{refused}");
        assert!(!format!("{refused} {refused:?}").contains(&one[..20]), "{refused}");
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_table_of_an_environment_is_encrypted_again() {
    let [one, two] = RING_KEYS;
    let keys = format!("2:{two},1:{one}");
    let memory = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:"), ("CIPHER_KEYS", &keys)];
    let factory = build(&memory).unwrap();
    let ring = factory.key_ring().unwrap().unwrap();
    let old = encrypt(&[("CIPHER_KEYS", &keys), ("CIPHER_PRIMARY_KEY_ID", "1")]);
    for purpose in [None, Some("snapshots")] {
        let recorder = factory.state_maintenance(purpose).await.unwrap();
        recorder.insert_events(vec![StoredEvent { state: old.clone().into(), ..event(1) }]).await.unwrap();
        let mut reencryption = Reencryption::new(&recorder, &ring);
        assert_eq!(reencryption.next_page().await.unwrap().unwrap().replaced, 1);
        assert_eq!(KeyUsage::of(&recorder).await.unwrap().states(Some(2)), 1);
    }
    assert!(build(&[("CIPHER_KEY", "SuvoWcmz3Tg+KemGGGirdQ==")]).unwrap().key_ring().unwrap().is_none());
}

#[cfg(feature = "popo")]
#[tokio::test]
async fn states_in_memory_are_not_replaced() {
    let refused = build(&[]).unwrap().state_maintenance(None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotSupported);
}
