//! JSON transcoder whose bytes are those of the Python eventsourcing library.

mod datetime;
mod decimal;
mod json_text;
mod python_style;
mod registered;
mod registry;
mod scope;
mod strict;
mod transcoder;
mod uuid_hex;
mod value;

pub use bigdecimal;
pub use datetime::{DatetimeAsIso, NaiveDatetimeAsIso};
pub use decimal::DecimalAsStr;
pub use registered::Registered;
pub use serde_with;
pub use time;
pub use transcoder::JsonTranscoder;
pub use uuid;
pub use uuid_hex::UuidAsHex;
pub use value::{Integer, Value};
