//! Parallel ordering and transactions that are prepared (`PREPARE TRANSACTION`) while they write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::{
    cluster::{Cluster, Stop},
    prelude::*,
};
use tokio::task::JoinHandle;

// A writer was known by its virtual transaction id and its process id. PREPARE TRANSACTION clears the
// latter, so that a reader that was waiting for this writer took it for finished, and missed its event.
// The test that was to notice this committed before the reader had listed the writers again.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_waits_for_a_writer_that_is_prepared_meanwhile() {
    let schema = Schema::create().await;
    let events = schema.table("bank_events");
    let writer = recorder(parallel(schema.options())).await;
    let mut slow = insert_slowly(&schema.server, &events).await;
    assert_eq!(writer.insert_events(vec![first()]).await.unwrap(), [2]);

    let (hooks, mut points) = Gate::at(FaultPoint::HorizonTaken);
    let reader = recorder(parallel(schema.options()).hooks(hooks)).await;
    let mut page = tokio::spawn(async move { ids(&reader).await });
    points.passed_by(FaultPoint::HorizonTaken, &mut page).await;
    let name = prepare(&mut slow).await;
    points.open();
    // The second time shows that the writer was still pending at the first.
    points.passed_by(FaultPoint::WritersListed, &mut page).await;
    points.passed_by(FaultPoint::WritersListed, &mut page).await;
    run(&mut slow, &format!("COMMIT PREPARED '{name}'")).await;
    assert_eq!(page.await.unwrap(), [1, 2]);
}

// The same defect in the poller: the gap was dropped when its writer was prepared, and its commit woke
// no listener.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_poller_watches_a_gap_whose_writer_is_prepared() {
    let schema = Schema::create().await;
    let events = schema.table("bank_events");
    let writer = recorder(parallel(schema.options())).await;
    let (hooks, mut looks) = Gate::at(FaultPoint::Polled);
    let poll = Duration::from_millis(1);
    let reader = recorder(parallel(schema.options()).poll_interval(poll).hooks(hooks)).await;
    let mut listener = reader.commit_signal().listen([""; 0]);
    assert!(listener.notified().await, "the first look wakes every listener");
    looks.passed(FaultPoint::Polled).await;

    let mut slow = insert_slowly(&schema.server, &events).await;
    assert_eq!(writer.insert_events(vec![first()]).await.unwrap(), [2]);
    looks.step(FaultPoint::Polled).await;
    assert_eq!(listener.notified().now_or_never(), Some(true), "event 2 is there");
    let name = prepare(&mut slow).await;
    looks.step(FaultPoint::Polled).await;
    looks.step(FaultPoint::Polled).await;
    assert_eq!(listener.notified().now_or_never(), None, "there is nothing new");
    run(&mut slow, &format!("COMMIT PREPARED '{name}'")).await;
    looks.step(FaultPoint::Polled).await;
    assert_eq!(listener.notified().now_or_never(), Some(true), "event 1 has appeared in the gap");
    looks.open();
}

