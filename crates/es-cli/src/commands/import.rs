//! `es import`.

use std::io;

use es_core::{Notification, PersistenceError};
use serde::Serialize;

use crate::{
    arguments::Import,
    configuration::Settings,
    confirmation::confirm,
    database::Database,
    failure::{Exit, Failure},
    interchange::{Line, MAX_LINE, Reader},
    output::{Format, Output},
    state::StateEncoder,
    target::{IMPORT, Target},
};

/// The bytes of states after which a batch is written.
const BATCH_BYTES: usize = 16 << 20;

/// The result as JSON.
#[derive(Serialize)]
struct Summary {
    /// The events of this run.
    events: u64,
    /// The id of the export up to which events are recorded.
    position: i64,
    ids: &'static str,
}

/// Events that are read and not yet written.
#[derive(Default)]
struct Batch {
    notifications: Vec<Notification>,
    bytes: usize,
}

pub(crate) async fn run(arguments: &Import) -> Result<Exit, Failure> {
    let writing = &arguments.writing;
    // The export is on standard input, on which no answer can be read.
    if !writing.yes {
        confirm("import events from standard input", false)?;
    }
    let connection = &arguments.connection;
    let settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    let database = Database::open_for_writing(&settings)?;
    let encoder = database.state_encoder()?;
    let mut export = Reader::new(io::stdin().lock(), MAX_LINE)?;

    let mut target = Target::open(&database, IMPORT, writing.renumber).await?;
    let (recorded, last_event) = (target.position(), target.last_event().await?);
    let (mut batch, mut events) = (Batch::default(), 0);
    while let Some(line) = export.next()? {
        let Line::Event(mut notification) = line else {
            events += batch.write(&mut target).await?;
            let ids = if writing.renumber { "renumbered" } else { "kept" };
            database.close().await?;
            print(arguments.formatting.format, &Summary { events, position: target.position(), ids })?;
            return Ok(Exit::Success);
        };
        if notification.id <= recorded {
            target.verify_last(&notification, last_event)?;
            continue;
        }
        encode(&encoder, &mut notification)?;
        batch.bytes += notification.event.state.len();
        batch.notifications.push(notification);
        if batch.notifications.len() >= writing.batch.get() || batch.bytes >= BATCH_BYTES {
            events += batch.write(&mut target).await?;
        }
    }
    batch.write(&mut target).await?;
    let position = target.position();
    Err(Failure::new(format!("the export ends early: events up to id {position} are recorded")))
}

fn encode(encoder: &StateEncoder, notification: &mut Notification) -> Result<(), PersistenceError> {
    let event = &mut notification.event;
    let encoded = encoder.encode(&event.context(), event.state.clone());
    event.state =
        encoded.map_err(|error| error.with_context(format_args!("notification {}", notification.id)))?;
    Ok(())
}

impl Batch {
    /// Writes the events of the batch; returns their number.
    async fn write(&mut self, target: &mut Target) -> Result<u64, Failure> {
        let Self { notifications, .. } = std::mem::take(self);
        let events = notifications.len() as u64;
        target.append(notifications).await?;
        Ok(events)
    }
}

fn print(format: Format, summary: &Summary) -> Result<(), Failure> {
    let mut output = Output::new();
    let Summary { events, position, ids } = summary;
    match format {
        Format::Json => output.json(summary)?,
        Format::Text => output.line(&format!("imported {events} events up to id {position}; ids {ids}"))?,
    }
    output.flush()
}
