//! The bytes that remain after an erasure.

use std::{collections::HashSet, fs, path::Path, str::FromStr};

use es_core::{Bytes, ErrorKind, EventRange, EventStore, Expected, Mapper, Recorder, uuid::Uuid};
use es_factory::InfrastructureFactory;
use es_personal::{KeyRecord, KeyStore, SqliteKeyStore, Subject};
use es_sqlite::{SqliteDatastore, SqliteOptions};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

use crate::{Address, OrderEvent, keys, name, placed, stores::PostgresDatabase, subject, transcoder};

const ID: Uuid = Uuid::from_u128(1);
/// Several pages of keys.
const SUBJECTS: u128 = 300;
const RING: &str = "1:5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=";

fn plaintext(number: u128) -> String {
    format!("plaintext-of-{number:04}")
}

/// Writes an event for each subject, and returns their wrapped keys.
async fn recorded(
    datastore: &SqliteDatastore,
    store: &impl KeyStore,
    keys: &es_personal::SubjectKeys,
) -> Vec<Bytes> {
    let recorder = datastore.application_recorder().await.unwrap();
    let orders = EventStore::new(recorder, Mapper::new(transcoder(keys)));
    let events = (1..=SUBJECTS).map(|number| placed(name(number, &plaintext(number))));
    orders.append(ID, Expected::New, events).await.unwrap();
    let read = orders.get::<OrderEvent>(ID, EventRange::all().limit(1)).await.unwrap();
    assert_eq!(read[0].payload, placed(name(1, &plaintext(1))));
    let subjects: Vec<Subject> = (1..=SUBJECTS).map(subject).collect();
    let mut records = store.select(&subjects).await.unwrap();
    records.sort_by_key(|record| record.subject().clone());
    let key = |record| match record {
        KeyRecord::Key(key) => key.key,
        KeyRecord::Erased(_) => panic!("erased"),
    };
    records.into_iter().map(key).collect()
}

/// All parts of this length.
fn parts(bytes: &[u8], length: usize) -> HashSet<&[u8]> {
    bytes.windows(length).collect()
}

/// The contents of all files of a directory.
fn files(directory: &Path) -> Vec<u8> {
    fs::read_dir(directory).unwrap().flat_map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[tokio::test]
async fn after_an_erasure_no_file_has_a_plaintext_or_the_wrapped_key() {
    let directory = tempfile::tempdir().unwrap();
    let datastore = SqliteOptions::new(directory.path().join("events.db")).open().await.unwrap();
    let store = SqliteKeyStore::open(directory.path().join("keys.db")).await.unwrap();
    let keys = keys(store.clone());
    let wrapped = recorded(&datastore, &store, &keys).await;

    for number in (1..=SUBJECTS).step_by(2) {
        keys.erase(subject(number), "test").await.unwrap();
    }
    store.vacuum().await.unwrap();
    // Closing moves the write-ahead log into the database.
    datastore.application_recorder().await.unwrap().close().await.unwrap();
    let bytes = files(directory.path());
    let plaintexts = parts(&bytes, plaintext(1).len());
    let wrapped_keys = parts(&bytes, wrapped[0].len());
    for (number, key) in (1..=SUBJECTS).zip(wrapped) {
        assert!(!plaintexts.contains(plaintext(number).as_bytes()));
        // The scan sees the keys of the others.
        assert_eq!(wrapped_keys.contains(&key[..]), number % 2 == 0, "the key of subject {number}");
    }
    assert!(parts(&bytes, 4).contains(&b"book"[..]), "the scan sees the events");
}

/// A database of PostgreSQL with the log and the key store.
struct Database {
    database: PostgresDatabase,
    connection: PgConnection,
}

impl Database {
    async fn execute(&mut self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&mut self.connection).await.unwrap();
    }

    /// The contents of the files of all tables and indexes.
    async fn tables(&mut self) -> Vec<u8> {
        let files = "SELECT pg_read_binary_file(pg_relation_filepath(oid)) FROM pg_class
            WHERE relkind IN ('r', 'i', 't', 'S') AND relnamespace::regnamespace IN ('public', 'pg_toast')";
        let files: Vec<Vec<u8>> = sqlx::query_scalar(files).fetch_all(&mut self.connection).await.unwrap();
        files.concat()
    }

    /// Looks for texts in the segments of the write-ahead log, one after the other.
    async fn found_in_write_ahead_log(&mut self, texts: &HashSet<Vec<u8>>) -> HashSet<Vec<u8>> {
        let names = "SELECT name FROM pg_ls_waldir()";
        let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut self.connection).await.unwrap();
        let mut found = HashSet::new();
        for name in names {
            // It may be deleted meanwhile.
            let read = sqlx::query_scalar("SELECT pg_read_binary_file('pg_wal/' || $1, 0, 1 << 26, true)");
            let segment: Option<Vec<u8>> = read.bind(name).fetch_one(&mut self.connection).await.unwrap();
            found.extend(found_in(&segment.unwrap_or_default(), texts));
        }
        found
    }
}

