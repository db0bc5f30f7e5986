//! Groups of requests that share one commit.

use rusqlite::Connection;

use super::{
    append,
    request::{Outcome, Request},
};
use crate::{limits::Limits, schema::tables};

/// Requests that share one commit.
#[derive(Default)]
pub(super) struct Group {
    pub(super) requests: Vec<Request>,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Group {
    pub(super) fn of(request: Request) -> Self {
        let mut group = Self::default();
        group.add(request);
        group
    }

    pub(super) fn add(&mut self, request: Request) {
        self.rows += request.rows();
        self.bytes += request.bytes();
        self.requests.push(request);
    }

    /// Returns true if the group stays within the limits with this request.
    pub(super) fn has_capacity_for(&self, request: &Request, limits: Limits) -> bool {
        limits.contain(self.rows + request.rows(), self.bytes + request.bytes())
    }

    /// Determines whether exactly the rows of the group are recorded; `None` if that is unknown.
    ///
    /// A group is committed as a whole or not at all, so all requests must agree.
    pub(super) fn is_committed(
        &self,
        connection: &Connection,
        outcomes: &[Outcome],
    ) -> rusqlite::Result<Option<bool>> {
        let mut committed = None;
        let mut has_appended = false;
        for (request, outcome) in self.requests.iter().zip(outcomes) {
            let Ok(ids) = outcome else { continue };
            has_appended = true;
            let Some(recorded) = is_recorded(connection, request, ids)? else { continue };
            if committed.is_some_and(|committed| committed != recorded) {
                return Ok(None);
            }
            committed = Some(recorded);
        }
        // Without a request that appended anything, there was nothing to commit.
        Ok(if has_appended { committed } else { Some(true) })
    }
}

/// Another process may have recorded the same tracking record since: a tracking record without events proves
/// nothing if it is there, only if it is missing.
fn is_recorded(connection: &Connection, request: &Request, ids: &[i64]) -> rusqlite::Result<Option<bool>> {
    if !request.events.is_empty() {
        return append::are_recorded(connection, request.batch(), ids).map(Some);
    }
    let Some(tracking) = &request.tracking else { return Ok(None) };
    let recorded = tables::max_tracking_id(connection, tracking.application_name())?;
    Ok(if recorded < Some(tracking.notification_id()) { Some(false) } else { None })
}
