//! Tests of factories that are built from an environment.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, BoxFuture, Cipher, Compressor, DynAggregateRecorder,
    DynApplicationRecorder, DynProcessRecorder, DynTrackingRecorder, ErrorKind, EventContext, EventRange,
    PersistenceError, Recorder, RecorderTables, Tracking, TrackingRecorder,
};
use es_factory::{Backend, InfrastructureFactory, Registry};
use support::event;

fn build(variables: &[(&str, &str)]) -> Result<InfrastructureFactory, PersistenceError> {
    InfrastructureFactory::builder("Bank").environment(variables.iter().copied()).build()
}

fn refusal(variables: &[(&str, &str)]) -> PersistenceError {
    build(variables).unwrap_err()
}

#[tokio::test]
async fn an_empty_environment_means_memory_without_codecs() {
    let factory = build(&[]).unwrap();
    assert!(factory.cipher().unwrap().is_none());
    assert!(factory.compressor().unwrap().is_none());
    assert!(!factory.is_snapshotting_enabled().unwrap());
    assert!(factory.snapshot_store().await.unwrap().is_none());
    assert_eq!(
        factory.application_recorder().await.unwrap().insert_events(vec![event(1)]).await.unwrap(),
        [1]
    );
}

#[tokio::test]
async fn a_database_url_selects_module_and_database_unless_they_are_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("the bank.db").display().to_string();
    let url = format!("sqlite://{}", file.replace(' ', "%20"));
    let factory = build(&[("DATABASE_URL", &url)]).unwrap();
    factory.application_recorder().await.unwrap().insert_events(vec![event(1)]).await.unwrap();
    factory.close().await.unwrap();
    let explicit =
        [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", file.as_str()), ("DATABASE_URL", "sqlite:no")];
    let with_mode = format!("sqlite://{file}?mode=ro");
    for variables in
        [explicit.as_slice(), &[("BANK_DATABASE_URL", &with_mode), ("DATABASE_URL", "sqlite:no")]]
    {
        let recorder = build(variables).unwrap().application_recorder().await.unwrap();
        assert_eq!(recorder.max_notification_id().await.unwrap(), Some(1), "the same file");
    }
    assert!(build(&[("DATABASE_URL", "sqlite::memory:"), ("PERSISTENCE_MODULE", "popo")]).is_ok());
}

#[test]
fn an_unusable_database_url_is_an_error_without_its_password() {
    for url in ["mysql://me:secret@host/bank", "secret", "", "sqlite:%ff"] {
        match build(&[("DATABASE_URL", url)]) {
            Ok(_) => assert!(url.is_empty(), "{url}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Programming);
                assert!(error.to_string().starts_with("environment variable DATABASE_URL: "), "{error}");
                assert!(!error.to_string().contains("secret"), "{error}");
            }
        }
    }
}

/// Python's recorders of one application share a database, in memory too.
#[tokio::test]
async fn recorders_of_a_factory_share_their_datastore() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("bank.db").display().to_string();
    for variables in [
        vec![("PERSISTENCE_MODULE", "popo")],
        vec![("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:")],
        vec![("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", &database)],
    ] {
        let factory = build(&variables).unwrap();
        factory.application_recorder().await.unwrap().insert_events(vec![event(1)]).await.unwrap();
        let process = factory.process_recorder().await.unwrap();
        assert_eq!(process.max_notification_id().await.unwrap(), Some(1));
        let tracking = factory.tracking_recorder().await.unwrap();
        tracking.insert_tracking(Tracking::new("upstream", 5).unwrap()).await.unwrap();
        assert_eq!(process.max_tracking_id("upstream").await.unwrap(), Some(5));

        // Another purpose is another table.
        let snapshots = factory.aggregate_recorder("snapshots").await.unwrap();
        assert!(snapshots.insert_events(vec![event(1)]).await.unwrap().is_empty());
        let again = factory.aggregate_recorder("snapshots").await.unwrap();
        let all = EventRange::all();
        assert_eq!(again.select_events(event(1).originator_id, all).await.unwrap(), [event(1)]);

        factory.close().await.unwrap();
        let closed = process.insert_events(vec![event(2)]).await.unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::Interface);
        process.close().await.unwrap();
    }
}

