//! A fixed history on a disk that fails at the n-th thing that SQLite asks of it, for every n: errors, torn writes,
//! flushes that lose what they were to flush, and power cuts.
//!
//! `ES_SQLITE_FAULT_SEEDS` sets how many seeds each power cut is tried with (3 where it is not set).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping it"
)]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

#[path = "support/history.rs"]
mod history;
mod support;

use std::{collections::BTreeMap, env, sync::Arc};

use es_sqlite::Synchronous;
use es_sqlite_vfs::{Disk, Fault, Operation};
use history::{Program, Told, check_anew, check_beginning};
use tempfile::TempDir;

fn every(_: Operation) -> bool {
    true
}

fn disk() -> (TempDir, Arc<Disk>) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    (directory, disk)
}

fn seeds() -> u64 {
    env::var("ES_SQLITE_FAULT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3)
}

/// Runs the history on a disk and closes; what could not even be opened has been told nothing.
async fn run(disk: &Disk, synchronous: Synchronous) -> Told {
    let Ok(mut program) = Program::start(disk, synchronous).await else { return Told::default() };
    program.run().await;
    program.close().await
}

/// How often a history without faults asks for what is meant.
async fn calls(is_meant: fn(Operation) -> bool, synchronous: Synchronous) -> u64 {
    let (_directory, disk) = disk();
    let told = run(&disk, synchronous).await;
    assert!(told.answers.iter().all(history::Answer::is_acknowledged), "{told:?}");
    let calls: BTreeMap<_, _> = disk.calls();
    println!("{synchronous:?}: {calls:?}");
    calls.iter().filter(|(operation, _)| is_meant(**operation)).map(|(_, calls)| calls).sum()
}

/// The recorder is told of the error, or SQLite gets over it; either way it goes on, and so does its successor.
async fn an_error_at_every_call(fault: Fault, is_meant: fn(Operation) -> bool) {
    let calls = calls(is_meant, Synchronous::Full).await;
    let mut refused = 0;
    for nth in 1..=calls {
        let context = format!("{fault:?} at call {nth}");
        let (directory, disk) = disk();
        disk.fail(fault, is_meant, nth);
        let mut program = match Program::start(&disk, Synchronous::Full).await {
            Ok(program) => program,
            Err(error) => {
                assert_eq!(error.kind(), es_core::ErrorKind::Operational, "{context}: {error:?}");
                refused += 1;
                Program::start(&disk, Synchronous::Full).await.expect(&context)
            }
        };
        program.run().await;
        disk.heal();
        program.check(&context).await;
        program.insert(12, 2, Some(13)).await;
        let told = program.close().await;
        refused += told.answers.iter().filter(|answer| !answer.is_acknowledged()).count();
        assert!(told.answers.last().unwrap().is_acknowledged(), "{context}: {told:?}");
        check_anew(directory.path(), &told, &context).await;
    }
    println!("{fault:?} at each of {calls} calls: {refused} requests refused");
    assert!(refused > 0);
}

#[tokio::test]
async fn an_error_at_any_call_is_told_and_nothing_is_lost() {
    an_error_at_every_call(Fault::Error, every).await;
}

#[tokio::test]
async fn a_full_disk_at_any_write_is_told_and_nothing_is_lost() {
    an_error_at_every_call(Fault::Full, |it| it == Operation::Write).await;
}

#[tokio::test]
async fn a_torn_write_is_told_and_nothing_is_lost() {
    an_error_at_every_call(Fault::Torn, |it| it == Operation::Write).await;
}

/// The disk stays broken, for as long as the process lives.
#[tokio::test]
async fn errors_from_any_call_on_lose_nothing() {
    let calls = calls(every, Synchronous::Full).await;
    for nth in 1..=calls {
        let context = format!("errors from call {nth} on");
        let (directory, disk) = disk();
        disk.fail_from(Fault::Error, every, nth);
        let told = run(&disk, Synchronous::Full).await;
        check_anew(directory.path(), &told, &context).await;
    }
    println!("errors from each of {calls} calls on");
}

/// After a flush that failed, the disk has less than what can be read. What is acknowledged afterwards is on it.
#[tokio::test]
async fn what_a_failed_flush_has_lost_was_not_acknowledged() {
    let calls = calls(|it| it == Operation::Sync, Synchronous::Full).await;
    for nth in 1..=calls {
        let (_directory, disk) = disk();
        disk.fail(Fault::Lost, |it| it == Operation::Sync, nth);
        let mut program = match Program::start(&disk, Synchronous::Full).await {
            Ok(program) => program,
            Err(_) => Program::start(&disk, Synchronous::Full).await.unwrap(),
        };
        program.run().await;
        disk.cut_power();
        let told = program.close().await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            check_anew(remains.path(), &told, &format!("flush {nth} lost, seed {seed}")).await;
        }
    }
    println!("a flush that fails and loses, at each of {calls}, {} seeds each", seeds());
}

#[tokio::test]
async fn a_power_cut_at_any_change_loses_nothing_that_was_acknowledged() {
    let calls = calls(Operation::changes_the_disk, Synchronous::Full).await;
    for nth in 1..=calls {
        let (_directory, disk) = disk();
        disk.fail(Fault::PowerCut, Operation::changes_the_disk, nth);
        let told = run(&disk, Synchronous::Full).await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            check_anew(remains.path(), &told, &format!("power cut at change {nth}, seed {seed}")).await;
        }
    }
    println!("power cut at each of {calls} changes, {} seeds each", seeds());
}

/// SQLite's FULL leaves the journal's name to the disk, and with it the commit that was acknowledged last. The switch to
/// the log is made to fail, as it does where memory cannot be shared.
#[tokio::test]
async fn a_power_cut_without_a_log_loses_nothing_that_was_acknowledged() {
    let mut changes = 0;
    loop {
        let (_directory, disk) = disk();
        disk.fail(Fault::Error, |it| it == Operation::Sync, 1);
        let mut program = Program::start(&disk, Synchronous::Full).await.unwrap();
        assert_eq!(disk.calls().get(&Operation::ShmLock), None, "it has no log");
        changes += 1;
        disk.fail(Fault::PowerCut, Operation::changes_the_disk, changes);
        program.run().await;
        let is_cut = disk.is_cut();
        disk.cut_power();
        let told = program.close().await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            check_anew(remains.path(), &told, &format!("no log, power cut at change {changes}, seed {seed}"))
                .await;
        }
        if !is_cut {
            break;
        }
    }
    println!("no log: power cut at each of {} changes, {} seeds each", changes - 1, seeds());
}

/// What the setting says: the latest commits may go, whole, and nothing is damaged.
#[tokio::test]
async fn a_power_cut_with_normal_flushing_leaves_a_beginning_of_the_log() {
    let calls = calls(Operation::changes_the_disk, Synchronous::Normal).await;
    let mut lost = 0;
    for nth in 1..=calls {
        let (_directory, disk) = disk();
        disk.fail(Fault::PowerCut, Operation::changes_the_disk, nth);
        let told = run(&disk, Synchronous::Normal).await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            lost += check_beginning(remains.path(), &told, &format!("change {nth}, seed {seed}")).await;
        }
    }
    println!(
        "NORMAL: power cut at each of {calls} changes, {} seeds each: {lost} acknowledged requests lost",
        seeds()
    );
    assert!(lost > 0, "otherwise the power cuts take nothing");
}
