//! `es verify` finds each kind of planted damage, names the row, and finds nothing else.

use std::fs;

use es_sqlite::rusqlite::Connection;
use serde_json::Value;

use crate::support::{Sandbox, assert_snapshot};

const KEY: &str = "S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q=";

/// The findings of a run, as `check: message`, with the id before the message; and the summary.
fn findings(sandbox: &Sandbox, arguments: &[&str]) -> (Vec<String>, Value) {
    let run = sandbox.on_bank(&[&["verify", "--format", "json"], arguments].concat());
    assert!(matches!(run.exit, 0 | 4) && run.stderr.is_empty(), "{run:?}");
    let mut lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    assert_eq!(run.exit == 4, !lines.is_empty(), "{run:?}");
    assert_eq!(summary["findings"], lines.len(), "{run:?}");
    let text = |line: &Value| {
        let id = line["id"].as_i64().map_or_else(String::new, |id| format!("notification {id}: "));
        format!("{}: {id}{}", line["finding"].as_str().unwrap(), line["message"].as_str().unwrap())
    };
    (lines.iter().map(text).collect(), summary)
}

/// Plants damage by SQL and expects findings that contain the texts, one each.
fn planted(database: &str, sql: &str, expected: &[&str]) {
    let sandbox = readable(database);
    sandbox.execute(sql);
    expect(&sandbox, expected);
}

fn expect(sandbox: &Sandbox, expected: &[&str]) {
    let (found, _) = findings(sandbox, &[]);
    let matches = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.contains(expected));
    assert!(matches, "expected {expected:#?}, found {found:#?}");
}

/// A database and the settings of its codecs, without damage.
fn readable(database: &str) -> Sandbox {
    let mut sandbox = Sandbox::with_python_database(database);
    if database.contains("aes256") {
        sandbox.set("CIPHER_KEY", KEY);
    }
    if database.contains("zlib") {
        sandbox.set("COMPRESSOR_TOPIC", "zlib");
    }
    assert_eq!(findings(&sandbox, &[]).0, Vec::<String>::new(), "before the damage");
    sandbox
}

const PLAIN: &str = "sqlite-9.5-plain";
const ENCRYPTED: &str = "sqlite-9.5-aes256-zlib";
const COMPRESSED: &str = "sqlite-9.1-zlib";
/// The first byte of a state, changed.
const FLIPPED: &str = "state = CAST(char(unicode(substr(CAST(state AS TEXT), 1, 1)) + 1) || substr(CAST(state AS TEXT), 2) AS BLOB)";

#[test]
fn damaged_states() {
    planted(
        PLAIN,
        &format!("UPDATE stored_events SET {FLIPPED} WHERE rowid = 7"),
        &["event: notification 7: version 2 of originator"],
    );
    planted(
        PLAIN,
        "UPDATE stored_events SET state = substr(state, 1, length(state) - 1) WHERE rowid = 7",
        &["event: notification 7: version 2 of originator"],
    );
    planted(PLAIN, "UPDATE stored_events SET state = X'5b5d' WHERE rowid = 7", &["not a JSON object"]);
    planted(PLAIN, "UPDATE stored_events SET state = X'7bff7d' WHERE rowid = 7", &["not JSON"]);
    planted(PLAIN, "UPDATE stored_events SET state = NULL WHERE rowid = 7", &["event: notification 7: "]);
}

#[test]
fn damaged_ciphertexts() {
    // The last byte, the first byte, and the length.
    for state in [
        "substr(state, 1, length(state) - 1) || (CASE substr(state, -1) WHEN X'00' THEN X'01' ELSE X'00' END)",
        "(CASE substr(state, 1, 1) WHEN X'00' THEN X'01' ELSE X'00' END) || substr(state, 2)",
        "substr(state, 1, 20)",
    ] {
        let sql = format!("UPDATE stored_events SET state = CAST({state} AS BLOB) WHERE rowid = 5");
        planted(ENCRYPTED, &sql, &["event: notification 5: version 1 of originator"]);
    }
    planted(
        COMPRESSED,
        "UPDATE stored_events SET state = CAST(substr(state, 1, 30) AS BLOB) WHERE rowid = 5",
        &["event: notification 5: "],
    );
}

