//! A projector's effects and its position are there together, once, whatever interrupts it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use std::any::Any;

use common::{
    link::{Direction, Link, NetworkFault},
    prelude::*,
};
use es_postgres::PostgresProjector;

/// A bound for tests that fail.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

/// Notifications with these ids.
fn notifications(ids: impl IntoIterator<Item = i64>) -> Vec<Notification> {
    ids.into_iter().map(|id| Notification { id, event: first() }).collect()
}

fn batch(notifications: &[Notification]) -> NotificationBatch<'_> {
    let position = notifications.last().map_or(0, |last| last.id);
    NotificationBatch { application_name: "upstream", notifications, position, expected_position: None }
}

/// The behaviour of a projection for notification 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Two {
    Projects,
    Refuses,
    /// Ignores a failed statement and continues.
    Swallows,
    Commits,
    /// Has the server end its connection, and returns an error of its own about it.
    Disconnects,
    Deadlocks,
    /// Violates a constraint that the server checks at the commit.
    Violates,
}

/// Writes a row for each notification, which can be there twice.
struct Rows {
    table: String,
    two: Two,
}

impl PostgresProjection for Rows {
    type Error = HandlerError;

    async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), HandlerError> {
        let unique = if self.two == Two::Violates { "UNIQUE DEFERRABLE INITIALLY DEFERRED" } else { "" };
        let create = format!("CREATE TABLE IF NOT EXISTS {} (id bigint {unique})", self.table);
        sqlx::query(AssertSqlSafe(create)).execute(&mut **transaction).await?;
        Ok(())
    }

    async fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let insert = format!("INSERT INTO {} VALUES ({})", self.table, notification.id);
        sqlx::query(AssertSqlSafe(insert)).execute(&mut **transaction).await?;
        if notification.id != 2 {
            return Ok(());
        }
        match self.two {
            Two::Projects => Ok(()),
            Two::Refuses => Err("two is refused".into()),
            Two::Swallows => {
                let failed = sqlx::query("SELECT 1 / 0").execute(&mut **transaction).await;
                assert!(failed.is_err());
                Ok(())
            }
            Two::Commits => {
                sqlx::raw_sql("COMMIT; BEGIN").execute(&mut **transaction).await?;
                Ok(())
            }
            Two::Violates => {
                let twice = format!("INSERT INTO {} VALUES (1)", self.table);
                sqlx::query(AssertSqlSafe(twice)).execute(&mut **transaction).await.map(drop)?;
                Ok(())
            }
            Two::Disconnects => {
                let end = sqlx::query("SELECT pg_terminate_backend(pg_backend_pid())");
                end.execute(&mut **transaction).await.map(drop).map_err(|_| "it is gone".into())
            }
            Two::Deadlocks => {
                let end = "DO $$ BEGIN RAISE deadlock_detected; END $$";
                let failed = sqlx::raw_sql(end).execute(&mut **transaction).await.unwrap_err();
                // As a program's own error has it.
                Err(PersistenceError::operational("two failed").with_source(failed).into())
            }
        }
    }

    async fn park(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
        failure: HandlerError,
    ) -> Result<(), HandlerError> {
        if failure.to_string() != "park it" {
            return Err(failure);
        }
        let insert = format!("INSERT INTO {} VALUES (-{})", self.table, notification.id);
        sqlx::query(AssertSqlSafe(insert)).execute(&mut **transaction).await?;
        Ok(())
    }
}

struct Fixture {
    server: Server,
    schema: String,
    /// Cleans up.
    _guard: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    /// With a tracking table of the layout that has a row for each record, if wanted.
    async fn create(row_per_record: bool) -> Self {
        let schema = Schema::create().await;
        let (server, name) = (schema.server.clone(), schema.name.clone());
        Self { server, schema: name, _guard: Box::new(schema) }.with_tables(row_per_record).await
    }

