//! The search for the personal values of a data subject.

use std::collections::BTreeMap;

use es_core::{DynStateMaintenance, EventKey, PersistenceError, StateMaintenance, StoredEvent};
use es_personal::Subject;
use serde::Serialize;
use serde_json::Value;

use crate::state::StateDecoder;

/// The number of states of a page.
const PAGE_SIZE: usize = 500;

/// The values of a subject in the states of one topic of a table.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Mentions {
    pub(crate) states: u64,
    pub(crate) values: u64,
}

/// The values of a subject in a table.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub(crate) by_topic: BTreeMap<String, Mentions>,
    /// The number of states that cannot be decoded.
    pub(crate) unreadable: u64,
}

impl Search {
    /// Searches all states of a recorder, in pages.
    pub(crate) async fn of(
        recorder: &std::sync::Arc<dyn DynStateMaintenance>,
        decoder: &StateDecoder,
        subject: &Subject,
    ) -> Result<Self, PersistenceError> {
        let mut search = Self::default();
        let mut after: Option<EventKey> = None;
        loop {
            let events = recorder.select_by_key(after, PAGE_SIZE).await?;
            let Some(last) = events.last() else { return Ok(search) };
            after = Some(last.key());
            events.iter().for_each(|event| search.add(event, decoder, subject));
        }
    }

    fn add(&mut self, event: &StoredEvent, decoder: &StateDecoder, subject: &Subject) {
        let state = decoder.plain(event).ok().and_then(|state| serde_json::from_slice(&state).ok());
        let Some(state) = state else {
            self.unreadable += 1;
            return;
        };
        let values = values(&state, subject);
        if values > 0 {
            let mentions = self.by_topic.entry(event.topic.to_string()).or_default();
            mentions.states += 1;
            mentions.values += values;
        }
    }
}

/// Returns the number of a subject's personal values within a JSON value, whose depth serde_json limits.
fn values(json: &Value, subject: &Subject) -> u64 {
    match json {
        Value::Array(items) => items.iter().map(|item| values(item, subject)).sum(),
        Value::Object(entries) => {
            let is_personal = entries.get("_type_").is_some_and(|name| name == "personal")
                && json.pointer("/_data_/subject").is_some_and(|text| text == subject.as_str());
            u64::from(is_personal) + entries.values().map(|entry| values(entry, subject)).sum::<u64>()
        }
        _ => 0,
    }
}
