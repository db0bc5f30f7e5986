//! Defaults of a role change nothing about what is promised: each test role has some, and everything that a
//! process recorder, a projector and a follower do is tried with them; behind a pooler in transaction mode,
//! too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use common::{
    pooler::{Pooler, Program},
    prelude::*,
};
use es_core::{Segment, SegmentChange, SegmentRecorder};

/// Defaults that are tried, each group together: a name, and settings with their values.
const DEFAULTS: [(&str, &[(&str, &str)]); 12] = [
    ("repeatable read", &[("default_transaction_isolation", "'repeatable read'")]),
    ("serializable", &[("default_transaction_isolation", "serializable")]),
    (
        "deferrable",
        &[("default_transaction_isolation", "serializable"), ("default_transaction_deferrable", "on")],
    ),
    (
        "timeouts",
        &[
            ("statement_timeout", "'30s'"),
            ("lock_timeout", "'30s'"),
            ("idle_in_transaction_session_timeout", "'30s'"),
        ],
    ),
    ("replica", &[("session_replication_role", "replica")]),
    ("empty path", &[("search_path", "''")]),
    ("foreign path", &[("search_path", "evil, pg_catalog")]),
    (
        "formats",
        &[
            ("DateStyle", "'German, DMY'"),
            ("IntervalStyle", "sql_standard"),
            ("bytea_output", "escape"),
            ("extra_float_digits", "-15"),
            ("TimeZone", "'Asia/Kathmandu'"),
            ("xmloption", "document"),
            ("xmlbinary", "hex"),
        ],
    ),
    (
        "strings",
        &[
            ("standard_conforming_strings", "off"),
            ("escape_string_warning", "on"),
            ("client_encoding", "LATIN1"),
            ("quote_all_identifiers", "on"),
            ("array_nulls", "off"),
            ("transform_null_equals", "on"),
        ],
    ),
    (
        "no scans",
        &[
            ("enable_seqscan", "off"),
            ("enable_indexscan", "off"),
            ("enable_indexonlyscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_nestloop", "off"),
            ("enable_sort", "off"),
            ("plan_cache_mode", "force_custom_plan"),
            // Plans without any of these cost so much that each would be compiled.
            ("jit", "off"),
        ],
    ),
    (
        "other plans",
        &[
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_material", "off"),
            ("enable_hashagg", "off"),
            ("from_collapse_limit", "1"),
            ("join_collapse_limit", "1"),
            ("plan_cache_mode", "force_generic_plan"),
            ("cursor_tuple_fraction", "0.01"),
        ],
    ),
    (
        "compiled",
        &[
            ("jit", "on"),
            ("jit_above_cost", "0"),
            // Optimizing takes a second for each statement.
            ("jit_inline_above_cost", "-1"),
            ("jit_optimize_above_cost", "-1"),
            ("parallel_setup_cost", "0"),
            ("parallel_tuple_cost", "0"),
            ("min_parallel_table_scan_size", "0"),
        ],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_guarantee_holds_under_the_defaults_of_a_role() {
    for (name, settings) in DEFAULTS {
        let stage = Stage::create(settings).await;
        for row_per_record in [false, true] {
            stage.check(stage.options(), name, row_per_record).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_guarantee_holds_under_the_defaults_of_a_role_behind_a_pooler() {
    let Some(program) = Program::all().pop() else { return };
    for (name, settings) in DEFAULTS {
        let stage = Stage::create(settings).await;
        // The defaults of this role apply to its sessions behind the pooler.
        let pooler = Pooler::start(&program, &stage.role.server, "").await;
        for row_per_record in [false, true] {
            let options = stage.options().host("127.0.0.1").port(pooler.port).transaction_pooler(true);
            stage.check(options, name, row_per_record).await;
        }
    }
}

// With `default_transaction_read_only` the library cannot know whether that is on purpose.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_read_only_default_everything_is_written_or_refused() {
    let stage = Stage::create(&[("default_transaction_read_only", "on")]).await;
    let other = stage.schema.open().await.process_recorder("bank").await.unwrap();
    assert_eq!(other.insert_events(vec![first()]).await.unwrap(), [1]);
    let grant = format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {1}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {0} TO {1}",
        stage.schema.name, stage.role.name
    );
    run(&mut stage.schema.connect().await, &grant).await;
    let mut written = vec![1];
    match stage.options().create_table(false).open().await.unwrap().process_recorder("bank").await {
        Err(error) => assert!(!error.is_outcome_unknown(), "{error:?}"),
        Ok(recorder) => match recorder.insert_events(vec![first()]).await {
            Ok(ids) => written.extend(ids),
            Err(error) => assert!(!error.is_outcome_unknown() && !error.is_conflict(), "{error:?}"),
        },
    }
    let page = other.select_notifications(NotificationSelection::new(10)).await.unwrap();
    assert_eq!(page.iter().map(|notification| notification.id).collect::<Vec<_>>(), written);
}

// Under REPEATABLE READ, behind a pooler and with the tracking layout of version 9.1, a writer took its
// snapshot before it had waited for a rival. It then found its position greater than all that it saw, and the
// effects of the rival's notifications were recorded twice.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rivals_under_repeatable_read_do_not_record_effects_twice() {
    let Some(program) = Program::all().pop() else { return };
    for isolation in ["'repeatable read'", "serializable"] {
        for row_per_record in [true, false] {
            let stage = Stage::create(&[("default_transaction_isolation", isolation)]).await;
            let pooler = Pooler::start(&program, &stage.role.server, "").await;
            if row_per_record {
                stage.create_row_per_record("bank_tracking").await;
            }
            for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
                let application = format!("{ordering:?}");
                let options = stage.options().host("127.0.0.1").port(pooler.port).transaction_pooler(true);
                let options = options.ordering(ordering);
                let rival = || async {
                    options.clone().open().await.unwrap().process_recorder("bank").await.unwrap()
                };
                let rivals = [rival().await, rival().await];
                let before = stage.count("bank_events").await;
                // Both are ready to go on at the same time.
                let mut holder = stage.schema.connect().await;
                let lock =
                    format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", stage.table("bank_events"));
                run(&mut holder, &lock).await;
                let mut tasks = Vec::new();
                for (recorder, last) in rivals.into_iter().zip([5, 3]) {
                    let tracking = Tracking::spanning(application.clone(), 1, last).unwrap();
                    let insert =
                        async move { recorder.insert_events_with_tracking(vec![first()], tracking).await };
                    tasks.push(tokio::spawn(insert));
                }
                let waiting = format!(
                    "SELECT count(*) = 2 FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
                    stage.role.name
                );
                until(&mut stage.schema.connect().await, &waiting).await;
                run(&mut holder, "COMMIT").await;
                let mut recorded = 0;
                for task in tasks {
                    match task.await.unwrap() {
                        Ok(_) => recorded += 1,
                        Err(error) => assert!(error.is_conflict() || error.is_transient(), "{error:?}"),
                    }
                }
                assert_eq!(
                    recorded, 1,
                    "{isolation}, {row_per_record}, {ordering:?}: one of the rivals records"
                );
                assert_eq!(stage.count("bank_events").await, before + 1);
            }
        }
    }
}

/// A schema, and a role with defaults that owns what it creates there.
struct Stage {
    role: Role,
    schema: Schema,
}

impl Stage {
    async fn create(settings: &[(&str, &str)]) -> Self {
        let schema = Schema::create().await;
        let role = Role::create(&schema).await;
        let mut connection = schema.connect().await;
        run(&mut connection, &format!("GRANT CREATE ON SCHEMA {} TO {}", schema.name, role.name)).await;
        for (name, value) in settings {
            run(&mut connection, &format!("ALTER ROLE {} SET {name} = {value}", role.name)).await;
        }
        Self { role, schema }
    }

    fn options(&self) -> PostgresOptions {
        let Server { user, password, .. } = &self.role.server;
        self.schema.options().user(user).password(password)
    }

    fn table(&self, name: &str) -> String {
        self.schema.table(name)
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {}", self.table(table));
        scalar(&mut self.schema.connect().await, &sql).await
    }

    /// Creates a tracking table in the layout of version 9.1, which has a row for each record.
    async fn create_row_per_record(&self, name: &str) {
        let create = format!(
            "CREATE TABLE {0} (application_name text, notification_id bigint, \
             PRIMARY KEY (application_name, notification_id)); ALTER TABLE {0} OWNER TO {1}",
            self.table(name),
            self.role.name
        );
        run(&mut self.schema.connect().await, &create).await;
    }

    /// Tries everything, with both orderings.
    async fn check(&self, options: PostgresOptions, defaults: &str, row_per_record: bool) {
        for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
            let options = options.clone().ordering(ordering).poll_interval(Duration::from_millis(5));
            let name = format!("{ordering:?}_{}", Uuid::new_v4().simple()).to_lowercase();
            if row_per_record {
                self.create_row_per_record(&format!("{name}_tracking")).await;
            }
            println!("{defaults}, {ordering:?}, row per record: {row_per_record}");
            let datastore = options.open().await.unwrap();
            let recorder = datastore.process_recorder(&name).await.unwrap();
            appends_and_reads(&recorder).await;
            tracks(&recorder).await;
            self.follows(&recorder).await;
            self.projects(&recorder, &format!("{name}_rows")).await;
            if !row_per_record {
                segments_are_claimed(&recorder).await;
            }
        }
    }

    /// A transaction that is held open is followed by another event: no follower misses it.
    async fn follows(&self, recorder: &PostgresProcessRecorder) {
        let start = recorder.max_notification_id().await.unwrap().unwrap();
        let mut subscription = recorder.clone().subscribe(start, []);
        let mut connection = self.role.server.connect().await;
        // The requirements of a caller's transaction are documented.
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
        let mut held = connection.begin_with(begin).await.unwrap();
        let drawn = recorder.insert_events_in(&mut held, &[first()]).await.unwrap();
        let appending = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.insert_events(vec![first()]).await.unwrap() }
        });
        held.commit().await.unwrap();
        let mut written = [drawn, appending.await.unwrap()].concat();
        written.sort_unstable();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let page = subscription.next_page().await.unwrap().unwrap();
            seen.extend(page.notifications.iter().map(|notification| notification.id));
        }
        assert_eq!(seen, written);
    }

    /// Effects and position are committed together, once.
    async fn projects(&self, recorder: &PostgresProcessRecorder, rows: &str) {
        let page = recorder.select_notifications(NotificationSelection::new(2)).await.unwrap();
        let position = page.last().unwrap().id;
        let mut projector = recorder.projector(Rows(self.table(rows))).await.unwrap();
        let batch = || NotificationBatch {
            application_name: "projected",
            notifications: &page,
            position,
            expected_position: None,
        };
        assert_eq!(projector.process(batch()).await.unwrap(), 2);
        let again = projector.process(batch()).await.unwrap_err();
        assert!(matches!(again, ConsumerError::Recording(error) if error.is_conflict()));
        assert_eq!(self.count(rows).await, 2);
        assert_eq!(recorder.max_tracking_id("projected").await.unwrap(), Some(position));
    }
}

