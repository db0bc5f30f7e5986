//! `es info`.

use serde::Serialize;

use crate::{
    arguments::Info,
    catalog::{Layout, Overview},
    color::Color,
    database::Database,
    failure::{Exit, Failure},
    output::{Format, Output, printable, size},
};

/// The facts about a database and its settings.
#[derive(Serialize)]
struct Facts {
    #[serde(flatten)]
    overview: Overview,
    has_cipher: bool,
    has_compressor: bool,
}

pub(crate) async fn run(arguments: &Info, color: Color) -> Result<Exit, Failure> {
    let database = Database::of(&arguments.connection)?;
    let overview = database.catalog().await?.overview().await?;
    let (has_cipher, has_compressor) = database.codecs()?;
    let facts = Facts { overview, has_cipher, has_compressor };
    let mut output = Output::new();
    match arguments.formatting.format {
        Format::Json => output.json(&facts)?,
        Format::Text => print(&mut output, color, &facts)?,
    }
    output.flush()?;
    Ok(Exit::Success)
}

fn print(output: &mut Output, color: Color, facts: &Facts) -> Result<(), Failure> {
    let Facts { overview, has_cipher, has_compressor } = facts;
    let Overview { backend, version, events, .. } = overview;
    let mut entry = |name: &str, value: String| {
        output.line(&format!("{}  {value}", color.heading(&format!("{name:<10}"))))
    };
    entry("database", printable(&overview.location))?;
    let journal_mode = overview.journal_mode.as_ref();
    entry(
        "backend",
        format!(
            "{backend} {version}{}",
            journal_mode.map_or_else(String::new, |mode| format!(", journal mode {mode}"))
        ),
    )?;
    entry("size", size(overview.bytes))?;
    let is_set = |is_set: &bool| if *is_set { "set" } else { "not set" };
    entry("codecs", format!("cipher {}, compressor {}", is_set(has_cipher), is_set(has_compressor)))?;
    entry(
        "events",
        format!(
            "{} of {} aggregates with {} topics, in {}",
            events.count, events.aggregates, events.topics, events.table
        ),
    )?;
    if let (Some(first), Some(last)) = (events.first_id, events.last_id) {
        entry("ids", format!("{first} to {last}"))?;
    }
    entry("snapshots", overview.snapshots.map_or_else(|| "no table".to_owned(), |count| count.to_string()))?;
    entry(
        "tracking",
        match overview.tracking_layout {
            None => "no table".to_owned(),
            Some(Layout::RowPerApplication) => "one row for each consumer".to_owned(),
            Some(Layout::RowPerRecord) => {
                "one row for each record (layout 9.1 of the Python library)".to_owned()
            }
        },
    )?;
    overview.trackers.iter().try_for_each(|tracker| {
        entry("consumer", format!("{} at {}", printable(&tracker.name), tracker.position))
    })
}
