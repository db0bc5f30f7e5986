//! Tables that are not as a recorder creates them: missing columns, keys and indexes, sequences that do not
//! fit, the earlier layout of the tracking table, a layout that changes, triggers that skip rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::prelude::*;
use es_core::{SegmentChange, SegmentRecorder};

async fn open(options: PostgresOptions) -> PostgresProcessRecorder {
    options.open().await.unwrap().process_recorder("bank").await.unwrap()
}

async fn count(schema: &Schema) -> i64 {
    let sql = format!("SELECT count(*) FROM {}", schema.table("bank_events"));
    scalar(&mut schema.connect().await, &sql).await
}

#[tokio::test]
async fn tables_that_vanish_are_not_replaced_by_empty_ones() {
    let schema = Schema::create().await;
    let recorder = open(schema.options()).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    let drop = format!("DROP TABLE {}", schema.table("bank_events"));
    run(&mut schema.connect().await, &drop).await;
    let missing = recorder.insert_events(vec![first()]).await.unwrap_err();
    assert!(missing.to_string().contains("bank_events"), "{missing}");
    let stands = format!("SELECT to_regclass('{}') IS NOT NULL", schema.table("bank_events"));
    assert!(!scalar::<bool>(&mut schema.connect().await, &stands).await);
}

// Ids are drawn under a session lock, which the statement releases. A writer that was cancelled in between
// kept it: its session went back to the pool, and no other writer could draw ids any more.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_cancelled_while_it_draws_ids_keeps_no_lock() {
    let schema = Schema::create().await;
    let parallel = || schema.options().ordering(NotificationOrdering::Parallel).pool_size(1);
    let (recorder, other) = (open(parallel()).await, open(parallel()).await);
    let mut holder = schema.connect().await;
    let sequence = schema.table("bank_events_notification_id_seq");
    for events in [vec![first()], vec![first(), first()]] {
        // An open transaction that has altered the sequence keeps others from drawing ids.
        run(&mut holder, &format!("BEGIN; ALTER SEQUENCE {sequence} NO CYCLE")).await;
        let drawing = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.insert_events(events).await }
        });
        let waiting = format!("FROM pg_locks WHERE relation = '{sequence}'::regclass AND NOT granted");
        let mut watching = schema.connect().await;
        until(&mut watching, &format!("SELECT EXISTS (SELECT {waiting})")).await;
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                     AND pid IN (SELECT pid FROM pg_locks WHERE relation =";
        let locks = format!("{locks} '{sequence}'::regclass AND NOT granted)");
        assert_eq!(scalar::<i64>(&mut watching, &locks).await, 1, "ids are drawn under the lock");
        assert!(scalar::<bool>(&mut watching, &format!("SELECT pg_cancel_backend(pid) {waiting}")).await);
        drawing.await.unwrap().unwrap_err();
        run(&mut holder, "ROLLBACK").await;
        other.insert_events(vec![first()]).await.unwrap();
        recorder.insert_events(vec![first()]).await.unwrap();
    }
    // Ids of a batch are contiguous, and the lock is released before the commit.
    let mut open = holder.begin().await.unwrap();
    let ids = recorder.insert_events_in(&mut open, &[first(), first()]).await.unwrap();
    let next = other.insert_events(vec![first()]).await.unwrap();
    assert_eq!([ids[1], next[0]], [ids[0] + 1, ids[0] + 2]);
    open.commit().await.unwrap();
}

