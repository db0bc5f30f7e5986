//! The custom values of the application that wrote the Python vectors.

use es_core::{PersistenceError, Transcoding};
use es_transcode::{JsonTranscoder, Registered, serde_with::serde_as, uuid::Uuid};
use serde::{Deserialize, Serialize};
use time::Date;

#[serde_as(crate = "es_transcode::serde_with")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SimpleCustomValue {
    #[serde_as(as = "Registered")]
    pub(crate) id: Uuid,
    #[serde_as(as = "Registered")]
    pub(crate) date: Date,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SimpleCustomValueAsDict;

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

#[serde_as(crate = "es_transcode::serde_with")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ComplexCustomValue {
    #[serde_as(as = "Registered")]
    pub(crate) value: SimpleCustomValue,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ComplexCustomValueAsDict;

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

pub(crate) fn transcoder() -> JsonTranscoder {
    let mut transcoder = JsonTranscoder::new();
    transcoder.register(SimpleCustomValueAsDict);
    transcoder.register(ComplexCustomValueAsDict);
    transcoder
}
