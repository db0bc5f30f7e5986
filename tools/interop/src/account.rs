//! The bank's accounts: opened, loaded by their newest snapshot, replayed, and kept in snapshots.

#[path = "../../../crates/es-persistence/tests/python_databases/account.rs"]
mod events;

use std::sync::Arc;

use anyhow::{Context, Result};
use es_persistence::{
    DomainEvent, DynAggregateRecorder, DynApplicationRecorder, EventRange, EventStore, PersistenceError,
    Snapshot, factory::InfrastructureFactory, transcode::JsonTranscoder,
};
use uuid::Uuid;

use crate::bank::{Account, AccountEvent, transcoder};

/// The number of accounts.
pub(crate) const ACCOUNTS: u32 = 3;

/// The id of an account, which both languages know.
pub(crate) fn account_id(number: u32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("/accounts/{number}").as_bytes())
}

/// An account at a version.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) id: Uuid,
    pub(crate) version: i64,
    pub(crate) account: Account,
}

#[derive(Debug)]
pub(crate) struct Bank {
    factory: InfrastructureFactory,
    pub(crate) store: EventStore<Arc<dyn DynApplicationRecorder>, JsonTranscoder>,
    pub(crate) snapshots: EventStore<Arc<dyn DynAggregateRecorder>, JsonTranscoder>,
}

impl Bank {
    pub(crate) async fn open() -> Result<Self> {
        let factory = InfrastructureFactory::builder("bank").transcoder(transcoder()).build()?;
        let store = factory.event_store().await?;
        let snapshots = factory.snapshot_store().await?.context("snapshotting is not enabled")?;
        Ok(Self { factory, store, snapshots })
    }

    pub(crate) async fn close(&self) -> Result<(), PersistenceError> {
        self.factory.close().await
    }

    /// Loads an account from its newest snapshot and the events that follow it.
    pub(crate) async fn load(&self, id: Uuid) -> Result<Loaded> {
        let newest = EventRange::all().desc().limit(1);
        let snapshot = self.snapshots.get::<Snapshot<Account>>(id, newest).await?.pop();
        let mut loaded = snapshot.map(|snapshot| Loaded {
            id,
            version: snapshot.originator_version,
            account: snapshot.payload.state,
        });
        let version = loaded.as_ref().map_or(0, |loaded| loaded.version);
        for event in self.store.get(id, EventRange::all().gt(version)).await? {
            loaded = Some(apply(loaded, event)?);
        }
        loaded.context("the account is not open")
    }

    pub(crate) async fn take_snapshot(&self, loaded: &Loaded) -> Result<(), PersistenceError> {
        let snapshot = Snapshot { state: loaded.account.clone() };
        self.snapshots.put(&[DomainEvent::new(loaded.id, loaded.version, snapshot)]).await?;
        Ok(())
    }
}

/// Replays the events of an account up to a version.
pub(crate) fn replayed(events: &[DomainEvent<AccountEvent>], version: i64) -> Result<Loaded> {
    let mut loaded = None;
    for event in events.iter().filter(|event| event.originator_version <= version) {
        loaded = Some(apply(loaded, event.clone())?);
    }
    loaded.context("the account is not open")
}

/// Returns the account after one more event.
pub(crate) fn apply(loaded: Option<Loaded>, event: DomainEvent<AccountEvent>) -> Result<Loaded> {
    let (id, version) = (event.originator_id, event.originator_version);
    let account = events::apply(loaded.map(|loaded| loaded.account), event);
    let account = account.with_context(|| format!("event {version} of {id} does not follow the others"))?;
    Ok(Loaded { id, version, account })
}
