//! Tests of the stored bytes of events, and of the errors for unexpected bytes.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "these are tests")]

mod support;

use es_core::{
    Cipher, Compressor, DomainEvent, ErrorKind, Event, EventContext, Mapper, Metadata, PersistenceError,
    Snapshot, SnapshotState, StateReader, Topic, Transcoder,
    serde::{
        Deserialize, Serialize,
        ser::{Error, SerializeMap},
    },
};
use proptest::{collection::vec, prelude::*};
use support::{Closed, Credited, ID, Json, at, chain, credited, stored};

fn mapper() -> Mapper<Json> {
    Mapper::new(Json)
}

fn state_of<E: Event>(event: &DomainEvent<E>) -> String {
    let stored = mapper().to_stored_event(event).unwrap();
    String::from_utf8(stored.state.to_vec()).unwrap()
}

fn decode<E: Event>(state: &str, topic: Topic) -> Result<DomainEvent<E>, PersistenceError> {
    mapper().to_domain_event(&stored(topic, state.as_bytes()))
}

/// The error message of reading a state, causes included.
fn failure(state: &str) -> String {
    let error = decode::<Credited>(state, Credited::TOPIC).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    chain(&error)
}

#[test]
fn the_state_is_flat_timestamp_first_and_class_version_last() {
    let state = state_of(&at(3, credited(5)));
    assert_eq!(state, r#"{"timestamp":1700000000,"amount":5,"currency":"CHF","class_version":2}"#);
}

#[test]
fn class_version_1_is_not_written() {
    assert_eq!(Closed {}.class_version(), 1);
    assert_eq!(state_of(&at(3, Closed {})), r#"{"timestamp":1700000000}"#);
}

#[test]
fn metadata_is_the_last_attribute_and_absent_when_empty() {
    let metadata = Metadata::new().with("turn", "7").with_correlation_id("c").with_causation_id("b");
    let event = at(3, credited(5)).with_metadata(metadata.with_actor("a").with_traceparent("t"));
    assert_eq!(
        state_of(&event),
        r#"{"timestamp":1700000000,"amount":5,"currency":"CHF","class_version":2,"_metadata_":{"actor":"a","causation_id":"b","correlation_id":"c","traceparent":"t","turn":"7"}}"#
    );
    let read = mapper().to_domain_event::<Credited>(&mapper().to_stored_event(&event).unwrap()).unwrap();
    assert_eq!(read, event);
    let texts = ["c", "b", "a", "t", "7"].map(Some);
    let metadata = &read.metadata;
    let trace =
        [metadata.correlation_id(), metadata.causation_id(), metadata.actor(), metadata.traceparent()];
    assert_eq!((trace.as_slice(), metadata.get("turn")), (&texts[..4], texts[4]));
    assert_eq!(format!("{:?}", Metadata::new().with("name", "secret")), r#"Metadata{"name"}"#);

    let closed = at(3, Closed {}).with_metadata(Metadata::new().with("a", "b"));
    let stored = mapper().to_stored_event(&closed).unwrap();
    assert_eq!(mapper().to_domain_event(&stored).unwrap(), closed, "for a type without attributes, too");
}

/// An object of `_type_` and `_data_` is the representation of a registered type: the Python library could
/// not read the event.
#[test]
fn metadata_cannot_be_mistaken_for_a_registered_type() {
    let metadata = Metadata::new().with("_type_", "uuid_hex").with("_data_", "1");
    let error = mapper().to_stored_event(&at(3, credited(5)).with_metadata(metadata)).unwrap_err();
    assert!(chain(&error).contains("`_type_` is reserved"), "{}", chain(&error));
}

#[test]
fn metadata_is_read_in_any_place_and_must_be_texts() {
    let state = r#"{"_metadata_":{},"timestamp":1,"amount":5,"currency":"CHF","class_version":2}"#;
    assert!(decode::<Credited>(state, Credited::TOPIC).unwrap().metadata.is_empty());
    let state = state.replace("{}", r#"{"a":1}"#);
    assert!(failure(&state).contains("string"), "{}", failure(&state));
}

#[test]
fn an_event_is_read_back_as_it_was() {
    let event = at(3, credited(5));
    let stored = mapper().to_stored_event(&event).unwrap();
    assert_eq!((stored.originator_id, stored.originator_version), (ID, 3));
    assert_eq!(stored.topic, Credited::TOPIC);
    assert_eq!(mapper().to_domain_event(&stored).unwrap(), event);

    let closed = at(3, Closed {});
    let stored = mapper().to_stored_event(&closed).unwrap();
    assert_eq!(mapper().to_domain_event(&stored).unwrap(), closed);
}

#[test]
fn attributes_are_read_in_any_order_with_any_spacing_and_escapes() {
    for state in [
        r#"{"class_version":2,"currency":"CHF","amount":5,"timestamp":1700000000}"#,
        r#" { "amount" : 5 , "timestamp" : 1700000000 , "class_version" : 2 , "currency" : "CHF" } "#,
        r#"{"\u0074imestamp":1700000000,"\u0061mount":5,"currency":"\u0043HF","class_versio\u006e":2}"#,
    ] {
        assert_eq!(decode::<Credited>(state, Credited::TOPIC).unwrap(), at(3, credited(5)), "{state}");
    }
}

#[test]
fn an_older_class_version_is_upcast() {
    let mapper = mapper().with_compressor(Mark(b'Z'));
    let older = r#"{"timestamp":1700000000,"amount":5}"#;
    let event = mapper.decode_state::<Credited>(Credited::TOPIC.as_str(), older).unwrap();
    assert_eq!(event.payload.currency, "EUR", "neither compressed nor encrypted");
    let event = decode::<Credited>(r#"{"timestamp":1700000000,"amount":5}"#, Credited::TOPIC).unwrap();
    assert_eq!(event.payload.currency, "EUR");
}

#[test]
fn the_error_names_a_newer_class_version_before_a_missing_attribute() {
    let newer = r#"{"timestamp":1700000000,"class_version":3}"#;
    assert!(failure(newer).contains("class version 3 is not known to this program"), "{}", failure(newer));

    let error = decode::<Closed>(newer, Closed::TOPIC).unwrap_err();
    assert!(error.to_string().ends_with("class version 3 is not known to this program"), "{error}");
}

/// An event that has only the first class version.
#[derive(Debug, Deserialize)]
#[serde(crate = "es_core::serde")]
struct Opened {
    owner: String,
}

impl Event for Opened {
    const TOPICS: &[Topic] = &[];

    fn topic(&self) -> Topic {
        Topic::from_static("bank:Account.Opened")
    }

    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
        state.serialize_entry("owner", &self.owner)
    }

    fn decode<T: Transcoder>(_: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        state.decode()
    }
}

#[test]
fn the_error_names_a_newer_class_version_before_an_attribute_that_it_renamed() {
    let topic = Topic::from_static("bank:Account.Opened");
    let newer = r#"{"timestamp":1700000000,"holder":"Ada","class_version":2}"#;
    let error = decode::<Opened>(newer, topic.clone()).unwrap_err();
    assert!(error.to_string().ends_with("class version 2 is not known to this program"), "{error}");

    let lacking = decode::<Opened>(r#"{"timestamp":1700000000}"#, topic).unwrap_err();
    assert!(chain(&lacking).contains("missing field `owner`"), "{}", chain(&lacking));
}

#[test]
fn an_invalid_state_is_an_error_that_names_the_event() {
    for state in [
        "",
        "null",
        "[]",
        "5",
        r#""text""#,
        "{",
        r#"{"timestamp":1700000000"#,
        r#"{"timestamp":1700000000,"amount":5,"currency":"CHF","class_version":2}}"#,
        r#"{"timestamp":1700000000,"amount":5,"currency":"CHF","class_version":-1}"#,
        r#"{"timestamp":1700000000,"amount":5,"currency":"CHF","class_version":4294967296}"#,
        r#"{"timestamp":"now","amount":5,"currency":"CHF","class_version":2}"#,
        r#"{"timestamp":1700000000,"amount":"5","currency":"CHF","class_version":2}"#,
        r#"{"timestamp":1700000000,"amount":5,"class_version":2}"#,
        r#"{"amount":5,"currency":"CHF","class_version":2}"#,
    ] {
        let failure = failure(state);
        let context = format!("event \"bank:Account.Credited\", version 3 of originator {ID}: ");
        assert!(failure.starts_with(&context), "{state}: {failure}");
    }
}

/// An event without attributes, whose implementation decodes nothing.
#[derive(Debug, PartialEq)]
struct Settled;

impl Event for Settled {
    const TOPICS: &[Topic] = &[Topic::from_static("bank:Account.Settled")];

    fn topic(&self) -> Topic {
        Self::TOPICS[0].clone()
    }

    fn encode<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn decode<T: Transcoder>(_: &str, _: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        Ok(Self)
    }
}

#[test]
fn an_event_that_decodes_nothing_still_has_its_timestamp() {
    let event = at(1, Settled);
    let stored = mapper().to_stored_event(&event).unwrap();
    assert_eq!(mapper().to_domain_event::<Settled>(&stored).unwrap(), event);
}

#[test]
fn a_missing_timestamp_is_an_error() {
    let failure = failure(r#"{"amount":5,"currency":"CHF","class_version":2}"#);
    assert!(failure.contains("the state has no timestamp"), "{failure}");
}

#[test]
fn an_unknown_topic_is_an_error_that_names_it() {
    let error = decode::<Credited>("{}", Topic::from_static("bank:Account.Renamed")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(
        error.to_string().contains("no event type is known by topic \"bank:Account.Renamed\""),
        "{error}"
    );
}

/// An event that cannot be written.
#[derive(Debug)]
struct Unwritable;

impl Event for Unwritable {
    const TOPICS: &[Topic] = &[];

    fn topic(&self) -> Topic {
        Topic::from_static("bank:Unwritable")
    }

    fn encode<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Err(M::Error::custom("it has no representation"))
    }

    fn decode<T: Transcoder>(_: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        Err(state.unknown_topic())
    }
}

#[test]
fn an_encoding_error_names_the_event() {
    let error = mapper().to_stored_event(&at(7, Unwritable)).unwrap_err();
    let chain = chain(&error);
    assert!(
        chain.starts_with(&format!("event \"bank:Unwritable\", version 7 of originator {ID}: ")),
        "{chain}"
    );
    assert!(chain.ends_with("it has no representation"), "{chain}");
}

/// Prefixes its input with a mark; input without the mark is rejected.
#[derive(Debug)]
struct Mark(u8);

impl Mark {
    fn mark(&self, data: &[u8], out: &mut Vec<u8>) {
        out.push(self.0);
        out.extend_from_slice(data);
    }

    fn unmark(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        let unmarked = data.strip_prefix(&[self.0]).ok_or_else(|| PersistenceError::data("no mark"))?;
        out.extend_from_slice(unmarked);
        Ok(())
    }
}

impl Compressor for Mark {
    fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        self.mark(data, out);
        Ok(())
    }

    fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        self.unmark(data, out)
    }
}

impl Cipher for Mark {
    fn encrypt(
        &self,
        context: &EventContext<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        assert_eq!((context.originator_id, context.originator_version), (ID, 3));
        self.mark(plaintext, out);
        Ok(())
    }

    fn decrypt(
        &self,
        context: &EventContext<'_>,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        assert_eq!((context.originator_id, context.originator_version), (ID, 3));
        self.unmark(ciphertext, out)
    }
}

#[test]
fn states_are_compressed_and_then_encrypted_and_back() {
    let mapper = mapper().with_compressor(Mark(b'Z')).with_cipher(Mark(b'E'));
    let event = at(3, credited(5));
    let stored = mapper.to_stored_event(&event).unwrap();
    assert!(stored.state.starts_with(b"EZ{\"timestamp\""), "{:?}", stored.state);
    assert_eq!(mapper.to_domain_event(&stored).unwrap(), event);

    let other_cipher = mapper.with_cipher(Mark(b'X'));
    let error = other_cipher.to_domain_event::<Credited>(&stored).unwrap_err();
    let expected = format!("event \"bank:Account.Credited\", version 3 of originator {ID}: no mark");
    assert_eq!(error.to_string(), expected);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(crate = "es_core::serde")]
struct Account {
    balance: i64,
}

impl SnapshotState for Account {
    const AGGREGATE_TOPIC: &str = "bank:Account";
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(crate = "es_core::serde")]
struct Cart {
    balance: i64,
}

impl SnapshotState for Cart {
    const AGGREGATE_TOPIC: &str = "shop:Cart";
}

#[test]
fn a_snapshot_is_kept_as_an_event_and_read_for_its_aggregate_only() {
    let snapshot = at(3, Snapshot { state: Account { balance: 5 } });
    let state = r#"{"timestamp":1700000000,"topic":"bank:Account","state":{"balance":5}}"#;
    assert_eq!(state_of(&snapshot), state);

    let topic = Topic::from_static("eventsourcing.domain:Snapshot");
    assert_eq!(decode::<Snapshot<Account>>(state, topic.clone()).unwrap(), snapshot);
    let error = decode::<Snapshot<Cart>>(state, topic).unwrap_err();
    assert!(error.to_string().contains("\"bank:Account\", not \"shop:Cart\""), "{error}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(crate = "es_core::serde")]
struct Wallet {
    cents: i64,
}

impl SnapshotState for Wallet {
    const AGGREGATE_TOPIC: &str = "bank:Wallet";
    const CLASS_VERSION: u32 = 3;

    fn upcast<T: Transcoder>(
        class_version: u32,
        snapshot: &mut StateReader<'_, T>,
    ) -> Result<Self, PersistenceError> {
        #[derive(Deserialize)]
        #[serde(crate = "es_core::serde")]
        struct InEuros {
            euros: i64,
        }
        match class_version {
            1 | 2 => Ok(Self { cents: snapshot.decode_snapshot::<InEuros>()?.euros * 100 }),
            _ => Err(snapshot.unsupported_class_version(class_version)),
        }
    }
}

#[test]
fn a_snapshot_of_another_class_version_is_upcast_or_refused() {
    let snapshot = at(3, Snapshot { state: Wallet { cents: 700 } });
    let state = r#"{"timestamp":1700000000,"topic":"bank:Wallet","state":{"cents":700,"class_version":3}}"#;
    assert_eq!(state_of(&snapshot), state);
    let decode =
        |state: &str| decode::<Snapshot<Wallet>>(state, Topic::from_static("eventsourcing.domain:Snapshot"));
    assert_eq!(decode(state).unwrap(), snapshot);
    let second = state.replace("\"cents\":700,\"class_version\":3", "\"class_version\":2,\"euros\":7");
    assert_eq!(decode(&second).unwrap(), snapshot);
    let first = state.replace("\"cents\":700,\"class_version\":3", "\"euros\":7");
    assert_eq!(decode(&first).unwrap(), snapshot);
    let later = state.replace("version\":3", "version\":4");
    assert!(
        decode(&later).unwrap_err().to_string().ends_with("class version 4 is not known to this program")
    );
}

#[test]
fn a_snapshot_may_be_of_a_state_that_is_no_object() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(crate = "es_core::serde")]
    struct List(Vec<i64>, bool);

    impl SnapshotState for List {
        const AGGREGATE_TOPIC: &str = "bank:List";
    }

    let snapshot = at(3, Snapshot { state: List(vec![7, 8], true) });
    let stored = mapper().to_stored_event(&snapshot).unwrap();
    assert_eq!(mapper().to_domain_event(&stored).unwrap(), snapshot);
}

proptest! {
    #[test]
    fn every_event_is_read_back(amount in any::<i64>(), currency in any::<String>(), version in any::<i64>()) {
        let event = at(version, Credited { amount, currency });
        let stored = mapper().to_stored_event(&event).unwrap();
        prop_assert_eq!(mapper().to_domain_event::<Credited>(&stored).unwrap(), event);
    }

    #[test]
    fn no_bytes_make_the_mapper_panic(state in vec(any::<u8>(), 0..64)) {
        let event = stored(Credited::TOPIC, &state);
        prop_assert!(mapper().to_domain_event::<Credited>(&event).is_err());
    }

    #[test]
    fn a_state_that_is_cut_off_is_an_error(cut in 1..70_usize) {
        let mut event = mapper().to_stored_event(&at(3, credited(5))).unwrap();
        event.state.truncate(event.state.len().saturating_sub(cut));
        prop_assert!(mapper().to_domain_event::<Credited>(&event).is_err());
    }
}
