//! Following a log that other processes write; here another datastore represents them. Listeners are woken
//! by the poll or by a notification, and not woken when there is nothing to read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::prelude::*;
use es_core::{Listener, NotificationPage, Signal};

/// Longer than any test takes: a test that waits for it fails.
const NEVER: Duration = Duration::from_secs(3_600);

/// A bound for tests that fail.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

async fn next<R: ApplicationRecorder>(subscription: &mut Subscription<R>) -> NotificationPage {
    soon(subscription.next_page()).await.unwrap().expect("the recorder is open")
}

/// Waits until a listener is woken. Unlike a subscription, it does not read by itself before it waits.
async fn woken(listener: &mut Listener) {
    assert!(soon(listener.notified()).await, "the recorder is open");
}

/// Checks whether a listener was notified since the last check.
fn is_woken(listener: &mut Listener) -> bool {
    listener.notified().now_or_never().is_some()
}

fn ids(page: &NotificationPage) -> Vec<i64> {
    page.notifications.iter().map(|notification| notification.id).collect()
}

fn of_topic(topic: &'static str) -> StoredEvent {
    StoredEvent { topic: Topic::from_static(topic), ..first() }
}

/// Holds a datastore at one kind of point, and reports each arrival there.
struct Gate {
    at: FaultPoint,
    reached: mpsc::UnboundedSender<()>,
    passes: Arc<Semaphore>,
}

/// The test's side of a gate.
struct Warden {
    reached: mpsc::UnboundedReceiver<()>,
    passes: Arc<Semaphore>,
}

impl Gate {
    fn at(point: FaultPoint) -> (Self, Warden) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let passes = Arc::new(Semaphore::new(0));
        let gate = Self { at: point, reached: sender, passes: Arc::clone(&passes) };
        (gate, Warden { reached: receiver, passes })
    }
}

impl FaultHooks for Gate {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == self.at {
                let _ = self.reached.send(());
                self.passes.acquire().await.unwrap().forget();
            }
        })
    }
}

impl Warden {
    async fn reached(&mut self) {
        soon(self.reached.recv()).await.unwrap();
    }

    fn pass(&self) {
        self.passes.add_permits(1);
    }

    /// Releases it, and does not hold it again.
    fn open(&self) {
        self.passes.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn pass_one(&mut self) {
        self.reached().await;
        self.pass();
    }
}

/// Counts what subscriptions have read.
#[derive(Clone, Debug)]
struct Counting(PostgresApplicationRecorder, Arc<AtomicUsize>);

impl Recorder for Counting {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.0.close().await
    }
}

impl AggregateRecorder for Counting {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.0.insert_events(events).await
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.0.select_events(originator_id, range).await
    }
}

impl ApplicationRecorder for Counting {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        let page = self.0.select_notifications(selection).await;
        self.1.fetch_add(1, Atomic::SeqCst);
        page
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        let highest = self.0.max_notification_id().await;
        self.1.fetch_add(1, Atomic::SeqCst);
        highest
    }

    fn commit_signal(&self) -> &Signal {
        self.0.commit_signal()
    }
}

async fn recorder(options: PostgresOptions) -> PostgresApplicationRecorder {
    options.open().await.unwrap().application_recorder("bank").await.unwrap()
}

fn quick(schema: &Schema) -> PostgresOptions {
    schema.options().poll_interval(Duration::from_millis(5))
}

// On one thread: the poller starts when these tests wait, and wakes all listeners first.

#[tokio::test]
async fn the_poll_detects_commits_of_another_process() {
    let schema = Schema::create().await;
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let options = |options: PostgresOptions| options.ordering(ordering);
        let reader = recorder(options(quick(&schema))).await;
        let writer = recorder(options(schema.options())).await;
        let mut all = reader.commit_signal().listen([""; 0]);
        let mut some = reader.commit_signal().listen(["bank:B"]);
        woken(&mut all).await;
        woken(&mut some).await;
        for _ in 0..5 {
            writer.insert_events(vec![of_topic("bank:A"), of_topic("bank:B")]).await.unwrap();
            woken(&mut all).await;
            woken(&mut some).await;
        }
    }
}