    /// The same in a database of its own, all sessions of which the test may end.
    async fn create_apart(row_per_record: bool) -> Self {
        let database = Database::create().await;
        let server = database.server.clone();
        Self { server, schema: "public".to_owned(), _guard: Box::new(database) }
            .with_tables(row_per_record)
            .await
    }

    async fn with_tables(self, row_per_record: bool) -> Self {
        if row_per_record {
            let mut connection = self.server.connect().await;
            let create = format!(
                "CREATE TABLE {} (application_name text, notification_id bigint, \
                 PRIMARY KEY (application_name, notification_id))",
                self.table("bank_tracking")
            );
            run(&mut connection, &create).await;
        }
        self
    }

    fn options(&self) -> PostgresOptions {
        self.server.options().schema(&self.schema)
    }

    fn table(&self, name: &str) -> String {
        format!("{}.\"{name}\"", self.schema)
    }

    fn rows(&self, two: Two) -> Rows {
        Rows { table: self.table("rows"), two }
    }

    async fn projector(&self, two: Two) -> PostgresProjector<Rows> {
        let recorder = self.options().open().await.unwrap().tracking_recorder("bank").await.unwrap();
        recorder.projector(self.rows(two)).await.unwrap()
    }

    async fn hooked(&self, hooks: impl FaultHooks) -> PostgresProjector<Rows> {
        let datastore = self.options().hooks(hooks).open().await.unwrap();
        let recorder = datastore.process_recorder("bank").await.unwrap();
        recorder.projector(self.rows(Two::Projects)).await.unwrap()
    }

    async fn recorder(&self) -> PostgresTrackingRecorder {
        self.options().open().await.unwrap().tracking_recorder("bank").await.unwrap()
    }

    /// The rows that are there, and the position.
    async fn stands(&self) -> (Vec<i64>, Option<i64>) {
        let rows = format!("SELECT array(SELECT id FROM {} ORDER BY id)", self.table("rows"));
        let rows = scalar(&mut self.server.connect().await, &rows).await;
        (rows, self.recorder().await.max_tracking_id("upstream").await.unwrap())
    }
}

fn recording(failure: ConsumerError) -> PersistenceError {
    match failure {
        ConsumerError::Recording(error) => error,
        ConsumerError::Handler { index, error } => panic!("the handler of {index} failed: {error}"),
    }
}

#[tokio::test]
async fn effects_and_position_are_committed_together() {
    for row_per_record in [false, true] {
        let fixture = Fixture::create(row_per_record).await;
        let mut projector = fixture.projector(Two::Projects).await;
        let handled = projector.process(batch(&notifications(1..=3))).await.unwrap();
        assert_eq!((handled, fixture.stands().await), (3, (vec![1, 2, 3], Some(3))));
        // The following events have other topics.
        let four = notifications([4]);
        let beyond = NotificationBatch { position: 9, ..batch(&four) };
        assert_eq!(projector.process(beyond).await.unwrap(), 1);
        let nothing = NotificationBatch { notifications: &[], position: 12, ..beyond };
        assert_eq!(projector.process(nothing).await.unwrap(), 0);
        assert_eq!(fixture.stands().await, (vec![1, 2, 3, 4], Some(12)));
        // Again, whole or in part: refused before anything is handled.
        for ids in [vec![4], vec![4, 5, 6], vec![12, 13], vec![1]] {
            let refused = projector.process(batch(&notifications(ids))).await.unwrap_err();
            assert!(recording(refused).is_conflict());
        }
        assert_eq!(fixture.stands().await, (vec![1, 2, 3, 4], Some(12)));
        projector.recorder().close().await.unwrap();
        let closed = projector.process(batch(&notifications([13]))).await.unwrap_err();
        assert_eq!(recording(closed).kind(), es_core::ErrorKind::Interface);
    }
}

