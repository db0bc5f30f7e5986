//! Bounded reads of the database.

use std::sync::Arc;

use es_core::{
    ApplicationRecorder, DynApplicationRecorder, Notification, NotificationSelection, PersistenceError,
    StoredEvent, uuid::Uuid,
};
use futures_util::{StreamExt, stream};
use jiff::{Timestamp, tz::Offset};
use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch},
    task,
};

use super::{attributes::line, page::beginning};
use crate::{
    arguments::Connection,
    catalog::{Catalog, IdSelection},
    configuration::Settings,
    database::Database,
    failure::{Failure, chain},
    record::{Shown, expanded},
    state::StateDecoder,
};

/// The longest shown state in bytes; the rest is left out.
const LONGEST_STATE: usize = 64 << 10;
/// The longest preview of a state in bytes.
const PREVIEW: usize = 200;
/// The number of rows that are read at the same time.
const CONCURRENT_READS: usize = 8;
/// The number of rows among which one with a timestamp is searched.
const TIMESTAMP_ROWS: usize = 8;
/// The largest number of open live tails.
const LIVE_TAILS: usize = 16;
/// The largest number of pages that are made or sent at the same time.
const PAGES: usize = 8;

/// The state of the server.
pub(super) struct App {
    pub(super) source: Source,
    /// Each page, which may be large, has a permit until it is sent.
    pub(super) pages: Arc<Semaphore>,
    /// Changes when the server is to end.
    pub(super) is_terminating: watch::Receiver<bool>,
}

/// The database of the page.
pub(super) struct Source {
    database: Database,
    pub(super) log: Arc<dyn DynApplicationRecorder>,
    upstream: Option<(Database, Arc<dyn DynApplicationRecorder>)>,
    decoder: StateDecoder,
    /// Used by one request at a time; `None` after a failure, so that the next request opens it again.
    catalog: Mutex<Option<Catalog>>,
    location: String,
    live_tails: Arc<Semaphore>,
}

/// An event, or a row that is none.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: i64,
    /// The time of UTC, or the stored text if it is none; empty if the state has no timestamp.
    pub(super) time: String,
    pub(super) topic: String,
    /// Empty if the row cannot be read.
    pub(super) aggregate: String,
    pub(super) version: Option<i64>,
    #[serde(flatten)]
    pub(super) state: State,
}

/// The state of an event, as it is shown.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum State {
    Json {
        /// The beginning of the attributes, on one line.
        preview: String,
        /// JSON on several lines.
        lines: String,
    },
    Unreadable {
        reason: String,
    },
}

impl App {
    pub(super) fn new(source: Source, is_terminating: watch::Receiver<bool>) -> Self {
        Self { source, pages: Arc::new(Semaphore::new(PAGES)), is_terminating }
    }
}

impl Source {
    pub(super) async fn open(connection: &Connection, upstream: Option<&str>) -> Result<Self, Failure> {
        let database = Database::of(connection)?;
        let log = database.log().await?;
        // A database that is not one of an event store is refused at the start.
        log.max_notification_id().await?;
        let catalog = database.catalog().await?;
        let location = catalog.location().to_owned();
        let upstream = match upstream {
            None => None,
            Some(name) => {
                let upstream = Database::open(Settings::find(Some(name), &connection.sources)?)?;
                let log = upstream.log().await?;
                Some((upstream, log))
            }
        };
        Ok(Self {
            decoder: database.state_decoder()?,
            database,
            log,
            upstream,
            catalog: Mutex::new(Some(catalog)),
            location,
            live_tails: Arc::new(Semaphore::new(LIVE_TAILS)),
        })
    }

    pub(super) async fn close(&self) -> Result<(), Failure> {
        if let Some((upstream, _)) = &self.upstream {
            upstream.close().await?;
        }
        self.database.close().await
    }

    /// Returns the file, or the host, the database and the schema.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Returns the highest notification id; 0 if there is none.
    pub(super) async fn head(&self) -> Result<i64, Failure> {
        Ok(self.log.max_notification_id().await?.unwrap_or(0))
    }

    /// Returns the lowest notification id; 0 if there is none.
    pub(super) async fn first_id(&self) -> Result<i64, Failure> {
        let first = IdSelection { limit: 1, ..IdSelection::all(i64::MAX) };
        Ok(self.ids(&first).await?.first().copied().unwrap_or(0))
    }

    /// Returns the highest notification id of the log that the consumers follow.
    pub(super) async fn upstream_head(&self) -> Result<i64, Failure> {
        match &self.upstream {
            Some((_, log)) => Ok(log.max_notification_id().await?.unwrap_or(0)),
            None => self.head().await,
        }
    }

    /// Reads from the catalog.
    pub(super) async fn catalog<T>(
        &self,
        read: impl AsyncFnOnce(&mut Catalog) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut slot = self.catalog.lock().await;
        // The catalog of SQLite blocks.
        task::block_in_place(|| {
            Handle::current().block_on(async {
                let mut catalog = match slot.take() {
                    Some(catalog) => catalog,
                    None => self.database.catalog().await?,
                };
                let outcome = read(&mut catalog).await;
                if outcome.is_ok() {
                    *slot = Some(catalog);
                }
                outcome
            })
        })
    }

