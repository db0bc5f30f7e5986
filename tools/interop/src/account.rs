//! The bank's accounts: opened, loaded by their newest snapshot, replayed, and kept in snapshots.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
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

    /// The account by its newest snapshot and what follows it.
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

/// The account by its events up to a version.
pub(crate) fn replayed(events: &[DomainEvent<AccountEvent>], version: i64) -> Result<Loaded> {
    let mut loaded = None;
    for event in events.iter().filter(|event| event.originator_version <= version) {
        loaded = Some(apply(loaded, event.clone())?);
    }
    loaded.context("the account is not open")
}

/// The account after one more event.
pub(crate) fn apply(loaded: Option<Loaded>, event: DomainEvent<AccountEvent>) -> Result<Loaded> {
    let (id, version) = (event.originator_id, event.originator_version);
    let account = match loaded {
        None => opened(event)?,
        Some(loaded) => changed(loaded.account, event)?,
    };
    Ok(Loaded { id, version, account })
}

fn opened(event: DomainEvent<AccountEvent>) -> Result<Account> {
    let AccountEvent::Opened { owner, owner_id, birthday, limit, .. } = event.payload else {
        bail!("the first event of {} does not open it", event.originator_id);
    };
    Ok(Account {
        created_on: event.timestamp,
        modified_on: event.timestamp,
        owner,
        owner_id,
        birthday,
        limit,
        balance: 0.into(),
        notes: Vec::new(),
        proof: None,
        closed: None,
    })
}

fn changed(mut account: Account, event: DomainEvent<AccountEvent>) -> Result<Account> {
    account.modified_on = event.timestamp;
    match event.payload {
        AccountEvent::Credited { amount, note, .. } => {
            account.balance += amount;
            account.notes.push(note);
        }
        AccountEvent::Verified { proof, .. } => account.proof = Some(proof),
        AccountEvent::Closed => account.closed = Some(true),
        AccountEvent::Opened { .. } => bail!("{} is opened twice", event.originator_id),
    }
    Ok(account)
}
