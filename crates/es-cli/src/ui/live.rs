//! The live tail: server-sent events.

use std::{convert::Infallible, num::NonZeroUsize, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    response::sse::{Event, KeepAlive, Sse},
};
use es_core::{
    ApplicationRecorderExt, DynApplicationRecorder, ErrorKind, Notification, Subscription, Topic, uuid::Uuid,
};
use futures_util::{Stream, StreamExt, stream::unfold};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    filter::{Parameters, id},
    page::Problem,
    source::{App, Row},
};
use crate::{catalog::IdSelection, failure::chain};

/// The interval of reads at the end of the log.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// An open tail. It ends when it is dropped.
struct Tail {
    app: Arc<App>,
    originator_id: Option<Uuid>,
    topics: Vec<Topic>,
    subscription: Subscription<Arc<dyn DynApplicationRecorder>>,
    /// The rows to send, which are shorter than the events can be: a slow reader may leave them here.
    rows: std::vec::IntoIter<Row>,
    has_failed: bool,
    _permit: OwnedSemaphorePermit,
}

/// Sends the events after the id `after`, as they are committed. The id of each message is that of its event,
/// so that a browser continues there after an interruption.
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    headers: axum::http::HeaderMap,
    Query(parameters): Query<Parameters>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok()).unwrap_or_default();
    let after = match id("Last-Event-ID", last)? {
        Some(last) => last,
        None => id("after", &parameters.after)?.unwrap_or(0),
    };
    let permit = app.source.live_tail().ok_or_else(|| Problem::overloaded("live tails"))?;
    let topics: Vec<_> = parameters.topic().map(Topic::from_stored).into_iter().collect();
    let tail = Tail {
        originator_id: parameters.originator_id()?,
        subscription: subscribe(&app, after, &topics),
        topics,
        rows: Vec::new().into_iter(),
        has_failed: false,
        _permit: permit,
        app: Arc::clone(&app),
    };
    let mut is_terminating = app.is_terminating.clone();
    let events = unfold(tail, async |mut tail| Some((Ok(tail.next().await?), tail)));
    let events = events.take_until(async move { drop(is_terminating.changed().await) });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn subscribe(app: &App, after: i64, topics: &[Topic]) -> Subscription<Arc<dyn DynApplicationRecorder>> {
    app.source.log.subscribe(after, topics).page_size(PAGE_SIZE).poll_interval(POLL_INTERVAL)
}

impl Tail {
    /// Waits for the next message; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.has_failed {
                return None;
            }
            if let Some(row) = self.rows.next() {
                return Some(message(&row));
            }
            match self.subscription.next_page().await {
                Ok(page) => self.rows = self.decoded(page?.notifications).into_iter(),
                Err(error) if error.kind() == ErrorKind::RolledBack => {
                    return Some(self.fail(&chain(&error)));
                }
                // A page with a row that cannot be read: its rows are read one by one.
                Err(error) => match self.next_row().await {
                    Some(row) => return Some(message(&row)),
                    None => return Some(self.fail(&chain(&error))),
                },
            }
        }
    }

    /// Decodes the notifications of the aggregate.
    fn decoded(&self, mut notifications: Vec<Notification>) -> Vec<Row> {
        notifications.retain(|Notification { event, .. }| {
            self.originator_id.is_none_or(|wanted| wanted == event.originator_id)
        });
        notifications.iter().map(|notification| self.app.source.decoded(notification)).collect()
    }

    /// Reads the next row by itself, and continues after it.
    async fn next_row(&mut self) -> Option<Row> {
        let next = IdSelection {
            originator_id: self.originator_id,
            topic: self.topics.first().map(ToString::to_string),
            first: self.subscription.position().checked_add(1)?,
            limit: 1,
            ..IdSelection::all(i64::MAX)
        };
        let id = *self.app.source.ids(&next).await.ok()?.first()?;
        self.subscription = subscribe(&self.app, id, &self.topics);
        self.app.source.row(id).await
    }

    fn fail(&mut self, reason: &str) -> Event {
        self.has_failed = true;
        // A line break would end the field.
        Event::default().event("failure").data(reason)
    }
}

fn message(row: &Row) -> Event {
    let event = Event::default().id(row.id.to_string());
    let json = serde_json::to_string(row).unwrap_or_default();
    event.event("stored").data(json)
}
