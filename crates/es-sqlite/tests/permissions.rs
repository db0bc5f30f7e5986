//! Files and directories without permission to read or write, from the beginning or from some moment on, of
//! the own and of another user: what can be read is read, errors name the database, and only recorded events
//! are acknowledged.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test unwraps the values that it expects"
)]

mod support;

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, stdin},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use es_core::{AggregateRecorder, ApplicationRecorder, ErrorKind, NotificationSelection, PersistenceError};
use es_sqlite::SqliteApplicationRecorder;
use rusqlite::Connection;
use support::{event, events, try_open};
use tempfile::TempDir;

/// A user without rights of its own.
const OTHER_USER: u32 = 65_534;

/// The environment variables of other processes.
const HELD: &str = "ES_SQLITE_TEST_HELD";
const OTHERS: &str = "ES_SQLITE_TEST_OTHERS";
const EXPECTED: &str = "ES_SQLITE_TEST_EXPECTED";

const FILE: &str = "events.db";
const LOG: &str = "events.db-wal";
const INDEX: &str = "events.db-shm";
const DIRECTORY: &str = "";

/// A database of three events in a directory of its own, which may be written again in the end.
struct Database {
    directory: TempDir,
    path: String,
}

/// The state of a database before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Closed, with a write-ahead log the next time.
    Closed,
    /// Closed, without one.
    WithoutLog,
    /// Another process has it open, and has recorded a fourth event, which is in the log.
    InUse,
    /// That process was killed.
    Left,
}

/// Another process that has a database open, until it is dropped.
struct Holder(Child);

impl Database {
    async fn create() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let path = data.join(FILE).to_str().unwrap().to_owned();
        let recorder = try_open(&path).await.unwrap();
        recorder.insert_events(events(1, 1..=3)).await.unwrap();
        recorder.datastore().close().await.unwrap();
        Self { directory, path }
    }

    /// Brings it into a state. Returns the number of events, and the process that uses it.
    fn bring(&self, state: State) -> (usize, Option<Holder>) {
        match state {
            State::Closed => (3, None),
            State::WithoutLog => {
                let connection = Connection::open(&self.path).unwrap();
                connection.pragma_update(None, "journal_mode", "DELETE").unwrap();
                (3, None)
            }
            State::InUse => (4, Some(Holder::of(&self.path))),
            State::Left => {
                drop(Holder::of(&self.path));
                (4, None)
            }
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join("data").join(name)
    }

    /// Takes permissions away from those of these files that are there.
    fn forbid(&self, names: &[&str], permissions: u32) {
        for path in names.iter().map(|name| self.at(name)).filter(|path| path.exists()) {
            let mode = fs::metadata(&path).unwrap().mode();
            fs::set_permissions(path, fs::Permissions::from_mode(mode & !permissions)).unwrap();
        }
    }

    fn allow_everything(&self) {
        for name in [DIRECTORY, FILE, LOG, INDEX] {
            let mode = if name == DIRECTORY { 0o755 } else { 0o644 };
            // Not all of them are there.
            let _ = fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode));
        }
    }

    /// It has these events, whole, and works.
    async fn is_sound(&self, expected: usize, context: &str) {
        let recorder = try_open(&self.path).await.unwrap_or_else(|error| panic!("{context}: {error:?}"));
        assert_eq!(read(&recorder).await.unwrap(), expected, "{context}");
        let ids = recorder.insert_events(vec![event(9, 1)]).await.unwrap();
        assert_eq!(ids, [expected as i64 + 1], "{context}");
        recorder.datastore().close().await.unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.allow_everything();
    }
}

impl Holder {
    fn of(path: &str) -> Self {
        let mut child =
            command("holder").env(HELD, path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "ready"), "the other process has ended");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test by itself: another process, which has a database open.
#[tokio::test]
async fn holder() {
    let Ok(path) = env::var(HELD) else { return };
    let recorder = try_open(&path).await.unwrap();
    recorder.insert_events(vec![event(1, 4)]).await.unwrap();
    println!("\nready");
    let _ = stdin().read(&mut [0]);
}

fn command(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command
}

/// Runs a test in a process of another user, to which permissions apply; prints a message where it cannot.
fn run_as_other_user(test: &str, variables: &[(&str, &str)]) {
    let mut command = command(test);
    command.uid(OTHER_USER).gid(OTHER_USER).env_remove("TMPDIR").envs(variables.iter().copied());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: no other user can run this test: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("1 passed"),
        "{test} as another user: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{test} as another user:{said}");
}

