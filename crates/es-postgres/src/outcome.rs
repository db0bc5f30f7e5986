//! What becomes of requests: committed as a group, alone after a failure, and found out after the
//! connection was lost.

use std::{sync::Arc, time::Duration};

use es_core::{Conflict, ErrorKind, PersistenceError};
use tokio::time::{Instant, timeout_at};

use crate::{
    PostgresDatastore,
    append::{AppendError, Batch, Outcome, Transaction},
    connect::Caller,
    current::CurrentAppender,
    error::Verdict,
    hooks::HookPoint,
    reader::Select,
    retries::Retries,
    rows::column,
    schema::Layout,
    signals::Signals,
    statements::EventsTable,
    writer::{Request, tracking_conflict, version_conflict},
};

/// How long a request is tried that meets other transactions; each time it sees what the one before
/// could not see yet.
const CONTENDED_TIME: Duration = Duration::from_secs(2);

/// Commits the requests of one recorder.
#[derive(Debug)]
pub(crate) struct Committer {
    datastore: PostgresDatastore,
    appender: Arc<CurrentAppender>,
    signals: Arc<Signals>,
}

/// Whether a request was accepted; if not, what it collided with, if that is why.
pub(crate) type Answer = Result<(), Option<Conflict>>;

/// What stands in the database of a request whose outcome is in doubt.
enum Recorded {
    /// Exactly these rows.
    Exactly(Vec<i64>),
    /// Others in their place.
    Otherwise(Conflict),
    /// None of them.
    Not,
    /// A later tracking position, by whomever.
    Untold,
}

/// Why a request was not written, or is not known to be.
enum Unwritten {
    /// A reason of its own.
    Told(PersistenceError),
    /// The server cannot be had, and so it is for the requests that come after.
    Gone(PersistenceError),
}

impl Unwritten {
    fn conflict(conflict: Conflict) -> Self {
        Self::Told(conflict.into())
    }

    fn into_error(self) -> PersistenceError {
        match self {
            Self::Told(error) | Self::Gone(error) => error,
        }
    }
}

impl Committer {
    pub(crate) fn new(
        datastore: PostgresDatastore,
        appender: Arc<CurrentAppender>,
        signals: Arc<Signals>,
    ) -> Self {
        Self { datastore, appender, signals }
    }

    /// Commits the requests, which are not at odds with each other, and answers each. Says which
    /// were accepted, and what those that were not collided with.
    pub(crate) async fn commit(&self, requests: Vec<Request>) -> Vec<Answer> {
        self.reached(HookPoint::GroupFormed).await;
        let batches: Vec<Batch<'_>> = requests.iter().map(Request::batch).collect();
        let mut appended = self.append(&batches).await;
        if appended.as_ref().is_err_and(|failed| failed.verdict == Verdict::Contended) {
            // Whoever was in the way has committed, and is seen by now: so the group is told which of its
            // requests that concerns, and the others need not go one by one (`PostgreSQL insert, 32 tasks
            // on 4 hot aggregates`).
            appended = self.append(&batches).await;
        }
        self.reached(HookPoint::GroupAnswered).await;
        match appended {
            Ok(outcomes) => {
                let results = outcomes.into_iter().map(|outcome| outcome.map_err(PersistenceError::from));
                requests
                    .into_iter()
                    .zip(results)
                    .map(|(request, result)| self.answer(request, result))
                    .collect()
            }
            Err(failed) => self.after_failure(requests, &failed).await,
        }
    }

    /// Tells other processes that events were recorded, where that is wanted.
    pub(crate) fn tell(&self) {
        self.signals.tell(&self.datastore);
    }

