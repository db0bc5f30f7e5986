//! `uuid_hex`: UUIDs.

use es_core::{PersistenceError, Transcoding};
use uuid::Uuid;

/// Writes a [`Uuid`] as 32 hex digits under the name `uuid_hex`; reads them with dashes too.
#[derive(Clone, Copy, Debug, Default)]
pub struct UuidAsHex;

impl Transcoding for UuidAsHex {
    type Value = Uuid;
    type Encoded<'a> = String;
    type Decoded = Box<str>;

    fn name(&self) -> &str {
        "uuid_hex"
    }

    fn encode(&self, value: &Uuid) -> Result<String, PersistenceError> {
        Ok(value.as_simple().encode_lower(&mut Uuid::encode_buffer()).to_owned())
    }

    fn decode(&self, hex: Box<str>) -> Result<Uuid, PersistenceError> {
        Uuid::try_parse(&hex)
            .map_err(|error| PersistenceError::data("the text is not a UUID").with_source(error))
    }
}
