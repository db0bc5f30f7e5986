//! The commands on PostgreSQL.

use std::{
    env,
    io::{BufRead, BufReader},
};

use es_core::uuid::Uuid;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::runtime::{Builder, Runtime};

use crate::support::{Sandbox, assert_snapshot, python};

const SETTINGS: [&str; 4] = ["POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DBNAME", "POSTGRES_USER"];

/// A schema of the test's own on the test server, with the tables of the Python library.
pub(crate) struct Schema {
    pub(crate) name: String,
}

impl Schema {
    /// Returns `None` if the tests are configured to run without PostgreSQL.
    pub(crate) fn new() -> Option<Self> {
        if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
            return None;
        }
        let schema = Self { name: format!("es_cli_{}", Uuid::new_v4().simple()) };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name));
        Some(schema)
    }

    /// A schema with the tables `bank_events`, `bank_tracking` and `bank_snapshots` of the Python library.
    pub(crate) fn with_python_database() -> Option<Self> {
        Self::of_python("9.5")
    }

    /// The same by a version of the Python library.
    pub(crate) fn of_python(version: &str) -> Option<Self> {
        let schema = Self::new()?;
        let dump = std::fs::read_to_string(python(&format!("postgres-{version}-plain.sql"))).unwrap();
        // `\restrict` is for psql.
        let dump: Vec<_> = dump.lines().filter(|line| !line.starts_with('\\')).collect();
        schema.execute(&dump.join("\n").replace("public.", &format!("{}.", schema.name)));
        Some(schema)
    }

    /// Returns a context for the configuration file.
    pub(crate) fn context(&self, name: &str) -> String {
        let names = SETTINGS.into_iter().chain(["POSTGRES_PASSWORD"]);
        let settings: String = names.map(|name| format!("{name} = {:?}\n", setting(name))).collect();
        format!(
            "[contexts.{name}.settings]\nPERSISTENCE_MODULE = \"postgres\"\nPOSTGRES_SCHEMA = {:?}\n{settings}",
            self.name
        )
    }

    /// Returns the settings for a factory.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let names = SETTINGS.into_iter().chain(["POSTGRES_PASSWORD"]);
        let module = ("PERSISTENCE_MODULE".to_owned(), "postgres".to_owned());
        let schema = ("POSTGRES_SCHEMA".to_owned(), self.name.clone());
        names.map(|name| (name.to_owned(), setting(name))).chain([module, schema]).collect()
    }

    pub(crate) fn execute(&self, sql: &str) {
        self.query(sql);
    }

    /// Executes statements and returns a row, if there is one.
    pub(crate) fn query(&self, sql: &str) -> Option<PgRow> {
        let Open { runtime, mut connection } = Open::connect();
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection);
        runtime.block_on(rows).unwrap().into_iter().next()
    }

    /// Executes statements in a transaction that remains open.
    pub(crate) fn begin(&self, sql: &str) -> Open {
        let mut open = Open::connect();
        open.execute(&format!("BEGIN; {sql}"));
        open
    }

    /// A directory in which the tool finds the schema by its environment.
    pub(crate) fn sandbox(&self) -> Sandbox {
        let mut sandbox = Sandbox::new();
        sandbox.set("PERSISTENCE_MODULE", "postgres");
        sandbox.set("POSTGRES_SCHEMA", &self.name);
        sandbox.set("POSTGRES_PASSWORD", &setting("POSTGRES_PASSWORD"));
        SETTINGS.into_iter().for_each(|name| sandbox.set(name, &setting(name)));
        sandbox
    }
}

/// A connection.
pub(crate) struct Open {
    runtime: Runtime,
    connection: PgConnection,
}

impl Open {
    fn connect() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let options = PgConnectOptions::new_without_pgpass()
            .host(&setting("POSTGRES_HOST"))
            .port(setting("POSTGRES_PORT").parse().unwrap())
            .database(&setting("POSTGRES_DBNAME"))
            .username(&setting("POSTGRES_USER"))
            .password(&setting("POSTGRES_PASSWORD"));
        let connection = runtime.block_on(PgConnection::connect_with(&options)).unwrap();
        Self { runtime, connection }
    }

    fn execute(&mut self, sql: &str) {
        let executing = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        self.runtime.block_on(executing).unwrap();
    }

    pub(crate) fn commit(mut self) {
        self.execute("COMMIT");
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.name));
    }
}

pub(crate) fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `cargo xtask test`"))
}