// In the layout of the Python library's version 9.1 positions are rows of their own. Without a lock, two
// writers once each found theirs greater than all that was recorded: 6 and then 5 were recorded.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_ascend_in_the_earlier_layout_too() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let table = schema.table("bank_tracking");
        let create = format!(
            "CREATE TABLE {table} (application_name text, notification_id bigint, \
             PRIMARY KEY (application_name, notification_id))"
        );
        run(&mut schema.connect().await, &create).await;
        let recorder = open(schema.options().ordering(ordering)).await;
        let track = |position| Tracking::new("upstream", position).unwrap();
        let mut connection = schema.connect().await;
        let mut transaction = connection.begin().await.unwrap();
        recorder.insert_events_with_tracking_in(&mut transaction, &[first()], &track(6)).await.unwrap();
        let earlier = tokio::spawn({
            let (recorder, tracking) = (recorder.clone(), track(5));
            async move { recorder.insert_events_with_tracking(vec![first()], tracking).await }
        });
        let mut watching = schema.connect().await;
        let waiting = format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
             AND objid = '{table}'::regclass::oid)"
        );
        while !earlier.is_finished() && !scalar::<bool>(&mut watching, &waiting).await {}
        transaction.commit().await.unwrap();
        let refused = earlier.await.unwrap().unwrap_err();
        assert!(refused.is_conflict(), "{refused:?}");
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(6));
        assert_eq!(recorder.max_notification_id().await.unwrap(), Some(1));
    }
}

/// The primary key tells the two layouts apart. Another one is no tracking table, and must not be taken
/// for one: positions would be recorded twice.
#[tokio::test]
async fn a_tracking_table_with_another_key_is_refused() {
    for key in ["", ", PRIMARY KEY (application_name, notification_id, note)"] {
        let schema = Schema::create().await;
        let table = schema.table("bank_tracking");
        let create =
            format!("CREATE TABLE {table} (application_name text, notification_id bigint, note text{key})");
        run(&mut schema.connect().await, &create).await;
        let datastore = schema.open().await;
        let refusals = [
            datastore.tracking_recorder("bank").await.map(drop).unwrap_err(),
            datastore.process_recorder("bank").await.map(drop).unwrap_err(),
        ];
        for refused in refusals {
            assert_eq!(refused.kind(), ErrorKind::Programming);
            let message = refused.to_string();
            assert!(message.contains("bank_tracking") && message.contains("primary key"), "{message}");
        }
    }
}

// Python's version 9.5 migrates a tracking table of version 9.1 when it opens it: to another primary key. A
// recorder that was open took every violation of the new key for a conflict of its events, and recorded no
// position until it was opened again.

const MIGRATE: &str = "BEGIN; ALTER TABLE {t} RENAME TO bkup1_bank_tracking; \
    ALTER INDEX {i} RENAME TO bkup1_bank_tracking_pkey; \
    CREATE TABLE {t} (application_name text, notification_id bigint, PRIMARY KEY (application_name)); \
    INSERT INTO {t} SELECT application_name, max(notification_id) FROM {b} GROUP BY application_name; \
    INSERT INTO {t} VALUES ('__migration__', 1); COMMIT";

#[tokio::test]
async fn a_migrated_tracking_table_is_noticed() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let (table, backup) = (schema.table("bank_tracking"), schema.table("bkup1_bank_tracking"));
        let create = format!(
            "CREATE TABLE {table} (application_name text, notification_id bigint, \
             PRIMARY KEY (application_name, notification_id))"
        );
        run(&mut schema.connect().await, &create).await;
        let recorder = open(schema.options().ordering(ordering)).await;
        let track = |position| Tracking::new("upstream", position).unwrap();
        recorder.insert_events_with_tracking(vec![first()], track(1)).await.unwrap();
        recorder.insert_tracking(track(2)).await.unwrap();
        let index = schema.table("bank_tracking_pkey");
        let migrate = MIGRATE.replace("{t}", &table).replace("{b}", &backup).replace("{i}", &index);
        run(&mut schema.connect().await, &migrate).await;
        recorder.insert_events_with_tracking(vec![first()], track(3)).await.unwrap();
        recorder.insert_tracking(track(4)).await.unwrap();
        assert!(recorder.insert_tracking(track(4)).await.unwrap_err().is_conflict());
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(4));
        let rows = format!("SELECT count(*) FROM {table}");
        assert_eq!(
            scalar::<i64>(&mut schema.connect().await, &rows).await,
            2,
            "one row for each application"
        );
    }
}

