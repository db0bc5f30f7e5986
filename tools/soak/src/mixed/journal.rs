//! The journal of a mixed soak: all that the participants did and saw, and its check against the log.
//!
//! A participant writes a line before each put and after it. The state of an event names its put, so that
//! each recorded event is found again, and each that no put explains is noticed.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, bail};
use es_core::uuid::Uuid;

/// Followers of one topic have names that end with this and the number of the topic.
pub const TOPIC_SUFFIX: &str = ".topic";

/// No more violations of one kind are described.
const DESCRIBED: usize = 5;

/// Everything that participants report.
#[derive(Debug, Default)]
pub struct Journal {
    puts: HashMap<String, Put>,
    seen: BTreeMap<String, Vec<i64>>,
    violations: Vec<String>,
}

/// Events that are recorded together.
#[derive(Debug)]
struct Put {
    events: usize,
    tracking: Option<(String, i64)>,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Still in flight, or the participant does not know: recorded whole, or not at all.
    Unknown,
    Recorded(Vec<i64>),
    Refused,
}

/// A recorded event.
#[derive(Clone, Debug)]
pub struct Row {
    /// The notification id.
    pub id: i64,
    /// The aggregate.
    pub originator_id: Uuid,
    /// The position in the aggregate's sequence.
    pub version: i64,
    /// The topic.
    pub topic: String,
    /// The parsed result of [`state`].
    pub state: String,
}

/// Counts of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Puts that were acknowledged.
    pub acknowledged: usize,
    /// Puts that were refused or rolled back.
    pub refused: usize,
    /// Puts whose participant does not know whether they were recorded.
    pub unknown: usize,
    /// Notifications that followers saw.
    pub seen: usize,
    /// Followers.
    pub followers: usize,
}

/// The state of an event: its put, its place in it, and how many events the put has.
pub fn state(key: &str, index: usize, events: usize) -> String {
    format!("{key} {index} {events}")
}

/// The topic of events, by number.
pub fn topic(number: usize) -> String {
    format!("mixed:Event{number}")
}

impl Journal {
    /// Takes a line of a participant.
    ///
    /// # Errors
    /// When it is not one of the protocol.
    pub fn take(&mut self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let name = words.next().with_context(|| format!("{line:?} has no name"))?;
        match kind {
            "put" => {
                let events = words.next().context("a put has a number of events")?.parse()?;
                let tracking = match (words.next(), words.next()) {
                    (Some(upstream), Some(position)) => Some((upstream.to_owned(), position.parse()?)),
                    _ => None,
                };
                self.puts.insert(name.to_owned(), Put { events, tracking, outcome: Outcome::Unknown });
            }
            "ok" => self.end(name, Outcome::Recorded(ids(words)?))?,
            "no" => self.end(name, Outcome::Refused)?,
            "saw" => self.saw(name, &ids(words)?),
            _ => bail!("{line:?} is not a line of a participant"),
        }
        Ok(())
    }

    /// A put begins.
    pub fn begin(&mut self, key: &str, events: usize) {
        self.puts.insert(key.to_owned(), Put { events, tracking: None, outcome: Outcome::Unknown });
    }

    /// A put is acknowledged, under these ids; or it is refused.
    pub fn finish(&mut self, key: &str, ids: Option<Vec<i64>>) {
        if let Some(put) = self.puts.get_mut(key) {
            put.outcome = ids.map_or(Outcome::Refused, Outcome::Recorded);
        }
    }

    fn end(&mut self, key: &str, outcome: Outcome) -> Result<()> {
        self.puts.get_mut(key).with_context(|| format!("put {key} ended and did not begin"))?.outcome =
            outcome;
        Ok(())
    }

    /// A follower saw notifications.
    pub fn saw(&mut self, follower: &str, ids: &[i64]) {
        match self.seen.get_mut(follower) {
            Some(seen) => seen.extend(ids),
            None => drop(self.seen.insert(follower.to_owned(), ids.to_vec())),
        }
    }

    /// The last id that a follower saw.
    pub fn position(&self, follower: &str) -> i64 {
        self.seen.get(follower).and_then(|seen| seen.last().copied()).unwrap_or(0)
    }

    /// Followers whose names begin so, and what they saw last.
    pub fn positions(&self, prefix: &str) -> Vec<(String, i64)> {
        let followers = self.seen.iter().filter(|(name, _)| name.starts_with(prefix));
        followers.map(|(name, seen)| (name.clone(), seen.last().copied().unwrap_or(0))).collect()
    }

    /// A promise was broken in a way that is noticed at once.
    pub fn violation(&mut self, violation: String) {
        self.violations.push(violation);
    }