/// The tracking table is migrated meanwhile, as by the Python library.
#[tokio::test]
async fn another_layout_of_the_tracking_table_is_detected() {
    let fixture = Fixture::create(true).await;
    let mut projector = fixture.projector(Two::Projects).await;
    projector.process(batch(&notifications(1..=3))).await.unwrap();
    let migrate = format!(
        "DELETE FROM {0} WHERE notification_id < 3; ALTER TABLE {0} DROP CONSTRAINT bank_tracking_pkey; \
         ALTER TABLE {0} ADD PRIMARY KEY (application_name)",
        fixture.table("bank_tracking")
    );
    run(&mut fixture.server.connect().await, &migrate).await;
    let refused = recording(projector.process(batch(&notifications(4..=5))).await.unwrap_err());
    assert!(refused.is_conflict(), "{refused:?}");
    projector.process(batch(&notifications(4..=5))).await.unwrap();
    assert_eq!(fixture.stands().await, (vec![1, 2, 3, 4, 5], Some(5)));
}

#[tokio::test]
async fn a_failing_handler_is_named_and_leaves_nothing() {
    let fixture = Fixture::create(false).await;
    let mut projector = fixture.projector(Two::Refuses).await;
    match projector.process(batch(&notifications(1..=3))).await.unwrap_err() {
        ConsumerError::Handler { index: 1, error } => assert_eq!(error.to_string(), "two is refused"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.stands().await, (vec![], None));
    projector.process(batch(&notifications([1]))).await.unwrap();
    // Given up on, or not.
    let two = notifications([2]);
    match projector.park(batch(&two), "no".into()).await.unwrap_err() {
        ConsumerError::Handler { index: 0, error } => assert_eq!(error.to_string(), "no"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.stands().await, (vec![1], Some(1)));
    projector.park(batch(&two), "park it".into()).await.unwrap();
    assert_eq!(fixture.stands().await, (vec![-2, 1], Some(2)));
}

/// The defect: the server answers the COMMIT of a failed transaction by rolling back, without an error,
/// and the position is taken for recorded.
#[tokio::test]
async fn a_transaction_that_failed_or_ended_does_not_count_as_committed() {
    for two in [Two::Swallows, Two::Commits] {
        let fixture = Fixture::create(false).await;
        let mut projector = fixture.projector(two).await;
        let failed = recording(projector.process(batch(&notifications(2..=2))).await.unwrap_err());
        assert_eq!(failed.kind(), es_core::ErrorKind::Programming, "{failed}");
    }
}

#[tokio::test]
async fn a_deferred_constraint_is_the_projections_failure() {
    let fixture = Fixture::create(false).await;
    let mut projector = fixture.projector(Two::Violates).await;
    match projector.process(batch(&notifications(1..=3))).await.unwrap_err() {
        ConsumerError::Handler { index: 2, error } => {
            assert!(error.to_string().contains("committing"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.stands().await, (vec![], None));
}

#[tokio::test]
async fn transient_errors_are_not_the_notifications_fault() {
    for two in [Two::Disconnects, Two::Deadlocks] {
        let fixture = Fixture::create(false).await;
        let mut projector = fixture.projector(two).await;
        let failed = recording(projector.process(batch(&notifications(1..=3))).await.unwrap_err());
        assert!(failed.is_transient(), "{two:?}: {failed:?}");
        assert_eq!(fixture.stands().await, (vec![], None));
    }
}

/// Reports when a point is reached, and holds the projector there.
#[derive(Clone)]
struct Hold {
    at: FaultPoint,
    reached: mpsc::UnboundedSender<()>,
    passes: Arc<Semaphore>,
}

impl Hold {
    fn at(point: FaultPoint) -> (Self, mpsc::UnboundedReceiver<()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { at: point, reached: sender, passes: Arc::new(Semaphore::new(0)) }, receiver)
    }
}

impl FaultHooks for Hold {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == self.at {
                let _ = self.reached.send(());
                self.passes.acquire().await.unwrap().forget();
            }
        })
    }
}

const POINTS: [FaultPoint; 4] = [
    FaultPoint::ProjectorBegun,
    FaultPoint::ProjectorTracked,
    FaultPoint::ProjectorHandled,
    FaultPoint::ProjectorCommitted,
];

/// Goes on where the recorded position says, as an engine does.
async fn go_on(fixture: &Fixture, last: i64) {
    let mut projector = fixture.projector(Two::Projects).await;
    let position = projector.recorder().max_tracking_id("upstream").await.unwrap().unwrap_or(0);
    let rest = notifications(position + 1..=last);
    if !rest.is_empty() {
        soon(projector.process(batch(&rest))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_dropped_at_any_step_leaves_all_or_nothing() {
    for row_per_record in [false, true] {
        for point in POINTS {
            let fixture = Fixture::create(row_per_record).await;
            let (hold, mut reached) = Hold::at(point);
            let mut projector = fixture.hooked(hold.clone()).await;
            let three = notifications(1..=3);
            tokio::select! {
                done = projector.process(batch(&three)) => panic!("not held: {done:?}"),
                _ = soon(reached.recv()) => {}
            }
            // The same recorder can be used at once: the connection has not come back with half a
            // transaction.
            hold.passes.add_permits(10);
            let rest = projector.process(batch(&notifications([4]))).await;
            rest.unwrap();
            let expected = if point == FaultPoint::ProjectorCommitted { vec![1, 2, 3, 4] } else { vec![4] };
            assert_eq!(fixture.stands().await, (expected, Some(4)), "{point:?}");
        }
    }
}

/// The server terminates the session at each step, and the next attempt succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_killed_at_any_step_leaves_each_effect_once() {
    let kill = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'es-postgres'";
    for row_per_record in [false, true] {
        let fixture = Fixture::create_apart(row_per_record).await;
        for (round, point) in (0..).zip(POINTS) {
            let (hold, mut reached) = Hold::at(point);
            let mut projector = fixture.hooked(hold.clone()).await;
            let first = round * 5 + 1;
            let before: Vec<i64> = (1..first).collect();
            let processing = tokio::spawn(async move {
                let three = notifications(first..first + 3);
                projector.process(batch(&three)).await
            });
            soon(reached.recv()).await.unwrap();
            run(&mut fixture.server.connect().await, kill).await;
            hold.passes.add_permits(10);
            let processed = soon(processing).await.unwrap();
            if point == FaultPoint::ProjectorCommitted {
                assert_eq!(processed.unwrap(), 3);
            } else {
                let failed = recording(processed.unwrap_err());
                assert!(failed.is_transient(), "{point:?}: {failed:?}");
                assert_eq!(fixture.stands().await, (before, (first > 1).then_some(first - 1)));
            }
            go_on(&fixture, first + 4).await;
            let all = (1..=first + 4).collect();
            assert_eq!(fixture.stands().await, (all, Some(first + 4)), "{point:?}");
        }
    }
}

#[tokio::test]
async fn a_position_is_recorded_in_a_transaction_of_the_callers() {
    for row_per_record in [false, true] {
        let fixture = Fixture::create(row_per_record).await;
        let recorder = fixture.recorder().await;
        let mut connection = fixture.server.connect().await;
        for (position, commits) in [(5, true), (7, false), (6, true)] {
            let mut transaction = connection.begin().await.unwrap();
            let tracking = Tracking::new("upstream", position).unwrap();
            recorder.insert_tracking_in(&mut transaction, &tracking).await.unwrap();
            if commits {
                transaction.commit().await.unwrap();
            } else {
                transaction.rollback().await.unwrap();
            }
        }
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(6));
        // The second ends beyond what is recorded, and starts before.
        for refused in [Tracking::new("upstream", 6), Tracking::spanning("upstream", 6, 9)] {
            let mut transaction = connection.begin().await.unwrap();
            let refused = recorder.insert_tracking_in(&mut transaction, &refused.unwrap()).await.unwrap_err();
            assert!(refused.is_conflict());
        }
    }
}

/// If the COMMIT's answer is lost, the outcome is unknown, and the position shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_unknown() {
    use common::proxy::{Cut, Proxy};
    for (cut, expected) in [(Cut::Answer, vec![1, 2, 3]), (Cut::Request, vec![])] {
        let fixture = Fixture::create(false).await;
        let proxy = Proxy::start(fixture.server.clone(), b"COMMIT\0").await;
        let options = fixture.options().host("127.0.0.1").port(proxy.port);
        let recorder = options.open().await.unwrap().tracking_recorder("bank").await.unwrap();
        let mut projector = recorder.projector(fixture.rows(Two::Projects)).await.unwrap();
        proxy.arm(cut);
        let lost = recording(projector.process(batch(&notifications(1..=3))).await.unwrap_err());
        assert!(lost.is_outcome_unknown(), "{cut:?}: {lost:?}");
        let position = expected.last().copied();
        assert_eq!(fixture.stands().await, (expected, position), "{cut:?}");
        go_on(&fixture, 5).await;
        assert_eq!(fixture.stands().await, (vec![1, 2, 3, 4, 5], Some(5)), "{cut:?}");
    }
}

/// Of two instances one waits before its handlers run, and loses, whatever batches they take.
///
/// The defect: a larger batch has a later position, which is no conflict by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rivals_one_loses_before_its_handlers_run() {
    for row_per_record in [false, true] {
        for rivals in [vec![1, 2, 3], vec![1], vec![1, 2, 3, 4, 5]] {
            let fixture = Fixture::create(row_per_record).await;
            let (hold, mut reached) = Hold::at(FaultPoint::ProjectorHandled);
            let mut winner = fixture.hooked(hold.clone()).await;
            let winning = tokio::spawn(async move {
                let three = notifications(1..=3);
                winner.process(batch(&three)).await
            });
            soon(reached.recv()).await.unwrap();
            let (begun, mut has_begun) = Hold::at(FaultPoint::ProjectorBegun);
            begun.passes.add_permits(10);
            let mut loser = fixture.hooked(begun).await;
            let losing = tokio::spawn({
                let rivals = rivals.clone();
                async move { loser.process(batch(&notifications(rivals))).await }
            });
            soon(has_begun.recv()).await.unwrap();
            // The server says that it waits, and for what.
            let waiting = format!(
                "SELECT EXISTS (SELECT FROM pg_locks AS waiting JOIN pg_locks AS held USING (pid) \
                 WHERE NOT waiting.granted AND held.relation = '{}'::regclass)",
                fixture.table("bank_tracking")
            );
            common::until(&mut fixture.server.connect().await, &waiting).await;
            hold.passes.add_permits(1);
            assert_eq!(soon(winning).await.unwrap().unwrap(), 3);
            let lost = soon(losing).await.unwrap();
            assert!(recording(lost.unwrap_err()).is_conflict());
            assert_eq!(fixture.stands().await, (vec![1, 2, 3], Some(3)));
        }
    }
}

