//! Recovery: determines whether a request was committed before its connection was lost, and records it if
//! not.

use es_core::{Conflict, ErrorKind, PersistenceError, StoredEvent, Tracking};
use tokio::time::{Instant, timeout_at};

use super::{appender_cache::AppenderCache, outcome::Outcome, request::Batch};
use crate::{
    connection::{Backoff, Database, LeaseKind, Select, column},
    error::ErrorClass,
    fault_hooks::FaultPoint,
    schema::{EventsTable, Layout, TrackingTable},
};

/// The reason why a request is not acknowledged. Its outcome may be unknown.
pub(super) enum Unacknowledged {
    /// It concerns this request: a conflict, another error, or an outcome that cannot be determined.
    Request(PersistenceError),
    /// The server is unavailable, and therefore also for the next requests.
    Server(PersistenceError),
}

impl From<Unacknowledged> for PersistenceError {
    fn from(reason: Unacknowledged) -> Self {
        let (Unacknowledged::Request(error) | Unacknowledged::Server(error)) = reason;
        error
    }
}

/// The part of a request with an unknown outcome that is in the database.
enum Found {
    /// All of it.
    Match(Vec<i64>),
    /// Something else in its place.
    Conflict(Conflict),
    /// Nothing of it.
    Absent,
    /// Rows that may be its own or a rival's, for this reason.
    Ambiguous(&'static str),
}

/// Determines whether a batch was committed, and appends it if not. `known_id` is a notification id that was
/// acknowledged before the batch was first sent.
///
/// The lost server process may still be working on the batch. If it commits first, appending again meets its
/// rows, and comparing them shows that they are the batch. If it comes too late, it meets the rows of the
/// second attempt and is refused.
pub(super) async fn recover_outcome(
    appender: &AppenderCache,
    batch: Batch<'_>,
    known_id: i64,
) -> Result<Vec<i64>, Unacknowledged> {
    appender.database.reached(FaultPoint::OutcomeDoubtful).await;
    let failed = |error| Err(Unacknowledged::Request(error));
    let time = appender.database.options.connect_timeout;
    let deadline = Instant::now() + time;
    let mut backoff = Backoff::within(time);
    let mut refused: Option<PersistenceError> = None;
    let mut last_error: Option<PersistenceError> = None;
    loop {
        // Whether the obstacle is specific to the request, and not to the server.
        let mut is_own = false;
        let error = match timeout_at(deadline, find(appender, batch, known_id)).await {
            Ok(Ok(Found::Match(ids))) => return Ok(ids),
            Ok(Ok(Found::Conflict(conflict))) => return failed(conflict.into()),
            Ok(Ok(Found::Ambiguous(reason))) => return failed(unknown(reason)),
            Ok(Ok(Found::Absent)) => {
                if let Some(refusal) = refused {
                    // The request did not conflict with itself, and would be refused again.
                    return failed(refusal);
                }
                // Without the deadline: this attempt waits for locks as any other append does, and ending it
                // would make its outcome unknown. A server that does not answer is detected.
                match appender.append_one(batch).await {
                    Ok(Outcome::Recorded(ids)) => return Ok(ids),
                    Ok(Outcome::Refused(refusal)) => {
                        // It may conflict with itself: compare again.
                        refused = Some(refusal);
                        continue;
                    }
                    Ok(Outcome::Locked | Outcome::FirstPosition | Outcome::NotInserted) => {
                        is_own = true;
                        PersistenceError::operational(
                            "the tracking position cannot be recorded at the moment",
                        )
                    }
                    Err(again) if again.class == ErrorClass::Refused => {
                        return failed(unknown("it cannot be recorded again").with_source(again.error));
                    }
                    Err(again) => again.error,
                }
            }
            Ok(Err(error)) => error,
            Err(_) => last_error
                .take()
                .unwrap_or_else(|| PersistenceError::operational("the server does not respond")),
        };
        if !backoff.wait().await {
            let error = unknown("determining it timed out").with_source(error);
            // Other requests may be recovered although this one is not.
            return if is_own { failed(error) } else { Err(Unacknowledged::Server(error)) };
        }
        last_error = Some(error);
    }
}

/// Compares what the database has with a batch.
async fn find(cache: &AppenderCache, batch: Batch<'_>, known_id: i64) -> Result<Found, PersistenceError> {
    let (database, appender) = (&*cache.database, cache.get());
    let events = appender.tables.events.as_ref().filter(|_| !batch.events.is_empty());
    let tracking = appender.tables.tracking.as_ref().zip(batch.tracking);
    let Some(events) = events else {
        return match tracking {
            Some((table, tracking)) => find_position(database, table, tracking).await,
            None => Ok(Found::Absent),
        };
    };
    match (find_events(database, events, batch.events, known_id).await?, tracking) {
        // The events and the position were committed together or not at all. Events without the position are
        // those of a rival, although they are the same.
        (Found::Match(ids), Some((table, tracking))) => {
            Ok(match find_position(database, table, tracking).await? {
                Found::Match(_) | Found::Ambiguous(_) => Found::Match(ids),
                Found::Conflict(conflict) => Found::Conflict(conflict),
                Found::Absent => match batch.events {
                    [first, ..] => Found::Conflict(first.conflict()),
                    [] => Found::Absent,
                },
            })
        }
        (found, _) => Ok(found),
    }
}

async fn find_position(
    database: &Database,
    table: &TrackingTable,
    tracking: &Tracking,
) -> Result<Found, PersistenceError> {
    let mut select = Select::new("SELECT max(notification_id), ");
    let position = select.argument(tracking.notification_id())?;
    let application = select.argument(tracking.application_name())?;
    select.text.push_str(&format!(
        "COALESCE(bool_or(notification_id = ${position}), false) FROM {} \
         WHERE application_name = ${application}",
        table.name.quoted()
    ));
    let query = select.into_query("looking for a tracking record");
    let rows = database.fetch_for(LeaseKind::Write, &query, |row| {
        Ok((column::<Option<i64>>(row, 0)?, column::<bool>(row, 1)?))
    });
    Ok(match (rows.await?.first(), table.layout) {
        (Some((_, true)), _) => Found::Match(Vec::new()),
        (Some((Some(latest), false)), layout) if *latest > tracking.notification_id() => match layout {
            Layout::RowPerRecord => Found::Conflict(tracking.conflict()),
            // It is this request's and a rival's after it, or a rival's alone.
            Layout::RowPerApplication => Found::Ambiguous("a later tracking position is recorded"),
        },
        _ => Found::Absent,
    })
}

async fn find_events(
    database: &Database,
    table: &EventsTable,
    events: &[StoredEvent],
    known_id: i64,
) -> Result<Found, PersistenceError> {
    let id = if table.has_ids { "e.notification_id" } else { "0::bigint" };
    let sql = format!(
        "SELECT r.place, e.topic = r.topic AND e.state = r.state, {id} \
         FROM unnest($1, $2, $3, $4) WITH ORDINALITY \
         AS r (originator_id, originator_version, topic, state, place) \
         JOIN {} AS e USING (originator_id, originator_version) ORDER BY r.place",
        table.name.quoted()
    );
    let mut select = Select::new(sql);
    select.argument(events.iter().map(|event| event.originator_id).collect::<Vec<_>>())?;
    select.argument(events.iter().map(|event| event.originator_version).collect::<Vec<_>>())?;
    select.argument(events.iter().map(|event| event.topic.as_str()).collect::<Vec<_>>())?;
    select.argument(events.iter().map(|event| &*event.state).collect::<Vec<&[u8]>>())?;
    let query = select.into_query("looking for events");
    let found = database.fetch_for(LeaseKind::Write, &query, |row| {
        Ok((column::<i64>(row, 0)?, column::<Option<bool>>(row, 1)? == Some(true), column::<i64>(row, 2)?))
    });
    let found = found.await?;
    let Some((first, _, lowest_id)) = found.first() else { return Ok(Found::Absent) };
    if found.len() == events.len() && found.iter().all(|(_, same, _)| *same) {
        // Its id was allocated before the request was sent, so it is a rival's; unless the server has lost
        // acknowledged ids and allocates them again.
        if table.has_ids && *lowest_id <= known_id {
            let reason = "the same events are recorded under earlier notification ids";
            return Ok(Found::Ambiguous(reason));
        }
        let ids = found.iter().filter(|_| table.has_ids).map(|(_, _, id)| *id).collect();
        return Ok(Found::Match(ids));
    }
    let other = found.iter().find(|(_, same, _)| !same).map_or(first, |(place, _, _)| place);
    let other = usize::try_from(*other).ok().and_then(|place| events.get(place.checked_sub(1)?));
    let other =
        other.ok_or_else(|| PersistenceError::internal("an answer has a row that was not selected"))?;
    Ok(Found::Conflict(other.conflict()))
}

fn unknown(reason: &str) -> PersistenceError {
    PersistenceError::new(
        ErrorKind::OutcomeUnknown,
        format!("the connection was lost while a commit was in flight, and its outcome is unknown: {reason}"),
    )
}
