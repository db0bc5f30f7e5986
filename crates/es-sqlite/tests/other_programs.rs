//! Changes that other programs make to the tables: triggers, and deleted rows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test unwraps the values that it expects"
)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ConsumerError, ErrorKind, EventRange, HandlerError, Notification,
    NotificationBatch, NotificationConsumer, NotificationSelection, PersistenceError, ProcessRecorder,
    Tracking, TrackingRecorder,
};
use es_sqlite::{
    FaultPoint, SqliteOptions, SqliteProjection,
    rusqlite::{Connection, Transaction},
};
use support::{accepted, database, event, events, gate, id, process_recorder};

/// Skips the events of originator 13, having noted that, and all positions of one application.
const TRIGGERS: &str = "
    CREATE TABLE notes (note TEXT);
    CREATE TRIGGER skip_events BEFORE INSERT ON stored_events
    WHEN NEW.originator_id = '0000000000000000000000000000000d'
    BEGIN INSERT INTO notes VALUES ('skipped'); SELECT RAISE(IGNORE); END;
    CREATE TRIGGER skip_positions BEFORE INSERT ON tracking WHEN NEW.application_name = 'skipped'
    BEGIN INSERT INTO notes VALUES ('skipped'); SELECT RAISE(IGNORE); END;";

const SKIPPED: u128 = 13;

fn execute(path: &str, statements: &str) {
    Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

fn count(path: &str, table: &str) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), (), |row| row.get(0)).unwrap()
}

fn assert_skipped(error: &PersistenceError, table: &str) {
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    assert!(!error.is_conflict() && !error.is_transient(), "{error}");
    let text = error.to_string();
    assert!(text.contains(table) && text.contains("RAISE(IGNORE)"), "{text}");
}

fn position(application_name: &str, id: i64) -> Tracking {
    Tracking::new(application_name, id).unwrap()
}

/// `RAISE(IGNORE)` in a trigger skips a row without an error. The row counts were not compared
/// with the request, so that an event which was never recorded was acknowledged, with an id.
#[tokio::test]
async fn an_event_that_a_trigger_skips_is_not_acknowledged() {
    for at_once in [true, false] {
        let (_directory, path) = database();
        let recorder = process_recorder(SqliteOptions::new(&path).inline_commits(at_once)).await;
        execute(&path, TRIGGERS);
        let skipped = recorder.insert_events(vec![event(SKIPPED, 1)]).await.unwrap_err();
        assert_skipped(&skipped, "stored_events");
        assert!(skipped.to_string().contains(&id(SKIPPED).to_string()), "{skipped}");
        // In the midst of a batch, with tracking, or the tracking record alone.
        let batch = vec![event(1, 1), event(SKIPPED, 1), event(2, 1)];
        assert_skipped(&recorder.insert_events(batch.clone()).await.unwrap_err(), "stored_events");
        let error = recorder.insert_events_with_tracking(batch, position("upstream", 1)).await.unwrap_err();
        assert_skipped(&error, "stored_events");
        let error = recorder.insert_tracking(position("skipped", 1)).await.unwrap_err();
        assert_skipped(&error, "tracking");
        let error = recorder
            .insert_events_with_tracking(vec![event(1, 1)], position("skipped", 1))
            .await
            .unwrap_err();
        assert_skipped(&error, "tracking");
        assert_eq!((count(&path, "stored_events"), count(&path, "notes")), (0, 0));
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), None);
        // Others are recorded as before, and a conflict is still one.
        assert_eq!(recorder.insert_events(events(1, 1..=2)).await.unwrap(), [1, 2]);
        assert!(recorder.insert_events(vec![event(1, 1)]).await.unwrap_err().is_conflict());
        recorder.insert_tracking(position("upstream", 1)).await.unwrap();
        assert!(recorder.insert_tracking(position("upstream", 1)).await.unwrap_err().is_conflict());
    }
}

#[tokio::test]
async fn a_skipped_row_fails_its_own_request_alone() {
    let (_directory, path) = database();
    let (hooks, mut keeper) = gate(FaultPoint::Begin);
    let recorder = process_recorder(SqliteOptions::new(&path).hooks(hooks).inline_commits(false)).await;
    execute(&path, TRIGGERS);
    let mut first = accepted(recorder.insert_events(vec![event(1, 1)]));
    keeper.reached().await;
    let (mut alone, mut batch) = (
        accepted(recorder.insert_events(vec![event(SKIPPED, 1)])),
        accepted(recorder.insert_events(vec![event(2, 1), event(SKIPPED, 1)])),
    );
    let mut last = accepted(recorder.insert_events(vec![event(3, 1)]));
    let mut tracking = accepted(recorder.insert_tracking(position("skipped", 1)));
    keeper.open();
    assert_eq!((&mut first).await.unwrap(), [1]);
    assert_skipped(&(&mut alone).await.unwrap_err(), "stored_events");
    assert_skipped(&(&mut batch).await.unwrap_err(), "stored_events");
    assert_eq!((&mut last).await.unwrap(), [2]);
    assert_skipped(&(&mut tracking).await.unwrap_err(), "tracking");
    assert_eq!((count(&path, "stored_events"), count(&path, "notes")), (2, 0));
}

struct Nothing;

impl SqliteProjection for Nothing {
    type Error = HandlerError;

    fn project(&mut self, transaction: &Transaction<'_>, _: &Notification) -> Result<(), HandlerError> {
        transaction.execute("INSERT INTO notes VALUES ('projected')", ())?;
        Ok(())
    }
}

