//! The bank whose Python half is `testdata/python/bank.py`: its events, its snapshots, and the
//! transcodings of its own value objects.

use std::fmt;

use bigdecimal::BigDecimal;
use es_persistence::{
    Event, PersistenceError, SnapshotState, Transcoding,
    transcode::{
        JsonTranscoder, Registered, Value,
        serde_with::{serde_as, skip_serializing_none},
    },
};
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// The events of an account.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account")]
pub(crate) enum AccountEvent {
    Opened {
        originator_topic: String,
        owner: String,
        #[event(registered)]
        owner_id: Uuid,
        #[event(registered)]
        birthday: Date,
        #[event(registered)]
        limit: BigDecimal,
    },
    Credited {
        #[event(registered)]
        amount: BigDecimal,
        note: String,
        /// Python's type is only `list`: the types of its elements are known when they are read.
        tags: Vec<Value>,
        /// With an offset or without one.
        booked_at: Value,
    },
    Verified {
        #[event(registered)]
        proof: ComplexCustomValue,
        score: f64,
        /// Python's integers have any size; `Integer` is for those that exceed this type.
        attempts: i128,
        passed: bool,
        remark: Value,
    },
    Closed,
}

impl fmt::Display for AccountEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { owner, owner_id, birthday, limit, .. } => {
                write!(f, "opened by {owner:?} (id {owner_id}, born {birthday}), limit {limit}")
            }
            Self::Credited { amount, note, tags, booked_at } => {
                let tags: Vec<String> = tags.iter().map(shown).collect();
                write!(
                    f,
                    "{amount} credited: {note:?}, booked {}, tags [{}]",
                    shown(booked_at),
                    tags.join(", ")
                )
            }
            Self::Verified { proof, score, attempts, passed, remark } => {
                let SimpleCustomValue { id, date } = &proof.value;
                let outcome = if *passed { "verified" } else { "not verified" };
                write!(
                    f,
                    "{outcome}, score {score:?} after {attempts} attempts, proof {id} of {date}, remark {}",
                    shown(remark)
                )
            }
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// A value whose type was known only when it was read.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Str(value) => format!("{value:?}"),
        Value::List(values) => {
            let values: Vec<String> = values.iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(name, value)| format!("{name}: {}", shown(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Uuid(value) => value.to_string(),
        Value::Datetime(value) => value.to_string(),
        Value::NaiveDatetime(value) => format!("{value} (no offset)"),
        Value::Decimal(value) => value.to_string(),
        Value::Custom { name, data } => format!("{name} {}", shown(data)),
    }
}

/// The state of an account in a snapshot.
#[serde_as(crate = "es_persistence::transcode::serde_with")]
#[skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    #[serde(rename = "_created_on")]
    #[serde_as(as = "Registered")]
    pub(crate) created_on: OffsetDateTime,
    #[serde(rename = "_modified_on")]
    #[serde_as(as = "Registered")]
    pub(crate) modified_on: OffsetDateTime,
    pub(crate) owner: String,
    #[serde_as(as = "Registered")]
    pub(crate) owner_id: Uuid,
    #[serde_as(as = "Registered")]
    pub(crate) birthday: Date,
    #[serde_as(as = "Registered")]
    pub(crate) limit: BigDecimal,
    #[serde_as(as = "Registered")]
    pub(crate) balance: BigDecimal,
    pub(crate) notes: Vec<String>,
    #[serde(default)]
    #[serde_as(as = "Option<Registered>")]
    pub(crate) proof: Option<ComplexCustomValue>,
    #[serde(default)]
    pub(crate) closed: Option<bool>,
}

impl SnapshotState for Account {
    const AGGREGATE_TOPIC: &str = "bank:Account";
}

/// A value object. Its representation contains values that have transcodings themselves.
#[serde_as(crate = "es_persistence::transcode::serde_with")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SimpleCustomValue {
    #[serde_as(as = "Registered")]
    pub(crate) id: Uuid,
    #[serde_as(as = "Registered")]
    pub(crate) date: Date,
}

/// A value object that is written as its inner value.
#[serde_as(crate = "es_persistence::transcode::serde_with")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ComplexCustomValue {
    #[serde_as(as = "Registered")]
    pub(crate) value: SimpleCustomValue,
}

/// A transcoder with the bank's own types besides the standard ones.
pub(crate) fn transcoder() -> JsonTranscoder {
    let mut transcoder = JsonTranscoder::new();
    transcoder.register(SimpleCustomValueAsDict);
    transcoder.register(ComplexCustomValueAsDict);
    transcoder
}

#[derive(Debug)]
struct SimpleCustomValueAsDict;

impl Transcoding for SimpleCustomValueAsDict {
    type Value = SimpleCustomValue;
    type Encoded<'a> = &'a SimpleCustomValue;
    type Decoded = SimpleCustomValue;

    fn name(&self) -> &str {
        "simple_custom_value"
    }

    fn encode<'a>(&'a self, value: &'a SimpleCustomValue) -> Result<&'a SimpleCustomValue, PersistenceError> {
        Ok(value)
    }

    fn decode(&self, value: SimpleCustomValue) -> Result<SimpleCustomValue, PersistenceError> {
        Ok(value)
    }
}

#[derive(Debug)]
struct ComplexCustomValueAsDict;

impl Transcoding for ComplexCustomValueAsDict {
    type Value = ComplexCustomValue;
    type Encoded<'a> = &'a ComplexCustomValue;
    type Decoded = ComplexCustomValue;

    fn name(&self) -> &str {
        "complex_custom_value"
    }

    fn encode<'a>(
        &'a self,
        value: &'a ComplexCustomValue,
    ) -> Result<&'a ComplexCustomValue, PersistenceError> {
        Ok(value)
    }

    fn decode(&self, value: ComplexCustomValue) -> Result<ComplexCustomValue, PersistenceError> {
        Ok(value)
    }
}
