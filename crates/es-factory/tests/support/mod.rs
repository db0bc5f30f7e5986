//! Shared code of this crate's tests.

#[cfg(feature = "postgres")]
#[allow(dead_code, reason = "not every test uses it")]
pub(crate) mod server;

use es_core::{Bytes, StoredEvent, Topic, uuid::Uuid};
use es_factory::InfrastructureFactory;

#[allow(dead_code, reason = "not every test uses it")]
pub(crate) fn event(version: i64) -> StoredEvent {
    StoredEvent {
        originator_id: Uuid::from_u128(1),
        originator_version: version,
        topic: Topic::from_static("bank:Account.Opened"),
        state: Bytes::from_static(b"{}"),
    }
}

/// Runs a test on SQLite in memory and in a file, and on PostgreSQL.
#[allow(dead_code, reason = "not every test uses it")]
pub(crate) async fn on_each_database(test: impl AsyncFn(&InfrastructureFactory)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.db").display().to_string();
    for database in [":memory:", &file] {
        let settings = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", database)];
        let factory = InfrastructureFactory::builder("Bank").environment(settings).build().unwrap();
        test(&factory).await;
        factory.close().await.unwrap();
    }
    #[cfg(feature = "postgres")]
    if let Some(server) = server::Server::with_schema().await {
        let factory = server.factory(&[]);
        test(&factory).await;
        factory.close().await.unwrap();
        server.drop_schema().await;
    }
}
