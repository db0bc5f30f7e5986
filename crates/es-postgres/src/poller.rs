//! Looking for what others have recorded, for those who wait: other processes, and transactions of
//! the caller's own, wake nobody here.
//!
//! One task looks at a table, whatever the number of recorders and subscribers, and ends when nobody
//! waits. It asks for the highest notification id. When that has changed, it asks for the topics in
//! between, so that those who wait for others need not read. Where ids are missing in between, somebody
//! may be about to commit them, or they were rolled back: then everybody is woken, and who
//! reads waits for what is missing (see [`fence`]).

use std::{pin::pin, sync::Arc, time::Duration};

use es_core::PersistenceError;
use futures_util::future::{Either, select};
use tokio::time::timeout;

use crate::{
    PostgresDatastore, fence,
    hooks::HookPoint,
    listening, reader,
    rows::column,
    signals::{Followed, Kind, Polling},
};

/// The longest pause after failures, unless the interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Of more ids than this the topics are not asked for: whoever reads that many reads pages anyway.
const MOST_IDS: i64 = 10_000;

/// Looks until nobody waits any more.
pub(crate) async fn run(datastore: PostgresDatastore, mut polling: Polling) {
    let table = Arc::clone(&polling.table);
    // Without a pause at all there would be nothing else.
    let interval = datastore.0.options.poll_interval.max(Duration::from_millis(1));
    let listens =
        table.kind == Kind::Events && datastore.0.options.notify && !datastore.0.options.transaction_pooler;
    if listens {
        listening::listen(&datastore);
    }
    let mut poller = Poller { datastore, seen: None };
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
}

impl Poller {
    async fn look(&mut self, table: &Followed) -> Result<(), PersistenceError> {
        let looked = match table.kind {
            Kind::Events => self.look_for_events(table).await,
            Kind::Positions => {
                table.wake_all();
                Ok(())
            }
        };
        self.datastore.0.options.hooks.reached(HookPoint::Polled).await;
        looked
    }

    async fn look_for_events(&mut self, table: &Followed) -> Result<(), PersistenceError> {
        // Unknown until everybody is woken, in case that this fails half way.
        let seen = self.seen.take();
        let highest = fence::highest(&self.datastore, &table.name).await?.unwrap_or(0);
        match seen {
            Some(seen) if seen == highest => {}
            // A server that has lost events gives their ids again.
            Some(seen) if (1..=MOST_IDS).contains(&highest.saturating_sub(seen)) => {
                self.wake_by_topic(table, seen, highest).await?;
            }
            _ => table.wake_all(),
        }
        self.seen = Some(highest);
        Ok(())
    }

    async fn wake_by_topic(&self, table: &Followed, seen: i64, highest: i64) -> Result<(), PersistenceError> {
        let query = reader::count_topics(&table.name, seen, highest)?;
        let counted = self
            .datastore
            .fetch(&query, |row| Ok((column::<Option<String>>(row, 0)?, column::<i64>(row, 1)?)));
        let counted = counted.await?;
        if counted.iter().map(|(_, count)| count).sum::<i64>() == highest - seen {
            table.wake(|| counted.iter().filter_map(|(topic, _)| topic.as_deref()));
        } else {
            table.wake_all();
        }
        Ok(())
    }
}
