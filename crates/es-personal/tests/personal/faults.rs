//! Wrappers that break their contract, and disks that fail.

use std::sync::Arc;

use es_core::{ErrorKind, EventRange, Expected, PersistenceError, uuid::Uuid};
use es_crypto::{AesKey, KeyRing};
use es_personal::{
    Erasure, KeyRecord, KeyStore, KeyWrapper, MemoryKeyStore, SqliteKeyStore, Subject, SubjectKeys,
    WrappedKey,
};
use es_popo::PopoApplicationRecorder;
use es_sqlite_vfs::{Disk, Fault, Operation};

use crate::{
    OrderEvent, keys, name, orders, placed, ring,
    stores::{Place, Postgres},
    subject,
};

const ID: Uuid = Uuid::from_u128(1);
const FAULTS: [Fault; 5] = [Fault::Error, Fault::Full, Fault::Torn, Fault::Lost, Fault::PowerCut];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Misbehaviour {
    /// The last key is missing.
    WrapsFewer,
    UnwrapsFewer,
    /// The keys are swapped.
    WrapsInAnotherOrder,
    UnwrapsShortKeys,
}

/// A key management service that breaks its contract.
#[derive(Debug)]
struct Misbehaving(KeyRing, Misbehaviour);

impl KeyWrapper for Misbehaving {
    async fn wrap(&self, keys: &[(Subject, AesKey)]) -> Result<Vec<WrappedKey>, PersistenceError> {
        let mut wrapped = self.0.wrap(keys).await?;
        match self.1 {
            Misbehaviour::WrapsFewer => drop(wrapped.pop()),
            Misbehaviour::WrapsInAnotherOrder => wrapped.reverse(),
            _ => {}
        }
        Ok(wrapped)
    }

    async fn unwrap(
        &self,
        keys: &[WrappedKey],
    ) -> Result<Vec<Result<AesKey, PersistenceError>>, PersistenceError> {
        let mut unwrapped = self.0.unwrap(keys).await?;
        match self.1 {
            Misbehaviour::UnwrapsFewer => drop(unwrapped.pop()),
            Misbehaviour::UnwrapsShortKeys => unwrapped.fill_with(|| AesKey::random(16)),
            _ => {}
        }
        Ok(unwrapped)
    }
}

#[tokio::test]
async fn a_wrapper_that_breaks_its_contract_is_an_error_and_seals_nothing() {
    let event = || OrderEvent::Renamed { first: name(1, "Alice"), last: name(2, "Smith") };
    for (misbehaviour, kind, reason) in [
        (Misbehaviour::WrapsFewer, ErrorKind::Programming, "did not wrap each of the keys"),
        (Misbehaviour::WrapsInAnotherOrder, ErrorKind::Programming, "did not wrap each of the keys"),
        (Misbehaviour::UnwrapsFewer, ErrorKind::Programming, "has 1 results for 2 keys"),
        (Misbehaviour::UnwrapsShortKeys, ErrorKind::Data, "is an AesKey(128 bits)"),
    ] {
        let log = Arc::new(PopoApplicationRecorder::new());
        let store = MemoryKeyStore::new();
        let keys = SubjectKeys::new(store.clone(), Misbehaving(ring(), misbehaviour));
        let error = orders(&log, &keys).append(ID, Expected::New, [event()]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{misbehaviour:?}: {error}");
        let messages = format!("{error:?}");
        assert!(messages.contains(reason), "{misbehaviour:?}: {messages}");
        // Nothing of it prevents the use of the store.
        let orders = orders(&log, &crate::keys(store));
        orders.append(ID, Expected::New, [event()]).await.unwrap();
        assert_eq!(orders.get::<OrderEvent>(ID, EventRange::all()).await.unwrap()[0].payload, event());
    }
}

/// Returns a log with a value.
async fn recorded(store: impl KeyStore) -> Arc<PopoApplicationRecorder> {
    let log = Arc::new(PopoApplicationRecorder::new());
    orders(&log, &keys(store)).append(ID, Expected::New, [placed(name(1, "Alice"))]).await.unwrap();
    log
}

/// Reads the value with a store that cannot be written, and returns the errors of writing to it.
async fn refused(log: &Arc<PopoApplicationRecorder>, store: impl KeyStore) -> [PersistenceError; 2] {
    let keys = keys(store);
    let orders = orders(log, &keys);
    let read = async || orders.get::<OrderEvent>(ID, EventRange::all()).await.unwrap()[0].payload.clone();
    assert_eq!(read().await, placed(name(1, "Alice")));
    let refused = [
        keys.erase(subject(1), "test").await.map(drop),
        orders.append(Uuid::from_u128(2), Expected::New, [placed(name(2, "Bob"))]).await.map(drop),
    ];
    // An erasure that failed is not taken for one that was recorded.
    assert_eq!(read().await, placed(name(1, "Alice")));
    refused.map(Result::unwrap_err)
}

/// As on a disk that is mounted read-only.
#[tokio::test]
async fn a_file_that_cannot_be_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let log = recorded(SqliteKeyStore::open(&path).await.unwrap()).await;
    let read_only = SqliteKeyStore::open(format!("file:{}?mode=ro", path.display())).await.unwrap();
    for error in refused(&log, read_only).await {
        assert_eq!(error.kind(), ErrorKind::Operational, "{error}");
        assert!(format!("{error:?}").contains("it cannot be read or written"), "{error:?}");
    }
}