    /// Counts the operations.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { followers: self.seen.len(), ..Counts::default() };
        for put in self.puts.values() {
            match put.outcome {
                Outcome::Unknown => counts.unknown += 1,
                Outcome::Recorded(_) => counts.acknowledged += 1,
                Outcome::Refused => counts.refused += 1,
            }
        }
        counts.seen = self.seen.values().map(Vec::len).sum();
        counts
    }

    /// The violations that a whole log, in the order of ids, shows. Followers have read it up to `end`.
    pub fn check(&self, log: &[Row], end: i64, positions: &HashMap<String, i64>) -> Vec<String> {
        let mut violations = self.violations.clone();
        violations.extend(self.check_puts(log));
        violations.extend(check_versions(log));
        violations.extend(self.check_positions(log, positions));
        for (follower, seen) in &self.seen {
            let topic =
                follower.rsplit_once(TOPIC_SUFFIX).and_then(|(_, number)| number.parse().ok()).map(topic);
            let expected = log.iter().take_while(|row| row.id <= end);
            let expected = expected.filter(|row| topic.as_ref().is_none_or(|topic| row.topic == *topic));
            let expected: Vec<i64> = expected.map(|row| row.id).collect();
            let seen: Vec<i64> = seen.iter().copied().take_while(|id| *id <= end).collect();
            violations.extend(check_sequence(&format!("follower {follower}"), &seen, &expected));
        }
        violations
    }

    fn check_puts(&self, log: &[Row]) -> Vec<String> {
        let mut violations = Vec::new();
        let mut recorded: HashMap<&str, Vec<(usize, i64)>> = HashMap::new();
        for row in log {
            let mut words = row.state.split(' ');
            let put = words.next().unwrap_or_default();
            let index = words.next().and_then(|index| index.parse().ok()).unwrap_or(usize::MAX);
            if self.puts.contains_key(put) {
                recorded.entry(put).or_default().push((index, row.id));
            } else {
                violations.push(format!("id {} is of put {put:?}, which did not begin", row.id));
            }
        }
        for (key, put) in &self.puts {
            let rows = recorded.get(key.as_str()).map_or(&[][..], Vec::as_slice);
            let is_whole = rows.iter().map(|(index, _)| *index).eq(0..put.events);
            let found: Vec<i64> = rows.iter().map(|(_, id)| *id).collect();
            match &put.outcome {
                Outcome::Recorded(ids) if found != *ids || !is_whole => violations.push(format!(
                    "put {key} was acknowledged under ids {ids:?} and is recorded as {found:?}"
                )),
                Outcome::Refused if !rows.is_empty() => {
                    violations.push(format!("put {key} was refused and is recorded as {found:?}"));
                }
                Outcome::Unknown if !rows.is_empty() && !is_whole => {
                    violations.push(format!(
                        "put {key} of {} events is recorded in part, as {found:?}",
                        put.events
                    ));
                }
                _ => {}
            }
        }
        bounded(violations)
    }

    /// Positions are recorded with their events: the highest one stays.
    fn check_positions(&self, log: &[Row], positions: &HashMap<String, i64>) -> Vec<String> {
        let mut violations = Vec::new();
        let mut highest: HashMap<&str, i64> = HashMap::new();
        let mut puts = HashSet::new();
        for row in log {
            let key = row.state.split(' ').next().unwrap_or_default();
            let Some((upstream, position)) = self.puts.get(key).and_then(|put| put.tracking.as_ref()) else {
                continue;
            };
            if !puts.insert(key) {
                continue;
            }
            let before = highest.insert(upstream, *position).unwrap_or(0);
            if *position <= before {
                violations.push(format!(
                    "id {} was recorded with position {position} of {upstream:?}, after position {before}",
                    row.id
                ));
            }
        }
        for (upstream, position) in highest {
            if positions.get(upstream) != Some(&position) {
                violations.push(format!(
                    "the position of {upstream:?} is {:?}, and events were recorded with {position}",
                    positions.get(upstream)
                ));
            }
        }
        bounded(violations)
    }
}

/// The first difference between what somebody saw and what is recorded.
pub fn check_sequence(name: &str, seen: &[i64], recorded: &[i64]) -> Option<String> {
    let index = seen.iter().zip(recorded).position(|(seen, recorded)| seen != recorded);
    let index = index.unwrap_or(seen.len().min(recorded.len()));
    let before = index.checked_sub(1).map_or(0, |before| seen[before]);
    match (seen.get(index), recorded.get(index)) {
        (None, None) => None,
        (Some(id), _) if *id <= before => Some(format!("{name} saw id {id} after id {before}")),
        (Some(id), Some(next)) if next < id => {
            Some(format!("{name} missed id {next} between ids {before} and {id}"))
        }
        (Some(id), _) => Some(format!("{name} saw id {id}, which is not recorded")),
        (None, Some(next)) => Some(format!("{name} missed id {next}, after id {before}")),
    }
}

