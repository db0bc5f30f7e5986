//! An open database: recorders by the factory, the codecs of states, and the catalog.

use std::sync::Arc;

use es_core::{
    DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynSegmentRecorder,
    DynStateMaintenance, PersistenceError,
};
use es_crypto::KeyRing;
use es_factory::{Environment, EnvironmentKeyStore, InfrastructureFactory, Projections};
use es_personal::SubjectErased;

use crate::{
    arguments::Connection,
    catalog::Catalog,
    configuration::Settings,
    failure::Failure,
    sql_writer::SqlWriter,
    state::{Recoder, StateDecoder, StateEncoder},
};

/// A database, opened for reading or for writing.
pub(crate) struct Database {
    factory: InfrastructureFactory,
}

impl Database {
    /// Opens the database of the command line.
    pub(crate) fn of(connection: &Connection) -> Result<Self, Failure> {
        Self::open(Settings::find(connection.database.as_deref(), &connection.sources)?)
    }

    /// Opens the database of settings for reading.
    ///
    /// Nothing is created or changed: a file of SQLite is opened with `mode=ro`, and tables of PostgreSQL
    /// must exist.
    pub(crate) fn open(mut settings: Settings) -> Result<Self, Failure> {
        let resolved = build(&settings)?;
        settings.set("CREATE_TABLE", "no");
        if let Some(name) = resolved.environment().get("SQLITE_DBNAME") {
            settings.set("SQLITE_DBNAME", read_only(name));
        }
        Ok(Self { factory: build(&settings)? })
    }