/// The bug: once its handlers had started, a projector waited without end on a connection that had fallen
/// silent: at a statement of the user's, at the rollback, and at the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_freezes_at_any_message_is_given_up() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let fixture = Fixture::create(false).await;
        let link = Link::start(&fixture.server).await;
        let options = fixture.options().host("127.0.0.1").port(link.port).sslmode("disable").unwrap();
        let options = options.response_timeout(Duration::from_millis(200));
        let (mut transient, mut unknown) = (0, 0);
        for (id, passing) in (1..).zip(0..100) {
            let recorder = options.clone().open().await.unwrap().tracking_recorder("bank").await.unwrap();
            let mut projector = recorder.projector(fixture.rows(Two::Projects)).await.unwrap();
            let next = notifications([id]);
            link.arm(direction, NetworkFault::Freeze, passing);
            let processed = soon(projector.process(batch(&next))).await;
            let was_done = link.disarm();
            if let Err(failure) = processed {
                let error = recording(failure);
                assert!(error.is_transient() || error.is_outcome_unknown(), "{error:?}");
                transient += i32::from(error.is_transient());
                unknown += i32::from(error.is_outcome_unknown());
                let is_recorded = fixture.stands().await.1 == Some(id);
                assert!(
                    !(is_recorded && error.is_transient()),
                    "{direction:?}, message {passing}: {error:?}"
                );
                if !is_recorded {
                    soon(projector.process(batch(&next))).await.unwrap();
                }
            }
            let expected = ((1..=id).collect(), Some(id));
            assert_eq!(fixture.stands().await, expected, "{direction:?}, message {passing}");
            if !was_done {
                break;
            }
        }
        assert!(transient >= 3 && unknown >= 1, "{direction:?}: {transient} and {unknown}");
    }
}

