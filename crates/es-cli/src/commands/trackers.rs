//! `es trackers`.

use es_core::ApplicationRecorder;
use serde::Serialize;

use crate::{
    arguments::Trackers,
    catalog::Tracker,
    color::Color,
    configuration::Settings,
    database::Database,
    failure::{Exit, Failure},
    output::{Cell, Format, Output, table},
    target::is_position_elsewhere,
};

/// The position of a consumer, and its distance to the end of the log.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    tracker: &'a Tracker,
    head: i64,
    /// Negative if the position is ahead of the log.
    lag: i64,
}

pub(crate) async fn run(arguments: &Trackers, color: Color) -> Result<Exit, Failure> {
    let connection = &arguments.connection;
    let database = Database::of(connection)?;
    // The positions are read first: a consumer that processes meanwhile is not ahead of the log.
    let mut trackers = database.catalog().await?.trackers().await?;
    let head = match &arguments.upstream {
        None => head(&database).await?,
        Some(upstream) => {
            head(&Database::open(Settings::find(Some(upstream), &connection.sources)?)?).await?
        }
    };
    let wanted = &arguments.consumers;
    if let Some(missing) = wanted.iter().find(|name| trackers.iter().all(|tracker| tracker.name != **name)) {
        return Err(Failure::not_found(format!("consumer {missing:?} has no position")));
    }
    // The positions of copies are those of another log.
    let is_wanted =
        |name: &String| wanted.contains(name) || wanted.is_empty() && !is_position_elsewhere(name);
    trackers.retain(|tracker| is_wanted(&tracker.name));
    let status = |tracker| Status { tracker, head, lag: head.saturating_sub(tracker.position) };
    let statuses: Vec<_> = trackers.iter().map(status).collect();
    let is_bad =
        |status: &Status<'_>| status.lag < 0 || arguments.max_lag.is_some_and(|max| status.lag > max);
    let mut output = Output::new();
    match arguments.formatting.format {
        Format::Json => statuses.iter().try_for_each(|status| output.json(status))?,
        Format::Text => {
            let row = |status: &Status<'_>| {
                let note = match status.lag {
                    ..0 => "ahead of the log",
                    _ if is_bad(status) => "behind",
                    _ => "",
                };
                vec![
                    Cell::text_of(&status.tracker.name),
                    Cell::number(status.tracker.position),
                    Cell::number(status.lag),
                    Cell::text_of(note),
                ]
            };
            let rows: Vec<_> = statuses.iter().map(row).collect();
            table(&mut output, color, &["CONSUMER", "POSITION", "LAG", ""], &rows)?;
        }
    }
    output.flush()?;
    Ok(if statuses.iter().any(is_bad) { Exit::Findings } else { Exit::Success })
}

async fn head(database: &Database) -> Result<i64, Failure> {
    let head = database.log().await?.max_notification_id().await?.unwrap_or(0);
    database.close().await?;
    Ok(head)
}