fn is_root() -> bool {
    let directory = tempfile::tempdir().unwrap();
    fs::metadata(directory.path()).unwrap().uid() == 0
}

/// Returns true if permissions apply to this process. They do not apply to root, which runs the test as
/// another user.
fn permissions_count(test: &str) -> bool {
    let count = !is_root();
    if !count {
        run_as_other_user(test, &[]);
    }
    count
}

/// Returns the number of events read, which are the first recorded ones.
async fn read(recorder: &SqliteApplicationRecorder) -> Result<usize, PersistenceError> {
    let page = recorder.select_notifications(NotificationSelection::new(1_000)).await?;
    let ids: Vec<_> = page.iter().map(|notification| notification.id).collect();
    assert_eq!(ids, (1..=ids.len() as i64).collect::<Vec<_>>());
    Ok(ids.len())
}

/// A permanent error that names the database.
fn is_refused(error: &PersistenceError, path: &str, context: &str) {
    assert_eq!(error.kind(), ErrorKind::Operational, "{context}: {error:?}");
    assert!(!error.is_transient(), "{context}: {error:?}");
    assert!(error.to_string().contains(path), "{context}: {error}");
}

#[tokio::test]
async fn a_database_that_may_not_be_written_is_read() {
    if !permissions_count("a_database_that_may_not_be_written_is_read") {
        return;
    }
    for (state, names) in [
        (State::Closed, &[FILE][..]),
        (State::WithoutLog, &[FILE]),
        (State::WithoutLog, &[DIRECTORY]),
        (State::WithoutLog, &[DIRECTORY, FILE]),
        (State::InUse, &[FILE]),
        (State::InUse, &[LOG]),
        (State::InUse, &[INDEX]),
        (State::InUse, &[LOG, INDEX]),
        (State::InUse, &[DIRECTORY, FILE, LOG, INDEX]),
        (State::Left, &[FILE]),
        (State::Left, &[LOG]),
        (State::Left, &[INDEX]),
        (State::Left, &[LOG, INDEX]),
        (State::Left, &[DIRECTORY, FILE, LOG, INDEX]),
    ] {
        let context = format!("{state:?}, without {names:?}");
        let database = Database::create().await;
        let (expected, holder) = database.bring(state);
        database.forbid(names, 0o222);
        let recorder = try_open(&database.path).await.unwrap_or_else(|error| panic!("{context}: {error:?}"));
        for _ in 0..2 {
            assert_eq!(read(&recorder).await.unwrap(), expected, "{context}");
            let refused = recorder.insert_events(events(2, 1..=2)).await.unwrap_err();
            is_refused(&refused, &database.path, &context);
        }
        recorder.datastore().close().await.unwrap();
        drop(holder);
        database.allow_everything();
        database.is_sound(expected, &context).await;
    }
}

