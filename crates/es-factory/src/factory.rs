//! The infrastructure factory: recorders, mapper and event store from environment variables.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use es_core::{
    Cipher, Compressor, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynSegmentRecorder,
    DynStateMaintenance, DynTrackingRecorder, EventStore, Mapper, PersistenceError, RecorderTables,
    serde::de::DeserializeOwned,
};
use es_transcode::JsonTranscoder;

use crate::{
    Backend, Environment, Projections, Registry, Sql, SqlProjection, SqlProjector, SqlRow,
    VersionedProjection, VersionedProjector, sql::Typed, typos,
};

/// The purpose of the table of snapshots.
const SNAPSHOTS: &str = "snapshots";

/// Builds the parts of an application's event store from its environment.
///
/// The recorders of one factory share one datastore: a connection pool, a writer, or memory.
///
/// # Example
/// ```
/// use es_core::{AggregateRecorder, ApplicationRecorder, Bytes, StoredEvent, Topic, uuid::Uuid};
/// use es_factory::InfrastructureFactory;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), es_core::PersistenceError> {
/// // `InfrastructureFactory::construct("Bank")` reads the environment of the process instead.
/// let factory = InfrastructureFactory::builder("Bank")
///     .environment([("PERSISTENCE_MODULE", "sqlite"), ("BANK_SQLITE_DBNAME", ":memory:")])
///     .build()?;
/// let recorder = factory.application_recorder().await?;
/// let opened = StoredEvent {
///     originator_id: Uuid::from_u128(1),
///     originator_version: 1,
///     topic: Topic::from_static("bank:Account.Opened"),
///     state: Bytes::from_static(b"{}"),
/// };
/// assert_eq!(recorder.insert_events(vec![opened]).await?, [1]);
///
/// // Both recorders use the same database.
/// let tracked = factory.process_recorder().await?;
/// assert_eq!(tracked.max_notification_id().await?, Some(1));
/// factory.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct InfrastructureFactory {
    environment: Environment,
    registry: Registry,
    transcoder: JsonTranscoder,
    #[cfg(feature = "personal")]
    personal: crate::personal::PersonalValues,
    backend: Arc<dyn Backend>,
    is_closed: AtomicBool,
}

impl InfrastructureFactory {
    /// Builds a factory for an application from the environment of this process.
    ///
    /// An application with an empty name has only the common settings.
    ///
    /// # Errors
    /// As [`FactoryBuilder::build`].
    pub fn construct(application_name: impl Into<String>) -> Result<Self, PersistenceError> {
        Self::builder(application_name).build()
    }

    /// Returns a builder of a factory for an application, with further options.
    pub fn builder(application_name: impl Into<String>) -> FactoryBuilder {
        FactoryBuilder {
            application_name: application_name.into(),
            environment: None,
            registry: Registry::standard(),
            transcoder: JsonTranscoder::default(),
            #[cfg(feature = "personal")]
            personal: Default::default(),
        }
    }

