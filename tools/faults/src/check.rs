//! Checks that a [`History`] keeps the promises of recorders:
//!
//! - what was acknowledged is there, under its ids, and what was refused is not; an event without a put is
//!   not;
//! - a put is there whole, in the order of its events, or not at all;
//! - each aggregate's sequence is strictly serialisable: there is an order of its puts and gets, each
//!   at a moment between its beginning and its end, in which every answer is right;
//! - what a reader got is without holes: nothing appears later at or below the last id that it got;
//!   and what was acknowledged before it asked is not missing, or on a standby, what it has waited for;
//! - ids follow time: what was acknowledged before another put began has lower ids;
//! - a tracked position is recorded with its events, and once.
//!
//! General checkers search, for the order that explains a history is not known. Here it is: versions
//! give the order of an aggregate's puts, and the length that a get found tells between which of them
//! it was. What remains is whether the times allow it, and taking each operation at the earliest moment
//! at which it can be decides that.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use crate::history::{Answer, Call, Event, History, Operation, Recorded, Required};

/// A promise that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The log does not give ids in ascending order, or one twice.
    LogUnordered(i64),
    /// The log holds an event without a put, or at another place than its put names.
    Invented(i64),
    /// An acknowledged event is missing, or has another id.
    Lost(String),
    /// Some of a put's events are there, or in another order.
    Torn(String),
    /// A refused event is recorded.
    Unwanted(String),
    /// An aggregate lacks a version, or has one twice.
    Version(u64, i64),
    /// No moment is left for an operation at which its answer is right.
    NoMoment(String),
    /// A get found what never was the aggregate's sequence.
    NeverSo(String),
    /// A reader missed an event below what it got.
    Missed(String, i64),
    /// A reader got what is not recorded so, or not in order.
    Misread(String, i64),
    /// A reader did not get what was acknowledged before.
    Stale(String, i64),
    /// A put has an id below that of one which was acknowledged before it began.
    AgainstTime(String),
    /// A tracked position was recorded twice, or not at all, or differs from that of its events.
    Position(String, i64),
}

/// All promises that a history breaks; none if all is well.
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker::new(history);
    checker.check_log();
    checker.check_puts();
    checker.check_aggregates();
    checker.check_conflicts();
    checker.check_times();
    checker.check_pages();
    checker.check_positions();
    checker.violations
}

struct Checker<'h> {
    history: &'h History,
    log: BTreeMap<i64, &'h Event>,
    by_put: HashMap<&'h str, Vec<&'h Recorded>>,
    puts: HashMap<&'h str, &'h Operation>,
    /// The highest id that was acknowledged up to a moment: of all events, and of those of each topic.
    acknowledged: BTreeMap<Option<usize>, BTreeMap<u64, i64>>,
    /// The earliest moment at which something can have stood at a place.
    taken: HashMap<(u64, i64), u64>,
    violations: Vec<Violation>,
}

impl<'h> Checker<'h> {
    fn new(history: &'h History) -> Self {
        let mut by_put: HashMap<&str, Vec<&Recorded>> = HashMap::new();
        for recorded in &history.log {
            by_put.entry(&recorded.event.put).or_default().push(recorded);
        }
        let puts = history.operations.iter().filter(|operation| matches!(operation.call, Call::Put { .. }));
        Self {
            history,
            log: history.log.iter().map(|recorded| (recorded.id, &recorded.event)).collect(),
            by_put,
            puts: puts.map(|put| (put.key.as_str(), put)).collect(),
            acknowledged: [None, Some(0), Some(1)].map(|topic| (topic, acknowledged(history, topic))).into(),
            taken: HashMap::new(),
            violations: Vec::new(),
        }
    }

    fn check_log(&mut self) {
        for (recorded, next) in self.history.log.iter().zip(self.history.log.iter().skip(1)) {
            if recorded.id >= next.id {
                self.violations.push(Violation::LogUnordered(next.id));
            }
        }
        for Recorded { id, event } in &self.history.log {
            let put = self.puts.get(event.put.as_str());
            let place = put.and_then(|put| places(put).get(event.index));
            if place != Some(&(event.aggregate, event.version)) {
                self.violations.push(Violation::Invented(*id));
            }
        }
    }

    fn check_puts(&mut self) {
        for put in self.puts.values() {
            let recorded = self.by_put.get(put.key.as_str()).map_or(&[][..], Vec::as_slice);
            let indexes = recorded.iter().map(|recorded| recorded.event.index);
            if !recorded.is_empty() && !indexes.eq(0..places(put).len()) {
                self.violations.push(Violation::Torn(put.key.clone()));
            }
            match &put.returned {
                Some((_, Answer::Recorded(ids)))
                    if !recorded.iter().map(|recorded| recorded.id).eq(ids.iter().copied()) =>
                {
                    self.violations.push(Violation::Lost(put.key.clone()));
                }
                Some((_, Answer::Conflict | Answer::TrackingConflict | Answer::Refused))
                    if !recorded.is_empty() =>
                {
                    self.violations.push(Violation::Unwanted(put.key.clone()));
                }
                _ => {}
            }
        }
    }