/// Checks that a claim fences the worker that had the segment before.
async fn segments_are_claimed(recorder: &PostgresProcessRecorder) {
    const NAME: &str = "partitioned";
    let change = async |change| recorder.change_segments(NAME, change).await.unwrap().segments;
    let claim = |worker: &str| {
        let (worker, lease) = (worker.to_owned(), Duration::from_secs(3_600));
        SegmentChange::Claim { worker, lease, first_hash: 0 }
    };
    change(SegmentChange::Create(2.try_into().unwrap())).await;
    let name = change(claim("a")).await[0].tracking_name(NAME);
    let record = |position| Tracking::new(name.as_str(), position).unwrap();
    recorder.insert_tracking(record(7).after(Segment::UNSTARTED).unwrap()).await.unwrap();
    change(SegmentChange::Leave { worker: "a".to_owned() }).await;
    change(claim("b")).await;
    assert!(recorder.insert_tracking(record(8).after(7).unwrap()).await.is_err());
    change(SegmentChange::Split { first_hash: 0 }).await;
    change(SegmentChange::Merge { first_hash: 0 }).await;
    let segments = recorder.segments(NAME).await.unwrap().segments;
    assert_eq!(segments.iter().map(|segment| segment.position).collect::<Vec<_>>(), [7, Segment::UNSTARTED]);
}

