//! No function or operator of another role runs with the rights of this library's role.
//!
//! A role that may create objects in a schema of the search path can define an overload of a built-in
//! function or operator for types that PostgreSQL itself does not define it for. It is then preferred to the
//! built-in one, and runs with the rights of the caller (CVE-2018-1058). Some names in this library's SQL
//! were not qualified: `numeric * integer`, `oid = regclass`, `cardinality` and `unnest`. With the library
//! connected as a superuser, opening a datastore was enough to make another role a superuser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use std::{collections::BTreeSet, fs, path::Path};

use common::{
    prelude::*,
    proxy::{Cut, Proxy},
};
use es_core::{SegmentChange, SegmentRecorder};

/// Types of columns, parameters and catalogues that occur, and their arrays.
const TYPES: [&str; 28] = [
    "uuid",
    "bigint",
    "integer",
    "text",
    "bytea",
    "name",
    "oid",
    "regclass",
    "numeric",
    "float8",
    "interval",
    "timestamptz",
    "boolean",
    "\"char\"",
    "uuid[]",
    "bigint[]",
    "integer[]",
    "text[]",
    "bytea[]",
    "name[]",
    "oid[]",
    "regclass[]",
    "numeric[]",
    "float8[]",
    "interval[]",
    "timestamptz[]",
    "boolean[]",
    "\"char\"[]",
];

/// Of more parameters than two, only these types are tried.
const FEW_TYPES: [&str; 6] = ["uuid", "bigint", "integer", "text", "boolean", "float8"];

/// Operators that keywords stand for: `IN`, `ANY`, `BETWEEN`, `DISTINCT`, `CASE`, `LIKE`, `NULLIF`, `USING`.
const BEHIND_KEYWORDS: [&str; 8] = ["=", "<>", "<", "<=", ">", ">=", "~~", "!~~"];

/// For a test that fails: an overload can make the library try again and again.
const TOO_LONG: Duration = Duration::from_secs(60);

const MARK: &[u8] = b"cut the connection here";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_overloads_never_run() {
    let database = Database::create().await;
    let stranger = Stranger::create(&database.server).await;
    stranger.plant().await;
    stranger.prove_the_trap(&database.server).await;
    for row_per_record in [false, true] {
        for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
            for pooler in [false, true] {
                let name = format!("{ordering:?}_{row_per_record}_{pooler}").to_lowercase();
                let options = database.server.options().ordering(ordering).transaction_pooler(pooler);
                let options = options.poll_interval(Duration::from_millis(5));
                println!("{name}");
                if row_per_record {
                    create_row_per_record(&database.server, &name).await;
                }
                let using = use_everything(&database.server, options, &name);
                let used = tokio::time::timeout(TOO_LONG, using).await;
                stranger.assert_nothing_ran(&database.server, &name).await;
                used.expect("it takes too long");
            }
        }
    }
}

#[test]
fn the_scan_finds_names_and_operators() {
    let found = Names::in_literals(&literals(
        "let sql = \"SELECT count(*) FROM t \\\n    WHERE a >= $1\"; // \"min(x)\"\nlet raw = r#\"SELECT \"max\"(b) <@ c\"#; 'a'; '\"'; \
         /* \"lower(y)\" */ \"upper (z)\"",
    ));
    let functions: Vec<_> = found.functions.iter().map(String::as_str).collect();
    assert_eq!(functions, ["count", "max", "upper"]);
    for operator in ["*", ">=", "<@"] {
        assert!(found.operators.contains(operator), "{operator}");
    }
}

/// Names that occur in string literals of the library's source, SQL or not.
#[derive(Default)]
struct Names {
    functions: BTreeSet<String>,
    operators: BTreeSet<String>,
}

impl Names {
    fn of_the_library() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut names = Self::in_literals(&literals_beneath(&source));
        names.operators.extend(BEHIND_KEYWORDS.map(str::to_owned));
        for expected in ["max", "set_config", "pg_notify"] {
            assert!(names.functions.contains(expected), "the scan has not found {expected}");
        }
        names
    }

    fn in_literals(literals: &[String]) -> Self {
        let mut names = Self::default();
        let is_of_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        for literal in literals {
            for (index, _) in literal.match_indices('(') {
                let before = literal[..index].trim_end().trim_end_matches('"');
                let name: String = before.chars().rev().take_while(is_of_name).collect();
                names.functions.insert(name.chars().rev().collect::<String>().to_lowercase());
            }
            let is_operator = |c: char| "+-*/<>=~!@#%^&|?".contains(c);
            names.operators.extend(literal.split(|c| !is_operator(c)).map(str::to_owned));
        }
        names.functions.remove("");
        names.operators.remove("");
        names
    }
}

