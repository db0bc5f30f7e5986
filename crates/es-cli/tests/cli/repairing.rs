//! `es track` and `es schema`.

use std::fs;

use es_sqlite::rusqlite::Connection;

use crate::{
    postgres::Schema,
    support::{Sandbox, assert_snapshot},
};

const PLAIN: &str = "sqlite-9.5-plain";

/// The positions of the consumers, one a line.
fn positions(sandbox: &Sandbox, application: &[&str]) -> String {
    let run = sandbox.run(&[&["trackers", "--format", "json"], application].concat());
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let line = |line: serde_json::Value| format!("{} {}\n", line["name"].as_str().unwrap(), line["position"]);
    run.stdout.lines().map(value).map(line).collect()
}

/// Both layouts of both backends.
fn on_each_layout(test: impl Fn(&Sandbox, &[&str])) {
    for version in ["9.1", "9.5"] {
        let sandbox = Sandbox::with_python_database(&format!("sqlite-{version}-plain"));
        test(&sandbox, &["--database", "sqlite:bank.db"]);
        let Some(schema) = Schema::of_python(version) else { continue };
        test(&schema.sandbox(), &["--application", "bank"]);
    }
}

#[test]
fn positions_are_set_and_reset_in_each_layout() {
    on_each_layout(|sandbox, database| {
        let run = |arguments: &[&str]| sandbox.run(&[arguments, database, &["--yes"]].concat());
        assert_eq!(positions(sandbox, database), "other 41\nupstream 7\n");
        assert_eq!(run(&["track", "set", "other", "20"]).output(), "- other 41\n+ other 20\n");
        assert_eq!(positions(sandbox, database), "other 20\nupstream 7\n");
        assert_eq!(run(&["track", "set", "upstream", "43"]).output(), "- upstream 7\n+ upstream 43\n");
        assert_eq!(run(&["track", "set", "new", "1", "--create"]).output(), "+ new 1\n");
        assert_eq!(positions(sandbox, database), "new 1\nother 20\nupstream 43\n");
        assert_eq!(run(&["track", "reset", "other", "new"]).output(), "- other 20\n- new 1\n");
        assert_eq!(positions(sandbox, database), "upstream 43\n");
        assert_eq!(run(&["verify"]).exit, 2, "verify has no --yes");
        sandbox.run(&[&["verify"], database].concat()).output();
    });
}

#[test]
fn a_dry_run_and_an_unconfirmed_change_write_nothing() {
    let sandbox = Sandbox::with_python_database(PLAIN);
    let before = fs::read(sandbox.path("bank.db")).unwrap();
    let set = ["track", "set", "other", "20"];
    assert_eq!(sandbox.on_bank(&[&set[..], &["--dry-run"]].concat()).output(), "- other 41\n+ other 20\n");
    let json = sandbox.on_bank(&[&set[..], &["--dry-run", "--format", "json"]].concat());
    assert_eq!(json.output(), "{\"consumer\":\"other\",\"before\":41,\"after\":20,\"is_applied\":false}\n");
    sandbox.on_bank(&set).fails_with(2, "hint: pass --yes");
    assert!(fs::read(sandbox.path("bank.db")).unwrap() == before);
    let json = sandbox.on_bank(&[&set[..], &["--yes", "--format", "json"]].concat());
    assert_eq!(json.output(), "{\"consumer\":\"other\",\"before\":41,\"after\":20,\"is_applied\":true}\n");
}

#[test]
fn wrong_positions_are_refused() {
    let sandbox = Sandbox::with_python_database(PLAIN);
    let refused = |arguments: &[&str], exit: i32, message: &str| {
        sandbox.on_bank(&[&["track"], arguments, &["--yes"]].concat()).fails_with(exit, message);
    };
    refused(&["set", "other", "44"], 2, "position 44 is after the end of the log, 43");
    refused(&["set", "absent", "4"], 5, "hint: --create");
    refused(&["set", "other", "--", "-1"], 2, "");
    refused(&["set", "__migration__", "4"], 2, "reserved");
    refused(&["reset", "absent"], 5, "consumer \"absent\" has no position");
    refused(&["reset", "__migration__"], 2, "reserved");
    assert_eq!(positions(&sandbox, &["-d", "sqlite:bank.db"]), "other 41\nupstream 7\n");
    // The log that the consumer follows has 55 events.
    fs::copy(crate::support::python("sqlite-9.1-plain.db"), sandbox.path("upstream.db")).unwrap();
    sandbox.on_bank(&["track", "set", "other", "44", "--upstream", "sqlite:upstream.db", "--yes"]).output();
}

