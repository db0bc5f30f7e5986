//! The inspection commands, on databases of the Python library.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use crate::support::{Sandbox, assert_snapshot};

const ACCOUNT: &str = "69d45f5d-823c-453d-b341-1550464bc315";

fn bank() -> Sandbox {
    Sandbox::with_python_database("sqlite-9.5-plain")
}

#[test]
fn info_of_both_layouts() {
    for version in ["9.1", "9.5"] {
        let sandbox = Sandbox::with_python_database(&format!("sqlite-{version}-plain"));
        for format in ["text", "json"] {
            let run = sandbox.on_bank(&["info", "--format", format]);
            // The version of SQLite changes with its crate.
            let version_of_sqlite = es_sqlite::rusqlite::version();
            let output = run.output().replace(version_of_sqlite, "VERSION");
            assert_snapshot(&format!("info-{version}-{format}"), &output);
        }
    }
}

#[test]
fn log_in_each_format() {
    let sandbox = bank();
    let log = |format: &str| sandbox.on_bank(&["log", "-n5", "--format", format]).output().to_owned();
    assert_snapshot("log-text", &log("text"));
    assert_snapshot("log-json", &log("json"));
    assert_snapshot(
        "log-template",
        &log("{id}\\t{timestamp} {topic} {originator_version} {state.owner} {{}}"),
    );
    assert_snapshot("log-raw", sandbox.on_bank(&["log", "-n2", "--raw", "--format", "json"]).output());
}

#[test]
fn log_selects_positions_and_topics() {
    let sandbox = bank();
    let ids = |arguments: &[&str]| {
        let run = sandbox.on_bank(&[&["log", "--format", "{id}"], arguments].concat());
        run.output().lines().map(|line| line.parse().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!(ids(&[]), (1..=43).collect::<Vec<_>>());
    assert_eq!(ids(&["--after", "40"]), [41, 42, 43]);
    assert_eq!(ids(&["--after", "end"]), Vec::<i64>::new());
    assert_eq!(ids(&["--after", "2", "--until", "5"]), [3, 4, 5]);
    assert_eq!(ids(&["--topic", "bank:Account.Closed"]), [12, 29, 41]);
    assert_eq!(ids(&["--topic", "bank:Account.Closed", "--topic", "bank:Account.Opened", "-n2"]), [1, 6]);
}

#[test]
fn a_wrong_format_is_refused() {
    let run = bank().on_bank(&["log", "--format", "{owner}"]);
    run.fails_with(2, "placeholder {owner} is not known");
}

#[test]
fn log_ends_when_its_reader_does() {
    let sandbox = bank();
    let mut running = sandbox.start(&["log", "-d", "sqlite:bank.db"]);
    drop(running.0.stdout.take());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn log_follows_commits_of_other_processes() {
    let sandbox = bank();
    let mut running =
        sandbox.start(&["log", "-d", "sqlite:bank.db", "--after", "42", "--follow", "--format", "{id}"]);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "43");
    sandbox.execute(
        "INSERT INTO stored_events SELECT lower(hex(randomblob(16))), 1, topic, state FROM stored_events LIMIT 1",
    );
    assert_eq!(lines.next().unwrap().unwrap(), "44");
}

#[test]
fn states_that_cannot_be_decoded_are_findings() {
    let mut sandbox = bank();
    sandbox.execute("UPDATE stored_events SET state = CAST('{' AS BLOB) WHERE rowid = 2");
    let run = sandbox.on_bank(&["log", "-n3", "--format", "json"]);
    run.fails_with(4, "1 states cannot be decoded");
    assert_eq!(run.stdout.lines().count(), 3, "the other events are printed");
    assert!(run.stdout.lines().nth(1).unwrap().contains("\"error\":\"the state is not JSON"), "{run:?}");
    sandbox.set("CIPHER_KEY", "S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q=");
    sandbox.on_bank(&["log", "-n3"]).fails_with(4, "3 states cannot be decoded");
    sandbox.on_bank(&["log", "-n3", "--raw"]).output();
}

#[test]
fn show_prints_an_aggregate() {
    let sandbox = bank();
    assert_snapshot("show", sandbox.on_bank(&["show", ACCOUNT, "--at", "2"]).output());
    let versions = sandbox.on_bank(&["show", ACCOUNT, "--format", "{originator_version}"]);
    assert_eq!(versions.output(), "1\n2\n3\n4\n5\n");
    sandbox.on_bank(&["show", ACCOUNT, "--at", "99"]).fails_with(5, "has no version 99: the last is 5");
    sandbox
        .on_bank(&["show", "00000000-0000-0000-0000-000000000009"])
        .fails_with(5, "no events of aggregate");
}

#[test]
fn topics_are_counted() {
    let sandbox = bank();
    assert_snapshot("topics-text", sandbox.on_bank(&["topics"]).output());
    assert_snapshot("topics-json", sandbox.on_bank(&["topics", "--format", "json"]).output());
}

#[test]
fn trackers_report_lag_for_monitoring() {
    let sandbox = bank();
    assert_snapshot("trackers-text", sandbox.on_bank(&["trackers"]).output());
    assert_snapshot("trackers-json", sandbox.on_bank(&["trackers", "--format", "json"]).output());
    sandbox.on_bank(&["trackers", "--max-lag", "36"]).output();
    let behind = sandbox.on_bank(&["trackers", "--max-lag", "35"]);
    assert_eq!(behind.exit, 4, "{behind:?}");
    sandbox.on_bank(&["trackers", "other", "--max-lag", "2"]).output();
    sandbox.on_bank(&["trackers", "absent"]).fails_with(5, "consumer \"absent\" has no position");
    sandbox.execute("UPDATE tracking SET notification_id = 44 WHERE application_name = 'other'");
    let ahead = sandbox.on_bank(&["trackers", "other"]);
    assert!(ahead.exit == 4 && ahead.stdout.contains("ahead of the log"), "{ahead:?}");
}

#[test]
fn colors_are_for_terminals() {
    let sandbox = bank();
    assert!(!sandbox.on_bank(&["topics"]).output().contains('\u{1b}'));
    assert!(sandbox.on_bank(&["topics", "--color=always"]).output().contains("\u{1b}[1mTOPIC"));
    // Text of an event does not control the terminal.
    sandbox.execute("UPDATE stored_events SET topic = 'a' || char(27) || '[31m' WHERE rowid = 1");
    assert!(!sandbox.on_bank(&["log", "-n1"]).output().contains('\u{1b}'));
    let mut piped = sandbox.command(&["log", "-d", "sqlite:bank.db", "-n1", "--format", "{topic}"]);
    let mut output = String::new();
    let mut child = piped.stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.wait().unwrap();
    assert_eq!(output, "a\\u{1b}[31m\n");
}