    /// The settings that the factory reads.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// A recorder of the events of aggregates for a purpose, in a table of their own: `stored_P` on
    /// SQLite, `<application>_P` on PostgreSQL.
    ///
    /// # Errors
    /// If the datastore cannot be opened, or the purpose cannot be part of a table's name.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn aggregate_recorder(
        &self,
        purpose: &str,
    ) -> Result<Arc<dyn DynAggregateRecorder>, PersistenceError> {
        self.aggregate_recorder_with(purpose, &RecorderTables::new()).await
    }

    /// A recorder as [`aggregate_recorder`](Self::aggregate_recorder) returns it, in another table.
    ///
    /// # Errors
    /// As [`aggregate_recorder`](Self::aggregate_recorder);
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) for names in memory.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn aggregate_recorder_with(
        &self,
        purpose: &str,
        tables: &RecorderTables,
    ) -> Result<Arc<dyn DynAggregateRecorder>, PersistenceError> {
        self.backend()?.aggregate_recorder(purpose, tables).await
    }

    /// A recorder of the application's events.
    ///
    /// # Errors
    /// If the datastore cannot be opened.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn application_recorder(&self) -> Result<Arc<dyn DynApplicationRecorder>, PersistenceError> {
        self.application_recorder_with(&RecorderTables::new()).await
    }

    /// A recorder as [`application_recorder`](Self::application_recorder) returns it, in other tables.
    ///
    /// # Errors
    /// As [`application_recorder`](Self::application_recorder);
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) for names in memory, and for another table of
    /// tracking records on SQLite.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn application_recorder_with(
        &self,
        tables: &RecorderTables,
    ) -> Result<Arc<dyn DynApplicationRecorder>, PersistenceError> {
        self.backend()?.application_recorder(tables).await
    }

    /// A recorder of tracking positions.
    ///
    /// # Errors
    /// If the datastore cannot be opened.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tracking_recorder(&self) -> Result<Arc<dyn DynTrackingRecorder>, PersistenceError> {
        self.tracking_recorder_with(&RecorderTables::new()).await
    }

    /// A recorder as [`tracking_recorder`](Self::tracking_recorder) returns it, in other tables.
    ///
    /// # Errors
    /// As [`tracking_recorder`](Self::tracking_recorder); [`NotSupported`](es_core::ErrorKind::NotSupported)
    /// for names in memory, and for another table of tracking records on SQLite.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tracking_recorder_with(
        &self,
        tables: &RecorderTables,
    ) -> Result<Arc<dyn DynTrackingRecorder>, PersistenceError> {
        self.backend()?.tracking_recorder(tables).await
    }

    /// A recorder of the segments of partitioned consumers, beside the positions of the
    /// [`tracking_recorder`](Self::tracking_recorder).
    ///
    /// # Errors
    /// If the datastore cannot be opened; [`NotSupported`](es_core::ErrorKind::NotSupported) for a datastore
    /// of your own that does not implement it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn segment_recorder(&self) -> Result<Arc<dyn DynSegmentRecorder>, PersistenceError> {
        self.backend()?.segment_recorder().await
    }

    /// A recorder of the application's events and its tracking positions.
    ///
    /// # Errors
    /// If the datastore cannot be opened.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn process_recorder(&self) -> Result<Arc<dyn DynProcessRecorder>, PersistenceError> {
        self.process_recorder_with(&RecorderTables::new()).await
    }

    /// A recorder as [`process_recorder`](Self::process_recorder) returns it, in other tables.
    ///
    /// # Errors
    /// As [`process_recorder`](Self::process_recorder); [`NotSupported`](es_core::ErrorKind::NotSupported)
    /// for names in memory, and for another table of tracking records on SQLite.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn process_recorder_with(
        &self,
        tables: &RecorderTables,
    ) -> Result<Arc<dyn DynProcessRecorder>, PersistenceError> {
        self.backend()?.process_recorder(tables).await
    }

    /// [Sets up](SqlProjection::set_up) a projection and returns a projector, which records its position in
    /// this datastore: SQLite or PostgreSQL, as the environment says.
    ///
    /// ```
    /// # use es_core::{ApplicationRecorder, Event, TrackingRecorderExt};
    /// # use es_factory::{InfrastructureFactory, SqlProjection};
    /// use es_process::Processor;
    ///
    /// # async fn example<R: ApplicationRecorder + Clone, P: SqlProjection>(
    /// #     factory: InfrastructureFactory,
    /// #     orders: R,
    /// #     sales: P,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let projector = factory.projector(sales).await?;
    /// Processor::with_consumer("sales", orders, projector)
    ///     .topics(P::Event::TOPICS)
    ///     .run()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the projection cannot be set up, with the
    /// statement's error as the source; [`NotSupported`](es_core::ErrorKind::NotSupported) if the datastore
    /// has no SQL (`popo`); as [`mapper`](Self::mapper) and [`tracking_recorder`](Self::tracking_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe: either the projection is set up or it is not.
    pub async fn projector<P: SqlProjection>(
        &self,
        projection: P,
    ) -> Result<SqlProjector<P>, PersistenceError> {
        let mapper = self.mapper()?;
        let typed = Typed { projection, mapper: mapper.clone() };
        Ok(SqlProjector::new(self.backend()?.projector(Box::new(typed)).await?, mapper))
    }

    /// Registers a version of a projection, sets it up, and returns a projector, which records its position
    /// in this datastore. The first version of a projection is active at once; a later one is built beside
    /// it, until [`projections`](Self::projections) switches to it.
    ///
    /// Version 1 takes over a projection of the same name without versions: it renames the tables, and
    /// continues at the position. Stop the processors of that projection before.
    ///
    /// A name, and the name of a table, is used by one projection of the database, or of the schema on
    /// PostgreSQL.
    ///
    /// ```
    /// # use es_core::{ApplicationRecorder, Event};
    /// # use es_factory::{InfrastructureFactory, VersionedProjection};
    /// use es_process::Processor;
    ///
    /// # async fn example<R: ApplicationRecorder + Clone, P: VersionedProjection>(
    /// #     factory: InfrastructureFactory,
    /// #     orders: R,
    /// #     sales: P,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let projector = factory.versioned_projector("sales", 2, sales).await?;
    /// Processor::with_consumer(projector.consumer_name().to_owned(), orders, projector)
    ///     .topics(P::Event::TOPICS)
    ///     .run()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the version was dropped, or registered with other
    /// tables; if another projection has the name or a table, or a relation stands where a view is to be; if
    /// a name is invalid; as [`projector`](Self::projector).
    ///
    /// # Cancel safety
    /// Cancel safe: either the version is registered and set up, or nothing is changed.
    pub async fn versioned_projector<P: VersionedProjection>(
        &self,
        name: impl Into<String>,
        version: u32,
        projection: P,
    ) -> Result<VersionedProjector<P>, PersistenceError> {
        self.backend()?;
        let version = (name.into(), version);
        VersionedProjector::new(Arc::clone(&self.backend), self.mapper()?, version, projection).await
    }

    /// Returns the versions of the projections of this datastore, to switch between them.
    pub fn projections(&self) -> Projections {
        Projections::new(Arc::clone(&self.backend))
    }

    /// Runs a query in a read-only transaction, for example on the tables of a projection, and deserializes
    /// its rows: to structs by the names of the columns, to tuples by their order, to other types from the
    /// only column.
    ///
    /// ```
    /// use es_factory::{InfrastructureFactory, Sql};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), es_core::PersistenceError> {
    /// # let settings = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:")];
    /// # let factory = InfrastructureFactory::builder("Bank").environment(settings).build()?;
    /// let sum = Sql::new("SELECT CAST($1 + 2 AS BIGINT) AS sum, 'EUR' AS currency").bind(40);
    /// let sums: Vec<(i64, String)> = factory.query(sum).await?;
    /// assert_eq!(sums, [(42, "EUR".to_owned())]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Columns of the types in the table of [`Sql`] can be read; on PostgreSQL also shorter integers and
    /// other texts. Cast others, such as the sum of a `bigint` column (`numeric`).
    ///
    /// # Errors
    /// Errors of the database, among them that the query writes; [`Data`](es_core::ErrorKind::Data) if a row
    /// does not match `T`; [`NotSupported`](es_core::ErrorKind::NotSupported) for a column of another type,
    /// or if the datastore has no SQL (`popo`).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn query<T: DeserializeOwned>(&self, query: Sql) -> Result<Vec<T>, PersistenceError> {
        self.backend()?.query(query).await?.into_iter().map(SqlRow::deserialize).collect()
    }

    /// A recorder that reads and replaces the states of recorded events: those of the application, or of a
    /// purpose, such as `snapshots`. A re-encryption uses it.
    ///
    /// # Errors
    /// If the datastore cannot be opened; [`NotSupported`](es_core::ErrorKind::NotSupported) in memory.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn state_maintenance(
        &self,
        purpose: Option<&str>,
    ) -> Result<Arc<dyn DynStateMaintenance>, PersistenceError> {
        self.backend()?.state_maintenance(purpose).await
    }

    /// The key ring, if one is set: a ring of its own, with the keys of the [`cipher`](Self::cipher).
    ///
    /// # Errors
    /// If its settings are missing or unusable.
    #[cfg(feature = "aes")]
    pub fn key_ring(&self) -> Result<Option<es_crypto::KeyRing>, PersistenceError> {
        let read = || crate::key_ring::key_ring(&self.environment);
        Registry::is_key_ring(&self.environment).then(read).transpose()
    }

    /// The cipher, if one is set.
    ///
    /// # Errors
    /// If the setting names no known cipher, or its key is missing or unusable.
    pub fn cipher(&self) -> Result<Option<Arc<dyn Cipher>>, PersistenceError> {
        self.registry.cipher(&self.environment)
    }

    /// The compressor, if one is set.
    ///
    /// # Errors
    /// If the setting names no known compressor.
    pub fn compressor(&self) -> Result<Option<Arc<dyn Compressor>>, PersistenceError> {
        self.registry.compressor(&self.environment)
    }

    /// The store of the keys of data subjects, if one is set.
    ///
    /// # Errors
    /// If the setting cannot be read.
    #[cfg(feature = "personal")]
    pub fn key_store(&self) -> Result<Option<crate::EnvironmentKeyStore>, PersistenceError> {
        crate::EnvironmentKeyStore::of(&self.environment)
    }

    /// The keys of data subjects, if a [key store](Self::key_store) is set: those with which the
    /// [mapper](Self::mapper) seals personal values. They are wrapped by the keys of `CIPHER_KEYS` and
    /// `CIPHER_KEYS_FILE`.
    ///
    /// # Errors
    /// If the settings of the key store or of the key ring are missing or unusable.
    #[cfg(feature = "personal")]
    pub fn subject_keys(&self) -> Result<Option<es_personal::SubjectKeys>, PersistenceError> {
        self.personal.keys(&self.environment)
    }

    /// A mapper of the builder's transcoder, and of compressor and cipher as set. If a key store is set, it
    /// has personal values of the registered types (`FactoryBuilder::personal`), and sealed events.
    ///
    /// # Errors
    /// As [`compressor`](Self::compressor) and [`cipher`](Self::cipher), and with the feature `personal` as
    /// `subject_keys`.
    pub fn mapper(&self) -> Result<Mapper<JsonTranscoder>, PersistenceError> {
        #[cfg_attr(not(feature = "personal"), allow(unused_mut, reason = "nothing is registered"))]
        let mut transcoder = self.transcoder.clone();
        #[cfg(feature = "personal")]
        self.personal.register(&self.environment, &mut transcoder)?;
        let mut mapper = Mapper::new(transcoder);
        if let Some(compressor) = self.compressor()? {
            mapper = mapper.with_compressor(compressor);
        }
        if let Some(cipher) = self.cipher()? {
            mapper = mapper.with_cipher(cipher);
        }
        Ok(mapper)
    }

    /// A store of the application's events.
    ///
    /// For one that also tracks, put a [`mapper`](Self::mapper) in front of a
    /// [`process_recorder`](Self::process_recorder).
    ///
    /// # Errors
    /// As [`mapper`](Self::mapper) and [`application_recorder`](Self::application_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn event_store(
        &self,
    ) -> Result<EventStore<Arc<dyn DynApplicationRecorder>, JsonTranscoder>, PersistenceError> {
        // The settings first: without the mapper, the datastore is not opened.
        let mapper = self.mapper()?;
        Ok(EventStore::new(self.application_recorder().await?, mapper))
    }

    /// A store of the application's snapshots, if snapshotting is enabled.
    ///
    /// # Errors
    /// As [`mapper`](Self::mapper), [`aggregate_recorder`](Self::aggregate_recorder) and
    /// [`is_snapshotting_enabled`](Self::is_snapshotting_enabled).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn snapshot_store(
        &self,
    ) -> Result<Option<EventStore<Arc<dyn DynAggregateRecorder>, JsonTranscoder>>, PersistenceError> {
        if !self.is_snapshotting_enabled()? {
            return Ok(None);
        }
        let mapper = self.mapper()?;
        Ok(Some(EventStore::new(self.aggregate_recorder(SNAPSHOTS).await?, mapper)))
    }

    /// Returns the setting `IS_SNAPSHOTTING_ENABLED`; false by default.
    ///
    /// # Errors
    /// If the setting is neither yes nor no.
    pub fn is_snapshotting_enabled(&self) -> Result<bool, PersistenceError> {
        self.environment.boolean("IS_SNAPSHOTTING_ENABLED", false)
    }

    /// Waits for accepted writes of this factory's recorders, then closes the datastore. The factory
    /// returns no recorders after that.
    ///
    /// # Errors
    /// If the datastore cannot be closed.
    ///
    /// # Cancel safety
    /// A dropped future does not stop the closing.
    pub async fn close(&self) -> Result<(), PersistenceError> {
        self.is_closed.store(true, Ordering::Release);
        self.backend.close().await
    }

    fn backend(&self) -> Result<&dyn Backend, PersistenceError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(PersistenceError::interface("the factory is closed"));
        }
        Ok(self.backend.as_ref())
    }
}