    /// Opens the database of settings for writing; what is missing is created.
    pub(crate) fn open_for_writing(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self { factory: build(settings)? })
    }

    /// Returns the settings, as they are resolved.
    pub(crate) fn environment(&self) -> &Environment {
        self.factory.environment()
    }

    /// Verifies the tables by the recorders, which refuse those that they cannot work with: of the log, of
    /// positions and of snapshots.
    pub(crate) async fn open_tables(&self) -> [Result<(), PersistenceError>; 3] {
        [
            self.factory.application_recorder().await.map(drop),
            self.factory.tracking_recorder().await.map(drop),
            self.factory.aggregate_recorder("snapshots").await.map(drop),
        ]
    }

    /// Returns a recorder of the log and of positions.
    pub(crate) async fn process(&self) -> Result<Arc<dyn DynProcessRecorder>, Failure> {
        Ok(self.factory.process_recorder().await?)
    }

    /// Returns a recorder of the segments of partitioned consumers.
    pub(crate) async fn segments(&self) -> Result<Arc<dyn DynSegmentRecorder>, Failure> {
        Ok(self.factory.segment_recorder().await?)
    }

    /// Returns the versions of projections.
    pub(crate) fn projections(&self) -> Projections {
        self.factory.projections()
    }

    /// Returns a writer by SQL.
    pub(crate) async fn sql_writer(&self) -> Result<SqlWriter, Failure> {
        SqlWriter::open(self.factory.environment()).await
    }

    /// Returns the function that converts states of this database to those of another.
    pub(crate) fn recoder(&self, target: &Self) -> Result<Recoder, PersistenceError> {
        const CODECS: [&str; 7] = [
            "CIPHER_TOPIC",
            "CIPHER_KEY",
            "CIPHER_KEYS",
            "CIPHER_KEYS_FILE",
            "CIPHER_PRIMARY_KEY_ID",
            "CIPHER_ALGORITHM",
            "COMPRESSOR_TOPIC",
        ];
        let (from, to) = (self.factory.environment(), target.factory.environment());
        if CODECS.iter().all(|name| from.get(name) == to.get(name)) {
            return Ok(Recoder::verbatim());
        }
        Ok(Recoder::new(self.state_decoder()?, target.state_encoder()?))
    }

    /// Returns a recorder of the log.
    pub(crate) async fn log(&self) -> Result<Arc<dyn DynApplicationRecorder>, Failure> {
        Ok(self.factory.application_recorder().await?)
    }

    /// Returns a recorder of snapshots, whose table must exist.
    pub(crate) async fn snapshots(&self) -> Result<Arc<dyn DynAggregateRecorder>, Failure> {
        Ok(self.factory.aggregate_recorder("snapshots").await?)
    }

    /// Returns the key ring.
    pub(crate) fn key_ring(&self) -> Result<KeyRing, Failure> {
        self.factory.key_ring()?.ok_or_else(|| {
            Failure::usage("no key ring is set").with_hint("set CIPHER_KEYS or CIPHER_KEYS_FILE")
        })
    }

    /// Returns the store of the keys of data subjects, if one is set.
    pub(crate) fn subject_keys(&self) -> Result<Option<EnvironmentKeyStore>, Failure> {
        Ok(self.factory.key_store()?)
    }

    /// Records the event of an erasure in the log, unless it has that event.
    pub(crate) async fn record_erased(&self, erased: SubjectErased) -> Result<(), Failure> {
        Ok(erased.record(&self.factory.event_store().await?).await?)
    }

    /// Returns the recorders of the states of the log and, if their table exists, of the snapshots, with the
    /// names of both.
    pub(crate) async fn states(&self) -> Result<Vec<(&'static str, Arc<dyn DynStateMaintenance>)>, Failure> {
        let mut states = vec![("events", self.factory.state_maintenance(None).await?)];
        let has_snapshots = self
            .catalog()
            .await?
            .tables()
            .await?
            .into_iter()
            .any(|(table, exists)| exists && table.ends_with("snapshots"));
        if has_snapshots {
            states.push(("snapshots", self.factory.state_maintenance(Some("snapshots")).await?));
        }
        Ok(states)
    }

    pub(crate) fn state_decoder(&self) -> Result<StateDecoder, PersistenceError> {
        Ok(StateDecoder::new(self.factory.cipher()?, self.factory.compressor()?))
    }

    pub(crate) fn state_encoder(&self) -> Result<StateEncoder, PersistenceError> {
        Ok(StateEncoder::new(self.factory.cipher()?, self.factory.compressor()?))
    }

    pub(crate) async fn catalog(&self) -> Result<Catalog, Failure> {
        Catalog::open(self.factory.environment()).await
    }

    /// Returns whether a cipher and a compressor are set.
    pub(crate) fn codecs(&self) -> Result<(bool, bool), PersistenceError> {
        Ok((self.factory.cipher()?.is_some(), self.factory.compressor()?.is_some()))
    }

    pub(crate) async fn close(&self) -> Result<(), Failure> {
        Ok(self.factory.close().await?)
    }
}

fn build(settings: &Settings) -> Result<InfrastructureFactory, PersistenceError> {
    InfrastructureFactory::builder(settings.application.clone()).environment(settings.variables()).build()
}

/// Returns the name of a file of SQLite as a URI that opens it for reading.
fn read_only(name: &str) -> String {
    let uri = match name.strip_prefix("file:") {
        _ if name == ":memory:" => return name.to_owned(),
        Some(_) if name.contains("mode=") || name.contains("immutable=") => return name.to_owned(),
        Some(_) => name.to_owned(),
        None => format!("file:{}", name.replace('%', "%25").replace('?', "%3f").replace('#', "%23")),
    };
    let separator = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{separator}mode=ro")
}

#[cfg(test)]
mod tests {
    use super::read_only;

    #[test]
    fn names_of_files_become_uris() {
        assert_eq!(read_only("a b.db"), "file:a b.db?mode=ro");
        assert_eq!(read_only("50%?.db"), "file:50%25%3f.db?mode=ro");
        assert_eq!(read_only("file:a.db?cache=shared"), "file:a.db?cache=shared&mode=ro");
        assert_eq!(read_only("file:a.db?immutable=1"), "file:a.db?immutable=1");
    }
}