#[tokio::test]
async fn the_poll_detects_commits_of_the_callers_transaction() {
    let schema = Schema::create().await;
    let recorder = recorder(quick(&schema)).await;
    let mut listener = recorder.commit_signal().listen(["bank:A"]);
    woken(&mut listener).await;
    let mut connection = schema.connect().await;
    let mut transaction = sqlx::Connection::begin(&mut connection).await.unwrap();
    recorder.insert_events_in(&mut transaction, &[of_topic("bank:A")]).await.unwrap();
    transaction.commit().await.unwrap();
    woken(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_position_notices_another_process() {
    let schema = Schema::create().await;
    let reader = quick(&schema).open().await.unwrap().process_recorder("bank").await.unwrap();
    let writer = schema.open().await.process_recorder("bank").await.unwrap();
    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait("upstream", 7, NEVER).await }
    });
    let mut listener = reader.tracking_signal().listen(["upstream"]);
    assert!(soon(listener.notified()).await, "looked for the first time");
    writer.insert_tracking(Tracking::new("upstream", 7).unwrap()).await.unwrap();
    // Woken by the poll again, not only at the start.
    assert!(soon(listener.notified()).await);
    soon(waiting).await.unwrap().unwrap();
}

/// Subscribers whose topics are not written read nothing, regardless of the writer.
#[tokio::test]
async fn a_thousand_subscribers_of_other_topics_read_nothing() {
    const SUBSCRIBERS: usize = 1_000;
    let schema = Schema::create().await;
    let (gate, mut looks) = Gate::at(FaultPoint::Polled);
    let reader = Counting(recorder(quick(&schema).hooks(gate)).await, Arc::default());
    let (writer, reads) = (recorder(schema.options()).await, Arc::clone(&reader.1));
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let topics = [Topic::from_static("bank:B")];
            let mut subscription = reader.clone().subscribe(0, topics).poll_interval(NEVER);
            tokio::spawn(async move { next(&mut subscription).await })
        })
        .collect();
    // The first poll wakes all listeners, since it does not know which events were recorded before. The log
    // is empty: reading it is a query for its end.
    looks.reached().await;
    soon(async {
        while reads.load(Atomic::SeqCst) < 2 * SUBSCRIBERS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    writer.insert_events(vec![of_topic("bank:A"), of_topic("bank:A")]).await.unwrap();
    reader.insert_events(vec![of_topic("bank:A")]).await.unwrap();
    looks.pass();
    for _ in 0..3 {
        looks.pass_one().await;
    }
    looks.reached().await;
    assert_eq!(reads.load(Atomic::SeqCst), 2 * SUBSCRIBERS);

    writer.insert_events(vec![of_topic("bank:B")]).await.unwrap();
    looks.open();
    for subscriber in subscribers {
        assert_eq!(ids(&subscriber.await.unwrap()), [4]);
    }
    assert_eq!(reads.load(Atomic::SeqCst), 4 * SUBSCRIBERS, "each has read once: the end, and a page");
}

/// Missing ids wake no subscriber of other topics: an event that appears later wakes its subscribers, and one
/// that was rolled back wakes none.
#[tokio::test]
async fn a_gap_wakes_only_listeners_of_its_topics() {
    for (ordering, end) in [
        (NotificationOrdering::Parallel, "COMMIT"),
        (NotificationOrdering::Parallel, "ROLLBACK"),
        (NotificationOrdering::Serialized, "ROLLBACK"),
    ] {
        let schema = Schema::create().await;
        let options = |options: PostgresOptions| options.ordering(ordering);
        let (gate, mut looks) = Gate::at(FaultPoint::Polled);
        let reader = recorder(options(quick(&schema)).hooks(gate)).await;
        let writer = recorder(options(schema.options())).await;
        let mut listeners =
            ["bank:A", "bank:B", "bank:C"].map(|topic| reader.commit_signal().listen([topic]));
        looks.reached().await;
        for listener in &mut listeners {
            woken(listener).await;
        }
        let mut slow = schema.connect().await;
        let insert = |topic: &str| {
            format!(
                "INSERT INTO {} VALUES ('{}', 1, '{topic}', 'slow')",
                schema.table("bank_events"),
                Uuid::new_v4()
            )
        };
        run(&mut slow, &format!("BEGIN; {}; {}", insert("bank:A"), insert("bank:B"))).await;
        if ordering == NotificationOrdering::Serialized {
            run(&mut slow, end).await;
        }
        assert_eq!(writer.insert_events(vec![of_topic("bank:B")]).await.unwrap(), [3]);
        let [a, b, c] = &mut listeners;
        // The first of them may have begun before the commit.
        for _ in 0..3 {
            looks.pass();
            looks.reached().await;
        }
        assert_eq!([is_woken(a), is_woken(b), is_woken(c)], [false, true, false]);
        if ordering == NotificationOrdering::Serialized {
            continue;
        }
        // More above the gap, while it is there.
        assert_eq!(writer.insert_events(vec![of_topic("bank:B")]).await.unwrap(), [4]);
        looks.pass();
        looks.reached().await;
        assert_eq!([is_woken(a), is_woken(b), is_woken(c)], [false, true, false]);
        run(&mut slow, end).await;
        for _ in 0..2 {
            looks.pass();
            looks.reached().await;
        }
        let is_committed = end == "COMMIT";
        assert_eq!([is_woken(a), is_woken(b), is_woken(c)], [is_committed, is_committed, false]);
    }
}

/// The defect: a failed poll ends the polling.
#[tokio::test]
async fn looking_goes_on_after_failures() {
    let schema = Schema::create().await;
    let (gate, mut looks) = Gate::at(FaultPoint::Polled);
    let (reader, writer) = (recorder(quick(&schema).hooks(gate)).await, recorder(schema.options()).await);
    let mut listener = reader.commit_signal().listen(["bank:A"]);
    looks.reached().await;
    woken(&mut listener).await;
    let rename = |from: &str, to: &str| format!("ALTER TABLE {} RENAME TO {to}", schema.table(from));
    run(&mut schema.connect().await, &rename("bank_events", "away")).await;
    looks.pass();
    for _ in 0..3 {
        looks.pass_one().await;
    }
    looks.reached().await;
    run(&mut schema.connect().await, &rename("away", "bank_events")).await;
    looks.open();
    // It is not known what was recorded meanwhile.
    woken(&mut listener).await;
    writer.insert_events(vec![of_topic("bank:A")]).await.unwrap();
    woken(&mut listener).await;
}

/// A position never moves past an event that is still being written, filtered or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_does_not_move_past_uncommitted_events() {
    for slow_topic in ["bank:A", "bank:Z"] {
        let schema = Schema::create().await;
        let (gate, mut fence) = Gate::at(FaultPoint::WritersPending);
        let options = quick(&schema).ordering(NotificationOrdering::Parallel).hooks(gate);
        let reader = recorder(options).await;
        let writer = recorder(schema.options().ordering(NotificationOrdering::Parallel)).await;
        let mut slow = schema.connect().await;
        let insert = format!(
            "BEGIN; INSERT INTO {} VALUES ('{}', 1, '{slow_topic}', 'slow')",
            schema.table("bank_events"),
            Uuid::new_v4()
        );
        run(&mut slow, &insert).await;
        let mut subscription =
            reader.clone().subscribe(0, [Topic::from_static("bank:A")]).poll_interval(NEVER);
        // One of another topic, which must not carry the position along.
        assert_eq!(writer.insert_events(vec![of_topic("bank:B")]).await.unwrap(), [2]);
        let following = tokio::spawn(async move {
            let mut pages = vec![next(&mut subscription).await];
            while subscription.position() < 3 {
                pages.push(next(&mut subscription).await);
            }
            pages
        });
        fence.reached().await;
        assert!(!following.is_finished(), "it waits for the writing transactions");
        fence.open();
        run(&mut slow, "COMMIT").await;
        writer.insert_events(vec![of_topic("bank:A")]).await.unwrap();
        let pages = following.await.unwrap();
        let seen: Vec<i64> = pages.iter().flat_map(ids).collect();
        assert_eq!(seen, if slow_topic == "bank:A" { vec![1, 3] } else { vec![3] });
    }
}

