//! Key rings: rotation, the binding to the event, states without an envelope, and vectors from Python.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use es_core::{Cipher, ErrorKind, EventContext, PersistenceError, Topic, uuid::Uuid};
use es_crypto::{AesCipher, AesKey, EnvelopeAlgorithm, KeyProvider, KeyRing, KeyRingBuilder};
use proptest::prelude::*;
use serde::Deserialize;

const ALGORITHMS: [EnvelopeAlgorithm; 2] = [EnvelopeAlgorithm::Aes256Gcm, EnvelopeAlgorithm::Xaes256Gcm];

fn topic() -> Topic {
    Topic::from_static("bank:Account.Opened")
}

fn context(topic: &Topic) -> EventContext<'_> {
    EventContext { originator_id: Uuid::from_u128(7), originator_version: 1, topic }
}

fn key(byte: u8) -> AesKey {
    AesKey::from_bytes(&[byte; 32]).unwrap()
}

fn ring(algorithm: EnvelopeAlgorithm) -> KeyRing {
    KeyRing::builder().key(1, key(1)).algorithm(algorithm).build().unwrap()
}

fn encrypt(cipher: &impl Cipher, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cipher.encrypt(&context(&topic()), plaintext, &mut out).unwrap();
    out
}

fn decrypt(cipher: &impl Cipher, state: &[u8]) -> Result<Vec<u8>, PersistenceError> {
    decrypt_in(cipher, &context(&topic()), state)
}

fn decrypt_in(
    cipher: &impl Cipher,
    context: &EventContext<'_>,
    state: &[u8],
) -> Result<Vec<u8>, PersistenceError> {
    let mut out = b"before".to_vec();
    let result = cipher.decrypt(context, state, &mut out);
    if result.is_err() {
        assert_eq!(out, b"before", "nothing is added that was not authenticated");
    }
    result.map(|()| out.split_off(6))
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[derive(Deserialize)]
struct Vector {
    algorithm: u8,
    key_id: u32,
    key: String,
    originator_id: String,
    originator_version: i64,
    topic: String,
    plaintext: String,
    envelope: String,
}

#[test]
fn envelopes_that_python_made_are_decrypted() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/key-ring/vectors.json");
    let vectors: Vec<Vector> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(vectors.iter().filter(|vector| vector.algorithm == 2).count(), 5);
    for vector in vectors {
        let key = AesKey::from_bytes(&bytes(&vector.key)).unwrap();
        let ring = KeyRing::builder().key(vector.key_id, key).build().unwrap();
        let topic = Topic::from_stored(vector.topic.as_str());
        let context = EventContext {
            originator_id: vector.originator_id.parse().unwrap(),
            originator_version: vector.originator_version,
            topic: &topic,
        };
        let envelope = bytes(&vector.envelope);
        assert_eq!(KeyRing::key_id(&envelope), Some(vector.key_id));
        assert_eq!(decrypt_in(&ring, &context, &envelope).unwrap(), bytes(&vector.plaintext));
    }
}

proptest! {
    #[test]
    fn every_plaintext_comes_back_and_every_changed_bit_is_refused(
        plaintext in prop::collection::vec(any::<u8>(), 0..300),
        algorithm in prop::sample::select(&ALGORITHMS[..]),
        position in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let ring = ring(algorithm);
        let mut state = encrypt(&ring, &plaintext);
        prop_assert_eq!(decrypt(&ring, &state).unwrap(), plaintext);
        let at = position.index(state.len());
        state[at] ^= 1_u8 << bit;
        prop_assert_eq!(decrypt(&ring, &state).unwrap_err().kind(), ErrorKind::Data);
        state.truncate(at);
        prop_assert_eq!(decrypt(&ring, &state).unwrap_err().kind(), ErrorKind::Data);
    }

    #[test]
    fn random_bytes_after_the_mark_are_refused(rest in prop::collection::vec(any::<u8>(), 0..80)) {
        let state = [b"\x89ES\x01", &rest[..]].concat();
        let ring = ring(EnvelopeAlgorithm::Aes256Gcm);
        prop_assert_eq!(decrypt(&ring, &state).unwrap_err().kind(), ErrorKind::Data);
    }
}

#[test]
fn a_state_that_is_moved_to_another_event_is_refused() {
    for algorithm in ALGORITHMS {
        let ring = ring(algorithm);
        let state = encrypt(&ring, b"state");
        let (topic, other_topic) = (topic(), Topic::from_static("bank:Account.Opene"));
        let place = context(&topic);
        assert_eq!(decrypt_in(&ring, &place, &state).unwrap(), b"state");
        for moved in [
            EventContext { originator_id: Uuid::from_u128(8), ..place },
            EventContext { originator_version: 2, ..place },
            EventContext { topic: &other_topic, ..place },
        ] {
            let refused = decrypt_in(&ring, &moved, &state).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Data);
            assert!(refused.to_string().contains("written for another event"), "{refused}");
        }
    }
}