/// The builder of a factory.
#[derive(Debug)]
#[must_use = "build the factory"]
pub struct FactoryBuilder {
    application_name: String,
    environment: Option<Environment>,
    registry: Registry,
    transcoder: JsonTranscoder,
    #[cfg(feature = "personal")]
    personal: crate::personal::PersonalValues,
}

impl FactoryBuilder {
    /// Reads these variables instead of the environment of the process.
    pub fn environment<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.environment = Some(Environment::new(self.application_name.clone(), variables));
        self
    }

    /// Sets the registry, which defines the names of parts.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Encodes with this transcoder, for example one with transcodings of the application's own.
    pub fn transcoder(mut self, transcoder: JsonTranscoder) -> Self {
        self.transcoder = transcoder;
        self
    }

    /// Lets the [mapper](InfrastructureFactory::mapper) write and read values of type
    /// [`Personal<T>`](es_personal::Personal), with the keys of the environment's key store, which must be
    /// set then.
    #[cfg(feature = "personal")]
    pub fn personal<T>(mut self) -> Self
    where
        T: serde::Serialize + DeserializeOwned + 'static,
    {
        self.personal.types.push(es_personal::SubjectKeys::register::<T>);
        self
    }

    /// Builds the factory, without opening the datastore.
    ///
    /// Cipher and compressor are made with the [mapper](InfrastructureFactory::mapper) of a store: a program
    /// that needs recorders only needs no keys.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if a setting is missing or cannot be read;
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) if a setting selects a part that is not compiled
    /// in. The error names the setting.
    pub fn build(self) -> Result<InfrastructureFactory, PersistenceError> {
        let environment = self
            .environment
            .unwrap_or_else(|| Environment::of_process(self.application_name))
            .with_database_url()?;
        let password_provider = self.registry.password_provider(&environment);
        let environment = environment.with_password_provider(password_provider);
        require_uuid_ids(&environment)?;
        warn_of_ignored(&environment);
        typos::warn_of_typos(&environment);
        let backend = self.registry.backend(&environment)?;
        let factory = InfrastructureFactory {
            environment,
            registry: self.registry,
            transcoder: self.transcoder,
            #[cfg(feature = "personal")]
            personal: self.personal,
            backend,
            is_closed: AtomicBool::new(false),
        };
        factory.is_snapshotting_enabled()?;
        Ok(factory)
    }
}

/// Logs a warning for a setting of the Python library that has no effect here.
fn warn_of_ignored(environment: &Environment) {
    const SETTING: &str = "SINGLE_ROW_TRACKING";
    if environment.get(SETTING).is_some() {
        let instead =
            "a tracking table is used in the layout it has, and a new one has one row for each application";
        tracing::warn!(setting = SETTING, instead, "a setting of the environment has no effect");
    }
}

fn require_uuid_ids(environment: &Environment) -> Result<(), PersistenceError> {
    const KEY: &str = "ORIGINATOR_ID_TYPE";
    match environment.get(KEY) {
        None | Some("uuid") => Ok(()),
        Some("text") => Err(PersistenceError::not_supported(
            "originator ids of type text (ORIGINATOR_ID_TYPE) are not supported",
        )),
        Some(other) => Err(environment.unreadable(KEY, other, "uuid")),
    }
}
