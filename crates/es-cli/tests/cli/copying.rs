//! `es copy`, `es export` and `es import`: between all pairs of backends, with kills.

use std::{
    env, fs,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::{
    postgres::Schema,
    projections::sqlite_settings,
    support::{Sandbox, python},
};

const PLAIN: &str = "sqlite-9.5-plain";
const KEY: &str = "S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q=";

/// A directory with the databases of a copy, and its configuration with the contexts `from` and `to`.
pub(crate) struct Copying {
    pub(crate) sandbox: Sandbox,
    schemas: Vec<Schema>,
    backends: [Backend; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Copying {
    /// `None` if the tests are configured to run without PostgreSQL and it is needed.
    pub(crate) fn between(from: Backend, to: Backend) -> Option<Self> {
        let (sandbox, mut schemas) = (Sandbox::with_python_database(PLAIN), Vec::new());
        let mut configuration = String::new();
        for (context, backend) in [("from", from), ("to", to)] {
            configuration += &match (backend, context) {
                (Backend::Sqlite, "from") => "[contexts.from]\ndatabase = \"sqlite:bank.db\"\n".to_owned(),
                (Backend::Sqlite, _) => "[contexts.to]\ndatabase = \"sqlite:copy.db\"\n".to_owned(),
                (Backend::Postgres, _) => {
                    let schema =
                        if context == "from" { Schema::with_python_database()? } else { Schema::new()? };
                    let settings = schema.context(context);
                    schemas.push(schema);
                    format!("[contexts.{context}]\napplication = \"bank\"\n{settings}")
                }
            };
        }
        fs::create_dir_all(sandbox.path("es")).unwrap();
        sandbox.write("es/config.toml", &configuration);
        let mut sandbox = sandbox;
        sandbox.set("XDG_CONFIG_HOME", sandbox.path("").to_str().unwrap());
        Some(Self { sandbox, schemas, backends: [from, to] })
    }

    /// Returns the settings of the source or the target, for a factory.
    pub(crate) fn settings(&self, context: &str) -> Vec<(String, String)> {
        let [from, to] = self.backends;
        let (backend, file) = if context == "from" { (from, "bank.db") } else { (to, "copy.db") };
        let schema = if context == "from" { self.schemas.first() } else { self.schemas.last() };
        match schema.filter(|_| backend == Backend::Postgres) {
            Some(schema) => schema.settings(),
            None => sqlite_settings(&self.sandbox.path(file)),
        }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Value {
        let run = self.sandbox.run(&[arguments, &["--format", "json"]].concat());
        assert_eq!((run.exit, run.stderr.as_str()), (0, ""), "{run:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Verifies a context; returns the summary.
    fn verify(&self, context: &str) -> Value {
        self.run(&["verify", "--database", context])
    }

    /// Returns whether a part of the events is copied.
    fn is_partial(&self) -> bool {
        let events =
            |context| self.sandbox.run(&["log", "-d", context, "--format", "{id}"]).stdout.lines().count();
        let copied = events("to");
        copied > 0 && copied < events("from")
    }

    /// Verifies that the copy has the events, the snapshots and the positions of the source.
    pub(crate) fn assert_equal(&self) {
        let (from, to) = (self.verify("from"), self.verify("to"));
        for part in ["digest", "digest_with_ids", "events", "last_id", "snapshots"] {
            assert_eq!(from[part], to[part], "{part}: {from} {to}");
        }
        let trackers = |context| self.sandbox.run(&["trackers", "-d", context]).output().to_owned();
        assert_eq!(trackers("from"), trackers("to"));
    }
}

pub(crate) const PAIRS: [(Backend, Backend); 4] = [
    (Backend::Sqlite, Backend::Sqlite),
    (Backend::Sqlite, Backend::Postgres),
    (Backend::Postgres, Backend::Sqlite),
    (Backend::Postgres, Backend::Postgres),
];

#[test]
fn copies_between_all_pairs_of_backends() {
    for (from, to) in PAIRS {
        let Some(copying) = Copying::between(from, to) else { continue };
        // Ids have gaps.
        match copying.schemas.first().filter(|_| from == Backend::Postgres) {
            Some(schema) => schema.execute(&format!(
                "UPDATE {}.bank_events SET notification_id = notification_id + 100 WHERE notification_id > 20",
                schema.name
            )),
            None => copying.sandbox.execute("UPDATE stored_events SET rowid = rowid + 100 WHERE rowid > 20"),
        }
        let copied = copying.run(&["copy", "from", "to", "--yes"]);
        assert_eq!((&copied["ids"], &copied["states"]), (&"kept".into(), &"unchanged".into()));
        assert_eq!((&copied["snapshots"], &copied["trackers"]), (&3.into(), &2.into()));
        copying.assert_equal();
        let again = copying.run(&["copy", "from", "to", "--yes"]);
        assert_eq!(
            (&again["events"], &again["snapshots"], &again["trackers"]),
            (&0.into(), &0.into(), &0.into())
        );
    }
}

#[test]
fn a_later_run_copies_the_events_since() {
    let copying = Copying::between(Backend::Sqlite, Backend::Sqlite).unwrap();
    copying.run(&["copy", "from", "to", "--yes"]);
    copying.sandbox.execute(
        "INSERT INTO stored_events SELECT '00000000000000000000000000000009', 1, topic, state FROM stored_events \
         WHERE rowid = 1",
    );
    assert_eq!(copying.run(&["copy", "from", "to", "--yes"])["events"], 1);
    copying.assert_equal();
}

#[test]
fn a_copy_numbers_events_anew() {
    for (from, to) in PAIRS {
        let Some(copying) = Copying::between(from, to) else { continue };
        if from == Backend::Sqlite {
            copying.sandbox.execute("UPDATE stored_events SET rowid = rowid + 100 WHERE rowid > 20");
        }
        let copied = copying.run(&["copy", "from", "to", "--yes", "--renumber", "--batch", "7"]);
        assert_eq!((&copied["ids"], &copied["trackers"]), (&"renumbered".into(), &0.into()));
        let (original, copy) = (copying.verify("from"), copying.verify("to"));
        assert_eq!((&original["digest"], &original["events"]), (&copy["digest"], &copy["events"]));
        assert_eq!(copying.run(&["copy", "from", "to", "--yes", "--renumber"])["events"], 0);
    }
}

#[test]
fn a_copy_is_encrypted_and_compressed_anew() {
    let copying = Copying::between(Backend::Sqlite, Backend::Sqlite).unwrap();
    let sandbox = &copying.sandbox;
    sandbox.write("target.env", &format!("CIPHER_KEY={KEY}\nCOMPRESSOR_TOPIC=zstd\n"));
    let copy = ["copy", "sqlite:bank.db", "sqlite:other.db", "--to-env-file", "target.env", "--yes"];
    let copied = copying.run(&copy);
    assert_eq!(copied["states"], "encoded anew");
    let copy = copying.run(&["verify", "-d", "sqlite:other.db", "--env-file", "target.env"]);
    assert_eq!(copy["digest_with_ids"], copying.verify("from")["digest_with_ids"]);
    // Without the key, no state can be decoded; and back again, with it.
    assert_eq!(sandbox.run(&["verify", "-d", "sqlite:other.db"]).exit, 4);
    sandbox.write("plain.env", "");
    let back = [
        "copy",
        "sqlite:other.db",
        "sqlite:copy.db",
        "--env-file",
        "target.env",
        "--to-env-file",
        "plain.env",
        "--yes",
    ];
    assert_eq!(copying.run(&back)["states"], "encoded anew");
    copying.assert_equal();
}

#[test]
fn a_copy_is_refused_where_it_would_mix_logs() {
    let copying = Copying::between(Backend::Sqlite, Backend::Sqlite).unwrap();
    let sandbox = &copying.sandbox;
    sandbox.run(&["copy", "from", "to"]).fails_with(2, "hint: pass --yes");
    assert!(!sandbox.path("copy.db").exists());
    sandbox.run(&["copy", "from", "from", "--yes"]).fails_with(2, "the target has events already");
    copying.run(&["copy", "from", "to", "--yes"]);
    // Another source.
    sandbox.execute("UPDATE stored_events SET originator_version = 99 WHERE rowid = 43");
    sandbox
        .run(&["copy", "from", "to", "--yes"])
        .fails_with(2, "event 43 of the target is another one in the source");
    // A target that is in use.
    fs::copy(sandbox.path("copy.db"), sandbox.path("bank.db")).unwrap();
    sandbox.execute("UPDATE stored_events SET rowid = 50 WHERE rowid = 43");
    fs::copy(sandbox.path("bank.db"), sandbox.path("copy.db")).unwrap();
    sandbox.run(&["copy", "from", "to", "--yes"]).fails_with(2, "the target has events up to id 50");
}

#[test]
fn an_unreadable_row_ends_a_copy() {
    let copying = Copying::between(Backend::Sqlite, Backend::Sqlite).unwrap();
    copying.sandbox.execute("UPDATE stored_events SET topic = NULL WHERE rowid = 30");
    let run = copying.sandbox.run(&["copy", "from", "to", "--yes", "--batch", "10"]);
    run.fails_with(1, "notification 30");
    run.fails_with(1, "hint: `es verify`");
}

/// Several copies at the same time make no duplicate: all but one end when they find the position moved.
#[test]
fn concurrent_copies_make_no_duplicate() {
    for (from, to) in PAIRS {
        for renumber in [false, true] {
            let Some(copying) = Copying::between(from, to) else { continue };
            let mut arguments = vec!["copy", "from", "to", "--yes", "--batch", "1"];
            arguments.extend(renumber.then_some("--renumber"));
            let running: Vec<_> = (0..3).map(|_| copying.sandbox.start(&arguments)).collect();
            for mut running in running {
                assert!(matches!(running.0.wait().unwrap().code(), Some(0..=3)), "an error, and no panic");
            }
            copying.run(&arguments);
            let (original, copy) = (copying.verify("from"), copying.verify("to"));
            assert_eq!((&original["digest"], &original["events"]), (&copy["digest"], &copy["events"]));
        }
    }
}

/// Copies are killed at random moments, and each is then continued to its end. `ES_COPY_KILLS` is the number
/// of kills for each pair of backends.
#[test]
fn a_killed_copy_continues_without_a_duplicate() {
    let kills: u32 = env::var("ES_COPY_KILLS").map_or(2, |kills| kills.parse().unwrap());
    for (from, to) in PAIRS {
        for renumber in [false, true] {
            let mut arguments = vec!["copy", "from", "to", "--yes", "--batch", "1"];
            arguments.extend(renumber.then_some("--renumber"));
            // A kill at any moment of a whole copy.
            let Some(copying) = Copying::between(from, to) else { continue };
            let began = Instant::now();
            copying.run(&arguments);
            let duration = began.elapsed();
            let (mut killed, mut within) = (0, 0);
            while killed < kills.div_ceil(2) {
                let Some(copying) = Copying::between(from, to) else { break };
                loop {
                    let mut running = copying.sandbox.start(&arguments);
                    thread::sleep(duration.mul_f64(fastrand::f64()));
                    running.0.kill().unwrap();
                    let status = running.0.wait().unwrap();
                    match status.code() {
                        Some(code) => assert_eq!(code, 0, "an end before the kill"),
                        None => {
                            killed += 1;
                            within += u32::from(copying.is_partial());
                        }
                    }
                    if status.success() || killed >= kills.div_ceil(2) {
                        break;
                    }
                }
                copying.run(&arguments);
                if renumber {
                    let (original, copy) = (copying.verify("from"), copying.verify("to"));
                    assert_eq!(
                        (&original["digest"], &original["events"]),
                        (&copy["digest"], &copy["events"])
                    );
                } else {
                    copying.assert_equal();
                }
            }
            eprintln!("{from:?} to {to:?}, renumber {renumber}: {killed} kills, {within} between commits");
        }
    }
}

/// Exports `bank.db` of a directory to `bank.es`.
fn export(sandbox: &Sandbox, arguments: &[&str]) {
    let file = fs::File::create(sandbox.path("bank.es")).unwrap();
    let mut command = sandbox.command(&[&["export", "-d", "sqlite:bank.db"], arguments].concat());
    assert!(command.stdout(file).status().unwrap().success());
}

/// Imports `bank.es` to `copy.db`.
fn import(sandbox: &Sandbox, arguments: &[&str]) -> (i32, String) {
    let file = fs::File::open(sandbox.path("bank.es")).unwrap();
    let mut command = sandbox.command(&[&["import", "-d", "sqlite:copy.db"], arguments].concat());
    let output = command.stdin(file).stderr(Stdio::piped()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn digest(sandbox: &Sandbox, database: &str) -> Value {
    let run = sandbox.run(&["verify", "--format", "json", "--no-trackers", "-d", database]);
    let summary: Value = serde_json::from_str(run.output()).unwrap();
    summary["digest_with_ids"].clone()
}

/// Replaces the lines of an export.
fn edit(sandbox: &Sandbox, change: impl Fn(&mut Vec<String>)) {
    let bytes = zstd::decode_all(&*fs::read(sandbox.path("bank.es")).unwrap()).unwrap();
    let mut lines: Vec<_> = String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    fs::write(sandbox.path("bank.es"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
}

#[test]
fn an_export_is_imported_with_its_ids() {
    let sandbox = Sandbox::with_python_database(PLAIN);
    // A state that is not JSON on one line, and a gap in ids.
    sandbox.execute(
        "UPDATE stored_events SET state = CAST('{ ' || char(10) || ' \"a\": 1.0}' AS BLOB) WHERE rowid = 3; \
         UPDATE stored_events SET rowid = 99 WHERE rowid = 43",
    );
    export(&sandbox, &[]);
    let (exit, output) = import(&sandbox, &["--yes"]);
    assert_eq!((exit, output.as_str()), (0, "imported 43 events up to id 99; ids kept\n"));
    assert_eq!(digest(&sandbox, "sqlite:copy.db"), digest(&sandbox, "sqlite:bank.db"));
    assert_eq!(import(&sandbox, &["--yes"]).1, "imported 0 events up to id 99; ids kept\n");
    let (exit, output) = import(&sandbox, &[]);
    assert!(exit == 2 && output.contains("pass --yes"), "{output}");
}

#[test]
fn an_interrupted_import_continues() {
    let sandbox = Sandbox::with_python_database(PLAIN);
    export(&sandbox, &[]);
    let whole = fs::read(sandbox.path("bank.es")).unwrap();
    edit(&sandbox, |lines| lines.truncate(20));
    let (exit, output) = import(&sandbox, &["--yes", "--batch", "5"]);
    assert!(
        exit == 1 && output.contains("the export ends early: events up to id 19 are recorded"),
        "{output}"
    );
    fs::write(sandbox.path("bank.es"), whole).unwrap();
    assert_eq!(import(&sandbox, &["--yes"]).1, "imported 24 events up to id 43; ids kept\n");
    assert_eq!(digest(&sandbox, "sqlite:copy.db"), digest(&sandbox, "sqlite:bank.db"));
}

#[test]
fn a_damaged_export_is_refused() {
    type Change = fn(&mut Vec<String>);
    let changes: [(&str, Change); 6] = [
        ("record 5 does not have its sum", |lines| lines[5] = lines[5].replace("timestamp", "timestamP")),
        ("record 5 does not have its sum", |lines| drop(lines.remove(5))),
        ("record 6 does not have its sum", |lines| lines.insert(6, lines[5].clone())),
        ("record 5 is no record", |lines| lines[5].truncate(40)),
        ("the end does not fit", |lines| drop(lines.remove(43))),
        ("no export", |lines| drop(lines.remove(0))),
    ];
    for (expected, change) in changes {
        let sandbox = Sandbox::with_python_database(PLAIN);
        export(&sandbox, &[]);
        edit(&sandbox, change);
        let (exit, output) = import(&sandbox, &["--yes"]);
        assert!(exit == 1 && output.contains(expected), "{expected}: {output}");
    }
    let sandbox = Sandbox::with_python_database(PLAIN);
    export(&sandbox, &[]);
    let mut bytes = fs::read(sandbox.path("bank.es")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(sandbox.path("bank.es"), bytes).unwrap();
    assert_eq!(import(&sandbox, &["--yes"]).0, 1);
}

#[test]
fn an_export_is_decoded_and_an_import_is_encoded() {
    let mut sandbox = Sandbox::new();
    fs::copy(python("sqlite-9.5-aes256-zlib.db"), sandbox.path("bank.db")).unwrap();
    sandbox.set("CIPHER_KEY", KEY);
    sandbox.set("COMPRESSOR_TOPIC", "zlib");
    export(&sandbox, &["--after", "40"]);
    let bytes = zstd::decode_all(&*fs::read(sandbox.path("bank.es")).unwrap()).unwrap();
    assert!(String::from_utf8(bytes).unwrap().lines().nth(1).unwrap().starts_with("{\"id\":41,"));
    assert_eq!(
        import(&sandbox, &["--yes", "--renumber"]).1,
        "imported 8 events up to id 48; ids renumbered\n"
    );
    let shown = sandbox.run(&[
        "log",
        "-d",
        "sqlite:copy.db",
        "--format",
        "{id} {state.owner}",
        "--topic",
        "bank:Account.Opened",
    ]);
    assert_eq!(shown.output(), "6 名前 太郎\n");
}

/// A terminal receives no compressed bytes. `script` provides one, where it is installed.
#[test]
fn an_export_is_not_written_to_a_terminal() {
    let sandbox = Sandbox::with_python_database(PLAIN);
    let mut script = Command::new("script");
    let command = format!("{} export -d sqlite:bank.db", env!("CARGO_BIN_EXE_es"));
    script.args(["-qec", &command, "/dev/null"]).current_dir(sandbox.path("")).stdin(Stdio::null());
    let Ok(output) = script.output() else { return };
    assert_eq!(output.status.code(), Some(2));
}
