//! `es projections`.

use std::path::Path;

use es_core::{
    Event, EventNotification, HandlerError, PersistenceError, StateReader, Topic, Transcoder,
    serde::ser::SerializeMap,
};
use es_factory::{InfrastructureFactory, ProjectionContext, Sql, VersionedProjection};

use crate::{
    postgres::Schema,
    support::{Sandbox, assert_snapshot},
};

/// A projection whose rows are not of interest.
struct Owners;

struct Opened;

impl Event for Opened {
    const TOPICS: &[Topic] = &[];

    fn topic(&self) -> Topic {
        Topic::from_static("bank:Opened")
    }

    fn encode<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn decode<T: Transcoder>(_: &str, _: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        Ok(Self)
    }
}

impl VersionedProjection for Owners {
    type Event = Opened;
    const TABLES: &[&str] = &["owners"];

    fn set_up(&self, context: &ProjectionContext) -> Vec<Sql> {
        vec![Sql::new(format!("CREATE TABLE IF NOT EXISTS {} (owner TEXT)", context.table("owners")))]
    }

    fn project(&self, _: EventNotification<Opened>, _: &ProjectionContext) -> Result<Vec<Sql>, HandlerError> {
        Ok(Vec::new())
    }
}

/// Registers versions 1 and 2, the first of which is at notification 43.
fn register(sandbox: &Sandbox, settings: Vec<(String, String)>, database: &[&str]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let factory = InfrastructureFactory::builder("bank").environment(settings).build().unwrap();
        for version in [1, 2] {
            factory.versioned_projector("owners", version, Owners).await.unwrap();
        }
        factory.close().await.unwrap();
    });
    set_position(sandbox, "owners", database);
}

fn set_position(sandbox: &Sandbox, consumer: &str, database: &[&str]) {
    sandbox.run(&[&["track", "set", consumer, "43", "--create", "--yes"], database].concat()).output();
}

/// Runs a test on SQLite and on PostgreSQL, in a database that `prepare` has prepared by these settings.
pub(crate) fn on_each_database(
    prepare: impl Fn(&Sandbox, Vec<(String, String)>, &[&str]),
    test: impl Fn(&Sandbox, &[&str]),
) {
    let sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    let database = ["--database", "sqlite:bank.db"];
    prepare(&sandbox, sqlite_settings(&sandbox.path("bank.db")), &database);
    test(&sandbox, &database);

    let Some(schema) = Schema::with_python_database() else { return };
    let sandbox = schema.sandbox();
    let database = ["--application", "bank"];
    prepare(&sandbox, schema.settings(), &database);
    test(&sandbox, &database);
}

/// Returns the settings of a file of SQLite, for a factory.
pub(crate) fn sqlite_settings(file: &Path) -> Vec<(String, String)> {
    let name = file.display().to_string();
    let settings = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", &name)];
    settings.map(|(name, value)| (name.into(), value.into())).into()
}

#[test]
fn versions_are_listed_switched_and_dropped() {
    on_each_database(register, |sandbox, database| {
        let run = |arguments: &[&str]| sandbox.run(&[&["projections"], arguments, database].concat());
        let list = || run(&["list", "owners"]).output().to_owned();
        assert_snapshot("projections-list", &list());
        assert_snapshot("projections-list-json", run(&["list", "--format", "json"]).output());
        run(&["list", "absent"]).fails_with(5, "there is no projection \"absent\"");
        run(&["rollback", "absent", "--yes"]).fails_with(5, "there is no projection \"absent\"");
        run(&["rollback", "owners", "--yes"]).fails_with(2, "version 1 has replaced no other version");

        run(&["switch", "owners", "2", "--yes"]).fails_with(4, "43 notification ids behind version 1");
        run(&["switch", "owners", "2", "--wait", "0", "--yes"]).fails_with(1, "did not catch up");
        set_position(sandbox, "owners@2", database);
        let before = list();
        assert_eq!(run(&["switch", "owners", "2", "--dry-run"]).output(), "switch owners 2\n");
        run(&["switch", "owners", "2"]).fails_with(2, "hint: pass --yes");
        assert_eq!(list(), before);
        let json = run(&["switch", "owners", "2", "--wait", "5", "--yes", "--format", "json"]);
        let expected =
            "{\"projection\":\"owners\",\"change\":\"switch\",\"version\":2,\"is_applied\":true}\n";
        assert_eq!(json.output(), expected);
        assert_snapshot("projections-switched", &list());

        assert_eq!(run(&["rebuild", "owners", "1", "--yes"]).output(), "rebuild owners 1\n");
        run(&["rebuild", "owners", "2", "--dry-run"])
            .fails_with(2, "version 2 of projection \"owners\" is active");
        assert_snapshot("projections-rebuilt", &list());
        run(&["rollback", "owners", "--yes"]).fails_with(2, "is building");
        set_position(sandbox, "owners", database);
        assert_eq!(run(&["switch", "owners", "1", "--yes"]).output(), "switch owners 1\n");
        assert_eq!(run(&["switch", "owners", "2", "--yes"]).output(), "switch owners 2\n");

        assert_eq!(run(&["rollback", "owners", "--yes"]).output(), "rollback owners 1\n");
        assert_eq!(run(&["pause", "owners", "1", "--yes"]).output(), "pause owners 1\n");
        assert_eq!(run(&["reset", "owners", "1", "--yes"]).output(), "reset owners 1\n");
        run(&["drop", "owners", "1", "--dry-run"]).fails_with(2, "is active, and version 2 exists");
        assert_eq!(run(&["drop", "owners", "2", "--yes"]).output(), "drop owners 2\n");
        assert_snapshot("projections-dropped", &list());
        assert_eq!(run(&["resume", "owners", "1", "--yes"]).output(), "resume owners 1\n");
        assert!(!list().contains("paused"));
    });
}