/// The contents of the string literals of all files beneath a directory.
fn literals_beneath(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let literals_of = |path: std::path::PathBuf| match path.is_dir() {
        true => literals_beneath(&path),
        false => literals(&fs::read_to_string(path).unwrap()),
    };
    entries.flat_map(literals_of).collect()
}

/// The contents of the string literals of a Rust source.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find("'").unwrap() + 2
        } else if let Some(hashes) = raw(rest) {
            let (start, end) = (hashes + 2, format!("\"{}", "#".repeat(hashes)));
            let length = rest[start..].find(&end).unwrap();
            found.push(rest[start..start + length].to_owned());
            start + length + end.len()
        } else if first == '"' {
            let mut is_escaped = false;
            let end = rest[1..].find(|c| {
                let is_end = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_end
            });
            let literal = &rest[1..=end.unwrap()];
            found.push(literal.replace("\\\n", " ").replace("\\\"", "\"").replace("\\\\", "\\"));
            literal.len() + 2
        } else {
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    found
}

/// The number of `#` of a raw string that starts here.
fn raw(source: &str) -> Option<usize> {
    let after = source.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// A role that may create objects in the schema `public`, and do nothing else.
struct Stranger {
    server: Server,
}

impl Stranger {
    async fn create(server: &Server) -> Self {
        let name = format!("stranger_{}", Uuid::new_v4().simple());
        let create = format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'of-a-test'; GRANT CREATE, USAGE ON SCHEMA public TO {name}"
        );
        run(&mut server.connect().await, &create).await;
        Self { server: Server { user: name, password: "of-a-test".to_owned(), ..server.clone() } }
    }

    /// Plants overloads of all names. Each sets a sequence to its own number, which no rollback undoes.
    async fn plant(&self) {
        let names = Names::of_the_library();
        let list = |names: &mut dyn Iterator<Item = &str>| {
            let quoted: Vec<_> = names.map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
            format!("ARRAY[{}]::text[]", quoted.join(", "))
        };
        let script = PLANT
            .replace("{functions}", &list(&mut names.functions.iter().map(String::as_str)))
            .replace("{operators}", &list(&mut names.operators.iter().map(String::as_str)))
            .replace("{few_types}", &list(&mut FEW_TYPES.into_iter()))
            .replace("{types}", &list(&mut TYPES.into_iter()));
        let mut connection = self.server.connect().await;
        run(&mut connection, &script).await;
        let planted: i64 = scalar(&mut connection, "SELECT count(*) FROM public.planted").await;
        println!("planted {planted} overloads");
        assert!(planted > 1_000);
    }

    /// Shows that unqualified names do run what is planted.
    async fn prove_the_trap(&self, server: &Server) {
        let mut connection = server.connect().await;
        for query in [
            "SELECT 1::oid = 'pg_class'::regclass",
            "SELECT unnest(ARRAY[1::bigint])",
            "SELECT 1.5::numeric * 2::integer",
            "SELECT 1 WHERE 1::oid IN ('pg_class'::regclass)",
        ] {
            let _ = sqlx::raw_sql(AssertSqlSafe(query)).execute(&mut connection).await;
            assert_ne!(ran(&mut connection).await, None, "{query}");
            run(&mut connection, "SELECT pg_catalog.setval('public.ran'::pg_catalog.regclass, 1, false)")
                .await;
        }
    }

    async fn assert_nothing_ran(&self, server: &Server, doing: &str) {
        let ran = ran(&mut server.connect().await).await;
        assert_eq!(ran, None, "{doing}: a stranger's overload has run");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // The role goes with the database, which is dropped first.
        let name = self.server.user.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = Server::from_environment().connect().await;
                for _ in 0..1_000 {
                    let drop = format!("DROP ROLE {name}");
                    if sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        });
    }
}

