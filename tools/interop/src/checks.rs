//! Checks of the participants' findings. Each flaw is reported; none is expected.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::{
    account::ACCOUNTS,
    findings::{AccountReport, Followed, Logged, Processed, Report, Written},
    participant::{CONTESTED, LEAD, PYTHON, RUST, TASKS},
};

/// The findings of all participants, Rust first, then Python.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    /// The number of turns of each writer.
    pub(crate) turns: u32,
    pub(crate) written: [Written; 2],
    pub(crate) followed: [Followed; 2],
    pub(crate) processed: [Processed; 2],
    pub(crate) reports: [Report; 2],
}

/// All that is wrong.
pub(crate) fn flaws(findings: &Findings) -> Vec<String> {
    let mut flaws = Flaws::default();
    let [rust, python] = &findings.reports;
    flaws.differences("Rust and Python read the log differently", &rust.log, &python.log);
    flaws.differences("Rust and Python read accounts differently", &rust.accounts, &python.accounts);
    flaws.differences("Rust and Python read the ledger differently", &rust.ledger, &python.ledger);
    flaws.check(rust.position == python.position, || {
        format!("Rust and Python read the positions {} and {}", rust.position, python.position)
    });
    for (language, followed) in [RUST, PYTHON].into_iter().zip(&findings.followed) {
        let what = format!("the follower in {language} met another log than there is");
        flaws.differences(&what, &followed.log, &rust.log);
    }
    flaws.of_log(&rust.log, findings.turns);
    flaws.of_accounts(&rust.accounts, &findings.written);
    flaws.of_ledger(rust, &findings.processed);
    flaws.0
}

#[derive(Debug, Default)]
struct Flaws(Vec<String>);

impl Flaws {
    fn check(&mut self, holds: bool, flaw: impl FnOnce() -> String) {
        if !holds {
            self.0.push(flaw());
        }
    }

    /// Reports the first difference of two lists; further differences often follow from it.
    fn differences<T: PartialEq + Serialize>(&mut self, what: &str, first: &[T], second: &[T]) {
        let length = first.len().max(second.len());
        let different = (0..length).find(|&index| first.get(index) != second.get(index));
        if let Some(index) = different {
            let [first, second] = [first, second].map(|list| shown(list.get(index)));
            self.0.push(format!("{what}: at {index}, {first} and {second}"));
        }
    }

    fn of_log(&mut self, log: &[Logged], turns: u32) {
        let is_increasing = log.is_sorted_by(|earlier, later| earlier.id < later.id);
        self.check(is_increasing, || "the ids of the log do not increase".to_owned());
        self.of_turns(log, turns);
        let mut by_account: BTreeMap<&str, Vec<&Logged>> = BTreeMap::new();
        for logged in log {
            by_account.entry(&logged.originator_id).or_default().push(logged);
        }
        self.check(by_account.len() == ACCOUNTS as usize, || {
            format!("there are {} accounts", by_account.len())
        });
        for (account, events) in by_account {
            self.of_account_log(account, &events);
        }
    }

    /// Each turn of each side is recorded once, the last one of Rust included.
    fn of_turns(&mut self, log: &[Logged], turns: u32) {
        let mut missing: BTreeSet<String> = [RUST, PYTHON]
            .iter()
            .flat_map(|side| (0..turns).map(move |turn| format!("{side} {turn}")))
            .collect();
        missing.insert(format!("{RUST} {turns}"));
        for logged in log.iter().filter(|logged| is_credited(logged)) {
            let turn = turn(logged);
            self.check(missing.remove(&turn), || {
                format!("the turn {turn:?} is recorded twice, or was not taken")
            });
        }
        self.check(missing.is_empty(), || format!("turns are lost: {missing:?}"));
    }

    fn of_account_log(&mut self, account: &str, events: &[&Logged]) {
        let versions = events.iter().map(|event| event.version);
        self.check(versions.eq(1..=events.len() as i64), || {
            format!("the versions of {account} are not contiguous")
        });
        for pair in events.windows(2) {
            let is_verified = pair[1].topic == "bank:Account.Verified";
            let is_whole =
                is_credited(pair[0]) && turn(pair[0]) == turn(pair[1]) && pair[0].id + 1 == pair[1].id;
            self.check(!is_verified || is_whole, || {
                format!("the batch that ends with notification {} is torn", pair[1].id)
            });
        }
        self.of_leads(account, events);
    }

