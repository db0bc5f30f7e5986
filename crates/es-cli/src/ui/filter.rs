//! The filter of the log, from the parameters of a URL.

use es_core::uuid::Uuid;
use jiff::{Timestamp, civil::DateTime, tz::Offset};
use serde::Deserialize;

use super::{
    page::{Problem, encoded},
    source::Source,
};
use crate::catalog::IdSelection;

/// The parameters of the log, as they were sent. Empty ones are not set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    pub(super) topic: String,
    pub(super) aggregate: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) order: String,
    /// The page before this id.
    pub(super) before: String,
    /// The page after this id.
    pub(super) after: String,
}

impl Parameters {
    /// Returns whether the oldest events come first.
    pub(super) fn is_ascending(&self) -> bool {
        self.order == "oldest"
    }

    /// Returns the query of a URL with the same filter, and another page.
    pub(super) fn query(&self, page: Option<(&str, i64)>) -> String {
        let filter = [
            ("topic", &self.topic),
            ("aggregate", &self.aggregate),
            ("from", &self.from),
            ("to", &self.to),
            ("since", &self.since),
            ("until", &self.until),
            ("order", &self.order),
        ];
        let set = filter.into_iter().filter(|(_, value)| !value.is_empty());
        let pairs = set.map(|(name, value)| format!("{name}={}", encoded(value)));
        let pairs = pairs.chain(page.map(|(name, id)| format!("{name}={id}")));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// Returns the ids that pass the filter, up to the end of the log, without regard to the page.
    ///
    /// # Errors
    /// If a parameter is invalid, or times are given and the events have none.
    pub(super) async fn selection(&self, source: &Source, head: i64) -> Result<IdSelection, Problem> {
        let mut selection = IdSelection {
            originator_id: self.originator_id()?,
            topic: self.topic(),
            is_descending: !self.is_ascending(),
            ..IdSelection::all(head)
        };
        if let Some(from) = id("From id", &self.from)? {
            selection.first = from;
        }
        if let Some(to) = id("To id", &self.to)? {
            selection.last = to.min(head);
        }
        if let Some(since) = time("Since", &self.since)? {
            selection.first = selection.first.max(source.first_at(since).await?);
        }
        if let Some(until) = time("Before", &self.until)? {
            selection.last = selection.last.min(source.first_at(until).await? - 1);
        }
        Ok(selection)
    }

    pub(super) fn originator_id(&self) -> Result<Option<Uuid>, Problem> {
        match self.aggregate.trim() {
            "" => Ok(None),
            text => originator_id(text).map(Some),
        }
    }

    pub(super) fn topic(&self) -> Option<String> {
        (!self.topic.is_empty()).then(|| self.topic.clone())
    }
}

/// Parses the id of an aggregate.
pub(super) fn originator_id(text: &str) -> Result<Uuid, Problem> {
    text.trim().parse().map_err(|_| Problem::invalid("Aggregate id: expected a UUID"))
}

/// Parses an id or a version; `None` if it is empty.
pub(super) fn id(name: &str, text: &str) -> Result<Option<i64>, Problem> {
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Problem::invalid(format!("{name}: expected a number"))),
    }
}

/// Parses a time, which is one of UTC without an offset; `None` if it is empty.
fn time(name: &str, text: &str) -> Result<Option<Timestamp>, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let of_utc = || Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    let time = text.parse().ok().or_else(of_utc);
    time.map(Some).ok_or_else(|| {
        Problem::invalid(format!("{name}: expected a date and a time, as in 2026-01-31T23:59"))
    })
}
