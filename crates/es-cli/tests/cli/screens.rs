//! `es top` and other screens, in a pseudo terminal.

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    copying::{Backend, Copying},
    postgres::Schema,
    support::Sandbox,
    terminal::{Terminal, read_to_end},
};

const PLAIN: &str = "sqlite-9.5-plain";
const SIZE: (u16, u16) = (12, 92);
/// Adds events of a new aggregate, whose id ends with the number of its events.
const INSERT: &str = "INSERT INTO stored_events WITH RECURSIVE versions(v) AS (SELECT 1 UNION ALL SELECT v + 1 \
                      FROM versions WHERE v < 9) SELECT printf('%032d', 9), v, topic, state FROM versions, \
                      (SELECT topic, state FROM stored_events LIMIT 1)";

fn bank() -> Sandbox {
    Sandbox::with_python_database(PLAIN)
}

#[test]
fn top_follows_the_log_and_keys() {
    let sandbox = bank();
    let mut terminal = Terminal::start(&sandbox, SIZE, &["top", "-d", "sqlite:bank.db", "--window", "20"]);
    terminal.wait_for("last id 43, 0 events/s");
    terminal.assert_picture("Screen of es top");
    sandbox.execute(INSERT);
    terminal.wait_for("00000000-0000-0000-0000-000000000009             9             9");
    terminal.wait_for("last id 52");
    for (key, mark) in [("r", "▼ RECENT"), ("s", "▼ SIZE"), ("e", "▼ EVENTS")] {
        terminal.press(key);
        terminal.wait_for(mark);
    }
    // Fewer aggregates have recent events.
    terminal.wait_for("1 to 9 of 13");
    terminal.press("j");
    terminal.wait_for("2 to 10 of 13");
    terminal.press("k");
    terminal.wait_for("1 to 9 of 13");
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), Some(0));
    assert!(terminal.is_restored());
}

#[test]
fn top_shows_a_failure_until_a_read_succeeds() {
    let sandbox = bank();
    let mut terminal = Terminal::start(&sandbox, SIZE, &["top", "-d", "sqlite:bank.db"]);
    terminal.wait_for("last id 43");
    sandbox.execute("ALTER TABLE stored_events RENAME TO moved");
    terminal.wait_for("no such table");
    sandbox.execute("ALTER TABLE moved RENAME TO stored_events");
    terminal.wait_for("PgDn scroll");
    // The terminal sends no signal for Ctrl-C, but a key.
    terminal.press("\u{3}");
    assert_eq!(terminal.wait_for_end(), Some(0));
    assert!(terminal.is_restored());
}

#[test]
fn top_restores_the_terminal_after_a_signal() {
    let sandbox = bank();
    for signal in [Signal::TERM, Signal::INT] {
        let mut terminal = Terminal::start(&sandbox, SIZE, &["top", "-d", "sqlite:bank.db"]);
        terminal.wait_for("last id 43");
        assert!(!terminal.is_restored());
        kill_process(Pid::from_child(&terminal.child), signal).unwrap();
        assert_eq!(terminal.wait_for_end(), Some(0));
        assert!(terminal.is_restored());
    }
}

/// A warning is the last line of the screen until a key is pressed, and is printed when the screen has ended.
#[test]
fn top_keeps_warnings_off_the_screen() {
    const WARNING: &str = "WARN a variable of the environment has no effect";
    let mut sandbox = bank();
    sandbox.set("SQLITE_LOCK_TIMEOT", "3");
    let mut terminal = Terminal::start(&sandbox, SIZE, &["top", "-d", "sqlite:bank.db"]);
    terminal.wait_for(WARNING);
    assert!(!terminal.is_restored());
    terminal.press("k");
    terminal.wait_for("PgDn scroll");
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), Some(0));
    assert_eq!(terminal.text().matches(WARNING).count(), 1, "{}", terminal.text());
}