/// A rollback is given up too, once the handler has failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_freezes_at_the_rollback_is_given_up() {
    let fixture = Fixture::create(false).await;
    let link = Link::start(&fixture.server).await;
    let options = fixture.options().host("127.0.0.1").port(link.port).sslmode("disable").unwrap();
    let options = options.response_timeout(Duration::from_millis(200));
    let recorder = options.open().await.unwrap().tracking_recorder("bank").await.unwrap();
    let freezing = FailsFreezing { rows: fixture.rows(Two::Projects), link };
    let mut projector = recorder.projector(freezing).await.unwrap();
    let failed = recording(soon(projector.process(batch(&notifications([1])))).await.unwrap_err());
    assert!(failed.is_transient(), "{failed:?}");
    assert_eq!(fixture.stands().await, (vec![], None));
}

/// Fails, and lets the next message to the server freeze the connection.
struct FailsFreezing {
    rows: Rows,
    link: Link,
}

impl PostgresProjection for FailsFreezing {
    type Error = HandlerError;

    async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), HandlerError> {
        self.rows.set_up(transaction).await
    }

    async fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        self.rows.project(transaction, notification).await?;
        self.link.arm(Direction::ToServer, NetworkFault::Freeze, 0);
        Err("it is refused".into())
    }
}

