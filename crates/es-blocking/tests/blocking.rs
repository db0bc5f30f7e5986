//! Synchronous callers on SQLite and on PostgreSQL; calls inside of an async runtime.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{env, thread, time::Duration};

use es_blocking::{EventStore, Runtime};
use es_core::{
    ErrorKind, Event, EventRange, Expected, Mapper, Metadata, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, StoredEvent, Tracking, uuid::Uuid,
};
use es_postgres::PostgresOptions;
use es_process::Processor;
use es_sqlite::SqliteOptions;
use es_transcode::JsonTranscoder;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

const TIMEOUT: Duration = Duration::from_secs(60);
const A: Uuid = Uuid::from_u128(0xa);

#[derive(Clone, Debug, PartialEq, es_derive::Event)]
#[event(topic = "bank:Account")]
enum AccountEvent {
    Opened { owner: String },
    Credited { cents: i64 },
    Closed,
}

fn opened() -> AccountEvent {
    AccountEvent::Opened { owner: "Alice".to_owned() }
}

fn store<R>(runtime: &Runtime, recorder: R) -> EventStore<R, JsonTranscoder> {
    runtime.event_store(es_core::EventStore::new(recorder, Mapper::new(JsonTranscoder::new())))
}

/// Every operation of a store and of a recorder, on an empty datastore. Closes the recorder.
fn all_operations<R: ProcessRecorder + Clone + 'static>(runtime: &Runtime, recorder: R) {
    let store = store(runtime, recorder);
    let credited = |cents| AccountEvent::Credited { cents };
    let [first] = store.append(A, Expected::New, [opened()]).unwrap()[..] else {
        panic!("one id is expected")
    };
    let metadata = Metadata::new().with_actor("teller");
    store.append_with_metadata(A, Expected::Version(1), &metadata, [credited(5)]).unwrap();
    let third = es_core::DomainEvent::new(A, 3, credited(7));
    store.put(std::slice::from_ref(&third)).unwrap();
    let conflict = store.append(A, Expected::Version(2), [credited(9)]).unwrap_err();
    assert_eq!(conflict.event_context().unwrap().originator_version, Some(3));

    let events = store.get::<AccountEvent>(A, EventRange::all()).unwrap();
    assert_eq!((events.len(), &events[0].payload, &events[2]), (3, &opened(), &third));
    assert_eq!(events[1].metadata, metadata);
    let streamed: Vec<_> = store.stream(A, EventRange::all()).collect::<Result<_, _>>().unwrap();
    assert_eq!(streamed, events);

    let recorder = store.recorder();
    let stored = recorder.select_events(A, EventRange::all()).unwrap();
    let streamed: Vec<_> = recorder.stream_events(A, EventRange::all()).collect::<Result<_, _>>().unwrap();
    assert_eq!(streamed, stored);
    let credits = NotificationSelection::new(10).topics(&[AccountEvent::CREDITED]);
    let selected = recorder.select_notifications(credits.clone()).unwrap();
    assert_eq!(selected.len(), 2);
    let streamed: Vec<_> = recorder.stream_notifications(credits).collect::<Result<_, _>>().unwrap();
    assert_eq!(streamed, selected);

    let tracking = |id| Tracking::new("upstream", id).unwrap();
    recorder.insert_tracking(tracking(1)).unwrap();
    let event = StoredEvent { originator_version: 4, ..stored[2].clone() };
    let ids = recorder.insert_events_with_tracking(vec![event.clone()], tracking(2)).unwrap();
    assert_eq!(recorder.max_notification_id().unwrap(), ids.last().copied());
    assert_eq!(recorder.max_tracking_id("upstream").unwrap(), Some(2));
    assert!(recorder.has_tracking_id("upstream", 2).unwrap());
    recorder.wait("upstream", 2, TIMEOUT).unwrap();
    assert!(recorder.consumer_lag("upstream", recorder.inner()).unwrap().lag() >= 0);
    let event = StoredEvent { originator_version: 5, ..event };
    assert_eq!(recorder.insert_events(vec![event]).unwrap().len(), 1);

    follow(runtime, &store, first);
    recorder.close().unwrap();
    assert_eq!(store.get::<AccountEvent>(A, EventRange::all()).unwrap_err().kind(), ErrorKind::Interface);
    assert_eq!(store.subscribe::<AccountEvent>(0).count(), 0, "the recorder is closed");
}