#[test]
fn every_known_name_chooses_its_part() {
    for (names, key, also) in [
        (
            &["memory", "popo", "eventsourcing.popo", "eventsourcing.popo:Factory"][..],
            "PERSISTENCE_MODULE",
            ("A", ""),
        ),
        (
            &["sqlite", "eventsourcing.sqlite", "eventsourcing.sqlite:Factory"],
            "INFRASTRUCTURE_FACTORY",
            ("SQLITE_DBNAME", ":memory:"),
        ),
        (
            &["aes", "eventsourcing.cipher:AESCipher", "eventsourcing.cryptography:AESCipher"],
            "CIPHER_TOPIC",
            ("CIPHER_KEY", "SuvoWcmz3Tg+KemGGGirdQ=="),
        ),
        (&["zlib", "eventsourcing.compressor:ZlibCompressor"], "COMPRESSOR_TOPIC", ("A", "")),
    ] {
        for name in names {
            build(&[(key, name), also]).unwrap_or_else(|error| panic!("{key}={name}: {error}"));
        }
    }
}

#[test]
fn persistence_module_comes_before_infrastructure_factory() {
    let both = [("PERSISTENCE_MODULE", "popo"), ("INFRASTRUCTURE_FACTORY", "no-such-backend")];
    build(&both).unwrap();
}

#[test]
fn an_unknown_name_is_an_error_that_lists_the_known_names() {
    let error = refusal(&[("PERSISTENCE_MODULE", "oracle")]);
    assert_eq!(error.kind(), ErrorKind::Programming);
    let message = error.to_string();
    for part in ["PERSISTENCE_MODULE", "\"oracle\"", "popo", "eventsourcing.sqlite:Factory"] {
        assert!(message.contains(part), "{message}");
    }
    let error = |variables| build(variables).unwrap().mapper().unwrap_err().to_string();
    assert!(error(&[("COMPRESSOR_TOPIC", "rar")]).contains("zlib"));
    assert!(error(&[("CIPHER_TOPIC", "rot13"), ("CIPHER_KEY", "k")]).contains("aes"));
}

/// A tool that copies recorded events failed without the key that it did not need.
#[tokio::test]
async fn recorders_need_no_mapper_and_stores_fail_early() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.db");
    let settings = [
        ("PERSISTENCE_MODULE", "sqlite"),
        ("SQLITE_DBNAME", file.to_str().unwrap()),
        ("CIPHER_TOPIC", "our.own:Cipher"),
        ("IS_SNAPSHOTTING_ENABLED", "y"),
    ];
    let factory = build(&settings).unwrap();
    let errors = [
        factory.event_store().await.map(drop).unwrap_err(),
        factory.snapshot_store().await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("CIPHER_TOPIC"), "{error}");
    }
    assert!(!file.exists(), "the database was not opened");
    let recorder = factory.application_recorder().await.unwrap();
    assert_eq!(recorder.insert_events(vec![event(1)]).await.unwrap(), [1]);
}

#[cfg(not(feature = "zstd"))]
#[test]
fn a_part_that_is_not_compiled_in_is_an_error_that_names_the_feature() {
    let error = build(&[("COMPRESSOR_TOPIC", "zstd")]).unwrap().mapper().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.to_string().contains("feature `zstd`"), "{error}");
}

#[test]
fn a_key_alone_means_aes_and_a_topic_needs_a_key() {
    assert!(build(&[("CIPHER_KEY", "SuvoWcmz3Tg+KemGGGirdQ==")]).unwrap().cipher().unwrap().is_some());
    let error = build(&[("CIPHER_TOPIC", "aes")]).unwrap().cipher().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains("CIPHER_KEY"), "{error}");
}

#[test]
fn originator_ids_are_uuids() {
    build(&[("ORIGINATOR_ID_TYPE", "uuid")]).unwrap();
    assert_eq!(refusal(&[("ORIGINATOR_ID_TYPE", "text")]).kind(), ErrorKind::NotSupported);
    assert_eq!(refusal(&[("ORIGINATOR_ID_TYPE", "int")]).kind(), ErrorKind::Programming);
}

#[test]
fn invalid_settings_are_errors_when_the_factory_is_built() {
    let sqlite = ("PERSISTENCE_MODULE", "sqlite");
    assert!(refusal(&[sqlite]).to_string().contains("SQLITE_DBNAME"));
    let memory = ("SQLITE_DBNAME", ":memory:");
    assert!(refusal(&[sqlite, memory, ("SQLITE_LOCK_TIMEOUT", "a while")]).to_string().contains("a while"));
    assert!(refusal(&[sqlite, memory, ("CREATE_TABLE", "2")]).to_string().contains("CREATE_TABLE"));
    assert!(refusal(&[("IS_SNAPSHOTTING_ENABLED", "always")]).to_string().contains("always"));
}

#[tokio::test]
async fn create_table_off_creates_no_tables() {
    let settings = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:"), ("CREATE_TABLE", "n")];
    let recorder = build(&settings).unwrap().application_recorder().await.unwrap();
    let error = recorder.insert_events(vec![event(1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains("stored_events"), "{error}");
}

#[derive(Debug)]
struct Reversed;

impl Compressor for Reversed {
    fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        out.extend(data.iter().rev());
        Ok(())
    }

    fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        self.compress(data, out)
    }
}