/// Appends an event and reads for each notification, through a recorder.
struct Appends(PostgresApplicationRecorder);

impl PostgresProjection for Appends {
    type Error = HandlerError;

    async fn project(
        &mut self,
        _: &mut Transaction<'_, Postgres>,
        _: &Notification,
    ) -> Result<(), HandlerError> {
        self.0.insert_events(vec![first()]).await?;
        self.0.max_notification_id().await?;
        Ok(())
    }
}

/// The bug: a projection that appends through a recorder of its own datastore waited without end when
/// projections held all connections of the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_leave_a_connection_for_their_appends() {
    let fixture = Fixture::create(false).await;
    let datastore = fixture.options().pool_size(2).max_overflow(0).open().await.unwrap();
    let appended = datastore.application_recorder("bank").await.unwrap();
    let mut projectors = Vec::new();
    for name in ["one", "two", "three"] {
        let positions = datastore.tracking_recorder(name).await.unwrap();
        projectors.push(positions.projector(Appends(appended.clone())).await.unwrap());
    }
    let all = notifications(1..=3);
    let processing = projectors.iter_mut().map(|projector| projector.process(batch(&all)));
    for processed in soon(futures_util::future::join_all(processing)).await {
        assert_eq!(processed.unwrap(), 3);
    }
    assert_eq!(appended.max_notification_id().await.unwrap(), Some(9));
}

/// With one connection in all there is none to leave: that is said, within the connect timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_appends_without_a_second_connection_fails() {
    let fixture = Fixture::create(false).await;
    let options = fixture.options().pool_size(1).max_overflow(0).connect_timeout(Duration::from_secs(3));
    let datastore = options.open().await.unwrap();
    let appended = datastore.application_recorder("bank").await.unwrap();
    let positions = datastore.tracking_recorder("bank").await.unwrap();
    let mut projector = positions.projector(Appends(appended.clone())).await.unwrap();
    match soon(projector.process(batch(&notifications([1])))).await.unwrap_err() {
        ConsumerError::Handler { index: 0, error } => {
            assert!(error.to_string().contains("a projection uses the only connection"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(positions.max_tracking_id("upstream").await.unwrap(), None);
    assert_eq!(appended.insert_events(vec![first()]).await.unwrap().len(), 1);
}