/// Versions of an aggregate are contiguous, and its ids ascend with them.
fn check_versions(log: &[Row]) -> Vec<String> {
    let mut last: HashMap<Uuid, i64> = HashMap::new();
    let mut violations = Vec::new();
    for row in log {
        let version = last.entry(row.originator_id).or_insert(0);
        if row.version != *version + 1 {
            let Row { id, originator_id, version: found, .. } = row;
            violations
                .push(format!("id {id} is version {found} of {originator_id}, after version {version}"));
        }
        *version = row.version;
    }
    bounded(violations)
}

fn bounded(mut violations: Vec<String>) -> Vec<String> {
    if violations.len() > DESCRIBED {
        violations.sort();
        let more = violations.len() - DESCRIBED;
        violations.truncate(DESCRIBED);
        violations.push(format!("and {more} more of this kind"));
    }
    violations
}

fn ids<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<i64>> {
    words.map(|id| id.parse().with_context(|| format!("{id:?} is not an id"))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn row(id: i64, aggregate: u128, version: i64, state: &str) -> Row {
        let originator_id = Uuid::from_u128(aggregate);
        Row { id, originator_id, version, topic: topic(0), state: state.to_owned() }
    }

    fn violations(lines: &[&str], log: &[Row], position: i64) -> Vec<String> {
        let mut journal = Journal::default();
        lines.iter().for_each(|line| journal.take(line).unwrap());
        journal.check(log, 100, &HashMap::from([("up".to_owned(), position)]))
    }

    fn log() -> Vec<Row> {
        vec![row(1, 7, 1, "a 0 1"), row(3, 7, 2, "b 0 2"), row(4, 8, 1, "b 1 2"), row(5, 8, 2, "c 0 1")]
    }

    const LINES: [&str; 8] =
        ["put a 1", "put b 2 up 9", "ok a 1", "ok b 3 4", "put c 1", "put d 1", "no d", "saw f 1 3 4 5"];

    #[test]
    fn a_log_that_fits_has_no_violations() {
        assert_eq!(violations(&LINES, &log(), 9), Vec::<String>::new());
    }

    #[test]
    fn each_violation_is_found() {
        let mut refused = log();
        refused.push(row(6, 9, 1, "d 0 1"));
        let mut invented = log();
        invented.push(row(6, 9, 1, "e 0 1"));
        let mut twice = log();
        twice.push(row(6, 8, 3, "c 0 1"));
        let mut gap = log();
        gap[3].version = 3;
        let mut torn = LINES.to_vec();
        torn.retain(|line| !line.starts_with("ok b"));
        for (lines, log, position, expected) in [
            (LINES.to_vec(), log()[1..].to_vec(), 9, "put a was acknowledged under ids [1]"),
            (LINES.to_vec(), refused, 9, "put d was refused and is recorded as [6]"),
            (LINES.to_vec(), invented, 9, "id 6 is of put \"e\""),
            (LINES.to_vec(), twice, 9, "put c of 1 events is recorded in part, as [5, 6]"),
            (LINES.to_vec(), gap, 9, "id 5 is version 3"),
            (torn, [&log()[..2], &log()[3..]].concat(), 9, "put b of 2 events is recorded in part"),
            (LINES.to_vec(), log(), 8, "the position of \"up\" is Some(8)"),
            (
                [&LINES[..7], &["saw f 1 4 5"]].concat(),
                log(),
                9,
                "follower f missed id 3 between ids 1 and 4",
            ),
            ([&LINES[..7], &["saw f 1 3 3 4 5"]].concat(), log(), 9, "follower f saw id 3 after id 3"),
            ([&LINES[..7], &["saw f 1 2 3 4 5"]].concat(), log(), 9, "follower f saw id 2, which is not"),
            ([&LINES[..7], &["saw f 1 3 4"]].concat(), log(), 9, "follower f missed id 5, after id 4"),
        ] {
            let found = violations(&lines, &log, position);
            assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn followers_of_a_topic_see_its_events_only() {
        let mut log = log();
        log[1].topic = topic(1);
        let lines = [&LINES[..7], &["saw f.topic0 1 4 5", "saw f.topic1 3"]].concat();
        assert_eq!(violations(&lines, &log, 9), Vec::<String>::new());
        let lines = [&LINES[..7], &["saw f.topic0 1 3 4 5"]].concat();
        assert_eq!(violations(&lines, &log, 9).len(), 1);
    }
}
