//! Groups: requests that are committed together because they do not conflict with each other.

use std::collections::HashMap;

use es_core::Conflict;
use uuid::Uuid;

use super::request::{Request, version_conflict};

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
        let mut claims = ConflictSet::default();
        for request in candidates {
            match claims.check(&request) {
                Ok(()) => {
                    claims.add(&request, Some(group.requests.len()));
                    group.requests.push(request);
                }
                Err(rival) => {
                    claims.add(&request, None);
                    group.deferred.push(Deferred { request, rival });
                }
            }
        }
        group
    }
}

/// Whether a request was recorded, for the requests that were deferred for its sake; the error is the conflict
/// that it was refused for, if it was.
pub(crate) type Answer = Result<(), Option<Conflict>>;

/// A request that is left out of a group.
pub(crate) struct Deferred {
    pub(crate) request: Request,
    /// The index of the request in the group that it conflicts with, and the conflict; none if it waits
    /// behind another deferred request, or behind a request that it does not conflict with for certain.
    rival: Option<(usize, Conflict)>,
}

impl Deferred {
    /// Returns the conflict that the rival's result settles: the rival was recorded, or it was refused
    /// because of the same version or position. Without this, many requests that are late for one
    /// aggregate would be refused one after the other, with a round trip each.
    ///
    /// A request with a position that conflicts by version is not settled: its position may be lost as
    /// well, which takes precedence.
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

/// The versions and positions that earlier requests claim: with the index of the request in the group, or
/// none if that request is deferred, which no conflicting request may overtake.
#[derive(Default)]
struct ConflictSet {
    versions: HashMap<(Uuid, i64), Option<usize>>,
    positions: HashMap<String, (i64, Option<usize>)>,
}

impl ConflictSet {
    /// Checks that a request goes together with those before it; the error is its rival in the group, if it
    /// has one.
    ///
    /// A group has one position for each application at most, because a position may depend on the one
    /// before it.
    fn check(&self, request: &Request) -> Result<(), Option<(usize, Conflict)>> {
        if let Some(tracking) = &request.tracking
            && let Some((position, claimant)) = self.positions.get(tracking.application_name())
        {
            let is_conflict = *position >= tracking.first_notification_id();
            return Err(claimant.filter(|_| is_conflict).map(|rival| (rival, tracking.conflict())));
        }
        for event in &request.events {
            if let Some(claimant) = self.versions.get(&(event.originator_id, event.originator_version)) {
                return Err(claimant.map(|rival| (rival, version_conflict(event))));
            }
        }
        Ok(())
    }

    fn add(&mut self, request: &Request, claimant: Option<usize>) {
        for event in &request.events {
            // The first claim of a version stays.
            self.versions.entry((event.originator_id, event.originator_version)).or_insert(claimant);
        }
        if let Some(tracking) = &request.tracking {
            let claim = (tracking.notification_id(), claimant);
            self.positions.entry(tracking.application_name().to_owned()).or_insert(claim);
        }
    }
}