// An application recorder on a table without notification ids acknowledged events, returned no ids, and
// readers saw none of them.

#[tokio::test]
async fn a_table_without_notification_ids_is_refused() {
    let schema = Schema::create().await;
    let columns = "originator_id uuid NOT NULL, originator_version bigint NOT NULL, topic text, state bytea";
    let key = "PRIMARY KEY (originator_id, originator_version)";
    let table = schema.table("bank_events");
    for (create, missing) in [
        (format!("CREATE TABLE {table} ({columns}, {key})"), "notification_id"),
        (format!("CREATE TABLE {table} ({columns}, notification_id bigserial)"), "primary key"),
        (format!("CREATE TABLE {table} ({columns}, notification_id bigint, {key})"), "default"),
    ] {
        run(&mut schema.connect().await, &format!("DROP TABLE IF EXISTS {table}; {create}")).await;
        for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
            let datastore = schema.options().ordering(ordering).open().await.unwrap();
            let refused = datastore.application_recorder("bank").await.unwrap_err();
            let text = refused.to_string();
            assert!(text.contains("bank_events") && text.contains(missing), "{missing}: {text}");
        }
    }
}

// Two tables whose names agree in the first 42 bytes got the same index name, and the second no unique index.

#[tokio::test]
async fn long_table_names_have_indexes_of_their_own() {
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    // Without the view `pg_indexes`, whose definitions fail on an index that another test drops meanwhile.
    let count = format!(
        "SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid \
         JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
         WHERE c.relnamespace = '{}'::regnamespace AND i.indisunique AND i.indnatts = 1 \
         AND a.attname = 'notification_id'",
        schema.name
    );
    let names = ["a".repeat(55), format!("{}b", "a".repeat(54)), format!("{}ä", "ä".repeat(26))];
    for (index, name) in (1..).zip(&names) {
        let recorder = datastore.application_recorder(name).await.unwrap();
        assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [1]);
        assert_eq!(scalar::<i64>(&mut schema.connect().await, &count).await, index, "{name}");
    }
    // A table whose index is missing gets it, or is refused.
    let index = schema.table("short_events_notification_id_idx");
    datastore.application_recorder("short").await.unwrap();
    run(&mut schema.connect().await, &format!("DROP INDEX {index}")).await;
    let without = schema.options().create_table(false).open().await.unwrap();
    let refused = without.application_recorder("short").await.unwrap_err();
    assert!(refused.to_string().contains("unique index"), "{refused}");
    datastore.application_recorder("short").await.unwrap();
    without.application_recorder("short").await.unwrap();
}

// A sequence that the default of the column uses, without being owned by the column, was not looked at: with
// `CACHE`, sessions gave out ids in blocks, and a pager missed two thirds of the events.

#[tokio::test]
async fn a_sequence_that_is_not_owned_is_checked() {
    for (sequence, is_suitable) in [("CACHE 32", false), ("INCREMENT -1", false), ("CACHE 1", true)] {
        let schema = Schema::create().await;
        schema.open().await.application_recorder("bank").await.unwrap();
        let table = schema.table("bank_events");
        let ids = schema.table("ids");
        let replace = format!(
            "CREATE SEQUENCE {ids} {sequence}; \
             ALTER TABLE {table} ALTER notification_id SET DEFAULT nextval('{ids}')"
        );
        run(&mut schema.connect().await, &replace).await;
        for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
            let datastore = schema.options().ordering(ordering).open().await.unwrap();
            match datastore.application_recorder("bank").await {
                Ok(recorder) => {
                    assert!(is_suitable, "{sequence}");
                    assert_eq!(recorder.insert_events(vec![first(), first()]).await.unwrap().len(), 2);
                }
                Err(refused) => {
                    assert!(!is_suitable, "{sequence}: {refused}");
                    assert_eq!(refused.kind(), ErrorKind::NotSupported);
                }
            }
        }
    }
}

// An identity column that is always generated refuses the ids that parallel ordering inserts: the recorder
// opened, and every append failed.

