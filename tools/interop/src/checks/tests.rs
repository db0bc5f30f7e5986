//! Each check reports the flaw that is planted for it, and nothing without a flaw.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use serde_json::{Map, Value, json};

use super::{Findings, flaws};
use crate::{
    findings::{AccountReport, Followed, Logged, Processed, Report, SnapshotReport, Written},
    participant::{CONTESTED, PYTHON, RUST},
};

const TURNS: u32 = 6;

/// The findings without a flaw: both sides take their turns alternately.
fn findings() -> Findings {
    let mut log = Vec::new();
    for account in 0..3 {
        push(&mut log, account, "Opened", json!({ "owner": "rust 0" }));
    }
    for turn in 0..TURNS {
        for side in [RUST, PYTHON] {
            let note = format!("{side} {turn} and more");
            push(&mut log, turn % 3, "Credited", json!({ "note": note }));
            if turn == 0 {
                push(&mut log, 0, "Verified", json!({ "remark": { "dict": [["note", note]] } }));
            }
        }
    }
    push(&mut log, TURNS % 3, "Credited", json!({ "note": format!("{RUST} {TURNS} at last") }));
    let ledger: Vec<_> = log.iter().map(booked).collect();
    let by_rust = ledger.iter().filter(|entry| entry.attributes["booked_by"] == RUST).count() as u64;
    let processed = [by_rust, ledger.len() as u64 - by_rust];
    let position = log.len() as i64;
    let report =
        Report { log: log.clone(), accounts: (0..3).map(account_report).collect(), ledger, position };
    let snapshots = |account: u32| Written { conflicts: 0, snapshots: vec![(account.to_string(), 1)] };
    let mut both = snapshots(0);
    both.snapshots.extend(snapshots(2).snapshots);
    Findings {
        turns: TURNS,
        written: [both, snapshots(1)],
        followed: [Followed { log: log.clone() }, Followed { log }],
        processed: processed.map(|processed| Processed { processed, conflicts: 0 }),
        reports: [report.clone(), report],
    }
}

fn push(log: &mut Vec<Logged>, account: u32, sort: &str, attributes: Value) {
    let account = account.to_string();
    let version = log.iter().filter(|logged| logged.originator_id == account).count() as i64 + 1;
    log.push(Logged {
        id: log.len() as i64 + 1,
        originator_id: account,
        version,
        topic: format!("bank:Account.{sort}"),
        timestamp: Value::Null,
        attributes: attributes.as_object().cloned().unwrap_or_default(),
    });
}

fn booked(logged: &Logged) -> Logged {
    let is_for_rust = super::author(logged) == PYTHON || logged.id % CONTESTED == 0;
    let attributes = json!({
        "notification_id": { "int": logged.id.to_string() },
        "booked_by": if is_for_rust { RUST } else { PYTHON },
    });
    let attributes: Map<_, _> = attributes.as_object().cloned().unwrap_or_default();
    Logged { originator_id: format!("entry {}", logged.id), version: 1, attributes, ..logged.clone() }
}

fn account_report(account: u32) -> AccountReport {
    let snapshot = SnapshotReport { version: 1, kept: json!(1), replayed: json!(1) };
    AccountReport {
        id: account.to_string(),
        version: 5,
        loaded: json!(5),
        replayed: json!(5),
        snapshots: vec![snapshot],
    }
}

/// The findings when something is wrong with the log itself, so that all who read it agree.
fn with_log(change: impl Fn(&mut Vec<Logged>)) -> Findings {
    let mut findings = findings();
    let logs = findings.followed.iter_mut().map(|followed| &mut followed.log);
    for log in logs.chain(findings.reports.iter_mut().map(|report| &mut report.log)) {
        change(log);
    }
    findings
}

/// The findings when something is wrong with what both report.
fn with_reports(change: impl Fn(&mut Report)) -> Findings {
    let mut findings = findings();
    findings.reports.iter_mut().for_each(change);
    findings
}

fn with(change: impl FnOnce(&mut Findings)) -> Findings {
    let mut findings = findings();
    change(&mut findings);
    findings
}

