//! Polls a table for the commits of others (other processes, and transactions of the caller's), which wake no
//! task here.
//!
//! One task polls a table, for any number of recorders and subscribers, and ends when no task waits. It reads
//! the highest notification id. When that has changed, it reads the topics in between, so that only tasks
//! that wait for these topics are woken.
//!
//! Where ids are missing in between, a writer may be about to commit them, or they were rolled back. In the
//! parallel ordering, such a gap is examined again when one of the writers has ended, determined as for
//! readers (see [`gap_fence`]): ids that are missing after the last one were rolled back. In the serialized
//! ordering, all missing ids were rolled back.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use es_core::PersistenceError;
use futures_util::future::{Either, select};
use tokio::time::timeout;

use super::{
    listener::Listener,
    signals::{PollPermit, TableKind, WatchedTable},
};
use crate::{
    connection::{Backoff, Database, column},
    fault_hooks::FaultPoint,
    options::NotificationOrdering,
    read::{
        gap_fence::{self, LockHolder},
        select::topic_counts,
    },
};

/// The longest pause after failures, unless the interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The number of new ids up to which their topics are counted. Beyond it all tasks are woken. It is ten times
/// the ids of a default interval at 40,000 events/s: with 10,000, a busy table woke 1,000 subscribers of
/// other topics to read for nothing (`commits, 1000 subscribers of another topic`).
const MOST_IDS: i64 = 100_000;

/// Polls a table until no task waits.
pub(crate) async fn poll(listener: Arc<Listener>, mut permit: PollPermit) {
    let table = Arc::clone(&permit.table);
    let options = &listener.database.options;
    // Without a pause the task would use all of a core.
    let interval = options.poll_interval.max(Duration::from_millis(1));
    if table.kind == TableKind::Events && options.notify && !options.transaction_pooler {
        listener.listen();
    }
    let mut poller = Poller { database: Arc::clone(&listener.database), seen: None, gaps: Vec::new() };
    let longest_pause = interval.max(LONGEST_PAUSE);
    let mut backoff = Backoff::new((interval * 2).min(longest_pause), longest_pause);
    while !permit.release_if_idle() {
        let polled = match select(pin!(poller.poll(&table)), pin!(table.closed.notified())).await {
            Either::Left((polled, _)) => polled,
            Either::Right(_) => continue,
        };
        let pause = match polled {
            Ok(()) => {
                backoff.reset();
                interval
            }
            Err(error) => {
                if backoff.is_fresh() {
                    tracing::warn!(table = table.name.quoted(), %error, "polling for commits of others failed");
                }
                backoff.next()
            }
        };
        if !permit.release_if_idle() {
            let _ =
                timeout(pause, select(pin!(table.notified.notified()), pin!(table.closed.notified()))).await;
        }
    }
    listener.changed.notify_one();
}

struct Poller {
    database: Arc<Database>,
    /// The highest id of the last poll, 0 if the table was empty; none if it is not known.
    seen: Option<i64>,
    /// The gaps up to that id in which a writer may be about to commit.
    gaps: Vec<Gap>,
}

/// A range of ids of which some are missing, although higher ids are visible.
struct Gap {
    after: i64,
    up_to: i64,
    counts: TopicCounts,
    /// The transactions that may be about to commit the missing ids.
    writers: Vec<LockHolder>,
}

/// The number of notifications of each topic.
type TopicCounts = HashMap<Option<String>, i64>;

impl Poller {
    async fn poll(&mut self, table: &WatchedTable) -> Result<(), PersistenceError> {
        let polled = match table.kind {
            TableKind::Events => self.poll_events(table).await,
            TableKind::Positions => {
                table.wake_all();
                Ok(())
            }
        };
        self.database.reached(FaultPoint::Polled).await;
        polled
    }

    async fn poll_events(&mut self, table: &WatchedTable) -> Result<(), PersistenceError> {
        // Unknown until all tasks are woken, in case this fails half way.
        let (seen, gaps) = (self.seen.take(), std::mem::take(&mut self.gaps));
        let known = table.head.get();
        let highest = gap_fence::highest_id(&self.database, &table.name).await?.unwrap_or(0);
        // First, so that the tasks that are woken wait for a standby that has not replayed it.
        table.head.observe(known, highest);
        let in_gaps: i64 = gaps.iter().map(|gap| gap.up_to - gap.after).sum();
        match seen {
            // A server that has lost events allocates their ids again.
            Some(seen) if (0..=MOST_IDS - in_gaps).contains(&highest.saturating_sub(seen)) => {
                self.examine_gaps(table, gaps).await?;
                if highest > seen {
                    self.examine_new(table, seen, highest).await?;
                }
            }
            _ => table.wake_all(),
        }
        self.seen = Some(highest);
        Ok(())
    }

    /// Examines the gaps of which a writer has ended.
    async fn examine_gaps(&mut self, table: &WatchedTable, gaps: Vec<Gap>) -> Result<(), PersistenceError> {
        if gaps.is_empty() {
            return Ok(());
        }
        let holders = gap_fence::lock_holders(&self.database, &table.name).await?;
        for mut gap in gaps {
            let writers = gap_fence::still_pending(&gap.writers, &holders);
            if writers == gap.writers {
                self.gaps.push(gap);
            } else {
                gap.writers = writers;
                self.examine_gap(table, gap).await?;
            }
        }
        Ok(())
    }

    /// Wakes the tasks that wait for what has appeared in a gap, and keeps the gap if more may appear.
    async fn examine_gap(&mut self, table: &WatchedTable, mut gap: Gap) -> Result<(), PersistenceError> {
        let counts = self.topic_counts(table, gap.after, gap.up_to).await?;
        let has_more = |(topic, count): &(&Option<String>, &i64)| gap.counts.get(*topic) < Some(*count);
        if counts.iter().any(|counted| has_more(&counted)) {
            table.wake(|| counts.iter().filter(has_more).filter_map(|(topic, _)| topic.as_deref()));
        }
        gap.counts = counts;
        if gap.is_open() && !gap.writers.is_empty() {
            self.gaps.push(gap);
        }
        Ok(())
    }

    async fn examine_new(
        &mut self,
        table: &WatchedTable,
        seen: i64,
        highest: i64,
    ) -> Result<(), PersistenceError> {
        let counts = self.topic_counts(table, seen, highest).await?;
        table.wake(|| counts.keys().filter_map(Option::as_deref));
        let mut gap = Gap { after: seen, up_to: highest, counts, writers: Vec::new() };
        if self.database.options.ordering == NotificationOrdering::Serialized || !gap.is_open() {
            return Ok(());
        }
        // In this order: a writer that is not listed any more has committed, and the next count includes it.
        gap.writers = gap_fence::lock_holders(&self.database, &table.name).await?;
        self.examine_gap(table, gap).await
    }

    async fn topic_counts(
        &self,
        table: &WatchedTable,
        after: i64,
        up_to: i64,
    ) -> Result<TopicCounts, PersistenceError> {
        let query = topic_counts(&table.name, after, up_to)?;
        let counts = self.database.fetch(&query, |row| Ok((column(row, 0)?, column(row, 1)?)));
        Ok(counts.await?.into_iter().collect())
    }
}

impl Gap {
    fn is_open(&self) -> bool {
        self.counts.values().sum::<i64>() < self.up_to - self.after
    }
}