#[tokio::test]
async fn a_column_that_is_always_generated_is_refused_where_ids_are_inserted() {
    for (generated, is_suitable) in [("ALWAYS", false), ("BY DEFAULT", true)] {
        let schema = Schema::create().await;
        let create = format!(
            "CREATE TABLE {} (originator_id uuid NOT NULL, originator_version bigint NOT NULL, topic text, \
             state bytea, notification_id bigint GENERATED {generated} AS IDENTITY, \
             PRIMARY KEY (originator_id, originator_version))",
            schema.table("bank_events")
        );
        run(&mut schema.connect().await, &create).await;
        let recorder = open(schema.options()).await;
        assert_eq!(recorder.insert_events(vec![first(), first()]).await.unwrap(), [1, 2]);
        let parallel = schema.options().ordering(NotificationOrdering::Parallel).open().await.unwrap();
        match parallel.application_recorder("bank").await {
            Ok(recorder) => assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [3]),
            Err(refused) => {
                assert!(!is_suitable && refused.to_string().contains("GENERATED ALWAYS"), "{refused}");
            }
        }
        assert_eq!(parallel.application_recorder("bank").await.is_ok(), is_suitable);
    }
}

// A trigger that returns NULL skips its row without an error. The event was acknowledged with the ids of
// others.

#[tokio::test]
async fn rows_that_a_trigger_skips_are_not_acknowledged() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let recorder = open(schema.options().ordering(ordering)).await;
        let function = schema.table("skip");
        let create = format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF new.topic LIKE '%Skipped' THEN RETURN NULL; END IF; RETURN new; END $$; \
             CREATE TRIGGER skip BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION {function}()",
            schema.table("bank_events")
        );
        run(&mut schema.connect().await, &create).await;
        let skipped =
            || es_core::StoredEvent { topic: es_core::Topic::from_static("bank:Skipped"), ..first() };
        let track = |position| Tracking::new("upstream", position).unwrap();
        let refusals = [
            recorder.insert_events(vec![skipped()]).await.unwrap_err(),
            recorder.insert_events(vec![first(), skipped(), first()]).await.unwrap_err(),
            recorder.insert_events_with_tracking(vec![skipped()], track(1)).await.unwrap_err(),
        ];
        for refused in refusals {
            assert_eq!(refused.kind(), ErrorKind::Integrity);
            assert!(!refused.is_conflict() && !refused.is_transient());
            assert!(refused.to_string().contains("trigger"), "{refused}");
        }
        assert_eq!(count(&schema).await, 0, "nothing of a refused request is recorded");
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), None);
        recorder.insert_events_with_tracking(vec![first(), first()], track(1)).await.unwrap();
        assert_eq!(count(&schema).await, 2);
        let refused = recorder.insert_events_with_tracking(vec![skipped()], track(2)).await.unwrap_err();
        assert!(refused.to_string().contains("trigger"), "{refused}");
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(1), "the position stays, too");
        // Of a position too.
        let create = format!(
            "CREATE FUNCTION {function}_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
             CREATE TRIGGER skip BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION {function}_all()",
            schema.table("bank_tracking")
        );
        run(&mut schema.connect().await, &create.replace("\"_all", "_all\"")).await;
        let other = Tracking::new("other", 1).unwrap();
        let refused = recorder.insert_events_with_tracking(vec![first()], other.clone()).await.unwrap_err();
        assert!(refused.to_string().contains("trigger"), "{refused}");
        let refused = recorder.insert_tracking(other).await.unwrap_err();
        assert!(refused.to_string().contains("trigger"), "{refused}");
        assert_eq!(count(&schema).await, 2);
    }
}

// Ids and versions of a smaller type were committed, and then could not be read: every caller got an unknown
// outcome.

