//! A fixed history on a disk that fails at SQLite's n-th call, for every n: errors, torn
//! writes, flushes that lose their data, and power cuts.
//!
//! `ES_SQLITE_FAULT_SEEDS` sets the number of seeds for each power cut (3 by default).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test unwraps the values that it expects"
)]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

#[path = "support/history.rs"]
mod history;
mod support;

use std::{collections::BTreeMap, env, sync::Arc};

use es_sqlite::Synchronous;
use es_sqlite_vfs::{Disk, Fault, Operation};
use history::{Observed, Program, check_anew, check_beginning};
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

/// Runs the history on a disk and closes the database. If it cannot be opened, there are no outcomes.
async fn run(disk: &Disk, synchronous: Synchronous) -> Observed {
    let Ok(mut program) = Program::start(disk, synchronous).await else { return Observed::default() };
    program.run().await;
    program.close().await
}

/// Counts the selected calls of a history without faults.
async fn calls(is_meant: fn(Operation) -> bool, synchronous: Synchronous) -> u64 {
    let (_directory, disk) = disk();
    let observed = run(&disk, synchronous).await;
    assert!(observed.answers.iter().all(history::Answer::is_acknowledged), "{observed:?}");
    let calls: BTreeMap<_, _> = disk.calls();
    println!("{synchronous:?}: {calls:?}");
    calls.iter().filter(|(operation, _)| is_meant(**operation)).map(|(_, calls)| calls).sum()
}

/// The recorder reports the error, or SQLite recovers; in both cases it continues, and so does its successor.
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
        let observed = program.close().await;
        refused += observed.answers.iter().filter(|answer| !answer.is_acknowledged()).count();
        assert!(observed.answers.last().unwrap().is_acknowledged(), "{context}: {observed:?}");
        check_anew(directory.path(), &observed, &context).await;
    }
    println!("{fault:?} at each of {calls} calls: {refused} requests refused");
    assert!(refused > 0);
}

#[tokio::test]
async fn an_error_at_any_call_is_reported_and_nothing_is_lost() {
    an_error_at_every_call(Fault::Error, every).await;
}

#[tokio::test]
async fn a_full_disk_at_any_write_is_reported_and_nothing_is_lost() {
    an_error_at_every_call(Fault::Full, |it| it == Operation::Write).await;
}

#[tokio::test]
async fn a_torn_write_is_reported_and_nothing_is_lost() {
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
        let observed = run(&disk, Synchronous::Full).await;
        check_anew(directory.path(), &observed, &context).await;
    }
    println!("errors from each of {calls} calls on");
}

/// After a failed flush, the disk has less than can be read. Events acknowledged afterwards are on it.
#[tokio::test]
async fn data_lost_by_a_failed_flush_was_not_acknowledged() {
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
        let observed = program.close().await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            check_anew(remains.path(), &observed, &format!("flush {nth} lost, seed {seed}")).await;
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
        let observed = run(&disk, Synchronous::Full).await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            check_anew(remains.path(), &observed, &format!("power cut at change {nth}, seed {seed}")).await;
        }
    }
    println!("power cut at each of {calls} changes, {} seeds each", seeds());
}

/// SQLite's FULL leaves the journal's name to the disk, and with it the commit that was acknowledged last.
/// The switch to the log is made to fail, as it does where memory cannot be shared.
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
        let observed = program.close().await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            check_anew(
                remains.path(),
                &observed,
                &format!("no log, power cut at change {changes}, seed {seed}"),
            )
            .await;
        }
        if !is_cut {
            break;
        }
    }
    println!("no log: power cut at each of {} changes, {} seeds each", changes - 1, seeds());
}

/// The promise of the setting: whole commits at the end may be lost, and nothing is damaged.
#[tokio::test]
async fn a_power_cut_with_normal_flushing_leaves_a_beginning_of_the_log() {
    let calls = calls(Operation::changes_the_disk, Synchronous::Normal).await;
    let mut lost = 0;
    for nth in 1..=calls {
        let (_directory, disk) = disk();
        disk.fail(Fault::PowerCut, Operation::changes_the_disk, nth);
        let observed = run(&disk, Synchronous::Normal).await;
        for seed in 0..seeds() {
            let remains = tempfile::tempdir().unwrap();
            disk.salvage(seed, remains.path()).unwrap();
            lost += check_beginning(remains.path(), &observed, &format!("change {nth}, seed {seed}")).await;
        }
    }
    println!(
        "NORMAL: power cut at each of {calls} changes, {} seeds each: {lost} acknowledged requests lost",
        seeds()
    );
    assert!(lost > 0, "otherwise the power cuts take nothing");
}