    /// Both sides wrote from beginning to end: neither was ever further ahead than it may be.
    fn of_leads(&mut self, account: &str, events: &[&Logged]) {
        let mut lead: i64 = 0;
        for event in events.iter().filter(|event| is_credited(event)) {
            lead += if turn(event).starts_with(RUST) { 1 } else { -1 };
            self.check(lead.abs() < LEAD + i64::from(TASKS), || {
                format!("{account} was not written by both at the same time")
            });
        }
    }

    fn of_accounts(&mut self, accounts: &[AccountReport], written: &[Written; 2]) {
        let mut found = BTreeSet::new();
        for account in accounts {
            let AccountReport { id, loaded, replayed, snapshots, .. } = account;
            self.check(loaded == replayed, || {
                format!("{id} is loaded as {loaded}, and replayed as {replayed}")
            });
            for snapshot in snapshots {
                let (version, kept, replayed) = (snapshot.version, &snapshot.kept, &snapshot.replayed);
                self.check(kept == replayed, || {
                    format!("{id} at {version} is kept as {kept}, and replayed as {replayed}")
                });
                found.insert((id.clone(), version));
            }
        }
        for (language, written) in [RUST, PYTHON].into_iter().zip(written) {
            self.check(!written.snapshots.is_empty(), || format!("{language} took no snapshot"));
        }
        let taken: BTreeSet<_> =
            written.iter().flat_map(|written| written.snapshots.iter().cloned()).collect();
        self.check(found == taken, || format!("the snapshots {taken:?} were taken, and {found:?} are there"));
    }

    /// Each notification is booked once, in order, by a side that it was for.
    fn of_ledger(&mut self, report: &Report, processed: &[Processed; 2]) {
        let booked: Vec<_> =
            report.ledger.iter().map(|entry| integer(entry.attributes.get("notification_id"))).collect();
        let ids: Vec<_> = report.log.iter().map(|logged| Some(logged.id)).collect();
        self.differences("the ledger has not booked the log as it is", &booked, &ids);
        let last = report.log.last().map_or(0, |last| last.id);
        self.check(report.position == last, || format!("the position is {} and not {last}", report.position));
        let mut counts = [0, 0];
        for (entry, logged) in report.ledger.iter().zip(&report.log) {
            let by_rust = entry.attributes.get("booked_by").is_some_and(|side| side == RUST);
            counts[usize::from(!by_rust)] += 1;
            let is_for_rust = author(logged) == PYTHON;
            let is_contested = logged.id % CONTESTED == 0;
            self.check(is_contested || by_rust == is_for_rust, || {
                format!("notification {} was for the other side", logged.id)
            });
        }
        let reported = processed.each_ref().map(|processed| processed.processed);
        self.check(counts == reported, || {
            format!("the sides have booked {counts:?}, and report {reported:?}")
        });
    }
}

fn shown(value: Option<&impl Serialize>) -> String {
    value.map_or("nothing".to_owned(), |value| serde_json::to_string(value).unwrap_or_default())
}

fn is_credited(logged: &Logged) -> bool {
    logged.topic == "bank:Account.Credited"
}

/// The writer and the turn of an event.
fn turn(logged: &Logged) -> String {
    text(logged).splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ")
}

/// The writer of the event.
fn author(logged: &Logged) -> &str {
    text(logged).split(' ').next().unwrap_or_default()
}

/// The text that names the writer and the turn of an event.
fn text(logged: &Logged) -> &str {
    let attributes = &logged.attributes;
    let remark = || attributes.get("remark")?.pointer("/dict/0/1");
    let text = attributes.get("owner").or_else(|| attributes.get("note")).or_else(remark);
    text.and_then(Value::as_str).unwrap_or_default()
}

fn integer(plain: Option<&Value>) -> Option<i64> {
    plain?.get("int")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