#[test]
fn a_wrong_key_is_found_for_every_state() {
    let mut sandbox = Sandbox::with_python_database(ENCRYPTED);
    sandbox.set("CIPHER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    sandbox.set("COMPRESSOR_TOPIC", "zlib");
    let (found, summary) = findings(&sandbox, &[]);
    assert_eq!(
        found.len() as u64,
        summary["events"].as_u64().unwrap() + summary["snapshots"].as_u64().unwrap()
    );
    assert_eq!(findings(&sandbox, &["--raw"]).0, Vec::<String>::new());
}

#[test]
fn rows_that_are_no_events() {
    planted(PLAIN, "UPDATE stored_events SET topic = NULL WHERE rowid = 7", &["event: notification 7: "]);
    planted(PLAIN, "UPDATE stored_events SET topic = X'ff' WHERE rowid = 7", &["event: notification 7: "]);
    // Several bad rows, next to each other and at both ends.
    planted(
        PLAIN,
        "UPDATE stored_events SET topic = NULL WHERE rowid IN (1, 20, 21, 43)",
        &["notification 1: ", "notification 20: ", "notification 21: ", "notification 43: "],
    );
    // The first version of an aggregate with one event.
    planted(
        PLAIN,
        "INSERT INTO stored_events SELECT 'no uuid', 1, topic, state FROM stored_events WHERE rowid = 1",
        &["event: notification 44: "],
    );
    // The last version of an aggregate.
    planted(
        PLAIN,
        "UPDATE stored_events SET originator_version = 'five' WHERE rowid = 5",
        &["event: notification 5: "],
    );
}

#[test]
fn versions_that_are_not_contiguous() {
    planted(
        PLAIN,
        "DELETE FROM stored_events WHERE rowid = 3",
        &["version: originator 69d45f5d823c453db3411550464bc315 has no version between 2 and 4"],
    );
    planted(
        PLAIN,
        "DELETE FROM stored_events WHERE rowid = 1",
        &["version: originator 69d45f5d823c453db3411550464bc315 begins with version 2, not 1"],
    );
    planted(
        PLAIN,
        "ALTER TABLE stored_events RENAME TO old; CREATE TABLE stored_events AS SELECT * FROM old ORDER BY old.rowid; \
         INSERT INTO stored_events SELECT * FROM old WHERE rowid = 2; DROP TABLE old",
        &["version: originator 69d45f5d823c453db3411550464bc315 has version 2 twice"],
    );
}

#[test]
fn ids_that_readers_do_not_find() {
    planted(
        PLAIN,
        "UPDATE stored_events SET rowid = -3 WHERE rowid = 43",
        &["id: notification -3: it is not positive"],
    );
}

#[test]
fn positions_that_are_not_in_the_log() {
    planted(
        PLAIN,
        "UPDATE tracking SET notification_id = 44 WHERE application_name = 'other'",
        &["tracker: the position 44 of consumer other is after the end of the log, 43"],
    );
    planted(
        PLAIN,
        "UPDATE tracking SET notification_id = -1 WHERE application_name = 'other'",
        &["tracker: the position -1"],
    );
    planted(
        PLAIN,
        "UPDATE tracking SET notification_id = 'x' WHERE application_name = 'other'",
        &["tracker: "],
    );
    let sandbox = Sandbox::with_python_database(PLAIN);
    sandbox.execute("UPDATE tracking SET notification_id = 50 WHERE application_name = 'other'");
    assert_eq!(findings(&sandbox, &["--no-trackers"]).0, Vec::<String>::new());
    // The log that the consumers follow is another one, with 55 events.
    let longer = fs::read(crate::support::python("sqlite-9.1-plain.db")).unwrap();
    fs::write(sandbox.path("upstream.db"), longer).unwrap();
    assert_eq!(findings(&sandbox, &["--upstream", "sqlite:upstream.db"]).0, Vec::<String>::new());
}

#[test]
fn snapshots_that_do_not_fit() {
    planted(
        PLAIN,
        "UPDATE stored_snapshots SET originator_version = 999 WHERE originator_id = (SELECT max(originator_id) FROM stored_snapshots)",
        &["is after its last event"],
    );
    planted(
        PLAIN,
        "UPDATE stored_snapshots SET originator_id = '00000000000000000000000000000009' \
         WHERE originator_id = (SELECT max(originator_id) FROM stored_snapshots)",
        &["snapshot: the snapshot of version"],
    );
    planted(
        PLAIN,
        "UPDATE stored_snapshots SET state = X'7b' WHERE originator_id = (SELECT max(originator_id) FROM stored_snapshots)",
        &["the state is not JSON"],
    );
    planted(
        PLAIN,
        "UPDATE stored_snapshots SET topic = NULL WHERE originator_id = (SELECT max(originator_id) FROM stored_snapshots)",
        &["snapshot: snapshots of"],
    );
}

/// Changes the bytes of a page of the file, by its number from 1.
fn damage_page(sandbox: &Sandbox, page: usize, damage: impl Fn(&mut [u8])) {
    let path = sandbox.path("bank.db");
    let mut bytes = fs::read(&path).unwrap();
    let size = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    damage(&mut bytes[(page - 1) * size..page * size]);
    fs::write(path, bytes).unwrap();
}

fn root_page(sandbox: &Sandbox, name: &str) -> usize {
    let connection = Connection::open(sandbox.path("bank.db")).unwrap();
    connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get::<_, u16>(0))
        .unwrap()
        .into()
}