#[test]
fn commands_on_a_database_of_python() {
    let Some(schema) = Schema::with_python_database() else { return };
    let sandbox = schema.sandbox();
    let run = |arguments: &[&str]| sandbox.run(&[arguments, &["--application", "Bank"]].concat());
    let info = run(&["info", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(info.output()).unwrap();
    assert_eq!(info["events"]["table"], "bank_events");
    assert_eq!(info["tracking_layout"], "row_per_application");
    assert_snapshot("postgres-log", run(&["log", "-n3"]).output());
    assert_snapshot("postgres-topics", run(&["topics"]).output());
    assert_snapshot("postgres-trackers", run(&["trackers"]).output());
    let first = run(&["log", "-n1", "--format", "{originator_id}"]);
    let shown = run(&["show", first.output().trim(), "--at", "1", "--format", "{originator_version}"]);
    assert_eq!(shown.output(), "1\n");
    run(&["info"]).output();
    // Without the name of the application, the tables have other names.
    let unnamed = sandbox.run(&["log"]);
    unnamed.fails_with(2, "does not exist");
    unnamed.fails_with(2, "--application");
    sandbox.run(&["info"]).fails_with(2, "--application");
}

#[test]
fn a_role_that_may_only_read_suffices() {
    let Some(schema) = Schema::with_python_database() else { return };
    let (role, name) = (&schema.name, &schema.name);
    schema.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'reader'; GRANT USAGE ON SCHEMA {name} TO {role}; \
         GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {role}"
    ));
    let mut sandbox = schema.sandbox();
    sandbox.set("POSTGRES_USER", role);
    sandbox.set("POSTGRES_PASSWORD", "reader");
    for command in ["info", "log", "topics", "trackers"] {
        sandbox.run(&[command, "--application", "bank"]).output();
    }
    schema.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn log_follows_commits_of_other_sessions() {
    let Some(schema) = Schema::with_python_database() else { return };
    let sandbox = schema.sandbox();
    let mut running =
        sandbox.start(&["log", "-a", "bank", "--after", "42", "--follow", "--format", "{topic}"]);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("bank:"));
    schema.execute(&format!(
        "INSERT INTO {}.bank_events (originator_id, originator_version, topic, state) \
         VALUES (gen_random_uuid(), 1, 'bank:Followed', '{{}}')",
        schema.name
    ));
    assert!(lines.any(|line| line.unwrap() == "bank:Followed"));
}

#[test]
fn an_unreachable_server_and_a_missing_password() {
    let mut sandbox = Sandbox::new();
    let database = ["--database", "postgres://me@127.0.0.1:9/bank"];
    for command in ["info", "log"] {
        sandbox.run(&[&[command], &database[..]].concat()).fails_with(2, "POSTGRES_PASSWORD");
    }
    sandbox.set("POSTGRES_PASSWORD", "hunter2");
    sandbox.set("POSTGRES_CONNECT_TIMEOUT", "1");
    for command in ["info", "log"] {
        let run = sandbox.run(&[&[command], &database[..]].concat());
        run.fails_with(3, "127.0.0.1:9");
        assert!(!run.stderr.contains("hunter2"), "{run:?}");
    }
}

#[test]
fn verify_finds_damage() {
    let Some(schema) = Schema::with_python_database() else { return };
    let sandbox = schema.sandbox();
    let verify = || sandbox.run(&["verify", "--application", "bank"]);
    let clean = verify();
    assert!(clean.output().contains("findings         0"), "{clean:?}");
    assert!(clean.stdout.contains("digest           "), "{clean:?}");
    let name = &schema.name;
    schema.execute(&format!(
        "UPDATE {name}.bank_events SET state = '[]' WHERE notification_id = 2; \
         UPDATE {name}.bank_events SET topic = NULL WHERE notification_id = 4; \
         UPDATE {name}.bank_events SET notification_id = -1 WHERE notification_id = 6; \
         UPDATE {name}.bank_events SET originator_version = 77 WHERE notification_id = 5; \
         UPDATE {name}.bank_tracking SET notification_id = 999 WHERE application_name = 'other'; \
         UPDATE {name}.bank_snapshots SET originator_id = gen_random_uuid(), state = '{{'"
    ));
    let damaged = verify();
    assert_eq!((damaged.exit, damaged.stderr.as_str()), (4, ""), "{damaged:?}");
    for (expected, times) in [
        ("notification 2: version 2 of originator", 1),
        ("notification 4: ", 1),
        ("notification -1: it is not positive", 1),
        ("has no version between", 2),
        ("the position 999 of consumer other", 1),
        ("has no events", 3),
        ("the state is not JSON: ", 3),
    ] {
        assert_eq!(damaged.stdout.matches(expected).count(), times, "{expected}: {}", damaged.stdout);
    }
    assert!(damaged.stdout.contains("findings         12"), "{}", damaged.stdout);
}

/// The extension amcheck finds an event that an index lacks, on servers that have the extension.
#[test]
fn verify_finds_damage_of_an_index() {
    let Some(schema) = Schema::with_python_database() else { return };
    let sandbox = schema.sandbox();
    let verify = || sandbox.run(&["verify", "--application", "bank"]);
    let is_available = "SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'";
    if schema.query(is_available).is_none() {
        assert!(verify().output().contains("amcheck is not installed"));
        return;
    }
    if verify().output().contains("amcheck is not installed") {
        schema.execute(&format!("CREATE EXTENSION amcheck SCHEMA {}", schema.name));
    }
    assert!(!verify().output().contains("not checked"));
    // The index misses an event in the middle of the versions of an aggregate, which is no gap.
    let name = &schema.name;
    let ready = |is_ready: bool| {
        schema.execute(&format!(
            "UPDATE pg_index SET indisready = {is_ready} WHERE indexrelid = '{name}.bank_events_pkey'::regclass"
        ));
    };
    let insert = |version: i64| {
        schema.execute(&format!(
            "INSERT INTO {name}.bank_events (originator_id, originator_version, topic, state) \
             VALUES ('00000000-0000-0000-0000-000000000009', {version}, 'bank:Account.Opened', '{{}}')"
        ));
    };
    insert(1);
    ready(false);
    insert(2);
    ready(true);
    insert(3);
    let damaged = verify();
    assert_eq!((damaged.exit, damaged.stderr.as_str()), (4, ""), "{damaged:?}");
    let expected = ["index ", "bank_events_pkey", "lacks matching index tuple"];
    let finding = damaged.stdout.lines().next().unwrap();
    assert!(
        finding.starts_with("database") && expected.iter().all(|part| finding.contains(part)),
        "{damaged:?}"
    );
    assert!(damaged.stdout.contains("findings         1\n"), "{damaged:?}");
}
