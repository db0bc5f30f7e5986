//! What stands in the database and is not what a recorder made or found: functions of strangers,
//! functions that vanish, tracking tables of the earlier layout, sequences that are held.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by unwrapping it"
)]

mod common;

use common::{Role, Schema, first, run, scalar, until};
use es_core::{
    AggregateRecorder, ApplicationRecorder, ErrorKind, ProcessRecorder, Tracking, TrackingRecorder,
};
use es_postgres::{Ordering, PostgresOptions, PostgresProcessRecorder};
use sqlx::{AssertSqlSafe, Connection, Row};

async fn open(options: PostgresOptions) -> PostgresProcessRecorder {
    options.open().await.unwrap().process_recorder("bank").await.unwrap()
}

/// The functions of a schema: name, parameters, what they return, body.
async fn functions(schema: &Schema) -> Vec<[String; 4]> {
    let query = format!(
        "SELECT proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid), prosrc \
         FROM pg_proc WHERE pronamespace = '{}'::regnamespace",
        schema.name
    );
    let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut schema.connect().await).await.unwrap();
    rows.iter().map(|row| [0, 1, 2, 3].map(|column| row.get::<String, _>(column))).collect()
}

async fn count(schema: &Schema) -> i64 {
    let sql = format!("SELECT count(*) FROM {}", schema.table("bank_events"));
    scalar(&mut schema.connect().await, &sql).await
}

// The functions' names can be known beforehand. Somebody who may create things in the schema once had
// only to be first: whatever his function answered was believed, and acknowledged, though it wrote
// nothing; and it ran with the rights of the application.

#[tokio::test]
async fn a_strangers_function_is_not_called() {
    let schema = Schema::create().await;
    open(schema.options()).await;
    let ours = functions(&schema).await;
    assert_eq!(ours.len(), 2);
    for with_our_body in [false, true] {
        schema.drop_functions().await;
        let stranger = Role::create(&schema).await;
        let grant = format!("GRANT CREATE ON SCHEMA {} TO {}", schema.name, stranger.name);
        run(&mut schema.connect().await, &grant).await;
        let mut connection = stranger.server.connect().await;
        for [name, parameters, returns, body] in &ours {
            let lie = match &**returns {
                "bigint" => "BEGIN RETURN 42; END",
                _ => {
                    "BEGIN refused_rows := '{}'; refused_tracking := '{}'; notification_ids := '{42,43}'; END"
                }
            };
            // Its owner may change it whenever he likes.
            let body = if with_our_body { body } else { lie };
            let create = format!(
                "CREATE FUNCTION {}.{name}({parameters}) RETURNS {returns} LANGUAGE plpgsql AS $body${body}$body$",
                schema.name
            );
            run(&mut connection, &create).await;
        }
        let before = count(&schema).await;
        let recorder = open(schema.options()).await;
        let ids = recorder.insert_events(vec![first()]).await.unwrap();
        assert_eq!(ids, [before + 1]);
        assert_eq!(recorder.insert_events(vec![first(), first()]).await.unwrap().len(), 2);
        assert_eq!(count(&schema).await, before + 3, "what is acknowledged is there");
    }
}

#[tokio::test]
async fn functions_of_the_tables_owner_are_called() {
    let schema = Schema::create().await;
    let (owner, user) = (Role::create(&schema).await, Role::create(&schema).await);
    let grant = format!("GRANT CREATE ON SCHEMA {} TO {}", schema.name, owner.name);
    run(&mut schema.connect().await, &grant).await;
    let as_role = |role: &Role| schema.options().user(&role.server.user).password(&role.server.password);
    open(as_role(&owner)).await;
    let grant = format!(
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {0} TO {1}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {0} TO {1}",
        schema.name, user.name
    );
    run(&mut owner.server.connect().await, &grant).await;
    let recorder = open(as_role(&user).create_table(false)).await;
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [1]);
    // That it called them shows when it may not any more.
    let revoke = format!("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {} FROM PUBLIC", schema.name);
    run(&mut owner.server.connect().await, &revoke).await;
    let forbidden = recorder.insert_events(vec![first()]).await.unwrap_err();
    assert_eq!(forbidden.kind(), ErrorKind::Programming, "the function was called: {forbidden:?}");
}

