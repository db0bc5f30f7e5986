//! The types of `time` without transcodings of their own.

use es_core::PersistenceError;
use time::{Date, Time};

use crate::{as_text::TextForm, iso};

impl TextForm for Date {
    const NAME: &str = iso::DATE;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_date(*self)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        iso::read_date(text)
    }
}

impl TextForm for Time {
    const NAME: &str = iso::TIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_time(*self)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        iso::read_time(text)
    }
}