/// Sessions of the library in a database.
const SESSIONS: &str = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() \
                        AND application_name = 'es-postgres'";

/// The defect: the poller keeps the recorder's connections open until the next poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_and_dropping_end_the_polling() {
    let database = Database::create().await;
    let mut connection = database.server.connect().await;
    for (notify, close) in [(false, true), (false, false), (true, true), (true, false)] {
        let (gate, mut points) = Gate::at(if notify { FaultPoint::Listening } else { FaultPoint::Polled });
        points.open();
        let options = database.server.options().poll_interval(NEVER).notify(notify).hooks(gate);
        let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
        let mut subscription = recorder.clone().subscribe(0, []).poll_interval(NEVER);
        let mut listeners =
            (recorder.commit_signal().listen(["bank:A"]), recorder.tracking_signal().listen(["up"]));
        points.reached().await;
        if close {
            recorder.close().await.unwrap();
            assert_eq!(soon(subscription.next_page()).await.unwrap(), None, "it ends in order");
        }
        drop((recorder, subscription));
        // A waiting task is woken, even if something else woke it before.
        soon(async { while listeners.0.notified().await || listeners.1.notified().await {} }).await;
        until(&mut connection, SESSIONS).await;
    }
}

// Hints.

/// A recorder that waits for notifications alone, held at each `Listening` until released.
async fn notified(server: &common::Server) -> (PostgresProcessRecorder, Warden) {
    let (gate, listening) = Gate::at(FaultPoint::Listening);
    let options = server.options().poll_interval(NEVER).notify(true).hooks(gate);
    (options.open().await.unwrap().process_recorder("bank").await.unwrap(), listening)
}

