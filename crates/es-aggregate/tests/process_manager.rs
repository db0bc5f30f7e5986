//! A process manager that uses a repository, in memory and on SQLite.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod support;

use es_popo::PopoProcessRecorder;
use es_sqlite::SqliteOptions;
use support::process_manager::decides_again_after_a_conflict;

#[tokio::test]
async fn a_process_manager_decides_again_after_a_conflict_in_memory() {
    decides_again_after_a_conflict(PopoProcessRecorder::new(), PopoProcessRecorder::new()).await;
}

#[tokio::test]
async fn a_process_manager_decides_again_after_a_conflict_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name| SqliteOptions::new(directory.path().join(name)).open();
    let (bank, fees) = (open("bank.db").await.unwrap(), open("fees.db").await.unwrap());
    let recorders = (bank.process_recorder().await.unwrap(), fees.process_recorder().await.unwrap());
    decides_again_after_a_conflict(recorders.0, recorders.1).await;
    bank.close().await.unwrap();
    fees.close().await.unwrap();
}
