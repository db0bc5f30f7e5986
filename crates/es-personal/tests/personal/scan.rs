//! The bytes that remain after an erasure.

use std::{collections::HashSet, fs, path::Path};

use es_core::{Bytes, ErrorKind, EventRange, EventStore, Expected, Mapper, Recorder, uuid::Uuid};
use es_personal::{KeyRecord, KeyStore, SqliteKeyStore, Subject};
use es_sqlite::{SqliteDatastore, SqliteOptions};

use crate::{
    OrderEvent, keys, name, placed,
    stores::{Place, Postgres},
    subject, transcoder,
};

const ID: Uuid = Uuid::from_u128(1);
/// Several pages of keys.
const SUBJECTS: u128 = 300;

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

#[tokio::test]
async fn after_an_erasure_and_a_rewrite_the_table_of_postgresql_has_no_wrapped_key() {
    let Some(place) = Postgres::create().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let datastore = SqliteOptions::new(directory.path().join("events.db")).open().await.unwrap();
    let store = place.open().await;
    let keys = keys(place.open().await);
    let wrapped = recorded(&datastore, &store, &keys).await;
    for number in (1..=SUBJECTS).step_by(2) {
        keys.erase(subject(number), "test").await.unwrap();
    }
    let pool = place.pool().await;
    sqlx::raw_sql("VACUUM FULL subject_keys").execute(&pool).await.unwrap();
    sqlx::raw_sql("CHECKPOINT").execute(&pool).await.unwrap();
    let file = "SELECT pg_read_binary_file(pg_relation_filepath('subject_keys'))";
    let bytes: Vec<u8> = sqlx::query_scalar(file).fetch_one(&pool).await.unwrap();
    let wrapped_keys = parts(&bytes, wrapped[0].len());
    for (number, key) in (1..=SUBJECTS).zip(wrapped) {
        assert_eq!(wrapped_keys.contains(&key[..]), number % 2 == 0, "the key of subject {number}");
    }
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