#[tokio::test]
async fn a_projection_whose_position_a_trigger_skips_fails() {
    let (_directory, path) = database();
    let recorder = process_recorder(SqliteOptions::new(&path)).await;
    execute(&path, TRIGGERS);
    recorder.insert_events(vec![event(1, 1)]).await.unwrap();
    let notifications = recorder.select_notifications(NotificationSelection::new(1)).await.unwrap();
    let mut projector = recorder.projector(Nothing).await.unwrap();
    let batch = NotificationBatch {
        application_name: "skipped",
        notifications: &notifications,
        position: 1,
        expected_position: None,
    };
    let Err(ConsumerError::Recording(error)) = projector.process(batch).await else {
        unreachable!("the position was skipped")
    };
    assert_skipped(&error, "tracking");
    assert_eq!(count(&path, "notes"), 0);
    recorder.insert_events(vec![event(1, 2)]).await.unwrap();
}

#[cfg(feature = "sqlx")]
#[tokio::test]
async fn a_skipped_row_fails_within_a_transaction_of_the_programs() {
    use sqlx::{Connection as _, SqliteConnection};

    let (_directory, path) = database();
    let recorder = process_recorder(SqliteOptions::new(&path)).await;
    execute(&path, TRIGGERS);
    let mut connection = SqliteConnection::connect(&path).await.unwrap();
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    recorder.insert_events_in(&mut transaction, &[event(1, 1)]).await.unwrap();
    let skipped = recorder.insert_events_in(&mut transaction, &[event(2, 1), event(SKIPPED, 1)]).await;
    assert_skipped(&skipped.unwrap_err(), "stored_events");
    let skipped = recorder.insert_tracking_in(&mut transaction, &position("skipped", 1)).await;
    assert_skipped(&skipped.unwrap_err(), "tracking");
    recorder.insert_tracking_in(&mut transaction, &position("upstream", 1)).await.unwrap();
    let taken = recorder.insert_tracking_in(&mut transaction, &position("upstream", 1)).await;
    assert!(taken.unwrap_err().is_conflict());
    transaction.commit().await.unwrap();
    assert_eq!((count(&path, "stored_events"), count(&path, "notes")), (1, 0));
    assert_eq!(recorder.select_events(id(2), EventRange::all()).await.unwrap(), []);
}

/// SQLite gives the id of a deleted highest row to the next one. A follower that had read the
/// first event with that id never read the second.
#[tokio::test]
async fn an_id_is_not_used_again_after_its_row_was_deleted() {
    for at_once in [true, false] {
        let (_directory, path) = database();
        let recorder = process_recorder(SqliteOptions::new(&path).inline_commits(at_once)).await;
        assert_eq!(recorder.insert_events(events(1, 1..=3)).await.unwrap(), [1, 2, 3]);
        execute(&path, "DELETE FROM stored_events WHERE rowid >= 2");
        assert_eq!(recorder.insert_events(events(1, 2..=3)).await.unwrap(), [4, 5]);
        assert_eq!(recorder.insert_events(events(1, 4..=5)).await.unwrap(), [6, 7]);
        execute(&path, "DELETE FROM stored_events");
        assert_eq!(recorder.insert_events(events(1, 1..=1)).await.unwrap(), [8]);
        // Nor are ids left out that were not committed.
        assert!(recorder.insert_events(vec![event(1, 2), event(1, 1)]).await.unwrap_err().is_conflict());
        assert_eq!(recorder.insert_events(vec![event(1, 2)]).await.unwrap(), [9]);
    }
}

/// Another program vacuums, checkpoints and tries other journal modes while events are recorded and followed.
/// Ids stay as they are: `VACUUM` keeps the row ids of a table that has an index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vacuum_checkpoints_and_journal_modes_of_another_program_lose_nothing() {
    let (_directory, path) = database();
    let recorder = process_recorder(SqliteOptions::new(&path)).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let other = std::thread::spawn({
        let (path, is_done) = (path.clone(), Arc::clone(&is_done));
        move || {
            let mut done = [0; 5];
            while !is_done.load(Ordering::SeqCst) {
                let connection = Connection::open(&path).unwrap();
                for (index, statement) in [
                    "VACUUM",
                    "PRAGMA wal_checkpoint(TRUNCATE)",
                    "PRAGMA journal_mode = DELETE",
                    "PRAGMA journal_mode = WAL",
                    "DELETE FROM stored_events WHERE rowid = 1; ANALYZE",
                ]
                .into_iter()
                .enumerate()
                {
                    // Refused while the recorder is in its way.
                    done[index] += usize::from(connection.execute_batch(statement).is_ok());
                }
            }
            done
        }
    });
    let writers: Vec<_> = (0..4)
        .map(|writer: u128| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                let mut recorded = Vec::new();
                for number in 0..100 {
                    let event = event(1_000 * (writer + 1) + number, 1);
                    loop {
                        match recorder.insert_events(vec![event.clone()]).await {
                            Ok(ids) => break recorded.push((ids[0], event.originator_id)),
                            Err(error) if error.is_transient() => tokio::task::yield_now().await,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
                recorded
            })
        })
        .collect();
    let mut recorded = Vec::new();
    for writer in writers {
        recorded.extend(writer.await.unwrap());
    }
    is_done.store(true, Ordering::SeqCst);
    let done = other.join().unwrap();
    assert!(done[0] > 0 && done[1] > 0, "vacuumed and checkpointed: {done:?}");
    recorded.sort_unstable();
    let page = recorder.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
    let found: Vec<_> = page.iter().map(|found| (found.id, found.event.originator_id)).collect();
    let expected: Vec<_> = recorded.into_iter().filter(|(id, _)| *id != 1).collect();
    assert_eq!(found.iter().filter(|(id, _)| *id != 1).copied().collect::<Vec<_>>(), expected);
}
