//! Reading events by key, and replacing their states.

use es_core::{
    DEFAULT_PAGE_BYTES, EventKey, PersistenceError, StateMaintenance, StateReplacement, StoredEvent,
};
use rusqlite::params;
use tokio::sync::oneshot;

use crate::{
    connection::Session,
    datastore::outcome_lost,
    error::from_sqlite,
    recorder::{SqliteAggregateRecorder, SqliteApplicationRecorder, SqliteProcessRecorder, Store},
    schema::{EventTable, RowReader, with_stored_id},
    write::{Command, Committer, WriteConnection, queued_size},
};

macro_rules! maintain_states {
    ($($recorder:ident)*) => {$(
        impl StateMaintenance for $recorder {
            async fn select_by_key(
                &self,
                after: Option<EventKey>,
                limit: usize,
            ) -> Result<Vec<StoredEvent>, PersistenceError> {
                let table = std::sync::Arc::clone(&self.0.table);
                let read = move |session: &mut Session| session.select_by_key(&table, after, limit);
                self.0.read(read).await
            }

            async fn replace_states(
                &self,
                replacements: Vec<StateReplacement>,
            ) -> Result<usize, PersistenceError> {
                replace_states(&self.0, replacements).await
            }
        }
    )*};
}

maintain_states!(SqliteAggregateRecorder SqliteApplicationRecorder SqliteProcessRecorder);

impl Session {
    fn select_by_key(
        &mut self,
        table: &EventTable,
        after: Option<EventKey>,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        let condition = after.map_or("", |_| "WHERE (originator_id, originator_version) > (?1, ?2) ");
        let select = format!(
            "SELECT originator_id, originator_version, topic, state FROM \"{}\" {condition}\
             ORDER BY originator_id, originator_version",
            table.name
        );
        let mut select = self.connection.prepare_cached(&select).map_err(from_sqlite)?;
        if let Some(EventKey { originator_id, originator_version }) = after {
            with_stored_id(originator_id, |id| select.raw_bind_parameter(1, id)).map_err(from_sqlite)?;
            select.raw_bind_parameter(2, originator_version).map_err(from_sqlite)?;
        }
        let mut reader = RowReader { table: &table.name, topics: &mut self.topics };
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut rows = select.raw_query();
        while events.len() < limit
            && bytes < DEFAULT_PAGE_BYTES.get()
            && let Some(row) = rows.next().map_err(from_sqlite)?
        {
            let originator_id = reader.originator_id(row, 0, "a row")?;
            let event = reader.event(row, 1, originator_id)?;
            bytes += event.state.len();
            events.push(event);
        }
        Ok(events)
    }
}

async fn replace_states(
    store: &Store,
    replacements: Vec<StateReplacement>,
) -> Result<usize, PersistenceError> {
    let Store { datastore, table, lifecycle, .. } = store;
    lifecycle.check_open()?;
    let bytes: usize = replacements.iter().map(|replacement| replacement.replacement.len()).sum();
    let permit = datastore.acquire_permit(bytes.saturating_add(queued_size([]))).await?;
    let (reply, outcome) = oneshot::channel();
    let (table, pending) = (std::sync::Arc::clone(table), lifecycle.accept()?);
    let replace = move |committer: &Committer| {
        if !reply.is_closed() {
            let replaced = replace(&committer.writing, &table, &replacements);
            drop(permit);
            let _ = reply.send(replaced);
        }
        drop(pending);
    };
    datastore.submit(Command::Transact(Box::new(replace)))?;
    outcome.await.unwrap_or_else(|_| Err(outcome_lost())).map_err(|error| datastore.with_name(error))
}

fn replace(
    writing: &WriteConnection,
    table: &EventTable,
    replacements: &[StateReplacement],
) -> Result<usize, PersistenceError> {
    writing.begin().map_err(from_sqlite)?;
    let updated = update(writing, table, replacements).inspect_err(|_| {
        if let Err(error) = writing.roll_back() {
            // The next transaction tries again before it begins.
            tracing::warn!(%error, "a replacement of states cannot be rolled back");
        }
    });
    let updated = updated.map_err(from_sqlite)?;
    // The caller can repeat it: whether a commit that failed took effect need not be known.
    writing.commit(|_| Ok(None))?;
    Ok(updated)
}

fn update(
    writing: &WriteConnection,
    table: &EventTable,
    replacements: &[StateReplacement],
) -> rusqlite::Result<usize> {
    // As text or as bytes: the Python library's type of a state is that of its transcoder's result.
    let update = format!(
        "UPDATE \"{}\" SET state = ?1 WHERE originator_id = ?2 AND originator_version = ?3 \
         AND CAST(state AS BLOB) = ?4",
        table.name
    );
    let mut update = writing.connection().prepare_cached(&update)?;
    let mut updated = 0;
    for StateReplacement { key, current, replacement } in replacements {
        updated += with_stored_id(key.originator_id, |id| {
            update.execute(params![&replacement[..], id, key.originator_version, &current[..]])
        })?;
    }
    Ok(updated)
}
