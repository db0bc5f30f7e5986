//! An open database: recorders by the factory, the codecs of states, and the catalog.

use std::sync::Arc;

use es_core::{DynAggregateRecorder, DynApplicationRecorder, PersistenceError};
use es_factory::InfrastructureFactory;

use crate::{
    arguments::Connection, catalog::Catalog, configuration::Settings, failure::Failure, state::StateDecoder,
};

/// A database that is opened for reading.
///
/// Nothing is created or changed: a file of SQLite is opened with `mode=ro`, and tables of PostgreSQL must
/// exist.
pub(crate) struct Database {
    factory: InfrastructureFactory,
}

impl Database {
    /// Opens the database of the command line.
    pub(crate) fn of(connection: &Connection) -> Result<Self, Failure> {
        Self::open(Settings::find(connection.database.as_deref(), &connection.sources)?)
    }

    /// Opens the database of settings for reading.
    pub(crate) fn open(mut settings: Settings) -> Result<Self, Failure> {
        let resolved = build(&settings)?;
        settings.set("CREATE_TABLE", "no");
        if let Some(name) = resolved.environment().get("SQLITE_DBNAME") {
            settings.set("SQLITE_DBNAME", read_only(name));
        }
        Ok(Self { factory: build(&settings)? })
    }

    /// Returns a recorder of the log.
    pub(crate) async fn log(&self) -> Result<Arc<dyn DynApplicationRecorder>, Failure> {
        Ok(self.factory.application_recorder().await?)
    }

    /// Returns a recorder of snapshots, whose table must exist.
    pub(crate) async fn snapshots(&self) -> Result<Arc<dyn DynAggregateRecorder>, Failure> {
        Ok(self.factory.aggregate_recorder("snapshots").await?)
    }

    pub(crate) fn state_decoder(&self) -> Result<StateDecoder, PersistenceError> {
        Ok(StateDecoder::new(self.factory.cipher()?, self.factory.compressor()?))
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