/// The files that are needed are there: the directory does not matter.
#[tokio::test]
async fn a_read_only_directory_does_not_prevent_writes_to_a_database_in_use() {
    if !permissions_count("a_read_only_directory_does_not_prevent_writes_to_a_database_in_use") {
        return;
    }
    for state in [State::InUse, State::Left] {
        let database = Database::create().await;
        let (expected, holder) = database.bring(state);
        database.forbid(&[DIRECTORY], 0o222);
        let recorder = try_open(&database.path).await.unwrap();
        assert_eq!(recorder.insert_events(vec![event(2, 1)]).await.unwrap(), [5]);
        assert_eq!(read(&recorder).await.unwrap(), expected + 1);
        recorder.datastore().close().await.unwrap();
        drop(holder);
        database.is_sound(expected + 1, &format!("{state:?}")).await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named() {
    if !permissions_count("a_database_that_cannot_be_opened_is_named") {
        return;
    }
    for (state, names, permissions) in [
        (State::Closed, &[FILE][..], 0o777),
        (State::Closed, &[DIRECTORY], 0o777),
        (State::Closed, &[DIRECTORY], 0o222),
        (State::WithoutLog, &[FILE], 0o777),
        (State::InUse, &[LOG], 0o777),
        (State::InUse, &[INDEX], 0o777),
        (State::Left, &[LOG], 0o777),
        (State::Left, &[INDEX], 0o777),
    ] {
        let context = format!("{state:?}, without {names:?}");
        let database = Database::create().await;
        let (expected, holder) = database.bring(state);
        database.forbid(names, permissions);
        for _ in 0..2 {
            let refused = try_open(&database.path).await.unwrap_err();
            is_refused(&refused, &database.path, &context);
        }
        drop(holder);
        database.allow_everything();
        database.is_sound(expected, &context).await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_created_is_named() {
    if !permissions_count("a_database_that_cannot_be_created_is_named") {
        return;
    }
    let database = Database::create().await;
    let other = database.at("other.db");
    database.forbid(&[DIRECTORY], 0o222);
    is_refused(&try_open(&other).await.unwrap_err(), other.to_str().unwrap(), "created");
}

/// As the documentation of `open` says.
#[tokio::test]
async fn a_closed_database_is_read_from_a_read_only_directory_as_an_immutable_one() {
    if !permissions_count("a_closed_database_is_read_from_a_read_only_directory_as_an_immutable_one") {
        return;
    }
    let database = Database::create().await;
    database.forbid(&[DIRECTORY, FILE], 0o222);
    let advised = try_open(&database.path).await.unwrap_err();
    assert!(advised.to_string().contains("immutable=1"), "{advised}");
    let recorder = try_open(format!("file:{}?immutable=1", database.path)).await.unwrap();
    assert_eq!(read(&recorder).await.unwrap(), 3);
    let refused = recorder.insert_events(vec![event(2, 1)]).await.unwrap_err();
    is_refused(&refused, &database.path, "immutable");
    recorder.datastore().close().await.unwrap();
}

#[tokio::test]
async fn permissions_that_are_taken_away_and_given_back_lose_nothing() {
    if !permissions_count("permissions_that_are_taken_away_and_given_back_lose_nothing") {
        return;
    }
    let files =
        [&[FILE][..], &[LOG], &[INDEX], &[DIRECTORY], &[FILE, LOG, INDEX], &[FILE, LOG, INDEX, DIRECTORY]];
    for (names, permissions) in files.iter().flat_map(|names| [(names, 0o222), (names, 0o777)]) {
        let context = format!("without {permissions:o} of {names:?}");
        let database = Database::create().await;
        let recorder = try_open(&database.path).await.unwrap();
        let mut expected = 3;
        database.forbid(names, permissions);
        for version in 1..=3 {
            match recorder.insert_events(vec![event(2, version)]).await {
                Ok(ids) => {
                    expected += 1;
                    assert_eq!(ids, [expected as i64], "{context}");
                }
                Err(refused) => {
                    is_refused(&refused, &database.path, &context);
                    // Open files stay open; only their identity cannot be verified.
                    assert!(names.contains(&DIRECTORY) && permissions == 0o777, "{context}: {refused}");
                    assert!(refused.to_string().contains("permission"), "{context}: {refused}");
                }
            }
            assert_eq!(read(&recorder).await.unwrap(), expected, "{context}");
        }
        database.allow_everything();
        assert_eq!(
            recorder.insert_events(vec![event(3, 1)]).await.unwrap(),
            [expected as i64 + 1],
            "{context}"
        );
        database.forbid(names, permissions);
        recorder.datastore().close().await.unwrap();
        database.allow_everything();
        database.is_sound(expected + 1, &context).await;
    }
}

/// A database of root that every user may read.
#[tokio::test]
async fn another_users_database_is_read() {
    if !is_root() {
        return println!("skipped: this user has no files of another one");
    }
    let database = Database::create().await;
    chown(database.directory.path(), Some(0), Some(0)).unwrap();
    fs::set_permissions(database.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let recorder = try_open(&database.path).await.unwrap();
    for version in 1..=3 {
        recorder.insert_events(vec![event(5, version)]).await.unwrap();
        run_as_other_user("stranger", &[(OTHERS, &database.path), (EXPECTED, &(3 + version).to_string())]);
    }
    recorder.datastore().close().await.unwrap();
    run_as_other_user("stranger", &[(OTHERS, &database.path)]);
    let holder = Holder::of(&database.path);
    run_as_other_user("stranger", &[(OTHERS, &database.path), (EXPECTED, "7")]);
    drop(holder);
    run_as_other_user("stranger", &[(OTHERS, &database.path), (EXPECTED, "7")]);
    database.is_sound(7, "another user's").await;
}

/// Not a test by itself: opens another user's database, and reads all of it or gets an error.
#[tokio::test]
async fn stranger() {
    let Ok(path) = env::var(OTHERS) else { return };
    let Ok(expected) = env::var(EXPECTED) else {
        return is_refused(&try_open(&path).await.unwrap_err(), &path, "closed");
    };
    let recorder = try_open(&path).await.unwrap();
    assert_eq!(read(&recorder).await.unwrap().to_string(), expected);
    is_refused(&recorder.insert_events(vec![event(8, 1)]).await.unwrap_err(), &path, "another user's");
    recorder.datastore().close().await.unwrap();
}