#[test]
fn printed_statements_make_the_tables_of_the_library() {
    let sandbox = Sandbox::new();
    let printed = sandbox.on_bank(&["schema", "print"]);
    assert_snapshot("schema-sqlite", printed.output());
    assert!(!sandbox.path("bank.db").exists(), "nothing was opened");
    sandbox.execute(printed.output());
    assert_snapshot("schema-check", sandbox.on_bank(&["schema", "check"]).output());
    // The library makes the same tables, by a copy of nothing and its snapshots.
    let other = Sandbox::with_python_database(PLAIN);
    other.run(&["copy", "sqlite:bank.db", "sqlite:copy.db", "--yes"]).output();
    let tables = |path| {
        let connection = Connection::open(path).unwrap();
        let mut select = connection
            .prepare(
                "SELECT s.name || ' ' || (s.sql LIKE '%WITHOUT ROWID%') || ' ' || group_concat(c.name || c.type || c.pk) \
                 FROM sqlite_schema AS s, pragma_table_info(s.name) AS c WHERE s.type = 'table' GROUP BY s.name",
            )
            .unwrap();
        select.query_map((), |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap()
    };
    assert_eq!(tables(sandbox.path("bank.db")), tables(other.path("copy.db")));
    let marks = |path| {
        let connection = Connection::open(path).unwrap();
        let select =
            "SELECT count(*) FROM tracking WHERE application_name = '__migration__' AND notification_id = 1";
        connection.query_row(select, (), |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((marks(sandbox.path("bank.db")), marks(other.path("copy.db"))), (1, 1));
}

#[test]
fn printed_statements_make_the_tables_of_the_library_on_postgres() {
    let (Some(printed), Some(made)) = (Schema::new(), Schema::new()) else { return };
    let sandbox = printed.sandbox();
    let statements = sandbox.run(&["schema", "print", "--application", "Bank"]);
    assert_snapshot("schema-postgres", &statements.output().replace(&printed.name, "SCHEMA"));
    printed.execute(statements.output());
    assert_snapshot("schema-check-postgres", sandbox.run(&["schema", "check", "-a", "Bank"]).output());
    let other = Sandbox::with_python_database(PLAIN);
    let mut copying = made.sandbox();
    copying.set("ES_CONFIG", "config.toml");
    let source = format!("[contexts.from]\ndatabase = \"sqlite:{}\"\n", other.path("bank.db").display());
    copying.write("config.toml", &(source + &made.context("to")));
    copying.run(&["copy", "from", "to", "--to-application", "Bank", "--yes"]).output();
    let tables = |schema: &Schema| {
        let row = schema.query(&format!(
            "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (\
             SELECT format('%s %s %s %s %s', table_name, column_name, data_type, is_nullable, \
             column_default IS NOT NULL) AS line FROM information_schema.columns WHERE table_schema = '{0}' \
             UNION ALL SELECT replace(indexdef, '{0}', '') FROM pg_indexes WHERE schemaname = '{0}') AS lines",
            schema.name
        ));
        sqlx::Row::get::<String, _>(&row.unwrap(), 0)
    };
    assert_eq!(tables(&printed), tables(&made));
}

#[test]
fn unsuitable_tables_are_findings() {
    let check = |sql: &str, expected: &str| {
        let sandbox = Sandbox::new();
        sandbox.execute(sql);
        let run = sandbox.on_bank(&["schema", "check"]);
        assert!(run.exit == 4 && run.stdout.contains(expected), "{expected}: {run:?}");
    };
    let key = "PRIMARY KEY (originator_id, originator_version)";
    let columns = "originator_id TEXT, originator_version INTEGER, topic TEXT";
    check("CREATE TABLE other (a)", "stored_events  is missing");
    check(&format!("CREATE TABLE stored_events ({columns}, {key})"), "has no column state");
    check(&format!("CREATE TABLE stored_events ({columns}, state BLOB)"), "has the primary key ()");
    check(
        &format!("CREATE TABLE stored_events ({columns}, state BLOB, {key}) WITHOUT ROWID"),
        "no notification ids",
    );
    let Some(schema) = Schema::of_python("9.5") else { return };
    schema.execute(&format!(
        "ALTER TABLE {0}.bank_events DROP CONSTRAINT bank_events_pkey; DROP TABLE {0}.bank_snapshots",
        schema.name
    ));
    let run = schema.sandbox().run(&["schema", "check", "-a", "bank", "--format", "json"]);
    assert_eq!(run.exit, 4);
    assert!(run.stdout.contains("has no primary key on originator_id and originator_version"), "{run:?}");
    assert!(run.stdout.contains("{\"table\":\"bank_snapshots\",\"exists\":false}"), "{run:?}");
}
