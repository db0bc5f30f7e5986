//! Groups: requests that are committed together because they do not conflict with each other.

use std::collections::HashMap;

use es_core::Conflict;
use uuid::Uuid;

use super::request::Request;

/// Requests that do not conflict with each other, and those that were left out for a conflict.
pub(crate) struct Group {
    pub(crate) requests: Vec<Request>,
    pub(crate) deferred: Vec<Deferred>,
}

impl Group {
    pub(crate) fn form(candidates: Vec<Request>) -> Self {
        let mut group = Self { requests: Vec::with_capacity(candidates.len()), deferred: Vec::new() };
        if candidates.len() == 1 {
            group.requests = candidates;
            return group;
        }
        let mut earlier = ConflictSet::default();
        for request in candidates {
            match earlier.check(&request) {
                Ok(()) => {
                    earlier.add(&request, Some(group.requests.len()));
                    group.requests.push(request);
                }
                Err(rival) => {
                    earlier.add(&request, None);
                    group.deferred.push(Deferred { request, rival });
                }
            }
        }
        group
    }
}

/// The result of a request, for the requests that were deferred because of it; the error is its conflict, if
/// it was refused for one.
pub(crate) type Answer = Result<(), Option<Conflict>>;

/// A request that is left out of a group.
pub(crate) struct Deferred {
    pub(crate) request: Request,
    /// The index of the request in the group that it conflicts with, and the conflict; none if it waits
    /// behind another deferred request, or behind a request with which a conflict is not certain.
    rival: Option<(usize, Conflict)>,
}

impl Deferred {
    /// Returns the conflict with the rival, if the rival was recorded, or refused because of the same version
    /// or position. Without this, many requests that are late for one aggregate would be refused one after
    /// the other, with a round trip each.
    ///
    /// A request with a position that conflicts by version is sent again: its position may conflict as well,
    /// which takes precedence.
    pub(crate) fn inherited_conflict(&self, answers: &[Answer]) -> Option<Conflict> {
        let (rival, conflict) = self.rival.as_ref()?;
        if matches!(conflict, Conflict::Version { .. }) && self.request.tracking.is_some() {
            return None;
        }
        let is_settled = match answers.get(*rival)? {
            Ok(()) => true,
            Err(Some(refused_for)) => refused_for == conflict,
            Err(None) => false,
        };
        is_settled.then(|| conflict.clone())
    }
}

/// The versions and positions of earlier requests, with the index of the request in the group, or none if
/// that request is deferred, which no conflicting request may overtake.
#[derive(Default)]
struct ConflictSet {
    versions: HashMap<(Uuid, i64), Option<usize>>,
    positions: HashMap<String, (i64, Option<usize>)>,
}

impl ConflictSet {
    /// Checks that a request does not conflict with those before it; the error is its rival in the group, if
    /// there is one.
    ///
    /// A group has at most one position for each application, because a position may depend on the one before
    /// it.
    fn check(&self, request: &Request) -> Result<(), Option<(usize, Conflict)>> {
        if let Some(tracking) = &request.tracking
            && let Some((position, index)) = self.positions.get(tracking.application_name())
        {
            let is_conflict = *position >= tracking.first_notification_id();
            return Err(index.filter(|_| is_conflict).map(|rival| (rival, tracking.conflict())));
        }
        for event in &request.events {
            if let Some(index) = self.versions.get(&(event.originator_id, event.originator_version)) {
                return Err(index.map(|rival| (rival, event.conflict())));
            }
        }
        Ok(())
    }

    fn add(&mut self, request: &Request, index: Option<usize>) {
        for event in &request.events {
            // The first request with a version counts.
            self.versions.entry((event.originator_id, event.originator_version)).or_insert(index);
        }
        if let Some(tracking) = &request.tracking {
            let position = (tracking.notification_id(), index);
            self.positions.entry(tracking.application_name().to_owned()).or_insert(position);
        }
    }
}
