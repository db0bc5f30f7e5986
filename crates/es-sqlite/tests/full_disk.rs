//! A file system that is really full: refused events are absent, acknowledged ones are present, and the
//! recorder continues when there is space again.
//!
//! Each test has a small file system of its own, in a process that has it to itself, if the system allows it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test unwraps the values that it expects"
)]

mod support;

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::Command,
};

use es_core::{AggregateRecorder, ApplicationRecorder, ErrorKind, NotificationSelection, PersistenceError};
use es_sqlite::SqliteApplicationRecorder;
use futures_util::future::join_all;
use rusqlite::Connection;
use support::{event_of, try_open};

/// The directory of the small file system.
const DISK: &str = "ES_SQLITE_TEST_DISK";

/// The exit code of a process that cannot mount it.
const NOT_MOUNTED: i32 = 77;

/// A file system of 2 MiB, most of which other files take.
struct Disk(PathBuf);

impl Disk {
    /// Returns the disk in a process that has it; any other process runs the test in such a process.
    fn of(test: &str) -> Option<Self> {
        if let Some(directory) = env::var_os(DISK) {
            return Some(Self(directory.into()));
        }
        let directory = tempfile::tempdir().unwrap();
        let script =
            format!("mount -t tmpfs -o size=2m tmpfs \"${DISK}\" || exit {NOT_MOUNTED}; exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(DISK, directory.path());
        let output =
            command.output().ok().filter(|output| !matches!(output.status.code(), Some(1 | NOT_MOUNTED)));
        let Some(output) = output else {
            println!("skipped: a small file system cannot be mounted by this user");
            return None;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{test}: {said}{}", String::from_utf8_lossy(&output.stderr));
        println!("{said}");
        None
    }

    fn database(&self) -> String {
        self.0.join("events.db").to_str().unwrap().to_owned()
    }

    /// Fills the disk with a file.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.0.join("other")).unwrap();
        for length in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; length]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("other")).unwrap();
    }

    fn take(&self, bytes: usize) {
        fs::write(self.0.join("other"), vec![0; bytes]).unwrap();
    }
}

/// A recorder, and the ids that it has acknowledged.
struct Program {
    recorder: SqliteApplicationRecorder,
    path: String,
    originator: u128,
    acknowledged: Vec<i64>,
    refused: usize,
}

impl Program {
    async fn start(disk: &Disk) -> Self {
        let path = disk.database();
        let recorder = try_open(&path).await.unwrap();
        Self { recorder, path, originator: 0, acknowledged: Vec::new(), refused: 0 }
    }

    /// So many requests at the same time, each of an event of so many bytes and a small one.
    async fn insert(&mut self, requests: usize, bytes: usize) {
        let calls = (0..requests).map(|_| {
            self.originator += 1;
            let state = |length| vec![7; length];
            let events =
                vec![event_of(self.originator, 1, state(bytes)), event_of(self.originator, 2, state(10))];
            self.recorder.insert_events(events)
        });
        for outcome in join_all(calls.collect::<Vec<_>>()).await {
            match outcome {
                Ok(ids) => self.acknowledged.extend(ids),
                Err(error) => {
                    is_refused(&error, &self.path);
                    self.refused += 1;
                }
            }
        }
    }

    async fn insert_until_refused(&mut self, requests: usize, bytes: usize) {
        let refused = self.refused;
        while self.refused == refused {
            self.insert(requests, bytes).await;
        }
    }

    /// It works: nothing is refused.
    async fn continues(&mut self) {
        let refused = self.refused;
        self.insert(1, 100).await;
        self.insert(4, 20_000).await;
        assert_eq!(self.refused, refused, "there is room");
        self.check().await;
    }

    /// Exactly the acknowledged events are there, for every connection.
    async fn check(&self) {
        check(&self.recorder, &self.acknowledged).await;
        let other = Connection::open(&self.path).unwrap();
        let mut select = other.prepare("SELECT rowid FROM stored_events ORDER BY rowid").unwrap();
        let ids: Vec<i64> = select.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(ids, sorted(&self.acknowledged));
    }