/// Recorded and live events, in a thread of the subscriber's own, until it is stopped.
fn follow<R: ProcessRecorder + Clone + 'static>(
    runtime: &Runtime,
    store: &EventStore<R, JsonTranscoder>,
    first: i64,
) {
    let mut notifications = store.recorder().subscribe(first, AccountEvent::TOPICS);
    let mut next = || notifications.next().unwrap().unwrap().event.originator_version;
    assert_eq!([next(), next(), next(), next()], [2, 3, 4, 5]);

    let mut live = store.inner().subscribe::<AccountEvent>();
    let stop = live.stop_handle();
    let live = runtime.iter(live.into_stream());
    let follower = thread::spawn(move || {
        let mut versions = Vec::new();
        for notification in live {
            let event = notification.unwrap().event;
            versions.push(event.originator_version);
            if event.payload == AccountEvent::Closed {
                stop.stop();
            }
        }
        versions
    });
    store.append(A, Expected::Version(5), [AccountEvent::Closed]).unwrap();
    assert_eq!(follower.join().unwrap(), [1, 2, 3, 4, 5, 6]);
    let mut typed = store.subscribe::<AccountEvent>(first);
    assert_eq!(typed.next().unwrap().unwrap().event.originator_version, 2);
}

#[test]
fn synchronous_callers_use_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let datastore = runtime.run(SqliteOptions::new(directory.path().join("events.db")).open()).unwrap();
    all_operations(&runtime, runtime.run(datastore.process_recorder()).unwrap());
    runtime.run(datastore.close()).unwrap();
}

#[test]
fn synchronous_callers_use_postgres() {
    if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
        return;
    }
    let setting =
        |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `cargo xtask test`"));
    let runtime = Runtime::new().unwrap();
    let execute = |statement: String| {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&setting("POSTGRES_HOST"))
            .port(setting("POSTGRES_PORT").parse().unwrap())
            .database(&setting("POSTGRES_DBNAME"))
            .username(&setting("POSTGRES_USER"))
            .password(&setting("POSTGRES_PASSWORD"));
        let executed = runtime.run(async {
            let mut connection = PgConnection::connect_with(&options).await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        });
        executed.unwrap();
    };
    let schema = format!("blocking_{}", Uuid::new_v4().simple());
    execute(format!("CREATE SCHEMA {schema}"));
    let options = PostgresOptions::new(setting("POSTGRES_DBNAME"))
        .host(setting("POSTGRES_HOST"))
        .port(setting("POSTGRES_PORT").parse().unwrap())
        .user(setting("POSTGRES_USER"))
        .password(setting("POSTGRES_PASSWORD"))
        .schema(&schema);
    let datastore = runtime.run(options.open()).unwrap();
    all_operations(&runtime, runtime.run(datastore.process_recorder("bank")).unwrap());
    runtime.run(datastore.close()).unwrap();
    execute(format!("DROP SCHEMA {schema} CASCADE"));
}

#[test]
fn threads_share_a_store() {
    let runtime = Runtime::new().unwrap();
    let datastore = runtime.run(SqliteOptions::new(":memory:").open()).unwrap();
    let store = store(&runtime, runtime.run(datastore.application_recorder()).unwrap());
    thread::scope(|scope| {
        for account in 0..8 {
            let store = store.clone();
            scope.spawn(move || store.append(Uuid::from_u128(account), Expected::New, [opened()]).unwrap());
        }
    });
    assert_eq!(store.subscribe::<AccountEvent>(0).take(8).filter(Result::is_ok).count(), 8);
}

#[test]
fn a_processor_runs_until_its_upstream_is_closed() {
    let runtime = Runtime::new().unwrap();
    let datastore = runtime.run(SqliteOptions::new(":memory:").open()).unwrap();
    let bank = runtime.run(datastore.process_recorder()).unwrap();
    let store = store(&runtime, bank.clone());
    let ids = store.append(A, Expected::New, [opened()]).unwrap();
    let nothing = async |_: Notification| -> Result<Vec<StoredEvent>, PersistenceError> { Ok(Vec::new()) };
    let mut processor = Processor::new("audit", bank.clone(), bank.clone(), nothing);
    let running = {
        let runtime = runtime.clone();
        thread::spawn(move || {
            let run =
                async { processor.run().await.map_err(Box::<dyn std::error::Error + Send + Sync>::from) };
            runtime.run(run)
        })
    };
    store.recorder().wait("audit", ids[0], TIMEOUT).unwrap();
    store.recorder().close().unwrap();
    running.join().unwrap().unwrap();
}

/// Tokio panics if a runtime is started within another one, and if it is dropped there.
#[test]
fn a_call_inside_of_an_async_runtime_is_an_error() {
    let runtime = Runtime::new().unwrap();
    let datastore = runtime.run(SqliteOptions::new(":memory:").open()).unwrap();
    let store = store(&runtime, runtime.run(datastore.application_recorder()).unwrap());
    let outer = tokio::runtime::Builder::new_current_thread().build().unwrap();
    outer.block_on(async move {
        let error = store.append(A, Expected::New, [opened()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interface);
        assert!(error.to_string().contains("use the asynchronous API"), "{error}");
        let mut notifications = store.recorder().subscribe(0, []);
        assert_eq!(notifications.next().unwrap().unwrap_err().kind(), ErrorKind::Interface);
        assert!(notifications.next().is_none(), "an error is the last item");
        // The asynchronous API works on this runtime.
        store.inner().append(A, Expected::New, [opened()]).await.unwrap();
        drop(notifications);
        drop((store, datastore, runtime));
    });
}
