//! The downstream application: it books each notification of the bank, once.

use std::sync::Arc;

use anyhow::{Result, ensure};
use es_persistence::{
    DomainEvent, DynProcessRecorder, Event, EventStore, PersistenceError, Tracking, TrackingRecorder,
    factory::InfrastructureFactory, transcode::JsonTranscoder,
};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::{participant::RUST, plain};

/// The beginning, and only event, of an entry.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "ledger:Entry.Booked")]
pub(crate) struct Booked {
    originator_topic: String,
    notification_id: i64,
    booked_by: String,
}

impl Booked {
    pub(crate) fn attributes(&self) -> Map<String, Json> {
        Map::from_iter([
            ("originator_topic".to_owned(), json!(self.originator_topic)),
            ("notification_id".to_owned(), plain::int(&self.notification_id)),
            ("booked_by".to_owned(), json!(self.booked_by)),
        ])
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    factory: InfrastructureFactory,
    pub(crate) store: EventStore<Arc<dyn DynProcessRecorder>, JsonTranscoder>,
}

impl Ledger {
    pub(crate) async fn open() -> Result<Self> {
        let factory = InfrastructureFactory::construct("ledger")?;
        let store = EventStore::new(factory.process_recorder().await?, factory.mapper()?);
        Ok(Self { factory, store })
    }

    pub(crate) async fn close(&self) -> Result<(), PersistenceError> {
        self.factory.close().await
    }

    /// The position in the bank's notifications.
    pub(crate) async fn position(&self) -> Result<i64, PersistenceError> {
        Ok(self.store.recorder().max_tracking_id("bank").await?.unwrap_or(0))
    }

    /// True if this side booked it; otherwise the other side did.
    pub(crate) async fn book(&self, notification_id: i64) -> Result<bool> {
        let booked = Booked {
            originator_topic: "ledger:Entry".to_owned(),
            notification_id,
            booked_by: RUST.to_owned(),
        };
        let event = DomainEvent::new(Uuid::new_v4(), 1, booked);
        let batch = self.store.batch().with(&[event]).await?;
        match batch.commit_with_tracking(Tracking::new("bank", notification_id)?).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => {
                let position = self.position().await?;
                ensure!(position >= notification_id, "refused, and not recorded: {error}");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