    /// The database is unchanged and sound after it is closed and opened again.
    async fn close(self) {
        self.recorder.datastore().close().await.unwrap();
        let recorder = try_open(&self.path).await.unwrap();
        check(&recorder, &self.acknowledged).await;
        recorder.datastore().close().await.unwrap();
        let connection = Connection::open(&self.path).unwrap();
        let sound: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        println!("{} acknowledged, {} refused", self.acknowledged.len(), self.refused);
    }
}

async fn check(recorder: &SqliteApplicationRecorder, acknowledged: &[i64]) {
    let page = recorder.select_notifications(NotificationSelection::new(100_000)).await.unwrap();
    let ids: Vec<_> = page.iter().map(|notification| notification.id).collect();
    assert_eq!(ids, sorted(acknowledged));
}

fn sorted(ids: &[i64]) -> Vec<i64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

fn is_refused(error: &PersistenceError, path: &str) {
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Operational, false), "{error:?}");
    assert!(error.to_string().contains(path), "{error}");
}

#[tokio::test]
async fn refused_events_are_absent_and_acknowledged_ones_present_on_a_full_disk() {
    let Some(disk) = Disk::of("refused_events_are_absent_and_acknowledged_ones_present_on_a_full_disk")
    else {
        return;
    };
    let mut program = Program::start(&disk).await;
    disk.take(1 << 20);
    // A disk that is too full for a large event may have space for a small one.
    for (requests, bytes) in [(1, 20_000), (4, 20_000), (4, 3_000), (1, 3_000), (8, 100), (1, 100)] {
        program.insert_until_refused(requests, bytes).await;
        program.check().await;
    }
    disk.make_room();
    program.continues().await;
    program.close().await;
}

/// Again and again, so that the disk is full at many places of the log, and of the database, while it is
/// copied there.
#[tokio::test]
async fn a_disk_that_is_full_repeatedly_loses_nothing() {
    let Some(disk) = Disk::of("a_disk_that_is_full_repeatedly_loses_nothing") else { return };
    let mut program = Program::start(&disk).await;
    for round in 0..40 {
        disk.fill();
        program.insert_until_refused(1 + round % 3, 100 + 1_000 * (round % 7)).await;
        program.check().await;
        disk.take(400_000 - 10_000 * round);
        program.insert(1 + round % 2, 700 * (round % 5)).await;
    }
    program.check().await;
    disk.make_room();
    program.close().await;
}

#[tokio::test]
async fn a_log_that_finds_no_room_in_the_database_stays() {
    let Some(disk) = Disk::of("a_log_that_finds_no_room_in_the_database_stays") else { return };
    let mut program = Program::start(&disk).await;
    for _ in 0..10 {
        program.insert(2, 20_000).await;
    }
    disk.fill();
    let other = Connection::open(disk.database()).unwrap();
    let checkpoint = other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
    let full = checkpoint.unwrap_err();
    assert_eq!(full.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull), "{full}");
    drop(other);
    program.check().await;
    // The last to close the database cannot copy it either.
    let acknowledged = program.acknowledged.clone();
    program.recorder.datastore().close().await.unwrap();
    assert!(
        fs::metadata(format!("{}-wal", program.path)).unwrap().len() > 400_000,
        "the log is all there is"
    );
    disk.make_room();
    let mut program = Program::start(&disk).await;
    program.originator = 1_000;
    program.acknowledged = acknowledged;
    program.continues().await;
    program.close().await;
}

#[tokio::test]
async fn a_full_disk_is_reported_at_opening() {
    let Some(disk) = Disk::of("a_full_disk_is_reported_at_opening") else { return };
    disk.fill();
    is_refused(&try_open(disk.database()).await.unwrap_err(), &disk.database());
    disk.make_room();
    let mut program = Program::start(&disk).await;
    program.continues().await;
    let acknowledged = program.acknowledged.clone();
    program.recorder.datastore().close().await.unwrap();
    disk.fill();
    // Even reading needs a log, and there is no space for its index.
    is_refused(&try_open(disk.database()).await.unwrap_err(), &disk.database());
    disk.make_room();
    let mut program = Program::start(&disk).await;
    program.originator = 1_000;
    program.acknowledged = acknowledged;
    program.continues().await;
    program.close().await;
}