/// Returns the name of the last planted overload that has run, if any has.
async fn ran(connection: &mut PgConnection) -> Option<String> {
    let query = "SELECT (SELECT p.name FROM public.planted AS p WHERE p.number OPERATOR(pg_catalog.=) r.last_value) \
                 FROM public.ran AS r WHERE r.is_called UNION ALL SELECT NULL LIMIT 1";
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

/// Overloads for all types for which `pg_catalog` has none, of functions with up to three parameters and of
/// operators.
const PLANT: &str = r#"
CREATE SEQUENCE public.ran;
CREATE TABLE public.planted (number bigserial PRIMARY KEY, name text);
CREATE PROCEDURE public.plant(name text, parameters text[], result text) LANGUAGE plpgsql AS $plant$
#variable_conflict use_variable
DECLARE number bigint;
BEGIN
    INSERT INTO public.planted (name) VALUES (plant.name || ' ' || parameters::text) RETURNING
        planted.number INTO number;
    EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
        '''BEGIN PERFORM pg_catalog.setval(''''public.ran''''::pg_catalog.regclass, %s); RETURN NULL; END''',
        plant.name, array_to_string(parameters, ', '), result, number);
END $plant$;
DO $do$
DECLARE
    name text; a text; b text; c text; arity integer; result text;
    types text[] := {types}; few_types text[] := {few_types};
    is_built_in boolean;
BEGIN
    FOR name, arity IN SELECT DISTINCT p.proname, p.pronargs FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ({functions}) AND
            p.pronargs BETWEEN 1 AND 3
    LOOP
        FOREACH a IN ARRAY CASE WHEN arity = 3 THEN few_types ELSE types END LOOP
            FOREACH b IN ARRAY CASE arity WHEN 1 THEN ARRAY[NULL] WHEN 2 THEN types ELSE few_types END LOOP
                FOREACH c IN ARRAY CASE arity WHEN 3 THEN few_types ELSE ARRAY[NULL] END LOOP
                    is_built_in := to_regprocedure(format('pg_catalog.%I(%s)', name, concat_ws(', ', a,
                        b, c))) IS NOT NULL;
                    IF NOT is_built_in THEN
                        CALL public.plant(name, array_remove(ARRAY[a, b, c], NULL), 'bigint');
                    END IF;
                END LOOP;
            END LOOP;
        END LOOP;
    END LOOP;
    FOREACH a IN ARRAY types LOOP
        FOREACH b IN ARRAY types LOOP
            CALL public.plant('operator', ARRAY[a, b], 'boolean');
            FOR name IN SELECT DISTINCT o.oprname FROM pg_operator AS o
                WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprname = ANY ({operators}) AND
                    o.oprkind = 'b'
            LOOP
                is_built_in := to_regoperator(format('pg_catalog.%s(%s, %s)', name, a, b)) IS NOT NULL;
                IF NOT is_built_in THEN
                    EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.operator, LEFTARG = %s,
                        RIGHTARG = %s)',
                        name, a, b);
                END IF;
            END LOOP;
        END LOOP;
        CALL public.plant('operator', ARRAY[a], 'boolean');
        FOR name IN SELECT DISTINCT o.oprname FROM pg_operator AS o
            WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprname = ANY ({operators}) AND
                o.oprkind = 'l'
        LOOP
            is_built_in := to_regoperator(format('pg_catalog.%s(NONE, %s)', name, a)) IS NOT NULL;
            IF NOT is_built_in THEN
                EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.operator, RIGHTARG = %s)',
                    name, a);
            END IF;
        END LOOP;
    END LOOP;
END $do$;
"#;

/// Creates a tracking table in the layout of version 9.1.
async fn create_row_per_record(server: &Server, name: &str) {
    let create = format!(
        "CREATE TABLE public.{name}_tracking (application_name text, notification_id bigint, \
         PRIMARY KEY (application_name, notification_id))"
    );
    run(&mut server.connect().await, &create).await;
}

/// Runs every operation of the library on the tables of an application, which it creates.
async fn use_everything(server: &Server, options: PostgresOptions, name: &str) {
    // The second opening finds everything there.
    for create in [true, false] {
        let datastore = options.clone().create_table(create).open().await.unwrap();
        datastore
            .aggregate_recorder(name, "snapshots")
            .await
            .unwrap()
            .insert_events(vec![first()])
            .await
            .unwrap();
        datastore.application_recorder(name).await.unwrap();
        datastore.tracking_recorder(name).await.unwrap();
        let recorder = datastore.process_recorder(name).await.unwrap();
        append(&recorder).await;
        append_in_transactions(server, &recorder).await;
        read(&recorder).await;
        project(&recorder, &format!("public.{name}_rows")).await;
        change_segments(&recorder).await;
        recorder.close().await.unwrap();
    }
    follow(&options, name).await;
    let hosts = [(server.host.clone(), server.port), (server.host.clone(), server.port)];
    let datastore = options.clone().hosts(hosts).open().await.unwrap();
    datastore.process_recorder(name).await.unwrap().insert_events(vec![first()]).await.unwrap();
    recover(server, &options, name).await;
    look_at_silence(server, &options, name).await;
}