#[test]
fn a_key_is_distributed_and_then_made_the_primary_key() {
    let old = KeyRing::builder().key(1, key(1)).build().unwrap();
    let both = KeyRing::builder().key(1, key(1)).key(2, key(2)).build().unwrap();
    let before = encrypt(&both, b"before");
    assert_eq!(KeyRing::key_id(&before), Some(1));
    assert_eq!(decrypt(&old, &before).unwrap(), b"before");

    let clone = both.clone();
    both.set_primary_key_id(2).unwrap();
    assert_eq!(clone.primary_key_id(), 2);
    let after = encrypt(&clone, b"after");
    assert_eq!(KeyRing::key_id(&after), Some(2));
    assert_eq!(decrypt(&both, &before).unwrap(), b"before");
    assert_eq!(decrypt(&both, &after).unwrap(), b"after");
    assert_eq!((both.encrypted(1), both.encrypted(2), both.encrypted(3)), (1, 1, 0));

    let refused = decrypt(&old, &after).unwrap_err();
    assert!(refused.to_string().contains("key 2, which is not in the key ring"), "{refused}");
    assert_eq!(both.set_primary_key_id(3).unwrap_err().kind(), ErrorKind::Programming);
    assert_eq!(both.primary_key_id(), 2);
}

#[test]
fn a_state_without_an_envelope_is_decrypted_with_the_legacy_key() {
    let legacy = AesKey::from_bytes(&[9; 16]).unwrap();
    let state = encrypt(&AesCipher::new(&legacy), b"of former times");
    let ring = KeyRing::builder().key(1, key(1)).legacy_key(legacy).build().unwrap();
    assert_eq!(KeyRing::key_id(&state), None);
    assert_eq!(decrypt(&ring, &state).unwrap(), b"of former times");
    let without = KeyRing::builder().key(1, key(1)).build().unwrap();
    assert!(decrypt(&without, &state).unwrap_err().to_string().contains("legacy key"));
    assert_eq!(decrypt(&ring, b"{\"plain\":1}").unwrap_err().kind(), ErrorKind::Data);
    // Envelopes are not weakened by the legacy key.
    let mut envelope = encrypt(&ring, b"state");
    *envelope.last_mut().unwrap() ^= 1;
    assert!(decrypt(&ring, &envelope).unwrap_err().to_string().contains("key 1 of this ring"));
}

/// One in 2³² random nonces begins like an envelope.
#[test]
fn a_legacy_state_that_begins_like_an_envelope_is_decrypted() {
    let legacy = [9; 32];
    let nonce = *b"\x89ES\x01\x01\x00\x00\x00\x00\x01no";
    let mut text = b"of former times, with a nonce that looks like a header".to_vec();
    let sealing = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &legacy).unwrap();
    let tag = ring::aead::LessSafeKey::new(sealing)
        .seal_in_place_separate_tag(
            ring::aead::Nonce::assume_unique_for_key(nonce),
            ring::aead::Aad::empty(),
            &mut text,
        )
        .unwrap();
    let state = [&nonce[..], tag.as_ref(), &text].concat();
    let legacy = AesKey::from_bytes(&legacy).unwrap();
    let ring = KeyRing::builder().key(1, key(1)).legacy_key(legacy).build().unwrap();
    assert_eq!(decrypt(&ring, &state).unwrap(), b"of former times, with a nonce that looks like a header");
}

#[derive(Debug)]
struct Provider(Arc<AtomicUsize>);

impl KeyProvider for Provider {
    fn key(&self, id: u32) -> Result<Option<AesKey>, PersistenceError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        match id {
            1 | 2 => Ok(Some(key(u8::try_from(id).unwrap()))),
            3 => Err(PersistenceError::operational("the key service does not answer").transient()),
            _ => Ok(None),
        }
    }
}