// A function that was dropped under a running recorder once made every append fail until a restart.

#[tokio::test]
async fn functions_that_vanish_are_made_anew_or_done_without() {
    for create in [true, false] {
        let schema = Schema::create().await;
        open(schema.options()).await;
        let recorder = open(schema.options().create_table(create)).await;
        assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [1]);
        schema.drop_functions().await;
        assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [2]);
        let tracking = Tracking::new("upstream", 1).unwrap();
        assert_eq!(recorder.insert_events_with_tracking(vec![first()], tracking).await.unwrap(), [3]);
        assert_eq!(functions(&schema).await.len(), if create { 2 } else { 0 });
        // In the caller's transaction the error cannot be undone; the next one goes well.
        if create {
            schema.drop_functions().await;
            let mut connection = schema.connect().await;
            let mut transaction = connection.begin().await.unwrap();
            recorder.insert_events_in(&mut transaction, &[first()]).await.unwrap_err();
            transaction.rollback().await.unwrap();
            let mut transaction = connection.begin().await.unwrap();
            recorder.insert_events_in(&mut transaction, &[first()]).await.unwrap();
            transaction.commit().await.unwrap();
        }
    }
}

#[tokio::test]
async fn tables_that_vanish_are_not_replaced_by_empty_ones() {
    let schema = Schema::create().await;
    let recorder = open(schema.options()).await;
    recorder.insert_events(vec![first()]).await.unwrap();
    schema.drop_functions().await;
    let drop = format!("DROP TABLE {}", schema.table("bank_events"));
    run(&mut schema.connect().await, &drop).await;
    let missing = recorder.insert_events(vec![first()]).await.unwrap_err();
    assert!(missing.to_string().contains("bank_events"), "{missing}");
    let stands = format!("SELECT to_regclass('{}') IS NOT NULL", schema.table("bank_events"));
    assert!(!scalar::<bool>(&mut schema.connect().await, &stands).await);
}

// Ids are drawn under a lock that was once the session's own: cancelled twice, the session kept it,
// went back to the pool, and nobody could draw ids any more.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_cancelled_while_it_draws_ids_keeps_no_lock() {
    let schema = Schema::create().await;
    let parallel = || schema.options().ordering(Ordering::Parallel).pool_size(1);
    let (recorder, other) = (open(parallel()).await, open(parallel()).await);
    for [name, _, _, body] in functions(&schema).await {
        assert!(!body.contains("pg_advisory_lock("), "{name} takes a lock that outlives its transaction");
    }
    let mut holder = schema.connect().await;
    let sequence = schema.table("bank_events_notification_id_seq");
    for events in [vec![first()], vec![first(), first()]] {
        // Nobody draws while the sequence is altered.
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
        assert_eq!(scalar::<i64>(&mut watching, &locks).await, 1, "it draws under the lock");
        assert!(scalar::<bool>(&mut watching, &format!("SELECT pg_cancel_backend(pid) {waiting}")).await);
        drawing.await.unwrap().unwrap_err();
        run(&mut holder, "ROLLBACK").await;
        other.insert_events(vec![first()]).await.unwrap();
        recorder.insert_events(vec![first()]).await.unwrap();
    }
    // Ids of a batch stay together, and the lock is given back before the commit.
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
    for with_functions in [true, false] {
        let schema = Schema::create().await;
        let table = schema.table("bank_tracking");
        let create = format!(
            "CREATE TABLE {table} (application_name text, notification_id bigint, \
             PRIMARY KEY (application_name, notification_id))"
        );
        run(&mut schema.connect().await, &create).await;
        let parallel = || schema.options().ordering(Ordering::Parallel);
        let mut recorder = open(parallel()).await;
        if !with_functions {
            schema.drop_functions().await;
            recorder = open(parallel().create_table(false)).await;
        }
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

/// Which of the two layouts stands is told by the primary key. Another one is no tracking table, and must not be taken
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
