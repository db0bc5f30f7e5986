//! The target of copies and imports: events are written together with the position in their source.

use std::sync::Arc;

use es_core::{
    ApplicationRecorder, DynProcessRecorder, Notification, NotificationSelection, ProcessRecorder, Tracking,
    TrackingRecorder, uuid::Uuid,
};

use crate::{database::Database, failure::Failure, sql_writer::SqlWriter};

/// The name under which a copy records its position, which is one of the source's log.
pub(crate) const COPY: &str = "es-copy";
/// The name under which an import records its position.
pub(crate) const IMPORT: &str = "es-import";

/// Returns whether the position of a consumer is one of another log.
pub(crate) fn is_position_elsewhere(consumer: &str) -> bool {
    [COPY, IMPORT].contains(&consumer)
}

/// A database that receives the events of another log.
pub(crate) struct Target {
    recorder: Arc<dyn DynProcessRecorder>,
    /// `None` if events are numbered anew.
    writer: Option<SqlWriter>,
    consumer: &'static str,
    position: i64,
}

impl Target {
    /// Opens a target, and creates its tables if they are missing.
    ///
    /// # Errors
    /// If ids are to be kept and the target has other events than those of the copy.
    pub(crate) async fn open(
        database: &Database,
        consumer: &'static str,
        renumber: bool,
    ) -> Result<Self, Failure> {
        let recorder = database.process().await?;
        let position = recorder.max_tracking_id(consumer).await?.unwrap_or(0);
        let head = recorder.max_notification_id().await?.unwrap_or(0);
        let writer = if renumber {
            None
        } else {
            let mut writer = database.sql_writer().await?;
            writer.verify_ids().await?;
            Some(writer)
        };
        if !renumber && head != position {
            let message = match position {
                0 => "the target has events already".to_owned(),
                _ => format!(
                    "the target has events up to id {head}, and the position of {consumer} is {position}"
                ),
            };
            return Err(Failure::usage(message).with_hint("--renumber appends to other events"));
        }
        Ok(Self { recorder, writer, consumer, position })
    }

    /// Returns the id of the source up to which events are recorded; 0 before the first.
    pub(crate) fn position(&self) -> i64 {
        self.position
    }

    pub(crate) fn recorder(&self) -> &Arc<dyn DynProcessRecorder> {
        &self.recorder
    }

    /// Returns aggregate and version of the last event, if ids are kept.
    pub(crate) async fn last_event(&self) -> Result<Option<(Uuid, i64)>, Failure> {
        if self.position == 0 || self.writer.is_none() {
            return Ok(None);
        }
        let last = NotificationSelection::new(1).start(self.position).stop(self.position);
        let page = self.recorder.select_notifications(last).await?;
        Ok(page.first().map(|last| (last.event.originator_id, last.event.originator_version)))
    }

    /// Verifies that the last event is that of the source, so that a copy is not continued from another one.
    pub(crate) fn verify_last(
        &self,
        source: &Notification,
        last_event: Option<(Uuid, i64)>,
    ) -> Result<(), Failure> {
        let key = (source.event.originator_id, source.event.originator_version);
        match last_event {
            Some(last) if source.id == self.position && last != key => {
                Err(Failure::usage(format!("event {} of the target is another one in the source", source.id))
                    .with_hint("a copy continues from the same source"))
            }
            _ => Ok(()),
        }
    }

    /// Records events and the position of the last one in one commit.
    pub(crate) async fn append(&mut self, notifications: Vec<Notification>) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (notifications.first(), notifications.last()) else { return Ok(()) };
        let (first, last) = (first.id, last.id);
        // Before the first id there is no position: a source with such ids is damaged.
        let tracking = Tracking::spanning(self.consumer, first, last)?.after(self.position)?;
        match &mut self.writer {
            Some(writer) => writer.append(&notifications, self.consumer, self.position).await?,
            None => {
                let events = notifications.into_iter().map(|notification| notification.event).collect();
                self.recorder.insert_events_with_tracking(events, tracking).await?;
            }
        }
        self.position = last;
        Ok(())
    }
}