#[test]
fn a_provider_is_called_once_for_each_key() {
    let calls = Arc::new(AtomicUsize::new(0));
    let builder = || KeyRing::builder().provider(Provider(Arc::clone(&calls)));
    let ring = builder().primary(2).build().unwrap();
    let state = encrypt(&ring, b"state");
    assert_eq!(decrypt(&ring, &state).unwrap(), b"state");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(ring.encrypted(2), 1);
    let other = KeyRing::builder().key(1, key(1)).build().unwrap();
    assert_eq!(decrypt(&ring, &encrypt(&other, b"other")).unwrap(), b"other");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    // A failure of the provider is no data error, also if there is a legacy key that could be tried.
    let third = KeyRing::builder().key(3, key(3)).build().unwrap();
    let legacy = builder().primary(2).legacy_key(key(9)).build().unwrap();
    for ring in [&ring, &legacy] {
        assert!(decrypt(ring, &encrypt(&third, b"third")).unwrap_err().is_transient());
    }
    assert!(builder().primary(3).build().unwrap_err().is_transient());
    assert_eq!(builder().primary(4).build().unwrap_err().kind(), ErrorKind::Programming);
}

/// A provider whose keys change while a ring uses it.
#[derive(Clone, Debug, Default)]
struct Service {
    keys: Arc<Mutex<BTreeMap<u32, AesKey>>>,
    is_down: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl KeyProvider for Service {
    fn key(&self, id: u32) -> Result<Option<AesKey>, PersistenceError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::Relaxed) {
            return Err(PersistenceError::operational("the key service does not answer").transient());
        }
        Ok(self.keys.lock().unwrap().get(&id).cloned())
    }
}

/// A running process gets a new key, decrypts with it, and makes it the primary key.
#[test]
fn a_key_is_distributed_by_a_provider_at_run_time() {
    let service = Service::default();
    service.keys.lock().unwrap().insert(1, key(1));
    let ring = KeyRing::builder().provider(service.clone()).primary(1).build().unwrap();
    let new = KeyRing::builder().key(2, key(2)).build().unwrap();
    let state = encrypt(&new, b"state");
    // The ring asks again each time for a key that the provider lacks.
    for calls in [2, 3] {
        let refused = decrypt(&ring, &state).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Data);
        assert!(refused.to_string().contains("key 2, which is not in the key ring"), "{refused}");
        assert_eq!(service.calls.load(Ordering::Relaxed), calls);
    }
    assert_eq!(ring.set_primary_key_id(2).unwrap_err().kind(), ErrorKind::Programming);
    service.is_down.store(true, Ordering::Relaxed);
    assert!(ring.set_primary_key_id(2).unwrap_err().is_transient());
    assert_eq!(KeyRing::key_id(&encrypt(&ring, b"state")), Some(1));

    service.is_down.store(false, Ordering::Relaxed);
    service.keys.lock().unwrap().insert(2, key(2));
    assert_eq!(decrypt(&ring, &state).unwrap(), b"state");
    assert_eq!(ring.primary_key_id(), 1, "it does not encrypt yet");
    ring.set_primary_key_id(2).unwrap();
    // The ring keeps the keys that it has.
    service.is_down.store(true, Ordering::Relaxed);
    assert_eq!(decrypt(&new, &encrypt(&ring, b"state")).unwrap(), b"state");
}

#[test]
fn a_key_of_another_size_from_a_provider_is_refused() {
    let service = Service::default();
    service.keys.lock().unwrap().insert(1, AesKey::from_bytes(&[1; 16]).unwrap());
    let refused = KeyRing::builder().provider(service.clone()).primary(1).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Programming);
    let ring = KeyRing::builder().key(2, key(2)).legacy_key(key(9)).provider(service).build().unwrap();
    let state = encrypt(&KeyRing::builder().key(1, key(1)).build().unwrap(), b"state");
    let refused = decrypt(&ring, &state).unwrap_err();
    assert!(refused.to_string().contains("key 1 of a key ring is expected to have 256 bits"), "{refused}");
}

/// Answers several threads at the same time only.
#[derive(Debug)]
struct Simultaneous(Barrier);

impl KeyProvider for Simultaneous {
    fn key(&self, id: u32) -> Result<Option<AesKey>, PersistenceError> {
        if id == 2 {
            self.0.wait();
        }
        Ok(Some(key(u8::try_from(id).unwrap())))
    }
}

#[test]
fn threads_that_ask_a_provider_at_the_same_time_share_a_key_and_its_count() {
    const THREADS: usize = 4;
    let provider = Simultaneous(Barrier::new(THREADS));
    let ring = KeyRing::builder().provider(provider).primary(1).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            // A handle each: all of them have the key that the first one added.
            let ring = ring.clone();
            scope.spawn(move || {
                ring.set_primary_key_id(2).unwrap();
                assert_eq!(decrypt(&ring, &encrypt(&ring, b"state")).unwrap(), b"state");
            });
        }
    });
    assert_eq!((ring.encrypted(1), ring.encrypted(2)), (0, THREADS as u64));
}