/// Makes each change of segments, unless the tracking table has the layout of version 9.1.
async fn change_segments(recorder: &PostgresProcessRecorder) {
    let name = Uuid::new_v4().to_string();
    if recorder.segments(&name).await.is_err_and(|error| error.kind() == ErrorKind::NotSupported) {
        return;
    }
    let change = async |change| recorder.change_segments(&name, change).await.unwrap();
    let (worker, lease) = (|| "a".to_owned(), Duration::from_secs(3_600));
    change(SegmentChange::Create(2.try_into().unwrap())).await;
    change(SegmentChange::Renew { worker: worker(), lease }).await;
    change(SegmentChange::Claim { worker: worker(), lease, first_hash: 0 }).await;
    change(SegmentChange::Release { worker: worker(), first_hash: 0 }).await;
    change(SegmentChange::Leave { worker: worker() }).await;
    let split = change(SegmentChange::Split { first_hash: 0 }).await;
    change(SegmentChange::Merge { first_hash: 0 }).await;
    change(SegmentChange::Restore(split.segments)).await;
}

fn tracking(position: i64) -> Tracking {
    Tracking::new("upstream", position).unwrap()
}

async fn append(recorder: &PostgresProcessRecorder) {
    let id = Uuid::new_v4();
    let position = recorder.max_tracking_id("upstream").await.unwrap().unwrap_or(0);
    recorder.insert_events(vec![]).await.unwrap();
    recorder.insert_events(vec![event(id, 1)]).await.unwrap();
    recorder.insert_events(vec![event(id, 2), event(id, 3), first()]).await.unwrap();
    recorder.insert_events_with_tracking(vec![event(id, 4)], tracking(position + 1)).await.unwrap();
    recorder.insert_events_with_tracking(vec![event(id, 5), first()], tracking(position + 2)).await.unwrap();
    recorder.insert_events_with_tracking(vec![], tracking(position + 3)).await.unwrap();
    recorder.insert_tracking(tracking(position + 4)).await.unwrap();
    let covering = Tracking::spanning("upstream", position + 5, position + 8).unwrap();
    recorder.insert_events_with_tracking(vec![first()], covering).await.unwrap();

    assert!(recorder.insert_events(vec![event(id, 1)]).await.unwrap_err().is_conflict());
    assert!(recorder.insert_events(vec![first(), event(id, 2)]).await.unwrap_err().is_conflict());
    let refused = recorder.insert_events_with_tracking(vec![first()], tracking(position + 8)).await;
    assert!(refused.unwrap_err().is_conflict());
    assert!(recorder.insert_tracking(tracking(1)).await.unwrap_err().is_conflict());

    // Groups conflicts within and between them.
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                let events = vec![event(id, 6 + number % 3), first()];
                match number % 2 {
                    0 => recorder.insert_events(events).await,
                    _ => recorder.insert_events_with_tracking(events, tracking(position + 9 + number)).await,
                }
            })
        })
        .collect();
    for task in tasks {
        if let Err(error) = task.await.unwrap() {
            assert!(error.is_conflict(), "{error:?}");
        }
    }
}

async fn append_in_transactions(server: &Server, recorder: &PostgresProcessRecorder) {
    let mut connection = server.connect().await;
    let position = recorder.max_tracking_id("upstream").await.unwrap().unwrap_or(0);
    let mut transaction = connection.begin().await.unwrap();
    recorder.insert_events_in(&mut transaction, &[first()]).await.unwrap();
    recorder.insert_events_in(&mut transaction, &[first(), first()]).await.unwrap();
    let next = tracking(position + 1);
    recorder.insert_events_with_tracking_in(&mut transaction, &[first()], &next).await.unwrap();
    transaction.commit().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let refused = recorder.insert_events_with_tracking_in(&mut transaction, &[first()], &next).await;
    assert!(refused.unwrap_err().is_conflict());
    transaction.rollback().await.unwrap();
}