/// Returns those of texts that begin as a wrapped key or a plaintext, and occur in bytes.
fn found_in(bytes: &[u8], texts: &HashSet<Vec<u8>>) -> HashSet<Vec<u8>> {
    let lengths: HashSet<usize> = texts.iter().map(Vec::len).collect();
    let begins = |rest: &[u8]| rest.starts_with(b"\x89ES\x01") || rest.starts_with(b"plaintext-of-");
    let mut found = HashSet::new();
    for start in (0..bytes.len()).filter(|start| matches!(bytes[*start], b'\x89' | b'p')) {
        let rest = &bytes[start..];
        if begins(rest) {
            let parts = lengths.iter().filter_map(|length| rest.get(..*length));
            found.extend(parts.filter(|part| texts.contains(*part)).map(<[u8]>::to_vec));
        }
    }
    found
}

// Segments of the write-ahead log are reused, and the bytes in them stay, unless `wal_recycle` is off.

#[tokio::test]
async fn after_an_erasure_a_rewrite_and_checkpoints_no_file_of_postgresql_has_the_wrapped_key() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let connection = PgConnectOptions::from_str(&database.url()).unwrap().connect().await.unwrap();
    let mut server = Database { database, connection };
    server.execute("ALTER SYSTEM SET wal_recycle = off").await;
    server.execute("SELECT pg_reload_conf()").await;
    server.execute("CHECKPOINT").await;
    let url = server.database.url();
    let variables = [("DATABASE_URL", &*url), ("PERSONAL_KEYS_URL", &*url), ("CIPHER_KEYS", RING)];
    let builder = InfrastructureFactory::builder("shop").environment(variables);
    let factory = builder.personal::<String>().personal::<Address>().build().unwrap();
    let orders = factory.event_store().await.unwrap();
    let events = (1..=SUBJECTS).map(|number| placed(name(number, &plaintext(number))));
    orders.append(ID, Expected::New, events).await.unwrap();
    let store = factory.key_store().unwrap().unwrap();
    let wrapped = store.select_keys(None, 1_000).await.unwrap();
    let keys: Vec<Vec<u8>> = wrapped.into_iter().map(|key| key.key.to_vec()).collect();
    let (erased, kept): (HashSet<_>, HashSet<_>) =
        keys.into_iter().zip(1..=SUBJECTS).partition(|(_, number)| number % 2 == 1);
    let [erased, kept] =
        [erased, kept].map(|keys| keys.into_iter().map(|(key, _)| key).collect::<HashSet<_>>());
    let plaintexts: HashSet<_> = (1..=SUBJECTS).map(|number| plaintext(number).into_bytes()).collect();
    // The scan sees the keys where they still are.
    server.execute("CHECKPOINT").await;
    assert_eq!(found_in(&server.tables().await, &erased).len(), erased.len());
    // The header of a page of the log may be within a key.
    assert!(server.found_in_write_ahead_log(&erased).await.len() > erased.len() / 2);

    let subject_keys = factory.subject_keys().unwrap().unwrap();
    for number in (1..=SUBJECTS).step_by(2) {
        subject_keys.erase(subject(number), "test").await.unwrap();
    }
    server.execute("VACUUM FULL subject_keys").await;
    for _ in 0..2 {
        server.execute("SELECT pg_switch_wal()").await;
        server.execute("CHECKPOINT").await;
    }
    server.execute("ALTER SYSTEM RESET wal_recycle").await;
    server.execute("SELECT pg_reload_conf()").await;
    let tables = server.tables().await;
    assert_eq!(found_in(&tables, &erased).len(), 0);
    assert_eq!(found_in(&tables, &kept).len(), kept.len());
    assert_eq!(found_in(&tables, &plaintexts).len(), 0);
    assert_eq!(server.found_in_write_ahead_log(&erased).await.len(), 0);
    assert_eq!(server.found_in_write_ahead_log(&plaintexts).await.len(), 0);
}

#[tokio::test]
async fn the_database_of_a_log_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    let _recorder = datastore.application_recorder().await.unwrap();
    let error = SqliteKeyStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains("write-ahead log"), "{error}");
}