#[test]
fn damaged_pages_and_indexes() {
    let index = "sqlite_autoindex_stored_events_1";
    // A digit of an originator in the index.
    let sandbox = readable(PLAIN);
    let page = root_page(&sandbox, index);
    damage_page(&sandbox, page, |page| {
        let id = b"69d45f5d823c453db3411550464bc315";
        let at = page.windows(id.len()).position(|window| window == id).unwrap();
        page[at] = b'7';
    });
    let (found, _) = findings(&sandbox, &[]);
    assert!(found.iter().any(|found| found.contains(index)), "{found:#?}");
    assert!(found.iter().all(|found| found.starts_with("database: ")), "nothing else: {found:#?}");
    // A page of the table that is no page.
    let sandbox = readable(PLAIN);
    let page = root_page(&sandbox, "stored_events");
    damage_page(&sandbox, page, |page| page.fill(0));
    let (found, _) = findings(&sandbox, &[]);
    assert!(found.iter().all(|found| found.starts_with("database: ")), "{found:#?}");
    assert!(found.iter().any(|found| found.contains("the database is damaged")), "{found:#?}");
}

#[test]
fn a_digest_finds_changes_that_are_valid_in_themselves() {
    for (changed, sql) in [
        ("a state", "UPDATE stored_events SET state = replace(state, 'Alice', 'Malle') WHERE rowid = 1"),
        ("a topic", "UPDATE stored_events SET topic = 'bank:Account.Opened' WHERE rowid = 2"),
        ("the end", "DELETE FROM stored_events WHERE rowid = 43"),
    ] {
        let sandbox = readable(PLAIN);
        let (_, before) = findings(&sandbox, &[]);
        let digest = before["digest"].as_str().unwrap();
        assert_eq!(findings(&sandbox, &["--expect-digest", digest]).0, Vec::<String>::new());
        sandbox.execute(sql);
        let (found, after) = findings(&sandbox, &["--no-trackers", "--expect-digest", digest]);
        assert!(matches!(&*found, [found] if found.starts_with("digest: ")), "{changed}: {found:?}");
        assert_ne!(before["digest_with_ids"], after["digest_with_ids"]);
    }
}

#[test]
fn the_same_events_have_the_same_digest_by_any_codec() {
    let digest = |ids: &str| {
        let sandbox = readable(PLAIN);
        sandbox.execute(ids);
        let (_, summary) = findings(&sandbox, &["--no-trackers"]);
        (summary["digest"].clone(), summary["digest_with_ids"].clone())
    };
    let (plain, moved) = (digest(""), digest("UPDATE stored_events SET rowid = 50 WHERE rowid = 43"));
    assert_eq!(plain.0, moved.0);
    assert_ne!(plain.1, moved.1);
}

#[test]
fn the_report_is_text_or_json() {
    let sandbox = readable(PLAIN);
    assert_snapshot("verify-clean", sandbox.on_bank(&["verify"]).output());
    sandbox.execute(
        "UPDATE stored_events SET topic = NULL WHERE rowid = 7; DELETE FROM stored_events WHERE rowid = 3",
    );
    let text = sandbox.on_bank(&["verify"]);
    let json = sandbox.on_bank(&["verify", "--format", "json"]);
    assert_eq!((text.exit, json.exit), (4, 4));
    assert_snapshot("verify-text", &text.stdout);
    assert_snapshot("verify-json", &json.stdout);
}
