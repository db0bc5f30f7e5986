//! The rows and positions of batches as columns, as the
//! [statement for a group](super::statement::group) takes them.

use es_core::{StoredEvent, Tracking};
use sqlx::{Arguments, error::BoxDynError, postgres::PgArguments};
use uuid::Uuid;

use super::request::Batch;
use crate::schema::CatalogState;

/// The rows, with the ranges of their versions, and the positions.
pub(super) struct Columns<'a> {
    pub(super) batches: &'a [Batch<'a>],
    requests: Vec<i32>,
    originator_ids: Vec<Uuid>,
    pub(super) versions: Vec<i64>,
    topics: Vec<&'a str>,
    states: Vec<&'a [u8]>,
    ranges: VersionRanges,
    pub(super) positions: Positions<'a>,
}

/// Ranges of adjacent rows of one aggregate with ascending versions, without a gap.
#[derive(Default)]
struct VersionRanges {
    requests: Vec<i32>,
    originator_ids: Vec<Uuid>,
    lowest: Vec<i64>,
    highest: Vec<i64>,
}

#[derive(Default)]
pub(super) struct Positions<'a> {
    requests: Vec<i32>,
    pub(super) application_names: Vec<&'a str>,
    positions: Vec<i64>,
    firsts: Vec<i64>,
    expected: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(batches: &'a [Batch<'a>]) -> Self {
        let rows = batches.iter().map(|batch| batch.events.len()).sum();
        let mut columns = Self {
            batches,
            requests: Vec::with_capacity(rows),
            originator_ids: Vec::with_capacity(rows),
            versions: Vec::with_capacity(rows),
            topics: Vec::with_capacity(rows),
            states: Vec::with_capacity(rows),
            ranges: VersionRanges::default(),
            positions: Positions::default(),
        };
        for (request, batch) in (0..).zip(batches) {
            for event in batch.events {
                columns.requests.push(request);
                columns.originator_ids.push(event.originator_id);
                columns.versions.push(event.originator_version);
                columns.topics.push(&event.topic);
                columns.states.push(&event.state);
                columns.ranges.add(request, event);
            }
            if let Some(tracking) = batch.tracking {
                columns.positions.add(request, tracking);
            }
        }
        columns
    }

    pub(super) fn has_tracking(&self) -> bool {
        !self.positions.requests.is_empty()
    }

    pub(super) fn arguments(
        &self,
        tables: &CatalogState,
        is_callers: bool,
        ids: Option<&[i64]>,
    ) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        if tables.events.is_some() {
            arguments.add(&self.requests)?;
            arguments.add(&self.originator_ids)?;
            arguments.add(&self.versions)?;
            arguments.add(&self.topics)?;
            arguments.add(&self.states)?;
            arguments.add(&self.ranges.requests)?;
            arguments.add(&self.ranges.originator_ids)?;
            arguments.add(&self.ranges.lowest)?;
            arguments.add(&self.ranges.highest)?;
        }
        if self.has_tracking() {
            arguments.add(&self.positions.requests)?;
            arguments.add(&self.positions.application_names)?;
            arguments.add(&self.positions.positions)?;
            arguments.add(&self.positions.firsts)?;
            arguments.add(&self.positions.expected)?;
            // In the caller's transaction, a refused append must leave the transaction usable.
            arguments.add(is_callers)?;
        }
        if let Some(ids) = ids {
            arguments.add(ids)?;
        }
        Ok(arguments)
    }
}

impl VersionRanges {
    fn add(&mut self, request: i32, event: &StoredEvent) {
        let version = event.originator_version;
        if self.requests.last() == Some(&request)
            && self.originator_ids.last() == Some(&event.originator_id)
            && let Some(highest) = self.highest.last_mut()
            && highest.checked_add(1) == Some(version)
        {
            *highest = version;
            return;
        }
        self.requests.push(request);
        self.originator_ids.push(event.originator_id);
        self.lowest.push(version);
        self.highest.push(version);
    }
}

impl<'a> Positions<'a> {
    fn add(&mut self, request: i32, tracking: &'a Tracking) {
        self.requests.push(request);
        self.application_names.push(tracking.application_name());
        self.positions.push(tracking.notification_id());
        self.firsts.push(tracking.first_notification_id());
        self.expected.push(tracking.expected_position());
    }
}
