//! Values as plain JSON in which each type shows, so that a difference between the languages cannot hide.
//!
//! Not by the transcoder, which is under test. `python/plain.py` is the same in Python.

use bigdecimal::BigDecimal;
use es_persistence::{DomainEvent, Metadata, transcode::Value};
use serde_json::{Map, Value as Json, json};
use time::{Date, OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use crate::bank::{Account, AccountEvent, ComplexCustomValue, SimpleCustomValue};

/// The attributes of an event of the bank.
pub(crate) fn attributes(event: &DomainEvent<AccountEvent>) -> Map<String, Json> {
    let attributes = match &event.payload {
        AccountEvent::Opened { originator_topic, owner, owner_id, birthday, limit } => json!({
            "originator_topic": originator_topic,
            "owner": owner,
            "owner_id": uuid(*owner_id),
            "birthday": date(*birthday),
            "limit": decimal(limit),
        }),
        AccountEvent::Credited { amount, note, tags, booked_at } => json!({
            "amount": decimal(amount),
            "note": note,
            "tags": tags.iter().map(value).collect::<Vec<_>>(),
            "booked_at": value(booked_at),
        }),
        AccountEvent::Verified { proof, score, attempts, passed, remark } => json!({
            "proof": complex(proof),
            "score": float(*score),
            "attempts": int(attempts),
            "passed": passed,
            "remark": value(remark),
        }),
        AccountEvent::Closed => json!({}),
    };
    match attributes {
        Json::Object(attributes) => attributes,
        _ => Map::new(),
    }
}

/// Metadata, which the Python library reads as one more attribute.
pub(crate) fn metadata(metadata: &Metadata) -> Json {
    value(&Value::Map(metadata.iter().map(|(name, text)| (name.to_owned(), text.into())).collect()))
}

/// The state of an account.
pub(crate) fn account(account: &Account) -> Json {
    json!({
        "created_on": datetime(account.created_on),
        "modified_on": datetime(account.modified_on),
        "owner": account.owner,
        "owner_id": uuid(account.owner_id),
        "birthday": date(account.birthday),
        "limit": decimal(&account.limit),
        "balance": decimal(&account.balance),
        "notes": account.notes,
        "proof": account.proof.as_ref().map(complex),
        "closed": account.closed,
    })
}

/// A value whose type was known only when it was read.
pub(crate) fn value(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => int(value),
        Value::Float(value) => float(*value),
        Value::Str(value) => json!(value),
        Value::List(values) => values.iter().map(self::value).collect(),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(name, value)| json!([name, self::value(value)]));
            json!({ "dict": entries.collect::<Vec<_>>() })
        }
        Value::Uuid(value) => uuid(*value),
        Value::Datetime(value) => datetime(*value),
        Value::NaiveDatetime(value) => json!({ "naive": microseconds(*value) }),
        Value::Decimal(value) => decimal(value),
        Value::Custom { name, data } => match (name.as_str(), data.as_ref()) {
            ("date_iso", Value::Str(date)) => json!({ "date": date }),
            ("time_iso", Value::Str(time)) => json!({ "time": time }),
            (name, data) => json!({ "custom": [name, self::value(data)] }),
        },
    }
}

/// A date and time with an offset: microseconds of the clock's face since 1970, and the offset in seconds.
pub(crate) fn datetime(value: OffsetDateTime) -> Json {
    let face = PrimitiveDateTime::new(value.date(), value.time());
    json!({ "datetime": [microseconds(face), value.offset().whole_seconds()] })
}

pub(crate) fn int(value: &impl ToString) -> Json {
    json!({ "int": value.to_string() })
}

fn microseconds(face: PrimitiveDateTime) -> i64 {
    let since = face.assume_utc() - OffsetDateTime::UNIX_EPOCH;
    since.whole_seconds() * 1_000_000 + i64::from(since.subsec_microseconds())
}

fn float(value: f64) -> Json {
    json!({ "float": format!("{:016x}", value.to_bits()) })
}

fn uuid(value: Uuid) -> Json {
    json!({ "uuid": value.to_string() })
}

fn date(value: Date) -> Json {
    json!({ "date": value.to_string() })
}

fn decimal(value: &BigDecimal) -> Json {
    let (digits, scale) = value.as_bigint_and_exponent();
    json!({ "decimal": [digits.to_string(), -scale] })
}

fn complex(ComplexCustomValue { value }: &ComplexCustomValue) -> Json {
    let SimpleCustomValue { id, date: day } = value;
    json!({ "complex": { "simple": [uuid(*id), date(*day)] } })
}
