//! SQLite meets the injected errors, and a power cut loses exactly the data that was not flushed.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::path::Path;

use es_sqlite_vfs::{Disk, Fault, Operation};
use rusqlite::{Connection, ErrorCode};

fn open(disk: &Disk, synchronous: &str) -> Connection {
    let connection = Connection::open(disk.uri("a.db")).unwrap();
    connection.pragma_update(None, "synchronous", synchronous).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (a)").unwrap();
    connection
}

fn rows(directory: &Path) -> rusqlite::Result<i64> {
    let connection = Connection::open(directory.join("a.db"))?;
    connection.query_row("SELECT COUNT(*) FROM t", (), |row| row.get(0))
}

/// Returns the rows after power cuts with each of many seeds; `None` if the table is lost or damaged.
fn rows_after_power_cuts(disk: &Disk) -> Vec<Option<i64>> {
    disk.cut_power();
    (0..50)
        .map(|seed| {
            let directory = tempfile::tempdir().unwrap();
            disk.salvage(seed, directory.path()).unwrap();
            rows(directory.path()).ok()
        })
        .collect()
}

#[test]
fn calls_are_counted_and_each_kind_can_fail() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let connection = open(&disk, "FULL");
    connection.execute_batch("INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let calls = disk.calls();
    for operation in [
        Operation::Open,
        Operation::Delete,
        Operation::Access,
        Operation::Read,
        Operation::Write,
        Operation::Truncate,
        Operation::Sync,
        Operation::FileSize,
        Operation::Lock,
        Operation::ShmMap,
        Operation::ShmLock,
    ] {
        assert!(calls[&operation] > 0, "{operation:?}");
    }
    for (fault, is_meant, code) in [
        (Fault::Full, (|it| it == Operation::Write) as fn(Operation) -> bool, ErrorCode::DiskFull),
        (Fault::Error, |it| it == Operation::Write, ErrorCode::SystemIoFailure),
        (Fault::Torn, |it| it == Operation::Write, ErrorCode::SystemIoFailure),
        (Fault::Lost, |it| it == Operation::Sync, ErrorCode::SystemIoFailure),
        (Fault::Error, |it| it == Operation::ShmLock, ErrorCode::SystemIoFailure),
    ] {
        disk.fail(fault, is_meant, 1);
        let error = connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(code), "{fault:?}");
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    }
    disk.fail_from(Fault::Error, |it| it == Operation::Write, 1);
    for _ in 0..3 {
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
    }
    disk.heal();
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
}

#[test]
fn a_power_cut_loses_only_data_that_was_not_flushed() {
    for (synchronous, may_lose) in [("FULL", false), ("NORMAL", true), ("OFF", true)] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        let connection = open(&disk, synchronous);
        for _ in 0..5 {
            connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        }
        let rows = rows_after_power_cuts(&disk);
        assert!(rows.contains(&Some(5)), "{synchronous}: {rows:?}");
        assert_eq!(rows.iter().any(|rows| *rows != Some(5)), may_lose, "{synchronous}: {rows:?}");
    }
}

#[test]
fn every_call_fails_after_a_power_cut() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let connection = open(&disk, "FULL");
    disk.fail(Fault::PowerCut, |it| it == Operation::Sync, 1);
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
    assert!(disk.is_cut());
    disk.heal();
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
    assert!(Connection::open(disk.uri("a.db")).is_err());
    assert!(rows_after_power_cuts(&disk).iter().all(|rows| matches!(rows, Some(0 | 1))));
}

/// Files that are on no disk of this crate belong to SQLite's default file system.
#[test]
fn other_files_pass() {
    let directory = tempfile::tempdir().unwrap();
    let failing = tempfile::tempdir().unwrap();
    let disk = Disk::new(failing.path());
    disk.cut_power();
    let path = directory.path().join("a.db");
    let connection = Connection::open(format!("file:{}?vfs=es-faults", path.display())).unwrap();
    connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(rows(directory.path()), Ok(1));
}