#[track_caller]
fn assert_reported(findings: &Findings, flaw: &str) {
    let flaws = flaws(findings);
    assert!(flaws.iter().any(|reported| reported.contains(flaw)), "{flaw:?} is not among {flaws:#?}");
}

#[test]
fn nothing_is_reported_without_errors() {
    assert_eq!(flaws(&findings()), Vec::<String>::new());
}

#[test]
fn an_event_that_a_follower_missed_is_reported() {
    let findings = with(|findings| drop(findings.followed[1].log.remove(7)));
    assert_reported(&findings, "the follower in python met another log than there is: at 7");
}

#[test]
fn an_event_that_a_follower_saw_twice_is_reported() {
    let findings = with(|findings| {
        let twice = findings.followed[0].log[7].clone();
        findings.followed[0].log.insert(7, twice);
    });
    assert_reported(&findings, "the follower in rust met another log than there is: at 8");
}

#[test]
fn a_value_that_is_read_differently_is_reported() {
    let findings = with(|findings| {
        findings.reports[1].log[4].timestamp = json!({ "datetime": [1, 0] });
    });
    assert_reported(&findings, "Rust and Python read the log differently: at 4");
}

#[test]
fn a_turn_that_is_lost_is_reported() {
    let findings = with_log(|log| drop(log.pop()));
    assert_reported(&findings, r#"turns are lost: {"rust 6"}"#);
}

#[test]
fn a_turn_that_is_recorded_twice_is_reported() {
    let findings = with_log(|log| {
        let attributes = json!({ "note": "python 5 again" });
        push(log, 2, "Credited", attributes);
    });
    assert_reported(&findings, r#"the turn "python 5" is recorded twice"#);
}

#[test]
fn ids_that_do_not_increase_are_reported() {
    let findings = with_log(|log| log[8].id = 8);
    assert_reported(&findings, "the ids of the log do not increase");
}

#[test]
fn a_gap_in_the_versions_is_reported() {
    let findings = with_log(|log| log.last_mut().unwrap().version += 1);
    assert_reported(&findings, "the versions of 0 are not contiguous");
}

#[test]
fn a_torn_batch_is_reported() {
    let findings = with_log(|log| drop(log.remove(3)));
    assert_reported(&findings, "is torn");
}

#[test]
fn a_race_without_overlap_is_reported() {
    let mut log = Vec::new();
    for side in [RUST, PYTHON] {
        for turn in 0..30 {
            push(&mut log, turn % 3, "Credited", json!({ "note": format!("{side} {turn}") }));
        }
    }
    assert_reported(
        &with_log(|recorded| *recorded = log.clone()),
        "was not written by both at the same time",
    );
}

#[test]
fn a_snapshot_that_differs_from_the_events_is_reported() {
    let findings = with_reports(|report| report.accounts[0].snapshots[0].kept = json!(0));
    assert_reported(&findings, "0 at 1 is kept as 0, and replayed as 1");
}

#[test]
fn a_snapshot_that_is_lost_is_reported() {
    assert_reported(&with_reports(|report| report.accounts[0].snapshots.clear()), "were taken, and");
}

#[test]
fn an_account_that_is_loaded_and_replayed_differently_is_reported() {
    assert_reported(&with_reports(|report| report.accounts[1].loaded = json!(4)), "1 is loaded as 4");
}

#[test]
fn a_notification_that_is_booked_twice_is_reported() {
    let findings = with_reports(|report| {
        let twice = report.ledger[2].clone();
        report.ledger.insert(2, twice);
    });
    assert_reported(&findings, "the ledger has not booked the log as it is: at 3");
}

#[test]
fn a_notification_that_is_not_booked_is_reported() {
    let findings = with_reports(|report| drop(report.ledger.remove(2)));
    assert_reported(&findings, "the ledger has not booked the log as it is: at 2");
}

#[test]
fn a_position_that_is_read_differently_is_reported() {
    assert_reported(&with(|findings| findings.reports[0].position -= 1), "read the positions");
}

#[test]
fn a_booking_by_the_wrong_side_is_reported() {
    let findings = with_reports(|report| {
        report.ledger[0].attributes.insert("booked_by".to_owned(), json!(RUST));
    });
    assert_reported(&findings, "was for the other side");
}
