//! Bytes that claim to be JSON, and events of any content.

use std::marker::PhantomData;

use arbitrary::{Result, Unstructured};
use bigdecimal::BigDecimal;
use es_persistence::{
    DomainEvent, Event, Mapper, Snapshot, SnapshotState, StoredEvent, Topic, Transcoder,
    compress::{ZlibCompressor, ZstdCompressor},
    crypto::{AesCipher, AesKey},
    transcode::{JsonTranscoder, Value},
};
use time::{Date, OffsetDateTime, PrimitiveDateTime, UtcOffset};
use uuid::Uuid;

use crate::{
    bank::{Account, AccountEvent, ComplexCustomValue, SimpleCustomValue, transcoder},
    memory::within,
};

/// The bytes that one input may allocate, values and errors included: inputs have a few KiB.
const MEMORY: u64 = 8 << 20;

/// Any bytes as a value of unknown type: a value that was read is written, and is then the same.
pub fn decode_value(data: &[u8]) {
    let transcoder = transcoder();
    let read = |data: &[u8]| transcoder.decode(PhantomData::<Value>, data);
    let Ok(value) = within(MEMORY, || read(data)) else { return };
    let mut written = Vec::new();
    let outcome = transcoder.encode(&value, &mut written);
    assert!(outcome.is_ok(), "{value:?} was read and cannot be written: {outcome:?}");
    let again = read(&written);
    assert_eq!(again.as_ref().ok(), Some(&value), "{again:?}");
}

/// The first byte says which topic, the others are a state: an event that was read is written, and is then
/// the same.
pub fn decode_event(data: &[u8]) {
    let Some((choice, state)) = data.split_first() else { return };
    match AccountEvent::TOPICS.get(usize::from(*choice)) {
        Some(topic) => decode_as::<AccountEvent>(topic, state),
        None => decode_as::<Snapshot<Account>>(&Topic::from_static(Account::SNAPSHOT_TOPIC), state),
    }
}

fn decode_as<E: Event>(topic: &Topic, state: &[u8]) {
    let stored = StoredEvent {
        originator_id: Uuid::nil(),
        originator_version: 1,
        topic: topic.clone(),
        state: state.to_vec().into(),
    };
    let mapper = Mapper::new(transcoder());
    let Ok(event) = within(MEMORY, || mapper.to_domain_event::<E>(&stored)) else { return };
    let written = written(&mapper, &event);
    let again = mapper.to_domain_event::<E>(&written);
    #[expect(clippy::expect_used, reason = "a broken promise")]
    let again = again.expect("what was written is read");
    assert_eq!(self::written(&mapper, &again), written);
}

#[expect(clippy::expect_used, reason = "a broken promise")]
fn written<E: Event>(mapper: &Mapper<impl Transcoder>, event: &DomainEvent<E>) -> StoredEvent {
    mapper.to_stored_event(event).expect("what was read can be written")
}

/// An event of any content through a mapper of any parts: it is the same when it comes back, or it was
/// refused.
pub fn round_trip(data: &[u8]) {
    let mut source = Unstructured::new(data);
    // Too few bytes for all choices make no event.
    let Ok((mapper, event)) =
        any_mapper(&mut source).and_then(|mapper| Ok((mapper, any_event(&mut source)?)))
    else {
        return;
    };
    let Ok(stored) = mapper.to_stored_event(&event) else { return };
    let again = mapper.to_domain_event::<AccountEvent>(&stored);
    assert_eq!(again.as_ref().ok(), Some(&event), "{again:?}");
}

fn any_mapper(source: &mut Unstructured<'_>) -> Result<Mapper<JsonTranscoder>> {
    let mut mapper = Mapper::new(transcoder());
    mapper = match source.int_in_range(0..=2)? {
        0 => mapper,
        1 => mapper.with_compressor(ZlibCompressor::new()),
        _ => mapper.with_compressor(ZstdCompressor::new()),
    };
    let key_bytes = [0, 16, 24, 32][source.int_in_range(0..=3)?];
    if let Ok(key) = AesKey::from_bytes(&vec![7; key_bytes]) {
        mapper = mapper.with_cipher(AesCipher::new(&key));
    }
    Ok(mapper)
}

