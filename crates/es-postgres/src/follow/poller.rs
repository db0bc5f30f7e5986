//! Looking for what others have recorded, for those who wait: other processes, and transactions of
//! the caller's own, wake nobody here.
//!
//! One task looks at a table, whatever the number of recorders and subscribers, and ends when nobody
//! waits. It asks for the highest notification id. When that has changed, it asks for the topics in
//! between, so that those who wait for others need not read.
//!
//! Where ids are missing in between, somebody may be about to commit them, or they were rolled back.
//! In the parallel ordering such a gap is looked at again when those who were writing have finished,
//! found out as for readers (see [`fence`]): what is missing then was rolled back. Under the table's lock
//! it was in any case.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use es_core::PersistenceError;
use futures_util::future::{Either, select};
use tokio::time::timeout;

use crate::{
    PostgresDatastore,
    fault_hooks::FaultPoint,
    follow::{
        listener,
        signals::{Followed, Kind, Polling},
    },
    options::NotificationOrdering,
    read::{
        gap_fence::{self, Holder},
        select,
    },
    schema::rows::column,
};

/// The longest pause after failures, unless the interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Of more ids than this the topics are not asked for: everybody is woken, since whoever reads that many
/// reads pages anyway.
const MOST_IDS: i64 = 10_000;

/// Looks until nobody waits any more.
pub(crate) async fn run(datastore: PostgresDatastore, mut polling: Polling) {
    let table = Arc::clone(&polling.table);
    // Without a pause at all there would be nothing else.
    let interval = datastore.0.options.poll_interval.max(Duration::from_millis(1));
    let listens =
        table.kind == Kind::Events && datastore.0.options.notify && !datastore.0.options.transaction_pooler;
    if listens {
        listener::listen(&datastore);
    }
    let mut poller = Poller { datastore, seen: None, gaps: Vec::new() };
    let mut pause = interval;
    while !polling.is_over() {
        let looked = match select(pin!(poller.look(&table)), pin!(table.closed.notified())).await {
            Either::Left((looked, _)) => looked,
            Either::Right(_) => continue,
        };
        pause = match looked {
            Ok(()) => interval,
            Err(error) => {
                if pause == interval {
                    tracing::warn!(table = table.name.quoted(), %error, "looking for what others have recorded failed");
                }
                interval.max(LONGEST_PAUSE.min(pause * 2))
            }
        };
        if !polling.is_over() {
            rest(&table, pause).await;
        }
    }
    poller.datastore.0.listening.changed.notify_one();
}

/// Waits for so long, or until there may be something to see, or nobody to tell.
async fn rest(table: &Followed, pause: Duration) {
    let nudged = select(Box::pin(table.hint.notified()), Box::pin(table.closed.notified()));
    // Whichever it was is found out by looking.
    let _ = timeout(pause, nudged).await;
}

struct Poller {
    datastore: PostgresDatastore,
    /// The highest id when it was looked last, 0 of an empty table; none when that is not known.
    seen: Option<i64>,
    /// Up to that id, where somebody may be about to commit.
    gaps: Vec<Gap>,
}

/// Ids of which some are missing, although others above them are there.
struct Gap {
    after: i64,
    up_to: i64,
    counted: Counts,
    /// Who may be about to commit those that are missing.
    writers: Vec<Holder>,
}

/// How many notifications there are of each topic.
type Counts = HashMap<Option<String>, i64>;

impl Poller {
    async fn look(&mut self, table: &Followed) -> Result<(), PersistenceError> {
        let looked = match table.kind {
            Kind::Events => self.look_for_events(table).await,
            Kind::Positions => {
                table.wake_all();
                Ok(())
            }
        };
        self.datastore.0.options.hooks.reached(FaultPoint::Polled).await;
        looked
    }

    async fn look_for_events(&mut self, table: &Followed) -> Result<(), PersistenceError> {
        // Unknown until everybody is woken, in case that this fails half way.
        let (seen, gaps) = (self.seen.take(), std::mem::take(&mut self.gaps));
        let highest = gap_fence::highest(&self.datastore, &table.name).await?.unwrap_or(0);
        let pending: i64 = gaps.iter().map(|gap| gap.up_to - gap.after).sum();
        match seen {
            // A server that has lost events gives their ids again.
            Some(seen) if (0..=MOST_IDS - pending).contains(&highest.saturating_sub(seen)) => {
                self.look_at_gaps(table, gaps).await?;
                if highest > seen {
                    self.look_at_new(table, seen, highest).await?;
                }
            }
            _ => table.wake_all(),
        }
        self.seen = Some(highest);
        Ok(())
    }

    /// Looks at gaps again of which one of those who were writing has finished.
    async fn look_at_gaps(&mut self, table: &Followed, gaps: Vec<Gap>) -> Result<(), PersistenceError> {
        if gaps.is_empty() {
            return Ok(());
        }
        let holders = gap_fence::holders(&self.datastore, &table.name).await?;
        for mut gap in gaps {
            let writers = gap_fence::still_pending(&gap.writers, &holders);
            if writers == gap.writers {
                self.gaps.push(gap);
            } else {
                gap.writers = writers;
                self.look_at_gap(table, gap).await?;
            }
        }
        Ok(())
    }

    /// Wakes those who wait for what has appeared in a gap, and keeps it where more may appear.
    async fn look_at_gap(&mut self, table: &Followed, mut gap: Gap) -> Result<(), PersistenceError> {
        let counted = self.count(table, gap.after, gap.up_to).await?;
        let has_more = |(topic, count): &(&Option<String>, &i64)| gap.counted.get(*topic) < Some(*count);
        if counted.iter().any(|counted| has_more(&counted)) {
            table.wake(|| counted.iter().filter(has_more).filter_map(|(topic, _)| topic.as_deref()));
        }
        gap.counted = counted;
        if gap.is_open() && !gap.writers.is_empty() {
            self.gaps.push(gap);
        }
        Ok(())
    }

    async fn look_at_new(
        &mut self,
        table: &Followed,
        seen: i64,
        highest: i64,
    ) -> Result<(), PersistenceError> {
        let counted = self.count(table, seen, highest).await?;
        table.wake(|| counted.keys().filter_map(Option::as_deref));
        let mut gap = Gap { after: seen, up_to: highest, counted, writers: Vec::new() };
        if self.datastore.0.options.ordering == NotificationOrdering::Serialized || !gap.is_open() {
            return Ok(());
        }
        // In this order: whoever is not found writing any more is found to have committed.
        gap.writers = gap_fence::holders(&self.datastore, &table.name).await?;
        self.look_at_gap(table, gap).await
    }

    async fn count(&self, table: &Followed, after: i64, up_to: i64) -> Result<Counts, PersistenceError> {
        let query = select::count_topics(&table.name, after, up_to)?;
        let counted = self.datastore.fetch(&query, |row| Ok((column(row, 0)?, column(row, 1)?)));
        Ok(counted.await?.into_iter().collect())
    }
}

impl Gap {
    fn is_open(&self) -> bool {
        self.counted.values().sum::<i64>() < self.up_to - self.after
    }
}
