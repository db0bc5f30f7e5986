//! Tests of factories whose environment selects PostgreSQL; on a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::{env, sync::Arc};

use es_core::{
    AggregateRecorder, ApplicationRecorder, BoxFuture, ErrorKind, EventRange, Tracking, TrackingRecorder,
};
use es_factory::{InfrastructureFactory, PasswordProvider, Registry};
use support::{event, server::Server};

#[tokio::test]
async fn recorders_of_a_factory_share_their_datastore() {
    let Some(server) = Server::with_schema().await else { return };
    for ordering in ["serialized", "table-lock", "parallel"] {
        let factory = server.factory(&[("POSTGRES_ORDERING", ordering), ("POSTGRES_CONN_MAX_AGE", "")]);
        let application = factory.application_recorder().await.unwrap();
        let process = factory.process_recorder().await.unwrap();
        let before = process.max_notification_id().await.unwrap();
        let version = before.unwrap_or(0) + 1;
        let ids = application.insert_events(vec![event(version)]).await.unwrap();
        assert_eq!(process.max_notification_id().await.unwrap(), ids.last().copied());
        assert!(before < ids.last().copied());

        let tracking = factory.tracking_recorder().await.unwrap();
        tracking.insert_tracking(Tracking::new("upstream", version).unwrap()).await.unwrap();
        assert_eq!(process.max_tracking_id("upstream").await.unwrap(), Some(version));

        let snapshots = factory.aggregate_recorder("snapshots").await.unwrap();
        assert!(snapshots.insert_events(vec![event(version)]).await.unwrap().is_empty());
        let found = snapshots.select_events(event(1).originator_id, EventRange::all().desc().limit(1)).await;
        assert_eq!(found.unwrap(), [event(version)]);

        factory.close().await.unwrap();
        let closed = process.insert_events(vec![event(version + 1)]).await.unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::Interface, "{closed}");
    }
    server.drop_schema().await;
}

#[tokio::test]
async fn create_table_off_creates_no_tables() {
    let Some(server) = Server::with_schema().await else { return };
    let factory = server.factory(&[("CREATE_TABLE", "n")]);
    let error = match factory.application_recorder().await {
        Err(error) => error,
        Ok(recorder) => recorder.insert_events(vec![event(1)]).await.unwrap_err(),
    };
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains("bank_events"), "{error}");
    server.drop_schema().await;
}

#[test]
fn invalid_settings_are_errors_when_the_factory_is_built() {
    let complete = [
        ("PERSISTENCE_MODULE", "postgres"),
        ("POSTGRES_DBNAME", "events"),
        ("POSTGRES_HOST", "127.0.0.1"),
        ("POSTGRES_USER", "user"),
        ("POSTGRES_PASSWORD", "a secret"),
    ];
    let build =
        |settings: Vec<(&str, &str)>| InfrastructureFactory::builder("").environment(settings).build();
    build(complete.to_vec()).unwrap();
    for left_out in 1..complete.len() {
        let mut settings = complete.to_vec();
        let (name, _) = settings.remove(left_out);
        let error = build(settings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming);
        assert!(error.to_string().contains(name), "{error}");
    }
    let read_hosts = |ports| [("POSTGRES_READ_HOST", "a, b"), ("POSTGRES_READ_PORT", ports)];
    build(complete.into_iter().chain(read_hosts("5432,5433")).collect()).unwrap();
    for ports in ["high", "1,2,3"] {
        let error = build(complete.into_iter().chain(read_hosts(ports)).collect()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming, "{error}");
        assert!(error.to_string().contains("POSTGRES_READ_PORT"), "{error}");
    }
    let error = build(complete.into_iter().chain([("POSTGRES_READ_HOST", "a,,b")]).collect()).unwrap_err();
    assert!(error.to_string().contains("POSTGRES_READ_HOST"), "{error}");
    for (name, wrong) in [
        ("POSTGRES_PORT", "high"),
        ("POSTGRES_CONN_MAX_AGE", "old"),
        ("POSTGRES_PRE_PING", "perhaps"),
        ("POSTGRES_LOCK_TIMEOUT", "1.5"),
        ("POSTGRES_LOCK_TIMEOUT", "2147484"),
        ("POSTGRES_LOCK_TIMEOUT", "4294967295"),
        ("POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT", "-1"),
        ("POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT", "4294967295"),
        ("POSTGRES_CONNECT_TIMEOUT", "1e19"),
        ("POSTGRES_RESPONSE_TIMEOUT", "4294967296"),
        ("POSTGRES_CONN_MAX_AGE", "1e19"),
        ("POSTGRES_CONNECT_TIMEOUT", "soon"),
        ("POSTGRES_RESPONSE_TIMEOUT", "later"),
        ("POSTGRES_POOL_SIZE", "many"),
        ("POSTGRES_MAX_OVERFLOW", "-2"),
        ("POSTGRES_MAX_WAITING", "few"),
        ("POSTGRES_ORDERING", "chaotic"),
        ("POSTGRES_SSLMODE", "sometimes"),
        ("POSTGRES_NOTIFY", "often"),
        ("POSTGRES_TRANSACTION_POOLER", "always"),
        ("CREATE_TABLE", "2"),
    ] {
        let error = build(complete.into_iter().chain([(name, wrong)]).collect()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming, "{name}");
        let message = error.to_string();
        assert!(message.contains(name) && message.contains(wrong), "{name}={wrong}: {message}");
        if wrong.parse::<f64>().is_ok_and(|wrong| wrong > 2.0) {
            let longest =
                if name.contains("LOCK") || name.contains("IDLE") { "2147483" } else { "4294967295" };
            assert!(message.contains(&format!("to {longest}")), "{message}");
        }
        assert!(!format!("{error} {error:?}").contains("a secret"));
    }
}

