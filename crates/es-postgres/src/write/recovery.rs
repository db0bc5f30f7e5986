//! Recovery: determines whether a request was committed before its connection was lost, and records it if
//! not.

use es_core::{Conflict, ErrorKind, PersistenceError, StoredEvent, Tracking};
use tokio::time::{Instant, timeout_at};

use super::{
    append::Scope,
    appender_cache::AppenderCache,
    outcome::Outcome,
    request::{Batch, version_conflict},
};
use crate::{
    connection::{Backoff, Database, LeaseKind, Select, column},
    error::ErrorClass,
    fault_hooks::FaultPoint,
    schema::{EventsTable, Layout, TrackingTable},
};

/// The reason why a request was not recorded, or is not known to be.
pub(super) enum Unrecorded {
    Refused(PersistenceError),
    Failed(PersistenceError),
    /// The server is unavailable, and therefore also for the next requests.
    Unavailable(PersistenceError),
}

/// The part of a request with an unknown outcome that is in the database.
enum Recorded {
    /// All of it.
    Match(Vec<i64>),
    /// Something else in its place.
    Conflict(Conflict),
    /// Nothing of it.
    Absent,
    /// A later position, of this request and a rival after it, or of a rival alone.
    Unknown,
    /// The same events under ids from before the request was sent.
    Ambiguous,
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
) -> Result<Vec<i64>, Unrecorded> {
    appender.database.reached(FaultPoint::OutcomeDoubtful).await;
    let failed = |error| Err(Unrecorded::Failed(error));
    let time = appender.database.options.connect_timeout;
    let deadline = Instant::now() + time;
    let mut backoff = Backoff::within(time);
    let mut refused: Option<PersistenceError> = None;
    let mut last_error: Option<PersistenceError> = None;
    let mut scope = Scope::Own;
    loop {
        // Whether the obstacle is specific to the request, and not to the server.
        let mut is_own = false;
        let error = match timeout_at(deadline, recorded(appender, batch, known_id)).await {
            Ok(Ok(Recorded::Match(ids))) => return Ok(ids),
            Ok(Ok(Recorded::Conflict(conflict))) => {
                return Err(Unrecorded::Refused(conflict.into()));
            }
            Ok(Ok(Recorded::Unknown)) => return failed(unknown("a later tracking position is recorded")),
            Ok(Ok(Recorded::Ambiguous)) => {
                return failed(unknown("the same events are recorded under earlier notification ids"));
            }
            Ok(Ok(Recorded::Absent)) => {
                if let Some(refusal) = refused {
                    // The request did not conflict with itself, and would be refused again.
                    return Err(Unrecorded::Refused(refusal));
                }
                match appender.append_one(batch, std::mem::replace(&mut scope, Scope::Own)).await {
                    Ok(Outcome::Recorded(ids)) => return Ok(ids),
                    Ok(Outcome::Refused(refusal)) => {
                        // It may conflict with itself: compare again.
                        refused = Some(refusal);
                        continue;
                    }
                    Ok(Outcome::FirstPosition) => {
                        scope = Scope::FirstPosition;
                        continue;
                    }
                    Ok(Outcome::Locked | Outcome::NotInserted) => {
                        is_own = true;
                        PersistenceError::operational(
                            "the tracking position cannot be recorded at the moment",
                        )
                    }
                    Err(failed_again) if failed_again.class == ErrorClass::Refused => {
                        let error = unknown("it cannot be recorded again");
                        return failed(error.with_source(failed_again.error));
                    }
                    Err(failed_again) => failed_again.error,
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
            return Err(if is_own { Unrecorded::Failed(error) } else { Unrecorded::Unavailable(error) });
        }
        last_error = Some(error);
    }
}

/// Compares what the database has with a batch.
async fn recorded(
    cache: &AppenderCache,
    batch: Batch<'_>,
    known_id: i64,
) -> Result<Recorded, PersistenceError> {
    let (database, appender) = (&*cache.database, cache.get());
    let events = appender.tables.events.as_ref().filter(|_| !batch.events.is_empty());
    let tracking = appender.tables.tracking.as_ref().zip(batch.tracking);
    let Some(events) = events else {
        return match tracking {
            Some((table, tracking)) => recorded_position(database, table, tracking).await,
            None => Ok(Recorded::Absent),
        };
    };
    let recorded = recorded_events(database, events, batch.events, known_id).await?;
    match (recorded, tracking) {
        // The events and the position were committed together or not at all. Events without the position are
        // those of a rival, although they are the same.
        (Recorded::Match(ids), Some((table, tracking))) => {
            Ok(match recorded_position(database, table, tracking).await? {
                Recorded::Match(_) | Recorded::Unknown | Recorded::Ambiguous => Recorded::Match(ids),
                Recorded::Conflict(conflict) => Recorded::Conflict(conflict),
                Recorded::Absent => first_conflict(batch.events),
            })
        }
        (recorded, _) => Ok(recorded),
    }
}

async fn recorded_position(
    database: &Database,
    table: &TrackingTable,
    tracking: &Tracking,
) -> Result<Recorded, PersistenceError> {
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
        (Some((_, true)), _) => Recorded::Match(Vec::new()),
        (Some((Some(latest), false)), layout) if *latest > tracking.notification_id() => match layout {
            Layout::RowPerRecord => Recorded::Conflict(tracking.conflict()),
            Layout::RowPerApplication => Recorded::Unknown,
        },
        _ => Recorded::Absent,
    })
}

async fn recorded_events(
    database: &Database,
    table: &EventsTable,
    events: &[StoredEvent],
    known_id: i64,
) -> Result<Recorded, PersistenceError> {
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
    let Some((first, _, lowest_id)) = found.first() else { return Ok(Recorded::Absent) };
    if found.len() == events.len() && found.iter().all(|(_, same, _)| *same) {
        // Its id was allocated before the request was sent, so it is a rival's; unless the server has lost
        // acknowledged ids and allocates them again.
        if table.has_ids && *lowest_id <= known_id {
            return Ok(Recorded::Ambiguous);
        }
        let ids = found.iter().filter(|_| table.has_ids).map(|(_, _, id)| *id).collect();
        return Ok(Recorded::Match(ids));
    }
    let other = found.iter().find(|(_, same, _)| !same).map_or(first, |(place, _, _)| place);
    let other = usize::try_from(*other).ok().and_then(|place| events.get(place.checked_sub(1)?));
    let other =
        other.ok_or_else(|| PersistenceError::internal("an answer has a row that was not selected"))?;
    Ok(Recorded::Conflict(version_conflict(other)))
}

fn first_conflict(events: &[StoredEvent]) -> Recorded {
    events.first().map_or(Recorded::Absent, |first| Recorded::Conflict(version_conflict(first)))
}

fn unknown(reason: &str) -> PersistenceError {
    PersistenceError::new(
        ErrorKind::OutcomeUnknown,
        format!("the connection was lost while a commit was in flight, and its outcome is unknown: {reason}"),
    )
}
