//! Typed events as values, and the expected values from the files next to the databases.

use es_persistence::{DomainEvent, transcode::Value};
use time::{Date, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Iso8601};

use crate::bank::{AccountEvent, ComplexCustomValue};

/// The attributes of a typed event, as values.
pub(crate) fn attributes(event: DomainEvent<AccountEvent>) -> Value {
    let own = match event.payload {
        AccountEvent::Opened { originator_topic, owner, owner_id, birthday, limit } => vec![
            ("originator_topic", Value::Str(originator_topic)),
            ("owner", Value::Str(owner)),
            ("owner_id", Value::Uuid(owner_id)),
            ("birthday", date(birthday)),
            ("limit", Value::Decimal(limit)),
        ],
        AccountEvent::Credited { amount, note, tags, booked_at } => vec![
            ("amount", Value::Decimal(amount)),
            ("note", Value::Str(note)),
            ("tags", Value::List(tags)),
            ("booked_at", booked_at),
        ],
        AccountEvent::Verified { proof, score, attempts, passed, remark } => vec![
            ("proof", complex(proof)),
            ("score", Value::Float(score)),
            ("attempts", Value::Int(attempts.to_string().parse().unwrap())),
            ("passed", Value::Bool(passed)),
            ("remark", remark),
        ],
        AccountEvent::Closed => Vec::new(),
    };
    let timestamp = ("timestamp", Value::Datetime(event.timestamp));
    let all = [timestamp].into_iter().chain(own);
    Value::Map(all.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn date(date: Date) -> Value {
    custom("date_iso", Value::Str(date.to_string()))
}

fn complex(ComplexCustomValue { value }: ComplexCustomValue) -> Value {
    let simple = vec![("id".to_owned(), Value::Uuid(value.id)), ("date".to_owned(), date(value.date))];
    custom("complex_custom_value", custom("simple_custom_value", Value::Map(simple)))
}

fn custom(name: &str, data: Value) -> Value {
    Value::Custom { name: name.to_owned(), data: Box::new(data) }
}

/// Converts the notation of the file (`{"uuid": …}`, `{"datetime": …}` and so on) to the values.
///
/// Uses other code than the transcodings under test.
pub(crate) fn comparable(written: &Value) -> Value {
    match written {
        Value::List(values) => Value::List(values.iter().map(comparable).collect()),
        Value::Map(entries) => match entries.as_slice() {
            [(sort, data)] => comparable_sort(sort, data),
            _ => Value::Map(entries.iter().map(|(name, value)| (name.clone(), comparable(value))).collect()),
        },
        plain => plain.clone(),
    }
}

fn comparable_sort(sort: &str, data: &Value) -> Value {
    match (sort, data) {
        ("uuid", Value::Str(text)) => Value::Uuid(text.parse().unwrap()),
        ("decimal", Value::Str(text)) => Value::Decimal(text.parse().unwrap()),
        ("date", Value::Str(text)) => custom("date_iso", Value::Str(text.clone())),
        ("datetime", Value::Str(text)) => match OffsetDateTime::parse(text, &Iso8601::DEFAULT) {
            Ok(aware) => Value::Datetime(aware),
            Err(_) => Value::NaiveDatetime(PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).unwrap()),
        },
        ("timestamp", stamp) => Value::Map(vec![("timestamp".to_owned(), comparable(stamp))]),
        ("dict", Value::Map(entries)) => {
            Value::Map(entries.iter().map(|(name, value)| (name.clone(), comparable(value))).collect())
        }
        ("complex", simple) => custom("complex_custom_value", comparable(simple)),
        ("simple", Value::List(parts)) => {
            let [id, date] = parts.as_slice() else { panic!("a simple custom value has two parts") };
            let parts = vec![("id".to_owned(), comparable(id)), ("date".to_owned(), comparable(date))];
            custom("simple_custom_value", Value::Map(parts))
        }
        other => panic!("the file has an unexpected {other:?}"),
    }
}