/// A backup was restored, or the file was deleted, while a process had it open. SQLite would go on with the
/// old one: it has the keys of subjects that are erased in the new one, and new keys would be lost with it.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_replaced_is_neither_read_nor_written() {
    for is_deleted in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (path, backup) = (directory.path().join("keys.db"), directory.path().join("backup.db"));
        let store = SqliteKeyStore::open(&path).await.unwrap();
        recorded(store.clone()).await;
        if is_deleted {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::copy(&path, &backup).unwrap();
            std::fs::rename(&backup, &path).unwrap();
            let restored = SqliteKeyStore::open(&path).await.unwrap();
            restored.erase(Erasure::now(subject(1), "test")).await.unwrap();
        }
        for refused in [
            store.select(&[subject(1)]).await.map(drop),
            store.insert(vec![wrapped(2)]).await,
            store.erase(Erasure::now(subject(1), "test")).await.map(drop),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Operational);
            assert!(error.to_string().contains("was moved, deleted or replaced"), "{error}");
        }
    }
}

/// As a standby server; a repeated call succeeds when it has become the primary server.
#[tokio::test]
async fn a_server_that_cannot_be_written_is_read() {
    let Some(place) = Postgres::create().await else { return };
    let log = recorded(place.open().await).await;
    for error in refused(&log, place.open_read_only().await).await {
        assert_eq!(error.kind(), ErrorKind::Operational, "{error}");
        assert!(error.is_transient() && error.to_string().contains("25006"), "{error:?}");
    }
}

/// A trigger reports the error of a full disk, which remains until it has room.
#[tokio::test]
async fn a_server_whose_disk_is_full_is_read_and_erases_when_it_has_room() {
    let Some(place) = Postgres::create().await else { return };
    let (pool, store) = (place.pool().await, place.open().await);
    let log = recorded(store.clone()).await;
    let fill = "CREATE FUNCTION report_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON subject_keys EXECUTE FUNCTION report_full()";
    sqlx::raw_sql(fill).execute(&pool).await.unwrap();
    for error in refused(&log, store.clone()).await {
        assert_eq!(error.kind(), ErrorKind::Operational, "{error}");
        assert!(!error.is_transient() && error.to_string().contains("53100"), "{error:?}");
    }
    sqlx::raw_sql("DROP TRIGGER full_disk ON subject_keys").execute(&pool).await.unwrap();
    keys(store.clone()).erase(subject(1), "test").await.unwrap();
    assert!(matches!(store.select(&[subject(1)]).await.unwrap()[..], [KeyRecord::Erased(_)]));
}

/// Each call of SQLite to the disk fails once, while a subject is erased.
#[tokio::test]
async fn an_erasure_on_a_disk_that_fails_is_recorded_or_repeated() {
    let calls = |disk: &Disk| -> u64 {
        disk.calls().iter().filter(|(call, _)| call.changes_the_disk()).map(|(_, times)| times).sum()
    };
    for fault in FAULTS {
        for nth in 1.. {
            let directory = tempfile::tempdir().unwrap();
            let disk = Disk::new(directory.path());
            let store = SqliteKeyStore::open(disk.uri("keys.db")).await.unwrap();
            store.insert(vec![wrapped(1), wrapped(2)]).await.unwrap();

            let before = calls(&disk);
            disk.fail(fault, Operation::changes_the_disk, nth);
            let erased = store.erase(Erasure::now(subject(1), "first")).await;
            if let Err(error) = &erased {
                let is_expected = [ErrorKind::Operational, ErrorKind::Database].contains(&error.kind());
                assert!(is_expected && error.to_string().contains("keys.db"), "{fault:?} {nth}: {error}");
            }
            let is_met = calls(&disk) - before >= nth;
            let salvaged = tempfile::tempdir().unwrap();
            let store = match fault {
                Fault::PowerCut => {
                    disk.cut_power();
                    disk.salvage(nth, salvaged.path()).unwrap();
                    SqliteKeyStore::open(salvaged.path().join("keys.db")).await.unwrap()
                }
                _ => {
                    disk.heal();
                    store
                }
            };
            let records = store.select(&[subject(1), subject(2)]).await.unwrap();
            match (&records[0], &erased) {
                (KeyRecord::Key(key), Err(_)) => assert_eq!(*key, wrapped(1)),
                (KeyRecord::Erased(erasure), Ok(recorded)) => assert_eq!(erasure, recorded),
                // Recorded, although the answer was an error.
                (KeyRecord::Erased(erasure), Err(_)) => assert_eq!(erasure.erased_by, "first"),
                (KeyRecord::Key(_), Ok(_)) => panic!("{fault:?} {nth}: an erasure was lost"),
            }
            assert_eq!(records[1], KeyRecord::Key(wrapped(2)));
            store.erase(Erasure::now(subject(1), "second")).await.unwrap();
            assert!(matches!(store.select(&[subject(1)]).await.unwrap()[..], [KeyRecord::Erased(_)]));
            if !is_met {
                assert!(nth > 3, "an erasure has {nth} calls");
                break;
            }
        }
    }
}

fn wrapped(number: u128) -> WrappedKey {
    WrappedKey { subject: subject(number), key: vec![0xA5; 70].into() }
}