// Recovery gives a prepared transaction another virtual transaction id. A reader waits for it all the same:
// one that was waiting when the server crashed, and one that starts afterwards.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_wait_for_a_prepared_writer_across_a_crash() {
    let Some(mut cluster) = Cluster::start(&["max_prepared_transactions=4"]) else { return };
    let server = cluster.server.clone();
    let writer = recorder(parallel(server.options())).await;
    let mut slow = insert_slowly(&server, "bank_events").await;
    assert_eq!(writer.insert_events(vec![first()]).await.unwrap(), [2]);
    let (hooks, mut points) = Gate::at(FaultPoint::WritersListed);
    let reader = recorder(parallel(server.options()).hooks(hooks)).await;
    let mut page = tokio::spawn({
        let reader = reader.clone();
        async move { ids(&reader).await }
    });
    points.passed_by(FaultPoint::WritersListed, &mut page).await;
    let name = prepare(&mut slow).await;
    let virtual_id = "SELECT virtualtransaction FROM pg_locks WHERE relation = 'bank_events'::regclass \
                      AND mode = 'RowExclusiveLock'";
    let before: String = scalar(&mut slow, virtual_id).await;

    cluster.stop(Stop::Crash);
    cluster.launch();
    let mut connection = server.connect().await;
    let after: String = scalar(&mut connection, virtual_id).await;
    assert_ne!(before, after, "recovery gives it another virtual id");
    points.open();
    for _ in 0..2 {
        points.passed_by(FaultPoint::WritersListed, &mut page).await;
    }
    let (hooks, mut late_points) = Gate::at(FaultPoint::WritersListed);
    late_points.open();
    let late_reader = recorder(parallel(server.options()).hooks(hooks)).await;
    let mut late_page = tokio::spawn(async move { ids(&late_reader).await });
    for _ in 0..2 {
        late_points.passed_by(FaultPoint::WritersListed, &mut late_page).await;
    }
    run(&mut connection, &format!("COMMIT PREPARED '{name}'")).await;
    assert_eq!(page.await.unwrap(), [1, 2]);
    assert_eq!(late_page.await.unwrap(), [1, 2]);
    drop(reader);
}

fn parallel(options: PostgresOptions) -> PostgresOptions {
    options.ordering(NotificationOrdering::Parallel)
}

async fn recorder(options: PostgresOptions) -> PostgresApplicationRecorder {
    options.open().await.unwrap().application_recorder("bank").await.unwrap()
}

/// Inserts event 1 in a transaction that stays open.
async fn insert_slowly(server: &Server, events: &str) -> PgConnection {
    let mut connection = server.connect().await;
    let insert = format!(
        "BEGIN; INSERT INTO {events} (originator_id, originator_version, topic, state) \
         VALUES (gen_random_uuid(), 1, 'bank:Account.Credited', '{{}}')"
    );
    run(&mut connection, &insert).await;
    connection
}

/// Prepares the open transaction and returns its name.
async fn prepare(connection: &mut PgConnection) -> Uuid {
    let name = Uuid::new_v4();
    run(connection, &format!("PREPARE TRANSACTION '{name}'")).await;
    name
}

/// Reads all notifications; again after an error that is transient.
async fn ids(reader: &PostgresApplicationRecorder) -> Vec<i64> {
    loop {
        match reader.select_notifications(NotificationSelection::new(100).after(0)).await {
            Ok(page) => return page.into_iter().map(|notification| notification.id).collect(),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
}

/// Reports each point that a recorder passes, and holds it at one of them.
struct Gate {
    at: FaultPoint,
    reached: mpsc::UnboundedSender<FaultPoint>,
    passes: Arc<Semaphore>,
}

/// The test's side of a [`Gate`].
struct Points {
    reached: mpsc::UnboundedReceiver<FaultPoint>,
    passes: Arc<Semaphore>,
}

impl Gate {
    fn at(at: FaultPoint) -> (Self, Points) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let passes = Arc::new(Semaphore::new(0));
        (Self { at, reached: sender, passes: Arc::clone(&passes) }, Points { reached: receiver, passes })
    }
}

impl FaultHooks for Gate {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            let _ = self.reached.send(point);
            if point == self.at {
                self.passes.acquire().await.unwrap().forget();
            }
        })
    }
}

impl Points {
    async fn passed(&mut self, point: FaultPoint) {
        while self.reached.recv().await.expect("the recorder is open") != point {}
    }

    /// Waits until the reader of the page passes the point; fails if the reader returns instead.
    async fn passed_by(&mut self, point: FaultPoint, page: &mut JoinHandle<Vec<i64>>) {
        let returned = tokio::select! {
            biased;
            () = self.passed(point) => return,
            returned = page => returned,
        };
        panic!("the reader returned {returned:?} without passing {point:?}");
    }

    /// Releases what is held, and waits until the point is reached again.
    async fn step(&mut self, point: FaultPoint) {
        self.passes.add_permits(1);
        self.passed(point).await;
    }

    /// Holds nothing from now on.
    fn open(&self) {
        self.passes.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}
