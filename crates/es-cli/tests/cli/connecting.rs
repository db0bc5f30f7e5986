//! Sources of settings: URLs, the environment, `.env` files and contexts.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::Sandbox;

const ENCRYPTED: &str = "sqlite-9.5-aes256-zlib";
const KEY: &str = "S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q=";

#[test]
fn a_database_is_required() {
    let run = Sandbox::new().run(&["info"]);
    run.fails_with(2, "no database is named");
    run.fails_with(2, "hint: pass --database");
}

#[test]
fn a_dotenv_file_selects_the_database_and_the_codecs() {
    let sandbox = Sandbox::with_python_database(ENCRYPTED);
    let settings = format!(
        "PERSISTENCE_MODULE=eventsourcing.sqlite\nSQLITE_DBNAME=bank.db\nCIPHER_KEY={KEY}\n\
         COMPRESSOR_TOPIC=eventsourcing.compressor:ZlibCompressor\n"
    );
    sandbox.write(".env", &settings);
    let from_default = sandbox.run(&["log", "-n1"]);
    assert!(from_default.output().contains("\"owner\":\"Alice\""), "{from_default:?}");
    sandbox.write("other.env", &settings);
    sandbox.write(".env", "SQLITE_DBNAME=missing.db");
    let from_named = sandbox.run(&["log", "-n1", "--env-file", "other.env"]);
    assert_eq!(from_named.output(), from_default.stdout);
}

#[test]
fn the_environment_has_precedence_over_the_file_and_a_url_over_both() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.write(".env", "DATABASE_URL=sqlite:missing.db");
    sandbox.run(&["info"]).fails_with(3, "missing.db");
    sandbox.set("DATABASE_URL", "sqlite:bank.db");
    sandbox.run(&["info"]).output();
    sandbox.run(&["info", "-d", "sqlite:absent.db"]).fails_with(3, "absent.db");
}

#[test]
fn settings_of_the_application_come_first() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.set("DATABASE_URL", "sqlite:missing.db");
    sandbox.set("BANK_DATABASE_URL", "sqlite:bank.db");
    sandbox.run(&["info", "--application", "Bank"]).output();
}

#[test]
fn a_context_of_the_configuration_is_complete() {
    let mut sandbox = Sandbox::with_python_database(ENCRYPTED);
    sandbox.write("secrets.env", &format!("CIPHER_KEY={KEY}\n"));
    sandbox.write(
        "config.toml",
        "[contexts.bank]\ndatabase = \"sqlite:bank.db\"\nenv-file = \"secrets.env\"\n\
         settings = { COMPRESSOR_TOPIC = \"zlib\" }\n",
    );
    // The environment does not change a context.
    sandbox.set("DATABASE_URL", "sqlite:missing.db");
    sandbox.set("COMPRESSOR_TOPIC", "zstd");
    sandbox.set("ES_CONFIG", "config.toml");
    let run = sandbox.run(&["log", "-d", "bank", "-n1"]);
    assert!(run.output().contains("\"owner\":\"Alice\""), "{run:?}");
    let unknown = sandbox.run(&["log", "-d", "shop"]);
    unknown.fails_with(2, "context \"shop\" is not in the configuration \"config.toml\"");
    unknown.fails_with(2, "its contexts are bank");
}

#[test]
fn a_wrong_configuration_is_named_by_its_line() {
    let sandbox = Sandbox::new();
    sandbox.write("config.toml", "[contexts.bank]\ndatabase = \"sqlite:bank.db\"\npasword = \"secret\"\n");
    let run = sandbox.run(&["info", "-d", "bank", "--config", "config.toml"]);
    run.fails_with(2, "line 3");
    assert!(!run.stderr.contains("secret"), "{run:?}");
    sandbox.write("config.toml", "[contexts.bank.settings]\nPOSTGRES_PASSWORD = 424242\n");
    let run = sandbox.run(&["info", "-d", "bank", "--config", "config.toml"]);
    run.fails_with(2, "line 2: the value has another type");
    assert!(!run.stderr.contains("424242"), "{run:?}");
}

#[test]
fn secrets_are_refused_on_the_command_line_and_never_printed() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    let run = sandbox.run(&["info", "-d", "postgres://me:hunter2@localhost/bank"]);
    run.fails_with(2, "must not have a password");
    assert!(!run.stderr.contains("hunter2"), "{run:?}");
    sandbox.set("CIPHER_KEY", "hunter2");
    let run = sandbox.run(&["log", "-d", "sqlite:bank.db"]);
    run.fails_with(2, "CIPHER_KEY");
    assert!(!run.stderr.contains("hunter2"), "{run:?}");
    sandbox.write(".env", "not a line of hunter2\n");
    let run = sandbox.run(&["log", "-d", "sqlite:bank.db"]);
    run.fails_with(2, "NAME=value");
    assert!(!run.stderr.contains("hunter2"), "{run:?}");
}

#[test]
fn a_path_instead_of_a_url_has_a_hint() {
    let sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.run(&["info", "-d", "bank.db"]).fails_with(2, "hint: a file of SQLite is `sqlite:bank.db`");
}

#[test]
fn a_missing_file_is_not_created() {
    let sandbox = Sandbox::new();
    for command in ["info", "log", "topics", "trackers"] {
        sandbox.run(&[command, "-d", "sqlite:bank.db"]).fails_with(3, "bank.db");
    }
    assert!(!sandbox.path("bank.db").exists());
}

#[test]
fn a_file_without_tables_is_no_event_store() {
    let sandbox = Sandbox::new();
    sandbox.execute("CREATE TABLE other (a)");
    for command in ["info", "log", "topics", "trackers"] {
        sandbox.on_bank(&[command]).fails_with(2, "stored_events");
    }
}

#[test]
fn inspection_leaves_a_file_as_it_is() {
    let sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    let before = fs::read(sandbox.path("bank.db")).unwrap();
    fs::set_permissions(sandbox.path("bank.db"), fs::Permissions::from_mode(0o400)).unwrap();
    for command in ["info", "log", "topics", "trackers"] {
        sandbox.on_bank(&[command]).output();
    }
    assert!(fs::read(sandbox.path("bank.db")).unwrap() == before);
}

#[test]
fn a_file_is_read_without_its_log() {
    let sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.execute("PRAGMA journal_mode = WAL");
    sandbox.run(&["log", "-d", "sqlite:bank.db?immutable=1"]).output();
    assert_eq!(fs::read_dir(sandbox.path(".")).unwrap().count(), 1, "no file was added");
}

#[test]
fn warnings_of_the_library_are_on_standard_error() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.set("SQLITE_LOCK_TIMEOT", "3");
    let run = sandbox.on_bank(&["log", "-n1", "--format", "{id}"]);
    assert_eq!((run.exit, run.stdout.as_str()), (0, "1\n"), "{run:?}");
    let warning = "WARN a variable of the environment has no effect: is the setting meant? \
                   variable=\"SQLITE_LOCK_TIMEOT\" setting=\"SQLITE_LOCK_TIMEOUT\"\n";
    assert_eq!(run.stderr, format!(" {warning}"), "printed once: {run:?}");
    let colored = sandbox.on_bank(&["log", "-n1", "--color=always"]);
    assert!(colored.stderr.contains("\u{1b}["), "{colored:?}");
    let verbose = sandbox.on_bank(&["log", "-n1", "-v"]);
    assert!(verbose.stderr.contains("WARN es_factory::typos: "), "{verbose:?}");
}
