//! Each rule is proven by a recorder with a defect that breaks that rule and no other.
//!
//! A rule that no defect breaks, or that breaks together with another one, is not proven, and fails
//! these tests.

#![expect(clippy::expect_used, reason = "these are tests")]

mod broken;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use broken::{BrokenFixture, Defect};
use es_conformance::{model, process_rules, run};

/// The rules that a recorder with this defect breaks.
fn broken_rules(defect: Option<Defect>) -> Vec<&'static str> {
    let breaks = |check: es_conformance::Check<BrokenFixture>| {
        let make_fixture = async || BrokenFixture::new(defect);
        let checking = AssertUnwindSafe(|| run(make_fixture, async |fixture| check(fixture).await));
        catch_unwind(checking).is_err()
    };
    process_rules().into_iter().filter(|rule| breaks(rule.check)).map(|rule| rule.name).collect()
}

/// Returns a message if a defect does not break its rule, or breaks another one.
fn unproven(defect: Defect) -> Option<String> {
    let broken = broken_rules(Some(defect));
    let is_proven = broken == [defect.broken_rule()];
    (!is_proven).then(|| format!("{defect:?} should break {}, and breaks {broken:?}", defect.broken_rule()))
}

fn assert_defects_break_their_rules(rules: &str) {
    let defects = Defect::ALL.iter().filter(|defect| defect.broken_rule().starts_with(rules));
    // A defect may delay its rule up to the timeout of the fixture: all of them run concurrently.
    let unproven: Vec<String> = thread::scope(|scope| {
        let checks: Vec<_> = defects.map(|defect| scope.spawn(|| unproven(*defect))).collect();
        checks.into_iter().filter_map(|check| check.join().expect("a check should finish")).collect()
    });
    assert!(unproven.is_empty(), "{}", unproven.join("\n"));
}

#[test]
fn a_recorder_without_defect_breaks_no_rule() {
    assert!(broken_rules(None).is_empty());
}

#[test]
fn every_rule_has_a_defect_that_breaks_it() {
    let rules: BTreeSet<_> = process_rules::<BrokenFixture>().iter().map(|rule| rule.name).collect();
    let broken: BTreeSet<_> = Defect::ALL.iter().map(|defect| defect.broken_rule()).collect();
    assert_eq!(rules, broken);
    assert_eq!(broken.len(), Defect::ALL.len(), "two defects break one rule");
}

#[test]
fn every_public_rule_is_in_the_list() {
    let sources = [
        include_str!("../src/aggregate.rs"),
        include_str!("../src/application.rs"),
        include_str!("../src/concurrency.rs"),
        include_str!("../src/event_streams.rs"),
        include_str!("../src/notification_streams.rs"),
        include_str!("../src/process.rs"),
        include_str!("../src/subscriptions.rs"),
        include_str!("../src/tracking.rs"),
        include_str!("../src/waiting.rs"),
        include_str!("../src/commit_signal.rs"),
    ];
    let written: usize = sources.iter().map(|source| source.matches("\npub async fn ").count()).sum();
    assert_eq!(written, process_rules::<BrokenFixture>().len());
    assert!(
        include_str!("../README.md").contains(&format!("the {written} rules")),
        "there are {written} rules"
    );
}

#[test]
fn the_table_of_python_s_rules_names_rules_that_exist() {
    let rules: BTreeSet<_> = process_rules::<BrokenFixture>().iter().map(|rule| rule.name).collect();
    let code = include_str!("../PYTHON_RULES.md").split('`').skip(1).step_by(2);
    let is_type = |name: &str| name.starts_with(char::is_uppercase) || name.starts_with("model::");
    let named: Vec<_> = code.filter(|name| name.contains("::") && !is_type(name)).collect();
    assert!(named.len() > 50, "the table should be read");
    let unknown: Vec<_> = named.into_iter().filter(|name| !rules.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn defects_of_aggregate_recorders_break_their_rules() {
    assert_defects_break_their_rules("aggregate::");
}

#[test]
fn defects_of_streams_of_events_break_their_rules() {
    assert_defects_break_their_rules("event_streams::");
}

#[test]
fn defects_under_concurrency_break_their_rules() {
    assert_defects_break_their_rules("concurrency::");
}

#[test]
fn defects_of_application_recorders_break_their_rules() {
    assert_defects_break_their_rules("application::");
}

#[test]
fn defects_of_streams_of_notifications_break_their_rules() {
    assert_defects_break_their_rules("notification_streams::");
}

#[test]
fn defects_of_subscriptions_break_their_rules() {
    assert_defects_break_their_rules("subscriptions::");
}

#[test]
fn defects_of_commit_signals_break_their_rules() {
    assert_defects_break_their_rules("commit_signal::");
}

#[test]
fn defects_of_tracking_recorders_break_their_rules() {
    assert_defects_break_their_rules("tracking::");
}

#[test]
fn defects_of_waiting_break_their_rules() {
    assert_defects_break_their_rules("waiting::");
}

#[test]
fn defects_of_process_recorders_break_their_rules() {
    assert_defects_break_their_rules("process::");
}

#[test]
fn the_model_disagrees_with_defects_too() {
    let defects = [
        Defect::NilIsRefused,
        Defect::NegativeVersionsFail,
        Defect::EventsAreInOrderOfInsertion,
        Defect::GtIsIgnoredWithLte,
        Defect::EventLimitIsCast,
        Defect::DuplicateInBatchIsDropped,
        Defect::VersionIsNotNamed,
        Defect::BatchIsWrittenUpToTheConflict,
        Defect::IdsComeBackReversed,
        Defect::UnusedTopicIsIgnored,
        Defect::StopIsIgnoredWithTopics,
        Defect::BoundsAreSwapped,
        Defect::LastEventIsLostOnClose,
        Defect::PositionIsLostOnClose,
        Defect::NamesIgnoreCase,
        Defect::EventsBeforePosition,
        Defect::PositionBeforeEvents,
    ];
    let agrees = |defect| {
        let make_fixture = async || BrokenFixture::new(defect);
        catch_unwind(AssertUnwindSafe(|| model::process(make_fixture))).is_ok()
    };
    assert!(agrees(None));
    let unnoticed: Vec<_> = defects.into_iter().filter(|defect| agrees(Some(*defect))).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
