//! Network faults at each message in turn, in each direction: the connection is cut, or frozen without
//! notice, or the message is delayed. After any of these, each request gets the same result as without a
//! fault: an acknowledged event is there, once.
//!
//! A former defect: a writer waited for an answer without limit, and since it was the only writer, no more
//! events could be recorded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use common::{
    link::{Direction, Link, NetworkFault},
    prelude::*,
};
use futures_util::future::join_all;
use tokio::time::timeout;

/// More messages than anything here sends: a test that does not end is a failed one.
const MOST_MESSAGES: usize = 100;

/// For a test that fails.
const TOO_LONG: Duration = Duration::from_secs(60);

/// The response timeout: a recorder waits this long before it checks the server.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    AppendingOne,
    AppendingSeveral,
    Reading,
}

/// The way in which a recorder appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One statement that commits by itself.
    Statement(NotificationOrdering),
    /// Begin, lock, insert, commit: with tracking in the layout of Python's version 9.1.
    Transaction,
    /// The same, on a server that ends a session which idles in between.
    TransactionInTime,
}

const SERIALIZED: Way = Way::Statement(NotificationOrdering::Serialized);
const PARALLEL: Way = Way::Statement(NotificationOrdering::Parallel);

fn through(link: &Link, schema: &Schema) -> PostgresOptions {
    let options = schema.options().host("127.0.0.1").port(link.port).sslmode("disable").unwrap();
    options.response_timeout(PATIENCE).pool_size(1).max_overflow(2)
}

async fn recorder(link: &Link, schema: &Schema, way: Way) -> PostgresProcessRecorder {
    let options = match way {
        Way::Statement(ordering) => through(link, schema).ordering(ordering),
        Way::Transaction => through(link, schema),
        Way::TransactionInTime => through(link, schema).idle_in_transaction_session_timeout(PATIENCE / 2),
    };
    options.open().await.unwrap().process_recorder("bank").await.unwrap()
}

async fn tables(way: Way) -> Schema {
    let schema = Schema::create().await;
    if matches!(way, Way::Transaction | Way::TransactionInTime) {
        let create = format!(
            "CREATE TABLE {} (application_name text, notification_id bigint, \
             PRIMARY KEY (application_name, notification_id))",
            schema.table("bank_tracking")
        );
        run(&mut schema.connect().await, &create).await;
    }
    schema.open().await.process_recorder("bank").await.unwrap().close().await.unwrap();
    schema
}

/// Injects the fault at the first message, then at the second one, and so on to the last. Returns the count.
async fn harm_each_message(way: Way, doing: Doing, direction: Direction, harm: NetworkFault) -> usize {
    let schema = tables(way).await;
    let link = Link::start(&schema.server).await;
    let mut expected = Vec::new();
    for passing in 0..MOST_MESSAGES {
        // Connected, and nothing prepared yet.
        let recorder = recorder(&link, &schema, way).await;
        link.arm(direction, harm, passing);
        let done = timeout(TOO_LONG, does(doing, &recorder, passing)).await;
        expected.extend(
            done.unwrap_or_else(|_| panic!("{way:?}, {doing:?}, {direction:?}: no end of {passing}")),
        );
        let was_done = link.disarm();
        let page = recorder.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
        let recorded: Vec<i64> = page.into_iter().map(|notification| notification.id).collect();
        assert_eq!(recorded, expected, "{way:?}, {doing:?}, {direction:?}, {harm:?}, message {passing}");
        recorder.close().await.unwrap();
        if !was_done {
            return passing;
        }
    }
    panic!("{way:?}, {doing:?}, {direction:?}: more than {MOST_MESSAGES} messages");
}

/// Says which ids it was given.
async fn does(doing: Doing, recorder: &PostgresProcessRecorder, round: usize) -> Vec<i64> {
    match doing {
        Doing::AppendingOne => recorder.insert_events(vec![first()]).await.unwrap(),
        Doing::AppendingSeveral => {
            let position = i64::try_from(round).unwrap() + 1;
            let tracking = Tracking::new("upstream", position).unwrap();
            let events = vec![first(), first()];
            let ids = recorder.insert_events_with_tracking(events, tracking).await.unwrap();
            assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(position));
            ids
        }
        Doing::Reading => {
            assert_eq!(recorder.max_notification_id().await.unwrap(), None);
            Vec::new()
        }
    }
}

async fn harm_everything(harm: NetworkFault, ways: &[Way]) {
    let mut lanes = Vec::new();
    for &way in ways {
        for doing in [Doing::AppendingOne, Doing::AppendingSeveral, Doing::Reading] {
            for direction in [Direction::ToServer, Direction::ToClient] {
                lanes.push(harm_each_message(way, doing, direction, harm));
            }
        }
    }
    let messages: usize = join_all(lanes).await.into_iter().sum();
    println!("{harm:?}: {messages} messages were harmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_at_any_message_is_made_up_for() {
    harm_everything(NetworkFault::Cut, &[SERIALIZED, PARALLEL, Way::Transaction]).await;
}

/// A server that breaks down may have committed before; its words were once taken for those of a statement
/// that has written nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_breaks_down_at_any_message_is_made_up_for() {
    harm_everything(NetworkFault::Breakdown, &[SERIALIZED, PARALLEL, Way::Transaction]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_freezes_at_any_message_is_made_up_for() {
    harm_everything(NetworkFault::Freeze, &[SERIALIZED, Way::Transaction]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_message_changes_no_result() {
    // After the recorder's check and before it gives up, and later than a transaction may idle.
    harm_everything(NetworkFault::Delay(PATIENCE * 5 / 4), &[SERIALIZED, Way::TransactionInTime]).await;
}

// A server that is at work is waited for, however long.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_takes_long_is_no_lost_connection() {
    let schema = tables(SERIALIZED).await;
    let link = Link::start(&schema.server).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let (made, password) = (Arc::clone(&connections), schema.server.password.clone());
    let options = through(&link, &schema).response_timeout(Duration::from_millis(10));
    let options = options.password_provider(move || {
        made.fetch_add(1, Atomic::SeqCst);
        let password = password.clone();
        async move { Ok::<_, std::io::Error>(password) }
    });
    let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
    let (mut holder, mut watching) = (schema.connect().await, schema.connect().await);
    let events = schema.table("bank_events");
    run(&mut holder, &format!("BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE")).await;
    let append = tokio::spawn(async move { recorder.insert_events(vec![first()]).await });
    // The server is queried on separate connections.
    while connections.load(Atomic::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    let waiting =
        format!("SELECT count(*) FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted");
    assert_eq!(scalar::<i64>(&mut watching, &waiting).await, 1, "nothing was sent again");
    run(&mut holder, "COMMIT").await;
    assert_eq!(append.await.unwrap().unwrap(), [1]);
}

// A server that breaks down closes a connection before it answers whether it encrypts. The driver takes the
// end for a zero byte and reports an error of the protocol, which was not transient: a follower gave up.

#[tokio::test]
async fn a_connection_that_is_closed_before_the_first_answer_may_be_tried_again() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = tokio::io::AsyncReadExt::read(&mut client, &mut [0; 8]).await;
        }
    });
    let options = PostgresOptions::new("bank").host("127.0.0.1").port(port);
    let failed = options.connect_timeout(Duration::from_millis(200)).open().await.unwrap_err();
    assert_eq!((failed.kind(), failed.is_transient()), (es_core::ErrorKind::Operational, true), "{failed:?}");
}