#[tokio::test]
async fn columns_of_other_types_are_refused() {
    for (version, id) in [("integer", "bigserial"), ("bigint", "serial")] {
        let schema = Schema::create().await;
        let create = format!(
            "CREATE TABLE {} (originator_id uuid NOT NULL, originator_version {version} NOT NULL, topic text, \
             state bytea, notification_id {id}, PRIMARY KEY (originator_id, originator_version))",
            schema.table("bank_events")
        );
        run(&mut schema.connect().await, &create).await;
        let refused = schema.open().await.application_recorder("bank").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotSupported);
        assert!(refused.to_string().contains("integer"), "{refused}");
    }
}

// Parallel ordering draws ids from the sequence, and ignored what the default of the column makes of them:
// its ids were below those that readers had passed.

#[tokio::test]
async fn a_default_that_is_not_the_plain_sequence_is_refused_in_parallel() {
    let schema = Schema::create().await;
    schema.open().await.application_recorder("bank").await.unwrap();
    let sequence = schema.table("bank_events_notification_id_seq");
    let alter = format!(
        "ALTER TABLE {} ALTER notification_id SET DEFAULT nextval('{sequence}') * 10 + 3",
        schema.table("bank_events")
    );
    run(&mut schema.connect().await, &alter).await;
    assert_eq!(open(schema.options()).await.insert_events(vec![first()]).await.unwrap(), [13]);
    let parallel = schema.options().ordering(NotificationOrdering::Parallel).open().await.unwrap();
    let refused = parallel.application_recorder("bank").await.unwrap_err();
    assert!(refused.to_string().contains("default"), "{refused}");
}

// A unique index of the user's own was taken for a version conflict of a rival: the request was retried for
// two seconds, and all others waited.

#[tokio::test]
async fn a_unique_index_of_the_users_is_no_conflict() {
    let schema = Schema::create().await;
    let recorder = open(schema.options()).await;
    let create = format!("CREATE UNIQUE INDEX ON {} (topic)", schema.table("bank_events"));
    recorder.insert_events(vec![first()]).await.unwrap();
    run(&mut schema.connect().await, &create).await;
    let refused = recorder.insert_events(vec![first()]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity);
    assert!(!refused.is_conflict());
}

// A transaction with a stricter isolation read the maximum of the positions from a snapshot that was older
// than its locks: notifications were recorded twice.

#[tokio::test]
async fn a_stricter_transaction_of_the_callers_is_refused() {
    let schema = Schema::create().await;
    let recorder = open(schema.options()).await;
    let mut connection = schema.connect().await;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut transaction = connection.begin().await.unwrap();
        run(&mut transaction, &format!("SET TRANSACTION ISOLATION LEVEL {isolation}")).await;
        let refused = recorder.insert_events_in(&mut transaction, &[first()]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Programming);
        assert!(refused.to_string().contains("READ COMMITTED"), "{refused}");
        transaction.rollback().await.unwrap();
    }
}

/// A row of a later position could be inserted beside the one that a claim moves.
#[tokio::test]
async fn segments_are_refused_in_the_earlier_layout() {
    let schema = Schema::create().await;
    let create = format!(
        "CREATE TABLE {} (application_name text, notification_id bigint, \
         PRIMARY KEY (application_name, notification_id))",
        schema.table("bank_tracking")
    );
    run(&mut schema.connect().await, &create).await;
    let recorder = open(schema.options()).await;
    recorder.insert_tracking(Tracking::new("audit", 5).unwrap()).await.unwrap();
    let change = SegmentChange::Create(std::num::NonZeroU16::MIN);
    let refusals = [
        recorder.change_segments("audit", change).await.map(drop).unwrap_err(),
        recorder.segments("audit").await.map(drop).unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(refused.kind(), ErrorKind::NotSupported);
        assert!(refused.to_string().contains("version 9.5 of the Python library"), "{refused}");
    }
    let is_left = format!("SELECT to_regclass('{}') IS NULL", schema.table("bank_tracking_segments"));
    assert!(scalar::<bool>(&mut schema.connect().await, &is_left).await);
    assert_eq!(recorder.max_tracking_id("audit").await.unwrap(), Some(5));
}