#[test]
fn top_needs_a_terminal_or_prints_once() {
    let sandbox = bank();
    let run = sandbox.on_bank(&["top"]);
    run.fails_with(2, "standard output is not a terminal");
    run.fails_with(2, "--once");
    let once = sandbox.on_bank(&["top", "--once", "-n2", "--window", "3", "--sort", "recent"]);
    let expected = [
        r#"{"originator_id":"13130d499c864f4bbcda62b35ce48a60","events":1,"recent_events":1,"recent_bytes":327}"#,
        r#"{"originator_id":"d20645387b5a4fbda244e420458755da","events":6,"recent_events":1,"recent_bytes":83}"#,
    ];
    assert_eq!(once.output().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn top_ranks_alike_on_both_backends() {
    let Some(copying) = Copying::between(Backend::Sqlite, Backend::Postgres) else { return };
    copying.run(&["copy", "from", "to", "--yes"]);
    let top = |context: &str, sort: &str| {
        let arguments = ["top", "-d", context, "--once", "-n5", "--window", "20", "--sort", sort];
        copying.sandbox.run(&arguments).output().replace('-', "")
    };
    for sort in ["events", "recent", "size"] {
        assert_eq!(top("from", sort), top("to", sort), "{sort}");
    }
}

#[test]
fn top_on_a_database_of_python_on_postgres() {
    let Some(schema) = Schema::with_python_database() else { return };
    let mut terminal = Terminal::start(&schema.sandbox(), SIZE, &["top", "-a", "bank"]);
    terminal.wait_for("last id 48");
    schema.execute(&format!(
        "INSERT INTO {}.bank_events (originator_id, originator_version, topic, state) \
         VALUES (gen_random_uuid(), 1, 'bank:Followed', '{{}}')",
        schema.name
    ));
    terminal.wait_for("last id 49");
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), Some(0));
}

#[test]
fn info_on_a_terminal() {
    let sandbox = bank();
    let mut terminal = Terminal::start(&sandbox, (11, 92), &["info", "-d", "sqlite:bank.db"]);
    assert_eq!(terminal.wait_for_end(), Some(0));
    terminal.assert_picture("Output of es info");
}

#[test]
fn a_followed_log_on_a_terminal() {
    let sandbox = bank();
    let arguments = ["log", "-d", "sqlite:bank.db", "--after", "42", "--follow"];
    let mut terminal = Terminal::start(&sandbox, (12, 120), &arguments);
    terminal.wait_for("43  ");
    sandbox.execute(
        "INSERT INTO stored_events SELECT originator_id, 99, topic, state FROM stored_events WHERE rowid = 2",
    );
    terminal.wait_for("44  ");
    terminal.wait_for(" v99");
    terminal.assert_picture("Output of es log --follow");
    terminal.press("\u{3}");
    assert_eq!(terminal.wait_for_end(), None, "by the signal of the terminal");
}

/// The bar is on standard error, and is removed at the end; the result is on standard output.
#[test]
fn progress_is_shown_on_standard_error() {
    let sandbox = bank();
    for (arguments, task, result) in [
        (
            &["copy", "sqlite:bank.db", "sqlite:copy.db", "--yes", "--batch", "1"][..],
            "copying",
            "copied 43 events",
        ),
        (&["verify", "-d", "sqlite:bank.db"], "verifying", "43 events"),
    ] {
        let mut terminal = Terminal::start_piped(&sandbox, (6, 92), arguments);
        let stdout = terminal.child.stdout.take().unwrap();
        assert_eq!(terminal.wait_for_end(), Some(0));
        let stdout = read_to_end(stdout);
        assert!(stdout.contains(result) && !stdout.contains('\u{1b}'), "{stdout}");
        let shown = String::from_utf8_lossy(&terminal.bytes);
        for part in [task, "/43", "/s", " left"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!terminal.text().contains(task), "{}", terminal.text());
    }
}