    /// Nothing was written, or the connection was lost: what now, for each request. When the server
    /// does not come back for one, the others do not wait for it again.
    async fn after_failure(&self, requests: Vec<Request>, failed: &AppendError) -> Vec<Answer> {
        let alone = requests.len() == 1;
        let mut gone: Option<PersistenceError> = None;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let batch = request.batch();
            let result = match (&gone, failed.verdict) {
                (Some(error), _) => Err(Unwritten::Gone(error.clone())),
                (None, Verdict::Lost) => self.find_out(batch).await,
                (None, Verdict::Unavailable) => Err(Unwritten::Told(failed.error.clone())),
                (None, Verdict::Refused) if alone => Err(Unwritten::Told(failed.error.clone())),
                // One request's fault must not be another's.
                (None, Verdict::Contended | Verdict::Refused) => self.commit_alone(batch).await,
            };
            if let (None, Err(Unwritten::Gone(error))) = (&gone, &result) {
                // Of those that are committed one by one, the others have not been sent again.
                gone = Some(if failed.verdict == Verdict::Lost { error.clone() } else { not_sent(error) });
            }
            answers.push(self.answer(request, result.map_err(Unwritten::into_error)));
        }
        answers
    }

    async fn commit_alone(&self, batch: Batch<'_>) -> Result<Vec<i64>, Unwritten> {
        let mut retries = Retries::within(CONTENDED_TIME);
        loop {
            let failed = match self.append_one(batch).await {
                Ok(outcome) => return outcome.map_err(Unwritten::conflict),
                Err(failed) => failed,
            };
            match failed.verdict {
                Verdict::Lost => return self.find_out(batch).await,
                Verdict::Contended if retries.again().await => {}
                Verdict::Unavailable => return Err(Unwritten::Gone(failed.error)),
                _ => return Err(Unwritten::Told(failed.error)),
            }
        }
    }

    /// Finds out whether a request was recorded whose connection was lost, and records it if not.
    ///
    /// The lost server process may still be at work on it. If it commits first, appending again
    /// meets rows in the way, and looking at them tells that they are these. If it comes too late,
    /// it meets ours and is refused.
    async fn find_out(&self, batch: Batch<'_>) -> Result<Vec<i64>, Unwritten> {
        self.reached(HookPoint::OutcomeDoubtful).await;
        let told = |error| Err(Unwritten::Told(error));
        let time = self.datastore.0.options.connect_timeout;
        let deadline = Instant::now() + time;
        let mut retries = Retries::within(time);
        let mut collided: Option<Conflict> = None;
        loop {
            let failed = match timeout_at(deadline, self.recorded(batch)).await {
                Ok(Ok(Recorded::Exactly(ids))) => return Ok(ids),
                Ok(Ok(Recorded::Otherwise(conflict))) => return Err(Unwritten::conflict(conflict)),
                Ok(Ok(Recorded::Untold)) => return told(unknown("a later tracking position is recorded")),
                Ok(Ok(Recorded::Not)) => {
                    if let Some(conflict) = collided {
                        // It was not the request itself, and would refuse that too.
                        return Err(Unwritten::conflict(conflict));
                    }
                    match self.append_one(batch).await {
                        Ok(Ok(ids)) => return Ok(ids),
                        Ok(Err(conflict)) => {
                            // What collided may be the request itself: look again.
                            collided = Some(conflict);
                            continue;
                        }
                        Err(failed) if failed.verdict == Verdict::Refused => {
                            return told(unknown("it cannot be recorded again").with_source(failed.error));
                        }
                        Err(failed) => failed.error,
                    }
                }
                Ok(Err(failed)) => failed,
                Err(_) => PersistenceError::operational("the server does not answer"),
            };
            if !retries.again().await {
                let unknown = unknown("it could not be found out in time").with_source(failed);
                return Err(Unwritten::Gone(unknown));
            }
        }
    }

    async fn append_one(&self, batch: Batch<'_>) -> Result<Outcome, AppendError> {
        let outcomes = self.append(&[batch]).await?;
        outcomes.into_iter().next().ok_or_else(|| {
            AppendError::unavailable(PersistenceError::internal("an append of one request has no outcome"))
        })
    }

    /// Appends on a connection that accepts writes: of several hosts, another one may do so now.
    async fn append(&self, batches: &[Batch<'_>]) -> Result<Vec<Outcome>, AppendError> {
        let connections = &self.datastore.0.connections;
        let mut retries = Retries::within(self.datastore.0.options.connect_timeout);
        let mut is_renewed = false;
        loop {
            let appender = self.appender.get();
            let leased = connections.lease(Caller::Writer).await;
            let mut lease = leased.map_err(|failed| AppendError::unavailable(failed.into()))?;
            let backend = lease.backend();
            let appending = appender.append(&mut lease, batches, Transaction::Own);
            let appended = connections.answered(backend, appending).await;
            let failed = match appended.unwrap_or_else(|silent| Err(appender.failed(silent))) {
                Ok(outcomes) => {
                    lease.finish();
                    return Ok(outcomes);
                }
                Err(failed) => failed,
            };
            if appender.is_connection_usable_after(&failed) {
                lease.finish();
            } else {
                drop(lease);
            }
            if failed.verdict == Verdict::Lost || failed.read_only {
                connections.purge();
            }
            if failed.outdated && !is_renewed {
                is_renewed = true;
                self.appender.renew().await.map_err(AppendError::unavailable)?;
                continue;
            }
            let other_hosts = self.datastore.0.options.hosts.len() > 1;
            if !(failed.read_only && other_hosts && retries.again().await) {
                return Err(failed);
            }
        }
    }

    async fn recorded(&self, batch: Batch<'_>) -> Result<Recorded, PersistenceError> {
        let appender = self.appender.get();
        let tables = &appender.tables;
        match (&tables.events, &tables.tracking, batch) {
            (Some(events), _, Batch { events: [_, ..], .. }) => self.recorded_events(events, batch).await,
            (_, Some((table, layout)), Batch { tracking: Some(tracking), .. }) => {
                let mut select = Select::new("SELECT max(notification_id), ".to_owned());
                let position = select.argument(tracking.notification_id())?;
                let application = select.argument(tracking.application_name())?;
                select.text.push_str(&format!(
                    "COALESCE(bool_or(notification_id = ${position}), false) FROM {} \
                     WHERE application_name = ${application}",
                    table.quoted()
                ));
                let query = select.into_query("looking for a tracking record");
                let rows = self.datastore.fetch_for(Caller::Writer, &query, |row| {
                    Ok((column::<Option<i64>>(row, 0)?, column::<bool>(row, 1)?))
                });
                Ok(match (rows.await?.first(), layout) {
                    (Some((_, true)), _) => Recorded::Exactly(Vec::new()),
                    (Some((Some(latest), false)), layout) if *latest > tracking.notification_id() => {
                        match layout {
                            Layout::RowPerRecord => Recorded::Otherwise(tracking_conflict(tracking)),
                            Layout::RowPerApplication => Recorded::Untold,
                        }
                    }
                    _ => Recorded::Not,
                })
            }
            _ => Ok(Recorded::Not),
        }
    }

    async fn recorded_events(
        &self,
        table: &EventsTable,
        batch: Batch<'_>,
    ) -> Result<Recorded, PersistenceError> {
        let id = if table.notifications { "e.notification_id" } else { "0::bigint" };
        let sql = format!(
            "SELECT r.row, e.topic = r.topic AND e.state = r.state, {id} \
             FROM unnest($1, $2, $3, $4) WITH ORDINALITY \
             AS r (originator_id, originator_version, topic, state, row) \
             JOIN {} AS e USING (originator_id, originator_version) ORDER BY r.row",
            table.name.quoted()
        );
        let mut select = Select::new(sql);
        let events = batch.events;
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
        let Some((first, _, _)) = found.first() else { return Ok(Recorded::Not) };
        if found.len() == events.len() && found.iter().all(|(_, same, _)| *same) {
            let ids = found.iter().filter(|_| table.notifications).map(|(_, _, id)| *id).collect();
            return Ok(Recorded::Exactly(ids));
        }
        let other = found.iter().find(|(_, same, _)| !same).map_or(first, |(row, _, _)| row);
        let other = usize::try_from(*other).ok().and_then(|row| events.get(row.checked_sub(1)?));
        let other = other.ok_or_else(|| PersistenceError::internal("a row that was not asked for"))?;
        Ok(Recorded::Otherwise(version_conflict(other)))
    }

    /// Answers a request, having woken those who wait for it.
    fn answer(&self, request: Request, result: Result<Vec<i64>, PersistenceError>) -> Answer {
        let told = match &result {
            Ok(_) => Ok(()),
            Err(error) => Err(error.conflict().cloned()),
        };
        if told.is_ok() {
            self.signals.recorded(&request);
        }
        request.answer(result);
        told
    }

    async fn reached(&self, point: HookPoint) {
        self.datastore.0.options.hooks.reached(point).await;
    }
}

/// For requests that wait behind one that the server went away for.
fn not_sent(error: &PersistenceError) -> PersistenceError {
    if !error.is_outcome_unknown() {
        return error.clone();
    }
    let message = "nothing was written: the server went away before this was sent again";
    PersistenceError::operational(message).with_source(error.clone()).transient()
}

fn unknown(why: &str) -> PersistenceError {
    PersistenceError::new(
        ErrorKind::OutcomeUnknown,
        format!("the connection was lost while a commit was in flight, and its outcome is unknown: {why}"),
    )
}
