//! Bytes that claim to be a personal value, or a wrapped key.

use std::sync::LazyLock;

use es_persistence::{
    Bytes, DomainEvent, Event, Mapper, PersistenceError, StoredEvent, Topic,
    crypto::{AesKey, KeyRing},
    personal::{KeyStore, KeyWrapper, MemoryKeyStore, Personal, Subject, SubjectKeys, WrappedKey},
    transcode::JsonTranscoder,
};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// The ring key, a subject, its wrapped key and a sealed value, of `testdata/personal/vectors.json`.
const RING_KEY: &str = "0vFPxwK5zy5GYMmSDyoNOFixtf44ZjrhrYXpYVhyx9w=";
const SUBJECT: &str = "customer-7";
const WRAPPED: [u8; 70] = *b"\
    \x89\x45\x53\x01\x01\x00\x00\x00\x00\x03\x3b\x35\x63\xaa\xb3\xf0\x85\x5d\x93\xc9\xc9\xa1\
    \x74\x45\xf7\xa8\x69\x0b\xca\xc9\x39\x9d\xea\x78\xa6\x30\xa6\x09\x2f\x33\xde\xf5\x7e\x23\
    \xae\x8d\x00\xef\x96\x91\x2d\x6d\x58\x06\xa5\x9a\xee\x77\x67\xfa\x65\x31\x80\xde\x76\xb7\
    \xd9\xa0\xe1\x35";
const ERASED: &str = "customer-8";

/// The texts of a stored event that are as long as a value and in plain text.
const NAMES: [&str; 4] = ["timestamp", "datetime_iso", "personal", SUBJECT];

#[derive(Debug, PartialEq, Event)]
#[event(topic = "shop:Order.Placed")]
struct Placed {
    buyer: Personal<String>,
    friends: Vec<Personal<String>>,
}

struct Shop {
    runtime: Runtime,
    ring: KeyRing,
    mapper: Mapper<JsonTranscoder>,
}

#[expect(clippy::expect_used, reason = "nothing of it depends on the input")]
static SHOP: LazyLock<Shop> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let key = AesKey::from_base64(RING_KEY).expect("a key");
    let ring = KeyRing::builder().key(3, key).build().expect("a ring");
    let (store, mut transcoder) = (MemoryKeyStore::new(), JsonTranscoder::new());
    runtime.block_on(store.insert(vec![wrapped(SUBJECT, &WRAPPED)])).expect("a stored key");
    let keys = SubjectKeys::new(store, ring.clone());
    runtime.block_on(keys.erase(subject(ERASED), "test")).expect("an erasure");
    keys.register::<String>(&mut transcoder);
    Shop { runtime, ring, mapper: Mapper::new(transcoder) }
});