/// The sessions that listen.
const LISTENING: &str = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";

#[tokio::test]
async fn a_notify_wakes_waiting_tasks_of_another_datastore() {
    let database = Database::create().await;
    let (reader, mut listening) = notified(&database.server).await;
    let writer = database.server.options().notify(true).open().await.unwrap();
    let writer = writer.application_recorder("bank").await.unwrap();
    let mut listener = reader.commit_signal().listen(["bank:A"]);
    woken(&mut listener).await;
    listening.pass_one().await;
    for _ in 0..20 {
        writer.insert_events(vec![of_topic("bank:A")]).await.unwrap();
        woken(&mut listener).await;
    }
    // A transaction of the caller's sends its notification, also to its own process.
    let mut connection = database.server.connect().await;
    let mut transaction = sqlx::Connection::begin(&mut connection).await.unwrap();
    writer.insert_events_in(&mut transaction, &[of_topic("bank:A")]).await.unwrap();
    transaction.commit().await.unwrap();
    woken(&mut listener).await;
    let mut transaction = sqlx::Connection::begin(&mut connection).await.unwrap();
    reader.insert_events_in(&mut transaction, &[of_topic("bank:A")]).await.unwrap();
    transaction.commit().await.unwrap();
    woken(&mut listener).await;
    // And so does the Python library's writing.
    let insert = "BEGIN; LOCK TABLE bank_events IN EXCLUSIVE MODE; NOTIFY bank_events; INSERT INTO bank_events \
                  VALUES ('00000000-0000-0000-0000-000000000001', 1, 'bank:A', '{}'); COMMIT";
    run(&mut connection, insert).await;
    woken(&mut listener).await;
}

/// Events that are notified while no connection listens are found by polling.
#[tokio::test]
async fn a_listening_connection_that_is_lost_is_replaced() {
    let database = Database::create().await;
    let (reader, mut listening) = notified(&database.server).await;
    let mut listener = reader.commit_signal().listen(["bank:A"]);
    woken(&mut listener).await;
    let mut connection = database.server.connect().await;
    for _ in 0..3 {
        listening.pass_one().await;
        until(&mut connection, &format!("SELECT count(*) = 1 {LISTENING}")).await;
        run(&mut connection, &format!("SELECT pg_terminate_backend(pid, 10000) {LISTENING}")).await;
        // Held after it listens again, and before it reads: closing waits until the notification is sent.
        listening.reached().await;
        run(&mut connection, &format!("SELECT pg_terminate_backend(pid, 10000) {LISTENING}")).await;
        let writer = recorder(database.server.options().notify(true)).await;
        writer.insert_events(vec![of_topic("bank:A")]).await.unwrap();
        writer.close().await.unwrap();
        listening.pass();
        woken(&mut listener).await;
    }
}

/// The Python library's subscriptions wait for notifications on this channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_are_sent_on_the_channel_of_the_python_library() {
    let database = Database::create().await;
    let recorder = database.server.options().notify(true).open().await.unwrap();
    let recorder = recorder.application_recorder("Bank.Of.England").await.unwrap();
    let server = &database.server;
    let address = format!(
        "postgres://{}:{}@{}:{}/{}",
        server.user, server.password, server.host, server.port, server.dbname
    );
    let mut listener = sqlx::postgres::PgListener::connect(&address).await.unwrap();
    listener.listen("bank_of_england_events").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    let notification = soon(listener.recv()).await.unwrap();
    assert_eq!(notification.channel(), "bank_of_england_events");
}