#[test]
fn a_registered_name_replaces_the_part_that_had_it() {
    let mut registry = Registry::standard();
    registry.register_compressor("zlib", |_| Ok(Arc::new(Reversed)));
    let factory = InfrastructureFactory::builder("Bank")
        .environment([("COMPRESSOR_TOPIC", "zlib")])
        .registry(registry)
        .build()
        .unwrap();
    let mut compressed = Vec::new();
    factory.compressor().unwrap().unwrap().compress(b"abc", &mut compressed).unwrap();
    assert_eq!(compressed, b"cba");
}

/// A cipher without encryption, which shows its configuration.
#[derive(Debug)]
struct Labelled(String);

impl Cipher for Labelled {
    fn encrypt(
        &self,
        _context: &EventContext<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        out.extend(self.0.bytes().chain(plaintext.iter().copied()));
        Ok(())
    }

    fn decrypt(
        &self,
        _context: &EventContext<'_>,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let plaintext = ciphertext.strip_prefix(self.0.as_bytes());
        out.extend(plaintext.ok_or_else(|| PersistenceError::data("another label"))?);
        Ok(())
    }
}

#[test]
fn a_registered_cipher_reads_the_environment() {
    let mut registry = Registry::standard();
    registry.register_cipher("labels", |environment| {
        let label =
            environment.get("CIPHER_LABEL").ok_or_else(|| PersistenceError::programming("no label"))?;
        Ok(Arc::new(Labelled(label.to_owned())))
    });
    let build = |variables: &[(&str, &str)]| {
        let variables = variables.iter().copied();
        InfrastructureFactory::builder("Bank").environment(variables).registry(registry.clone()).build()
    };
    let labels = ("CIPHER_TOPIC", "labels");
    let factory = build(&[labels, ("BANK_CIPHER_LABEL", "mine: ")]).unwrap();
    let cipher = factory.cipher().unwrap().unwrap();
    let event = event(1);
    let mut encrypted = Vec::new();
    cipher.encrypt(&event.context(), b"abc", &mut encrypted).unwrap();
    assert_eq!(encrypted, b"mine: abc");
    assert!(build(&[labels]).unwrap().cipher().unwrap_err().to_string().contains("no label"));
}

/// A datastore of the program's own: here that of another factory.
#[derive(Debug)]
struct Own(Arc<InfrastructureFactory>);

impl Backend for Own {
    fn aggregate_recorder<'a>(
        &'a self,
        purpose: &'a str,
        _: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>> {
        Box::pin(self.0.aggregate_recorder(purpose))
    }

    fn application_recorder<'a>(
        &'a self,
        _: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynApplicationRecorder>> {
        Box::pin(self.0.application_recorder())
    }

    fn tracking_recorder<'a>(&'a self, _: &'a RecorderTables) -> BoxFuture<'a, Arc<dyn DynTrackingRecorder>> {
        Box::pin(self.0.tracking_recorder())
    }

    fn process_recorder<'a>(&'a self, _: &'a RecorderTables) -> BoxFuture<'a, Arc<dyn DynProcessRecorder>> {
        Box::pin(self.0.process_recorder())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.close())
    }
}

