//! Reads notifications from standbys.
//!
//! The commit records of the serialized ordering follow the order of ids in the write-ahead log, so the log
//! of a standby is the beginning of the log of the primary, without a gap. Two things make it differ from
//! what a reader of the primary may rely on, and each page is checked for them:
//!
//! 1. **It is behind.** A page that ends before its limit is taken for everything up to its `stop`, or up to
//!    what this process has recorded or read. The snapshot of the page also has the highest id of the
//!    standby. If that is lower, the page is read again until the standby has replayed it.
//! 2. **It is ahead.** A commit is replayed before it is visible on the primary, which may first wait for
//!    another standby. If the primary fails then, the event is lost without having been acknowledged, and its
//!    id is allocated again. A standby that has it stays ahead until it is rebuilt. Therefore the last
//!    notification of the page is looked up on the primary. In the serialized ordering all earlier ones are
//!    visible there if it is, and are the same.
//!
//! The primary answers in the place of a standby that is not reached, does not catch up, was promoted, or has
//! another log. It is an error if the primary cannot be reached either, or cannot confirm a page: a standby
//! alone cannot tell whether an event is acknowledged.

use std::time::Duration;

use es_core::{Notification, NotificationSelection, PersistenceError};
use uuid::Uuid;

use super::{
    gap_fence,
    known_head::KnownHead,
    select::{self, HIGHEST_ID, IS_STANDBY},
};
use crate::{
    connection::{Backoff, Database, StandbyError, Standbys, column},
    fault_hooks::FaultPoint,
    schema::{TableName, rows::Topics},
};

/// The first and the longest pause between reads of a standby that is behind.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The table to read from a standby.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandbyReader<'a> {
    pub(crate) database: &'a Database,
    pub(crate) standbys: &'a Standbys,
    pub(crate) events: &'a TableName,
    pub(crate) head: &'a KnownHead,
}

/// A page, in one snapshot with the state of the standby.
struct Snapshot {
    page: Vec<Notification>,
    /// The highest id; 0 if there is none.
    highest: i64,
}

impl StandbyReader<'_> {
    /// Returns the page of a selection, from a standby or from the primary.
    pub(crate) async fn read(
        self,
        selection: &NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        let page = match self.read_from_standby(selection).await? {
            Some(page) => page,
            None => gap_fence::read(self.database, self.events, selection, None).await?,
        };
        if let Some(last) = page.last() {
            self.head.raise(last.id);
        }
        Ok(page)
    }

    /// Returns the page; none if the primary has to be read.
    async fn read_from_standby(
        self,
        selection: &NotificationSelection,
    ) -> Result<Option<Vec<Notification>>, PersistenceError> {
        if !self.standbys.unusable.is_attempt_due() {
            return Ok(None);
        }
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1).until(Some(self.database.options.standby_wait));
        let mut needed = None;
        loop {
            let failed = match self.snapshot(selection).await {
                Ok(Snapshot { page, highest }) => {
                    if selection.is_filled_by(&page) {
                        return self.confirm(selection, page, highest).await;
                    }
                    let is_first = needed.is_none();
                    let needed = match needed {
                        Some(needed) => needed,
                        None => *needed.insert(self.needed(selection, highest).await?),
                    };
                    if highest >= needed {
                        self.standbys.lagging.end();
                        return self.confirm(selection, page, highest).await;
                    }
                    if is_first && !self.standbys.lagging.is_attempt_due() {
                        return Ok(None);
                    }
                    self.database.reached(FaultPoint::StandbyBehind).await;
                    None
                }
                Err(StandbyError::Failed(error)) => Some(error),
                Err(StandbyError::Unreachable(error)) => {
                    self.leave(&error);
                    return Ok(None);
                }
                Err(StandbyError::Final(error)) => return Err(error),
            };
            if !backoff.wait().await {
                match failed {
                    Some(error) => self.leave(&error),
                    None => self.stop_waiting(needed),
                }
                return Ok(None);
            }
        }
    }

    async fn snapshot(self, selection: &NotificationSelection) -> Result<Snapshot, StandbyError> {
        let query = select::notifications_on_standby(self.events, selection).map_err(StandbyError::Final)?;
        let mut topics = Topics::default();
        let (mut highest, mut is_standby) = (0, false);
        let rows = self.standbys.fetch(&query, |row| {
            highest = column::<Option<i64>>(row, HIGHEST_ID)?.unwrap_or(0);
            is_standby = column(row, IS_STANDBY)?;
            match column::<Option<i64>>(row, HIGHEST_ID - 1)? {
                Some(_) => topics.notification(row).map(Some),
                None => Ok(None),
            }
        });
        let page = rows.await?.into_iter().flatten().collect();
        if !is_standby {
            self.standbys.connections.purge();
            let message = "the server is no longer a standby";
            return Err(StandbyError::Failed(PersistenceError::operational(message).transient()));
        }
        self.standbys.unusable.end();
        Ok(Snapshot { page, highest })
    }

    /// Returns the id up to which a page that ends before its limit has to be complete.
    async fn needed(self, selection: &NotificationSelection, highest: i64) -> Result<i64, PersistenceError> {
        let known = self.head.get();
        let Some(stop) = selection.stop else { return Ok(known) };
        if stop > highest.max(known) {
            // Another process may have read the highest id.
            let highest = gap_fence::highest_id(self.database, self.events).await?.unwrap_or(0);
            self.head.observe(known, highest);
        }
        Ok(stop.min(self.head.get()))
    }

    /// Returns the part of the page that is visible on the primary; none if the primary has to be read.
    async fn confirm(
        self,
        selection: &NotificationSelection,
        mut page: Vec<Notification>,
        highest: i64,
    ) -> Result<Option<Vec<Notification>>, PersistenceError> {
        let Some(last) = page.last() else { return Ok(Some(page)) };
        let (last, is_filled) = (last.id, selection.is_filled_by(&page));
        let query = select::last_notification(self.events, selection, last)?;
        let found =
            self.database.fetch(&query, |row| Ok((column(row, 0)?, column(row, 1)?, column(row, 2)?)));
        let found: Option<(i64, Uuid, i64)> = found.await?.pop();
        page.retain(|read| found.is_some_and(|(id, ..)| read.id <= id));
        let key = |read: &Notification| (read.id, read.event.originator_id, read.event.originator_version);
        if page.last().map(key) != found {
            let message = format!(
                "a notification up to {highest} of the standby is not the one of the primary: its log has parted \
                 from the primary's"
            );
            self.leave(&PersistenceError::operational(message));
            self.standbys.connections.purge();
            return Ok(None);
        }
        // A page that was full says nothing about what follows it.
        let is_whole = page.last().is_some_and(|read| read.id == last);
        Ok((is_whole || !is_filled).then_some(page))
    }

    /// Waits for no standby for a while.
    fn stop_waiting(self, needed: Option<i64>) {
        if self.standbys.lagging.begin() {
            tracing::warn!(
                table = self.events.quoted(),
                notification_id = needed,
                "the standby has not replayed a recorded notification: notifications are read from the primary"
            );
        }
    }

    /// Uses no standby for a while.
    fn leave(self, error: &PersistenceError) {
        if self.standbys.unusable.begin() {
            tracing::warn!(
                table = self.events.quoted(),
                %error,
                "no standby can be used: notifications are read from the primary"
            );
        }
    }
}