/// Checks that events are read as they were written, and that a conflicting event is refused as a conflict.
async fn appends_and_reads(recorder: &PostgresProcessRecorder) {
    let id = Uuid::new_v4();
    let bytes: Vec<u8> = (0..=255).chain(*b"\\x5c\\\\'\"").collect();
    let hard = StoredEvent {
        topic: Topic::new("bank:Konto.Eröffnet\\'\"∀").unwrap(),
        state: Bytes::from(bytes),
        ..event(id, 1)
    };
    assert_eq!(recorder.insert_events(vec![hard.clone()]).await.unwrap(), [1]);
    let ids = recorder.insert_events(vec![event(id, 2), event(id, 3)]).await.unwrap();
    assert_eq!(ids, [2, 3]);
    for events in [vec![hard.clone()], vec![first(), event(id, 3)], vec![event(id, 4), event(id, 2)]] {
        let refused = recorder.insert_events(events).await.unwrap_err();
        assert!(refused.is_conflict(), "{refused:?}");
    }
    let all = [hard.clone(), event(id, 2), event(id, 3)];
    assert_eq!(recorder.select_events(id, EventRange::all()).await.unwrap(), all);
    let last = EventRange::all().gt(1).lte(3).desc().limit(1);
    assert_eq!(recorder.select_events(id, last).await.unwrap(), [event(id, 3)]);
    let selection = NotificationSelection::new(10).topics([hard.topic.clone()]);
    let page = recorder.select_notifications(selection).await.unwrap();
    assert_eq!(page, [Notification { id: 1, event: hard }]);
    // Several concurrent tasks, whose requests form groups.
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move { recorder.insert_events(vec![first(), first()]).await })
        })
        .collect();
    for task in tasks {
        let ids = task.await.unwrap().unwrap();
        assert_eq!(ids[1], ids[0] + 1);
    }
}