    fn check_aggregates(&mut self) {
        let mut aggregates: BTreeMap<u64, (Vec<&Event>, Vec<&Operation>)> = BTreeMap::new();
        for recorded in &self.history.log {
            aggregates.entry(recorded.event.aggregate).or_default().0.push(&recorded.event);
        }
        for operation in &self.history.operations {
            if let Call::Get { aggregate } = operation.call {
                aggregates.entry(aggregate).or_default().1.push(operation);
            }
        }
        for (aggregate, (mut events, gets)) in aggregates {
            events.sort_by_key(|event| event.version);
            let gap = (1..).zip(&events).find(|(version, event)| event.version != *version);
            match gap {
                Some((version, _)) => self.violations.push(Violation::Version(aggregate, version)),
                None => self.check_sequence(&events, &gets),
            }
        }
    }

    /// Takes puts and gets in the only order that explains what the gets found, each at the earliest
    /// moment at which it can be.
    fn check_sequence(&mut self, events: &[&'h Event], gets: &[&Operation]) {
        let mut by_length: BTreeMap<usize, Vec<(&Operation, u64)>> = BTreeMap::new();
        for get in gets {
            let Some((returned, Answer::Events(found))) = &get.returned else { continue };
            if events.len() < found.len() || !found.iter().eq(events.iter().copied().take(found.len())) {
                self.violations.push(Violation::NeverSo(get.key.clone()));
                continue;
            }
            by_length.entry(found.len()).or_default().push((get, *returned));
        }
        let mut now = 0;
        let mut length = 0;
        loop {
            let mut latest = now;
            for (get, returned) in by_length.remove(&length).unwrap_or_default() {
                let moment = now.max(get.invoked);
                latest = latest.max(moment);
                if moment > returned {
                    self.violations.push(Violation::NoMoment(get.key.clone()));
                }
            }
            let Some(first) = events.get(length) else { break };
            let Some(put) = self.puts.get(first.put.as_str()) else { return };
            now = latest.max(put.invoked);
            if put
                .returned
                .as_ref()
                .is_some_and(|(returned, answer)| matches!(answer, Answer::Recorded(_)) && now > *returned)
            {
                self.violations.push(Violation::NoMoment(put.key.clone()));
            }
            for event in events.iter().skip(length).take_while(|event| event.put == first.put) {
                self.taken.insert((event.aggregate, event.version), now);
                length += 1;
            }
        }
        // What is left was found in the middle of a put.
        for (get, _) in by_length.into_values().flatten() {
            self.violations.push(Violation::NeverSo(get.key.clone()));
        }
    }

    /// A conflict is right from the moment on at which something stands at one of the places.
    fn check_conflicts(&mut self) {
        for put in self.puts.values() {
            let Some((returned, Answer::Conflict)) = &put.returned else { continue };
            let taken = places(put).iter().filter_map(|place| self.taken.get(place)).min();
            if taken.is_none_or(|taken| taken > returned) {
                self.violations.push(Violation::NoMoment(put.key.clone()));
            }
        }
    }

    fn check_times(&mut self) {
        for (key, recorded) in &self.by_put {
            let (Some(put), Some(first)) = (self.puts.get(key), recorded.first()) else { continue };
            if self.acknowledged_before(put.invoked, None).is_some_and(|id| id >= first.id) {
                self.violations.push(Violation::AgainstTime(put.key.clone()));
            }
        }
    }

    fn check_pages(&mut self) {
        for select in &self.history.operations {
            let Call::Select { after, limit, topic, required } = select.call else { continue };
            let required = match required {
                Required::Acknowledged => self.acknowledged_before(select.invoked, topic),
                Required::UpTo(id) => self.highest_up_to(id, topic),
            };
            match &select.returned {
                Some((_, Answer::Notifications(page))) => {
                    self.check_page(select, (after, limit, topic), page, None, required);
                }
                Some((_, Answer::ReadUpTo(page, position))) => {
                    self.check_page(select, (after, limit, topic), page, Some(*position), required);
                }
                _ => {}
            }
        }
    }

    /// A subscription says up to where it has read everything; a page without a position, up to its last id.
    fn check_page(
        &mut self,
        select: &Operation,
        (after, limit, topic): (i64, usize, Option<usize>),
        page: &[Recorded],
        position: Option<i64>,
        required: Option<i64>,
    ) {
        let mut last = after;
        for Recorded { id, event } in page {
            let is_asked_for = Event::is_about(event.aggregate, topic);
            if *id <= last || !is_asked_for || self.log.get(id) != Some(&event) {
                self.violations.push(Violation::Misread(select.key.clone(), *id));
                return;
            }
            last = *id;
        }
        if position.is_some_and(|position| position < last) {
            self.violations.push(Violation::Misread(select.key.clone(), last));
            return;
        }
        last = position.unwrap_or(last);
        let ids: HashSet<i64> = page.iter().map(|recorded| recorded.id).collect();
        let mut passed = self.log.range(after.saturating_add(1)..).take_while(|(id, _)| **id <= last);
        let missed = passed.find(|(id, event)| Event::is_about(event.aggregate, topic) && !ids.contains(id));
        if let Some((id, _)) = missed {
            self.violations.push(Violation::Missed(select.key.clone(), *id));
        }
        if let Some(id) = required.filter(|id| page.len() < limit && *id > last) {
            self.violations.push(Violation::Stale(select.key.clone(), id));
        }
    }

    fn check_positions(&mut self) {
        let mut reported: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for key in self.by_put.keys() {
            let Some(Call::Put { tracking: Some((name, position)), .. }) =
                self.puts.get(key).map(|put| &put.call)
            else {
                continue;
            };
            reported.entry(name).or_default().push(*position);
        }
        for (name, positions) in &mut reported {
            positions.sort_unstable();
            let odd = (1..).zip(&*positions).find(|(expected, position)| expected != *position);
            let last = positions.last().copied().unwrap_or(0);
            if let Some((position, _)) = odd {
                self.violations.push(Violation::Position((*name).to_owned(), position));
            } else if self.history.positions.get(*name) != Some(&last) {
                self.violations.push(Violation::Position((*name).to_owned(), last));
            }
        }
        for (name, position) in &self.history.positions {
            if !reported.contains_key(name.as_str()) {
                self.violations.push(Violation::Position(name.clone(), *position));
            }
        }
    }

    /// The highest recorded id up to an id, of what a select asks for.
    fn highest_up_to(&self, id: i64, topic: Option<usize>) -> Option<i64> {
        let mut ids = self.log.range(..=id).rev();
        ids.find(|(_, event)| Event::is_about(event.aggregate, topic)).map(|(id, _)| *id)
    }

    /// The highest id that was acknowledged before a moment, of what a select asks for.
    fn acknowledged_before(&self, moment: u64, topic: Option<usize>) -> Option<i64> {
        let acknowledged = self.acknowledged.get(&topic)?;
        acknowledged.range(..moment).next_back().map(|(_, id)| *id)
    }
}

fn acknowledged(history: &History, topic: Option<usize>) -> BTreeMap<u64, i64> {
    let mut highest = BTreeMap::new();
    for operation in &history.operations {
        let Some((returned, Answer::Recorded(ids))) = &operation.returned else { continue };
        let asked_for = ids.iter().zip(places(operation)).filter(|(_, (it, _))| Event::is_about(*it, topic));
        let Some(id) = asked_for.map(|(id, _)| id).max() else { continue };
        let known = highest.entry(*returned).or_insert(*id);
        *known = (*known).max(*id);
    }
    let mut so_far = i64::MIN;
    for id in highest.values_mut() {
        so_far = so_far.max(*id);
        *id = so_far;
    }
    highest
}

fn places(put: &Operation) -> &[(u64, i64)] {
    match &put.call {
        Call::Put { places, .. } => places,
        _ => &[],
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogUnordered(id) => write!(f, "the log gives id {id} after one that is not lower"),
            Self::Invented(id) => write!(f, "the event with id {id} was not put there by anybody"),
            Self::Lost(key) => write!(f, "put {key} was acknowledged and is not there under its ids"),
            Self::Torn(key) => write!(f, "put {key} is not there whole and in its order"),
            Self::Unwanted(key) => write!(f, "put {key} was refused and is there"),
            Self::Version(aggregate, version) => {
                write!(f, "aggregate {aggregate} lacks version {version}, or has one before it twice")
            }
            Self::NoMoment(key) => write!(f, "at no moment of operation {key} is its answer right"),
            Self::NeverSo(key) => write!(f, "get {key} found what the aggregate never was"),
            Self::Missed(key, id) => write!(f, "reader {key} missed id {id}"),
            Self::Misread(key, id) => {
                write!(f, "reader {key} got id {id}, which is not recorded so, or out of order")
            }
            Self::Stale(key, id) => {
                write!(f, "reader {key} did not get id {id}, which was acknowledged before")
            }
            Self::AgainstTime(key) => {
                write!(f, "put {key} has an id below one that was acknowledged before it began")
            }
            Self::Position(name, position) => {
                write!(f, "position {position} of {name} was recorded twice, or not, or without its events")
            }
        }
    }
}

#[cfg(test)]
mod tests;
