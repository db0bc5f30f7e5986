//! Recovery: determines whether a request was committed before its connection was lost, and records it if not.

use es_core::{Conflict, ErrorKind, PersistenceError, StoredEvent, Tracking};
use tokio::time::{Instant, timeout_at};

use super::{
    append::{Outcome, Scope},
    committer::{Committer, Unrecorded},
    request::{Batch, version_conflict},
};
use crate::{
    connection::{backoff::Retries, pool::Caller},
    error::Verdict,
    fault_hooks::FaultPoint,
    read::select::Select,
    schema::{EventsTable, Layout, TrackingTable, rows::column},
};

/// What the database has of a request with an unknown outcome.
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

impl Committer {
    /// Determines whether a batch was committed, and appends it if not. `known_id` is a notification id that was
    /// acknowledged before the batch was first sent.
    ///
    /// The lost server process may still be working on the batch. If it commits first, appending again meets its
    /// rows, and comparing them shows that they are the batch. If it comes too late, it meets the rows of the
    /// second attempt and is refused.
    pub(super) async fn recover_outcome(
        &self,
        batch: Batch<'_>,
        known_id: i64,
    ) -> Result<Vec<i64>, Unrecorded> {
        self.reached(FaultPoint::OutcomeDoubtful).await;
        let failed = |error| Err(Unrecorded::Failed(error));
        let time = self.datastore.0.options.connect_timeout;
        let deadline = Instant::now() + time;
        let mut retries = Retries::within(time);
        let mut refused: Option<PersistenceError> = None;
        let mut last_error: Option<PersistenceError> = None;
        let mut scope = Scope::Own;
        loop {
            // Whether the obstacle is the request's own, and not the server's.
            let mut is_own = false;
            let error = match timeout_at(deadline, self.recorded(batch, known_id)).await {
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
                        // The request did not meet itself. What it met would refuse it again.
                        return Err(Unrecorded::Refused(refusal));
                    }
                    match self.append_one(batch, std::mem::replace(&mut scope, Scope::Own)).await {
                        Ok(Outcome::Recorded(ids)) => return Ok(ids),
                        Ok(Outcome::Refused(refusal)) => {
                            // It may have met itself: compare again.
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
                        Err(failed_again) if failed_again.verdict == Verdict::Refused => {
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
            if !retries.again().await {
                let error = unknown("it could not be determined in time").with_source(error);
                // Other requests may be recovered although this one is not.
                return Err(if is_own { Unrecorded::Failed(error) } else { Unrecorded::Unavailable(error) });
            }
            last_error = Some(error);
        }
    }

    /// Compares what the database has with a batch.
    async fn recorded(&self, batch: Batch<'_>, known_id: i64) -> Result<Recorded, PersistenceError> {
        let appender = self.appender.get();
        let events = appender.tables.events.as_ref().filter(|_| !batch.events.is_empty());
        let tracking = appender.tables.tracking.as_ref().zip(batch.tracking);
        let Some(events) = events else {
            return match tracking {
                Some((table, tracking)) => self.recorded_position(table, tracking).await,
                None => Ok(Recorded::Absent),
            };
        };
        let recorded = self.recorded_events(events, batch.events, known_id).await?;
        match (recorded, tracking) {
            // The events and the position were committed together or not at all. Events without the position are
            // those of a rival, although they are the same.
            (Recorded::Match(ids), Some((table, tracking))) => {
                Ok(match self.recorded_position(table, tracking).await? {
                    Recorded::Match(_) | Recorded::Unknown | Recorded::Ambiguous => Recorded::Match(ids),
                    Recorded::Conflict(conflict) => Recorded::Conflict(conflict),
                    Recorded::Absent => first_conflict(batch.events),
                })
            }
            (recorded, _) => Ok(recorded),
        }
    }

    async fn recorded_position(
        &self,
        table: &TrackingTable,
        tracking: &Tracking,
    ) -> Result<Recorded, PersistenceError> {
        let mut select = Select::new("SELECT max(notification_id), ".to_owned());
        let position = select.argument(tracking.notification_id())?;
        let application = select.argument(tracking.application_name())?;
        select.text.push_str(&format!(
            "COALESCE(bool_or(notification_id = ${position}), false) FROM {} \
             WHERE application_name = ${application}",
            table.name.quoted()
        ));
        let query = select.into_query("looking for a tracking record");
        let rows = self.datastore.fetch_for(Caller::Writer, &query, |row| {
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
        &self,
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
        let found = self.datastore.fetch_for(Caller::Writer, &query, |row| {
            Ok((
                column::<i64>(row, 0)?,
                column::<Option<bool>>(row, 1)? == Some(true),
                column::<i64>(row, 2)?,
            ))
        });
        let found = found.await?;
        let Some((first, _, lowest_id)) = found.first() else { return Ok(Recorded::Absent) };
        if found.len() == events.len() && found.iter().all(|(_, same, _)| *same) {
            // Its id was given out before the request was sent, so it is a rival's; unless the server has lost
            // acknowledged ids and gives them out again.
            if table.has_ids && *lowest_id <= known_id {
                return Ok(Recorded::Ambiguous);
            }
            let ids = found.iter().filter(|_| table.has_ids).map(|(_, _, id)| *id).collect();
            return Ok(Recorded::Match(ids));
        }
        let other = found.iter().find(|(_, same, _)| !same).map_or(first, |(place, _, _)| place);
        let other = usize::try_from(*other).ok().and_then(|place| events.get(place.checked_sub(1)?));
        let other = other.ok_or_else(|| PersistenceError::internal("a row that was not asked for"))?;
        Ok(Recorded::Conflict(version_conflict(other)))
    }
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