/// Positions are recorded with events or not at all, and never move back.
async fn tracks(recorder: &PostgresProcessRecorder) {
    let at = |position| Tracking::new("upstream", position).unwrap();
    let insert = async |events: Vec<StoredEvent>, position| -> Result<Vec<i64>, PersistenceError> {
        recorder.insert_events_with_tracking(events, at(position)).await
    };
    insert(vec![first()], 5).await.unwrap();
    recorder.insert_tracking(at(6)).await.unwrap();
    let id = Uuid::new_v4();
    for position in [5, 6] {
        let refused = insert(vec![event(id, 1)], position).await.unwrap_err();
        assert!(refused.is_conflict(), "{refused:?}");
    }
    insert(vec![event(id, 1)], 7).await.unwrap();
    assert!(insert(vec![event(id, 1)], 8).await.unwrap_err().is_conflict());
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7));
    assert_eq!(recorder.select_events(id, EventRange::all()).await.unwrap(), [event(id, 1)]);
}

/// Writes a row for each notification.
struct Rows(String);

impl PostgresProjection for Rows {
    type Error = HandlerError;

    async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), HandlerError> {
        let create = format!("CREATE TABLE IF NOT EXISTS {} (id bigint)", self.0);
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut **transaction).await?;
        Ok(())
    }

    async fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let insert = format!("INSERT INTO {} VALUES ({})", self.0, notification.id);
        sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut **transaction).await?;
        Ok(())
    }
}