async fn read(recorder: &PostgresProcessRecorder) {
    let page = recorder.select_notifications(NotificationSelection::new(3)).await.unwrap();
    let id = page[0].event.originator_id;
    for range in [
        EventRange::all(),
        EventRange::all().desc(),
        EventRange::all().gt(1).lte(3),
        EventRange::all().lte(2).desc().limit(1),
        EventRange::all().gt(0).limit(2),
    ] {
        recorder.select_events(id, range).await.unwrap();
    }
    let topics = [Topic::from_static("bank:Account.Credited"), Topic::from_static("bank:Account.Opened")];
    let last = recorder.max_notification_id().await.unwrap().unwrap();
    let selection = || NotificationSelection::new(10);
    let mut inclusive = selection().after(1);
    inclusive.inclusive_of_start = true;
    for selection in [
        selection(),
        inclusive,
        selection().after(2),
        selection().after(0).stop(last),
        selection().after(0).stop(last + 10).topics(&topics),
        selection().topics(&topics),
    ] {
        recorder.select_notifications(selection).await.unwrap();
    }
    recorder.max_tracking_id("upstream").await.unwrap();
    recorder.max_tracking_id("nothing").await.unwrap();
    recorder.has_tracking_id("upstream", 1).await.unwrap();
    recorder.wait("upstream", 1, Duration::from_secs(20)).await.unwrap();
}

/// Counts what it is given.
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

async fn project(recorder: &PostgresProcessRecorder, rows: &str) {
    let mut projector = recorder.projector(Rows(rows.to_owned())).await.unwrap();
    let start = recorder.max_tracking_id("projected").await.unwrap().unwrap_or(0);
    let page = recorder.select_notifications(NotificationSelection::new(3).after(start)).await.unwrap();
    let position = page.last().unwrap().id;
    for notifications in [&page[..], &[]] {
        let position = position + i64::from(notifications.is_empty());
        let batch = NotificationBatch {
            application_name: "projected",
            notifications,
            position,
            expected_position: None,
        };
        projector.process(batch).await.unwrap();
        assert!(projector.process(portion_again(&page, position)).await.is_err());
    }
}

fn portion_again(page: &[Notification], position: i64) -> NotificationBatch<'_> {
    NotificationBatch {
        application_name: "projected",
        notifications: page,
        position,
        expected_position: None,
    }
}

/// Subscriptions, woken by the poller and by notifications, with a gap whose transaction is open meanwhile.
async fn follow(options: &PostgresOptions, name: &str) {
    for notify in [false, true] {
        let options = options.clone().notify(notify);
        let reader = options.clone().open().await.unwrap().process_recorder(name).await.unwrap();
        let writer = options.open().await.unwrap().process_recorder(name).await.unwrap();
        let start = reader.max_notification_id().await.unwrap().unwrap();
        for topics in [vec![], vec![Topic::from_static("bank:Account.Credited")]] {
            let mut subscription = reader.clone().subscribe(start, topics);
            for _ in 0..3 {
                writer.insert_events(vec![first()]).await.unwrap();
                subscription.next_page().await.unwrap().unwrap();
            }
        }
        reader.close().await.unwrap();
        writer.close().await.unwrap();
    }
}

/// Answers of commits are lost, and their outcomes are recovered.
async fn recover(server: &Server, options: &PostgresOptions, name: &str) {
    let marked = || StoredEvent { state: Bytes::from_static(MARK), ..first() };
    for cut in [Cut::Answer, Cut::Request] {
        let proxy = Proxy::start(server.clone(), MARK).await;
        let options = options.clone().host("127.0.0.1").port(proxy.port);
        let recorder = options.open().await.unwrap().process_recorder(name).await.unwrap();
        let position = recorder.max_tracking_id("upstream").await.unwrap().unwrap_or(0);
        proxy.arm(cut);
        recorder.insert_events(vec![marked()]).await.unwrap();
        proxy.arm(cut);
        recorder.insert_events(vec![first(), marked()]).await.unwrap();
        proxy.arm(cut);
        recorder.insert_events_with_tracking(vec![marked(), first()], tracking(position + 1)).await.unwrap();
    }
}

/// A statement waits for a lock for longer than the response timeout, so that the server is queried about it.
async fn look_at_silence(server: &Server, options: &PostgresOptions, name: &str) {
    let options = options.clone().response_timeout(Duration::from_millis(50));
    let recorder = options.open().await.unwrap().process_recorder(name).await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    let mut holder = server.connect().await;
    run(&mut holder, &format!("BEGIN; LOCK TABLE public.{name}_events IN EXCLUSIVE MODE")).await;
    let insert = tokio::spawn(async move { recorder.insert_events(vec![first()]).await });
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND \
                   datname = current_database() AND query_start < clock_timestamp() - interval '200 ms')";
    until(&mut server.connect().await, waiting).await;
    run(&mut holder, "COMMIT").await;
    insert.await.unwrap().unwrap();
}