fn any_event(source: &mut Unstructured<'_>) -> Result<DomainEvent<AccountEvent>> {
    let (id, version) = (any_uuid(source)?, source.arbitrary()?);
    let timestamp = any_datetime(source)?;
    let payload = match source.int_in_range(0..=3)? {
        0 => AccountEvent::Opened {
            originator_topic: source.arbitrary()?,
            owner: source.arbitrary()?,
            owner_id: any_uuid(source)?,
            birthday: any_date(source)?,
            limit: any_decimal(source)?,
        },
        1 => AccountEvent::Credited {
            amount: any_decimal(source)?,
            note: source.arbitrary()?,
            tags: any_values(source, MOST_NESTED)?,
            booked_at: any_value(source, MOST_NESTED)?,
        },
        2 => AccountEvent::Verified {
            proof: ComplexCustomValue {
                value: SimpleCustomValue { id: any_uuid(source)?, date: any_date(source)? },
            },
            score: source.arbitrary()?,
            attempts: source.arbitrary()?,
            passed: source.arbitrary()?,
            remark: any_value(source, MOST_NESTED)?,
        },
        _ => AccountEvent::Closed,
    };
    Ok(DomainEvent::at(id, version, timestamp, payload))
}

/// More than can be written, and few enough to be compared without exhausting the stack.
const MOST_NESTED: u32 = 150;

fn any_value(source: &mut Unstructured<'_>, nested: u32) -> Result<Value> {
    Ok(match source.int_in_range(0..=11)? {
        0 => Value::Null,
        1 => Value::Bool(source.arbitrary()?),
        2 => Value::Int(source.arbitrary::<i128>()?.into()),
        3 => Value::Float(source.arbitrary()?),
        4 => Value::Str(source.arbitrary()?),
        5 => Value::Uuid(any_uuid(source)?),
        6 => Value::Datetime(any_datetime(source)?),
        7 => Value::NaiveDatetime(any_naive_datetime(source)?),
        8 => Value::Decimal(any_decimal(source)?),
        _ if nested == 0 => Value::Null,
        9 => Value::List(any_values(source, nested)?),
        10 => {
            let names = ["_type_", "_data_", "", source.arbitrary()?];
            let mut entries = Vec::new();
            while source.arbitrary()? {
                let name = (*source.choose(&names)?).to_owned();
                entries.push((name, any_value(source, nested - 1)?));
            }
            Value::Map(entries)
        }
        _ => Value::Custom {
            name: (*source.choose(&["date_iso", "simple_custom_value", "uuid_hex", "unknown"])?).to_owned(),
            data: Box::new(any_value(source, nested - 1)?),
        },
    })
}

fn any_values(source: &mut Unstructured<'_>, nested: u32) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    while source.arbitrary()? {
        values.push(any_value(source, nested.saturating_sub(1))?);
    }
    Ok(values)
}

fn any_uuid(source: &mut Unstructured<'_>) -> Result<Uuid> {
    Ok(Uuid::from_u128(source.arbitrary()?))
}

fn any_decimal(source: &mut Unstructured<'_>) -> Result<BigDecimal> {
    Ok(BigDecimal::new(source.arbitrary::<i128>()?.into(), source.arbitrary()?))
}

fn any_date(source: &mut Unstructured<'_>) -> Result<Date> {
    let julian_day = source.int_in_range(Date::MIN.to_julian_day()..=Date::MAX.to_julian_day())?;
    Ok(Date::from_julian_day(julian_day).unwrap_or(Date::MIN))
}

fn any_naive_datetime(source: &mut Unstructured<'_>) -> Result<PrimitiveDateTime> {
    let (date, second) = (any_date(source)?, source.int_in_range(0..=86_399)?);
    // Mostly what can be stored: whole microseconds.
    let nanosecond = source.int_in_range(0..=999_999)? * 1_000 + u32::from(source.ratio(1, 16)?);
    let time = date.midnight().time() + time::Duration::new(second, 0);
    Ok(PrimitiveDateTime::new(date, time.replace_nanosecond(nanosecond).unwrap_or(time)))
}

fn any_datetime(source: &mut Unstructured<'_>) -> Result<OffsetDateTime> {
    let offset = UtcOffset::from_whole_seconds(source.int_in_range(-93_599..=93_599)?);
    Ok(any_naive_datetime(source)?.assume_offset(offset.unwrap_or(UtcOffset::UTC)))
}