#[tokio::test]
async fn a_database_url_names_server_user_and_database() {
    let Some(server) = Server::with_schema().await else { return };
    let set = |name: &str| env::var(name).unwrap();
    let encoded = |text: String| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let (user, password) = (encoded(set("POSTGRES_USER")), encoded(set("POSTGRES_PASSWORD")));
    let (host, port, database) =
        (set("POSTGRES_HOST"), set("POSTGRES_PORT"), encoded(set("POSTGRES_DBNAME")));
    let url = format!("postgres://{user}:{password}@{host}:{port}/{database}?sslmode=disable");
    let settings = [("DATABASE_URL", url.as_str()), ("POSTGRES_SCHEMA", &server.schema)];
    let factory = InfrastructureFactory::builder("Bank").environment(settings).build().unwrap();
    assert_eq!(factory.application_recorder().await.unwrap().max_notification_id().await.unwrap(), None);
    factory.close().await.unwrap();

    let unknown = [("DATABASE_URL", "postgres://me:secret@localhost/bank?options=-c")];
    let error = InfrastructureFactory::builder("Bank").environment(unknown).build().unwrap_err().to_string();
    assert!(error.contains("\"options\"") && !error.contains("secret"), "{error}");
    server.drop_schema().await;
}

/// Returns the password of the test server, or another.
#[derive(Debug)]
struct Vault {
    password: String,
}

impl PasswordProvider for Vault {
    fn password(&self) -> BoxFuture<'_, String> {
        Box::pin(async { Ok(self.password.clone()) })
    }
}

#[tokio::test]
async fn a_registered_password_provider_is_selected_by_its_name() {
    let Some(server) = Server::with_schema().await else { return };
    let mut registry = Registry::standard();
    registry.register_password_provider("vault", |environment| {
        Ok(Arc::new(Vault { password: environment.required("VAULT_PASSWORD")?.to_owned() }))
    });
    let build = |name: &str| {
        let settings = server.settings().into_iter().filter(|(name, _)| name != "BANK_POSTGRES_PASSWORD");
        let more = [
            ("POSTGRES_GET_PASSWORD_TOPIC", name),
            ("VAULT_PASSWORD", &env::var("POSTGRES_PASSWORD").unwrap()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let builder = InfrastructureFactory::builder("Bank").registry(registry.clone());
        builder.environment(settings.chain(more)).build()
    };
    let factory = build("vault").unwrap();
    assert_eq!(factory.application_recorder().await.unwrap().max_notification_id().await.unwrap(), None);
    factory.close().await.unwrap();
    let unknown = build("my.module:get_password").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Programming);
    assert!(unknown.to_string().contains("vault"), "{unknown}");
    server.drop_schema().await;
}