#[tokio::test]
async fn a_registered_backend_is_found_by_its_name() {
    let other = Arc::new(build(&[]).unwrap());
    let events = other.application_recorder().await.unwrap();
    let mut registry = Registry::standard();
    registry.register_backend("own", move |_| Ok(Arc::new(Own(Arc::clone(&other)))));
    let factory = InfrastructureFactory::builder("Bank")
        .environment([("PERSISTENCE_MODULE", "own")])
        .registry(registry)
        .build()
        .unwrap();
    factory.application_recorder().await.unwrap().insert_events(vec![event(1)]).await.unwrap();
    assert_eq!(events.max_notification_id().await.unwrap(), Some(1));
    factory.close().await.unwrap();
    let refused = events.insert_events(vec![event(2)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Interface, "the factory closes what it was given");
}

#[test]
fn an_unusable_key_is_named_and_not_shown() {
    let key = "dG9vIHNob3J0";
    let error = build(&[("BANK_CIPHER_KEY", key)]).unwrap().cipher().unwrap_err();
    assert!(error.to_string().contains("BANK_CIPHER_KEY"), "{error}");
    assert!(!format!("{error} {error:?}").contains(key));
}

#[tokio::test]
async fn a_closed_factory_returns_no_recorders() {
    let memory = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:")];
    for settings in [&[][..], &memory] {
        let factory = build(settings).unwrap();
        factory.close().await.unwrap();
        factory.close().await.unwrap();
        let refusals = [
            factory.application_recorder().await.map(drop).unwrap_err(),
            factory.process_recorder().await.map(drop).unwrap_err(),
            factory.tracking_recorder().await.map(drop).unwrap_err(),
            factory.aggregate_recorder("snapshots").await.map(drop).unwrap_err(),
        ];
        assert!(refusals.iter().all(|refusal| refusal.kind() == ErrorKind::Interface));
    }
}

/// Collects the warnings of this thread.
#[derive(Clone, Default)]
struct Warnings(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Returns the warnings when a factory is built.
fn warnings(variables: &[(&str, &str)]) -> Vec<String> {
    let warnings = Warnings::default();
    let _subscribed = tracing::subscriber::set_default(warnings.clone());
    build(variables).unwrap();
    let told = warnings.0.lock().unwrap();
    told.clone()
}

/// A program without `PERSISTENCE_MODULE`, or with a mistyped name of it, kept its events in memory without a
/// warning, and lost them when it ended.
#[test]
fn events_in_memory_and_mistyped_variables_are_warned_of() {
    let told = warnings(&[]);
    assert!(told.len() == 1 && told[0].contains("end with the process"), "{told:?}");
    for (variable, setting) in [
        ("PERSISTANCE_MODULE", "PERSISTENCE_MODULE"),
        ("BANK_PERSISTENCE_MODUEL", "PERSISTENCE_MODULE"),
        ("persistence_module", "PERSISTENCE_MODULE"),
        ("POSTGRES_HOSTS", "POSTGRES_HOST"),
        ("BANK_CIPER_KEY", "CIPHER_KEY"),
    ] {
        let told = warnings(&[("PERSISTENCE_MODULE", "popo"), (variable, "a secret")]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(variable) && told[0].contains(&format!("{setting:?}")), "{told:?}");
        assert!(!told[0].contains("a secret"), "{told:?}");
    }
    // Settings, those of another application, and what is not alike.
    for variable in ["POSTGRES_PORT", "SHOP_PERSISTENCE_MODULE", "PATH", "POSTGRES_DB"] {
        let value = if variable == "POSTGRES_PORT" { "5432" } else { "x" };
        let told = warnings(&[("PERSISTENCE_MODULE", "popo"), (variable, value)]);
        assert!(told.is_empty(), "{variable}: {told:?}");
    }
}

/// Regression test: a setting of the Python library was ignored without a warning.
#[test]
fn a_setting_without_effect_is_warned_of() {
    let told = warnings(&[("PERSISTENCE_MODULE", "popo"), ("SINGLE_ROW_TRACKING", "x")]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("SINGLE_ROW_TRACKING"), "{told:?}");
    assert!(told[0].contains("one row for each application"), "{told:?}");
}

#[tokio::test]
async fn tables_can_be_named_and_are_created_for_each_recorder_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.db").display().to_string();
    let factory = build(&[("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", &file)]).unwrap();
    let own = RecorderTables::new().events("ledger").tracking("tracking");
    let missing = factory.application_recorder_with(&own.clone().create(false)).await.unwrap();
    assert!(missing.insert_events(vec![event(1)]).await.is_err());
    let (ledger, bank) =
        (factory.process_recorder_with(&own).await.unwrap(), factory.application_recorder().await.unwrap());
    // Each table has its own ids.
    assert_eq!(ledger.insert_events(vec![event(1), event(2)]).await.unwrap(), [1, 2]);
    assert_eq!(bank.insert_events(vec![event(1)]).await.unwrap(), [1]);
    assert_eq!(ledger.insert_events(vec![event(3)]).await.unwrap(), [3]);
    assert_eq!(missing.max_notification_id().await.unwrap(), Some(3), "the same table");
    let snapshots = RecorderTables::new().events("my_snapshots");
    let snapshots = factory.aggregate_recorder_with("snapshots", &snapshots).await.unwrap();
    snapshots.insert_events(vec![event(1)]).await.unwrap();

    let read_only = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", &*file), ("CREATE_TABLE", "no")];
    let created = build(&read_only).unwrap();
    let created = created.tracking_recorder_with(&RecorderTables::new().create(true)).await.unwrap();
    created.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap();

    for (tables, kind) in [
        (RecorderTables::new().events("a\"b"), ErrorKind::Programming),
        (RecorderTables::new().tracking("another"), ErrorKind::NotSupported),
    ] {
        assert_eq!(factory.process_recorder_with(&tables).await.unwrap_err().kind(), kind);
    }
    let in_memory = build(&[]).unwrap().application_recorder_with(&own).await.unwrap_err();
    assert_eq!(in_memory.kind(), ErrorKind::NotSupported);
}
