//! Events pass through the mapper as flat objects with their timestamp first.

use es_core::{
    DomainEvent, ErrorKind, Event, Mapper, PersistenceError, StateReader, Topic, Transcoder,
    serde::ser::SerializeMap,
};
use es_transcode::{JsonTranscoder, Registered, serde_with::serde_as, uuid::Uuid};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, macros::datetime};

#[serde_as(crate = "es_transcode::serde_with")]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Opened {
    #[serde_as(as = "Registered")]
    owner_id: Uuid,
}

impl Event for Opened {
    const TOPICS: &'static [Topic] = &[Topic::from_static("bank:Account.Opened")];

    fn topic(&self) -> Topic {
        Topic::from_static("bank:Account.Opened")
    }

    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
        use es_transcode::serde_with::ser::SerializeAsWrap;
        state.serialize_entry("owner_id", &SerializeAsWrap::<_, Registered>::new(&self.owner_id))
    }

    fn decode<T: Transcoder>(_: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        state.decode()
    }
}

const STATE: &str = concat!(
    r#"{"timestamp":{"_type_":"datetime_iso","_data_":"2021-12-31T23:59:59.123456+00:00"},"#,
    r#""owner_id":{"_type_":"uuid_hex","_data_":"00000000000000000000000000000005"}}"#
);

fn opened(timestamp: OffsetDateTime) -> DomainEvent<Opened> {
    DomainEvent::at(Uuid::from_u128(1), 1, timestamp, Opened { owner_id: Uuid::from_u128(5) })
}

#[test]
fn an_event_is_mapped_both_ways() {
    let mapper = Mapper::new(JsonTranscoder::new());
    let event = opened(datetime!(2021-12-31 23:59:59.123456 UTC));
    let stored = mapper.to_stored_event(&event).unwrap();
    assert_eq!(String::from_utf8_lossy(&stored.state), STATE);
    assert_eq!(mapper.to_domain_event::<Opened>(&stored).unwrap(), event);
}

#[test]
fn errors_keep_their_kind_and_name_the_event() {
    let place =
        "event \"bank:Account.Opened\", version 1 of originator 00000000-0000-0000-0000-000000000001: ";
    let mapper = Mapper::new(JsonTranscoder::new());

    let precise = opened(datetime!(2021-12-31 23:59:59.123456789 UTC));
    let error = mapper.to_stored_event(&precise).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().starts_with(place), "{error}");

    let empty = Mapper::new(JsonTranscoder::empty());
    let error = empty.to_stored_event(&opened(OffsetDateTime::UNIX_EPOCH)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().starts_with(&format!("{place}Object of type")), "{error}");

    let mut stored = mapper.to_stored_event(&opened(OffsetDateTime::UNIX_EPOCH)).unwrap();
    stored.state = STATE.replace("uuid_hex", "no_such").into();
    let error = mapper.to_domain_event::<Opened>(&stored).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().starts_with(&format!("{place}Data serialized with name 'no_such'")), "{error}");

    stored.state = STATE.replace("05\"", "NaN\"").into();
    let error = mapper.to_domain_event::<Opened>(&stored).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().starts_with(place), "{error}");
}