/// The count is that of the process: it goes on over clones, threads and rotations.
#[test]
fn each_encrypted_state_is_counted_once() {
    const STATES: u64 = 500;
    for algorithm in ALGORITHMS {
        let ring = KeyRing::builder().key(1, key(1)).key(2, key(2)).algorithm(algorithm).build().unwrap();
        let encrypt_many = || {
            thread::scope(|scope| {
                for ring in [ring.clone(), ring.clone(), ring.clone()] {
                    scope.spawn(move || (0..STATES).for_each(|_| drop(encrypt(&ring, b"state"))));
                }
            });
        };
        encrypt_many();
        ring.set_primary_key_id(2).unwrap();
        let state = encrypt(&ring, b"state");
        ring.set_primary_key_id(1).unwrap();
        encrypt_many();
        // Neither a decryption nor a state that is refused.
        decrypt(&ring, &state).unwrap();
        let long = Topic::new("t".repeat(65_536)).unwrap();
        ring.encrypt(&context(&long), b"state", &mut Vec::new()).unwrap_err();
        assert_eq!((ring.encrypted(1), ring.encrypted(2)), (6 * STATES, 1));
    }
}

/// No change of a single bit makes one algorithm of the other.
#[test]
fn an_envelope_is_bound_to_its_header_and_its_length() {
    // Two ids of one key, so that the associated data alone makes the difference.
    let ring =
        |algorithm| KeyRing::builder().key(1, key(1)).key(2, key(1)).algorithm(algorithm).build().unwrap();
    for algorithm in ALGORITHMS {
        let ring = ring(algorithm);
        let state = encrypt(&ring, b"a state that is longer than a nonce");
        let changed = |at: usize, byte: u8| {
            let mut changed = state.clone();
            changed[at] = byte;
            changed
        };
        let (other_algorithm, other_key) = (changed(4, 3 - state[4]), changed(9, 2));
        assert_eq!(KeyRing::key_id(&other_algorithm), Some(1));
        assert_eq!(KeyRing::key_id(&other_key), Some(2));
        let longer = [&state[..], b"x"].concat();
        for changed in [other_algorithm, other_key, longer, Vec::new()] {
            assert_eq!(decrypt(&ring, &changed).unwrap_err().kind(), ErrorKind::Data);
        }
    }
}

#[test]
fn rings_that_cannot_work_are_refused() {
    let short = AesKey::from_bytes(&[1; 16]).unwrap();
    for (builder, reason) in [
        (KeyRing::builder(), "needs a key"),
        (KeyRing::builder().key(1, key(1)).key(1, key(2)), "key 1 is twice"),
        (KeyRing::builder().key(1, key(1)).primary(2), "primary key 2 is not in the key ring"),
        (KeyRing::builder().key(5, short), "key 5 of a key ring is expected to have 256 bits; it has 128"),
    ] {
        let refused = builder.build().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Programming);
        assert!(refused.to_string().contains(reason), "{refused}");
    }
}

#[test]
fn keys_are_read_from_text_and_never_shown() {
    let secret = AesCipher::create_key(32).unwrap();
    let ring = |text: &str| KeyRing::builder().keys(text).and_then(KeyRingBuilder::build);
    for text in [
        format!("2:{secret},1:{secret}"),
        format!("2:{secret}\n1:{secret}\n"),
        format!(" 2:{secret} , 1:{secret},"),
    ] {
        let ring = ring(&text).unwrap();
        assert_eq!(ring.primary_key_id(), 2);
        assert!(!format!("{ring:?}").contains(&secret));
        assert!(!format!("{:?}", KeyRing::builder().keys(&text)).contains(&secret));
    }
    for text in [&secret, &format!("x:{secret}"), &format!("-1:{secret}"), &format!("4294967296:{secret}")] {
        let refused = ring(text).unwrap_err();
        assert!(refused.to_string().contains("entry 1 of the cipher keys"), "{refused}");
        assert!(!format!("{refused} {refused:?}").contains(&secret));
    }
    let refused = ring("7:not base64").unwrap_err();
    assert!(refused.to_string().starts_with("key 7 of the cipher keys:"), "{refused}");
    assert_eq!(ring("").unwrap_err().kind(), ErrorKind::Programming);
}

#[test]
fn a_topic_that_is_too_long_to_be_bound_is_refused() {
    let long = Topic::new("t".repeat(65_536)).unwrap();
    let mut out = Vec::new();
    let ring = ring(EnvelopeAlgorithm::Aes256Gcm);
    let refused = ring.encrypt(&context(&long), b"state", &mut out).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert!(out.is_empty());
}
