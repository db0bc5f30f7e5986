//! A copy of a database that Python wrote, and its expected content.

use std::{any::Any, collections::HashMap, fs, marker::PhantomData, path::PathBuf};

use es_persistence::{
    EventStore, Transcoder,
    factory::InfrastructureFactory,
    transcode::{JsonTranscoder, Value},
};
use serde::Deserialize;
use uuid::Uuid;

use crate::{Store, bank};

/// The expected content, read from the file next to the database.
#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) notifications: Vec<ExpectedEvent>,
    pub(crate) snapshots: Vec<ExpectedEvent>,
    env: HashMap<String, String>,
}

#[derive(Deserialize)]
pub(crate) struct ExpectedEvent {
    pub(crate) id: Option<i64>,
    pub(crate) originator_id: Uuid,
    pub(crate) originator_version: i64,
    pub(crate) topic: String,
    pub(crate) state_hex: String,
    #[serde(default)]
    pub(crate) attributes: Value,
}

/// A copy of a database, and its expected content.
pub(crate) struct Database {
    pub(crate) expected: Expected,
    /// The location of the copy.
    settings: Vec<(String, String)>,
    /// Removes the copy when it is dropped.
    _guard: Box<dyn Any>,
}

impl Database {
    /// The file in a directory of its own.
    pub(crate) async fn sqlite(name: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bank.db");
        fs::copy(testdata(&format!("{name}.db")), &path).unwrap();
        let settings = vec![("SQLITE_DBNAME".to_owned(), path.display().to_string())];
        Some(Self { expected: Expected::of(name), settings, _guard: Box::new(folder) })
    }

    /// The dump in a database of its own; `None` if the tests are configured to run without PostgreSQL.
    #[cfg(feature = "postgres")]
    pub(crate) async fn postgres(name: &str) -> Option<Self> {
        let dump = fs::read_to_string(testdata(&format!("{name}.sql"))).unwrap();
        let restored = crate::postgres::Restored::from_dump(&dump).await?;
        Some(Self { expected: Expected::of(name), settings: restored.settings(), _guard: Box::new(restored) })
    }

    /// A factory with the same settings that Python used.
    pub(crate) fn factory(&self) -> InfrastructureFactory {
        let written = self.expected.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        InfrastructureFactory::builder("bank")
            .environment(written.chain(self.settings.clone()))
            .transcoder(bank::transcoder())
            .build()
            .unwrap()
    }

    pub(crate) async fn store(&self) -> Store {
        let factory = self.factory();
        EventStore::new(factory.process_recorder().await.unwrap(), factory.mapper().unwrap())
    }
}

impl Expected {
    fn of(name: &str) -> Self {
        let expected = fs::read(testdata(&format!("{name}.json"))).unwrap();
        // Not by serde_json alone: the integers may be larger than its own.
        JsonTranscoder::new().decode(PhantomData::<Self>, &expected).unwrap()
    }
}

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/python")).join(name)
}