/// The first byte selects a subject; the others are a personal value, a sealed value, a value, and a wrapped
/// key.
pub fn personal(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let shop = &*SHOP;
    let subject = [SUBJECT, ERASED, "customer-9"][usize::from(choice % 3)];
    let text = String::from_utf8_lossy(data);
    let value = |data: &str| format!(r#"{{"_type_":"personal","_data_":{data}}}"#);
    let sealed = |sealed: &str| value(&format!(r#"{{"subject":"{subject}","sealed":"{sealed}"}}"#));
    for buyer in [text.to_string(), value(&text), sealed(&text)] {
        let Ok(event) = shop.read(&buyer) else { continue };
        // What was read is written, and is then the same.
        assert!(shop.round_trip(&event).is_ok_and(|(_, again)| again == event), "{event:?}");
    }
    shop.seals(&text, *choice);
    shop.unwraps(data, subject);
}

impl Shop {
    fn read(&self, buyer: &str) -> Result<Placed, PersistenceError> {
        let timestamp = r#"{"_type_":"datetime_iso","_data_":"2024-02-29T12:34:56+00:00"}"#;
        let state = format!(r#"{{"timestamp":{timestamp},"buyer":{buyer},"friends":[]}}"#);
        let stored = StoredEvent { state: Bytes::from(state), ..empty() };
        let read = self.runtime.block_on(self.mapper.read_event(&stored));
        read.map(|event: DomainEvent<Placed>| event.payload)
    }

    /// Returns the stored event, and the event that is read again.
    fn round_trip(&self, event: &Placed) -> Result<(StoredEvent, Placed), PersistenceError> {
        self.runtime.block_on(async {
            let copy = |Placed { buyer, friends }: &Placed| Placed {
                buyer: buyer.clone(),
                friends: friends.clone(),
            };
            let event = DomainEvent::new(Uuid::nil(), 1, copy(event));
            let stored = self.mapper.write_events(&[event]).await?.remove(0);
            let again = self.mapper.read_event(&stored).await?.payload;
            Ok((stored, again))
        })
    }

    /// A value comes back, is not stored in plain text, and a changed one is refused.
    fn seals(&self, text: &str, choice: u8) {
        let buyer = Personal::new(subject(SUBJECT), text.to_owned());
        let event = Placed { friends: vec![buyer.clone()], buyer };
        #[expect(clippy::expect_used, reason = "a broken promise")]
        let (stored, again) = self.round_trip(&event).expect("a value is sealed");
        assert_eq!(again, event);
        let is_long = text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_name = NAMES.iter().any(|name| name.contains(text));
        let has_text = stored.state.windows(text.len().max(1)).any(|window| window == text.as_bytes());
        // Shorter ones may occur in base64 by chance.
        assert!(!is_long || is_name || !has_text, "a value is stored in plain text");

        let mut state = stored.state.to_vec();
        #[expect(clippy::expect_used, reason = "a broken promise")]
        let first = find(&state, br#""sealed":""#).expect("a sealed value");
        let length = state[first..].iter().take_while(|byte| **byte != b'"').count();
        let at = first + text.len().wrapping_mul(31) % length;
        state[at] ^= 1 << (choice % 8);
        let changed = StoredEvent { state: Bytes::from(state), ..stored };
        let read = self.runtime.block_on(self.mapper.read_event::<Placed>(&changed));
        assert!(read.is_err(), "a changed value is not noticed");
    }

    /// Only the wrapped key of the subject is unwrapped.
    fn unwraps(&self, data: &[u8], subject: &str) {
        let changed = |at: usize, bit: usize| {
            let mut key = WRAPPED;
            key[at % WRAPPED.len()] ^= 1 << (bit % 8);
            key.to_vec()
        };
        let (at, bit) = (usize::from(data.first().copied().unwrap_or(0)), data.len());
        let keys = [
            wrapped(subject, &WRAPPED),
            wrapped(subject, data),
            wrapped(subject, &[b"\x89ES\x01", data].concat()),
            wrapped(SUBJECT, &changed(at, bit)),
        ];
        let keys_of_subject =
            keys.iter().map(|key| key.subject.as_str() == SUBJECT && key.key[..] == WRAPPED);
        #[expect(clippy::expect_used, reason = "a ring answers for each key")]
        let unwrapped = self.runtime.block_on(self.ring.unwrap(&keys)).expect("the results");
        assert!(unwrapped.iter().map(Result::is_ok).eq(keys_of_subject), "{unwrapped:?}");
    }
}

fn find(state: &[u8], name: &[u8]) -> Option<usize> {
    Some(state.windows(name.len()).position(|window| window == name)? + name.len())
}

fn empty() -> StoredEvent {
    let topic = Topic::from_static("shop:Order.Placed");
    StoredEvent { originator_id: Uuid::nil(), originator_version: 1, topic, state: Bytes::new() }
}

#[expect(clippy::expect_used, reason = "the subjects are above")]
fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

fn wrapped(of: &str, key: &[u8]) -> WrappedKey {
    WrappedKey { subject: subject(of), key: Bytes::copy_from_slice(key) }
}