    pub(super) async fn ids(&self, selection: &IdSelection) -> Result<Vec<i64>, Failure> {
        self.catalog(async |catalog| catalog.ids(selection).await).await
    }

    /// Reads the rows with these ids, in their order. A row that was not committed yet is left out.
    pub(super) async fn rows(&self, ids: Vec<i64>) -> Vec<Row> {
        let rows = stream::iter(ids).map(|id| self.row(id)).buffered(CONCURRENT_READS);
        rows.filter_map(async |row| row).collect().await
    }

    /// Reads the row with an id.
    pub(super) async fn row(&self, id: i64) -> Option<Row> {
        match self.notification(id).await {
            Ok(Some(notification)) => Some(self.decoded(&notification)),
            Ok(None) => None,
            Err(error) => Some(Row::unreadable(id, &error)),
        }
    }

    async fn notification(&self, id: i64) -> Result<Option<Notification>, PersistenceError> {
        let selection = NotificationSelection::new(1).start(id).stop(id);
        Ok(self.log.select_notifications(selection).await?.pop())
    }

    /// Decodes a notification.
    pub(super) fn decoded(&self, notification: &Notification) -> Row {
        let StoredEvent { originator_id, originator_version, topic, .. } = &notification.event;
        let shown = self.shown(&notification.event);
        Row {
            id: notification.id,
            time: shown.timestamp().map_or_else(String::new, |time| of_utc(&time)),
            topic: topic.to_string(),
            aggregate: originator_id.to_string(),
            version: Some(*originator_version),
            state: State::new(shown),
        }
    }

    /// Decodes the state of an event.
    pub(super) fn shown(&self, event: &StoredEvent) -> Shown {
        Shown::new(Some(&self.decoder), event)
    }

    /// Returns the times of the events with these ids, if their states have them.
    pub(super) async fn times(&self, ids: Vec<i64>) -> Vec<(i64, Option<Timestamp>)> {
        let times = stream::iter(ids).map(async |id| (id, self.time(id).await));
        times.buffered(CONCURRENT_READS).collect().await
    }

    async fn time(&self, id: i64) -> Option<Timestamp> {
        let notification = self.notification(id).await.ok()??;
        self.shown(&notification.event).timestamp()?.parse().ok()
    }

    /// Returns the id of the first event at or after a time, by bisection; the one after the last if there is
    /// none. The times of a log ascend with the ids, but for the time between an event and its commit.
    ///
    /// # Errors
    /// [`Exit::NotFound`](crate::failure::Exit::NotFound) if the states have no timestamps.
    pub(super) async fn first_at(&self, time: Timestamp) -> Result<i64, Failure> {
        let head = self.head().await?;
        let (mut low, mut high, mut is_timed) = (self.first_id().await?, head.saturating_add(1), false);
        while low < high {
            let middle = i64::midpoint(low, high);
            let probes = IdSelection { first: middle, limit: TIMESTAMP_ROWS, ..IdSelection::all(high - 1) };
            let times = self.times(self.ids(&probes).await?).await;
            match times.into_iter().find_map(|(id, time)| Some((id, time?))) {
                Some((id, found)) if found < time => (low, is_timed) = (id + 1, true),
                Some(_) => (high, is_timed) = (middle, true),
                None => high = middle,
            }
        }
        match is_timed || head == 0 {
            true => Ok(low),
            false => Err(Failure::not_found("the events have no timestamps that can be read")),
        }
    }

    /// Returns a permit for a live tail; `None` if too many are open.
    pub(super) fn live_tail(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.live_tails).try_acquire_owned().ok()
    }
}

impl Row {
    pub(super) fn unreadable(id: i64, error: &PersistenceError) -> Self {
        let (time, topic, aggregate) = (String::new(), String::new(), String::new());
        Self { id, time, topic, aggregate, version: None, state: State::Unreadable { reason: chain(error) } }
    }
}

/// Returns a time in a form for people, in UTC; another text as it is.
fn of_utc(text: &str) -> String {
    let format =
        |time: Timestamp| Offset::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    text.parse().map_or_else(|_| text.to_owned(), format)
}

impl State {
    pub(super) fn new(shown: Shown) -> Self {
        match shown {
            Shown::Json(json) if json.get().len() <= LONGEST_STATE => {
                Self::Json { preview: beginning(&line(&json), PREVIEW), lines: expanded(&json, 0) }
            }
            Shown::Json(json) => {
                let lines = format!("{}\n`es show` prints all of it", beginning(json.get(), LONGEST_STATE));
                Self::Json { preview: beginning(json.get(), PREVIEW), lines }
            }
            Shown::Raw(text) | Shown::Unreadable(text) => Self::Unreadable { reason: text },
        }
    }
}

impl IdSelection {
    /// All ids up to `last`.
    pub(super) fn all(last: i64) -> Self {
        Self {
            originator_id: None,
            topic: None,
            first: i64::MIN,
            last,
            is_descending: false,
            limit: usize::MAX,
        }
    }

    pub(super) fn of_aggregate(originator_id: Uuid) -> Self {
        Self { originator_id: Some(originator_id), ..Self::all(i64::MAX) }
    }
}
