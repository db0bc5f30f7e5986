//! `es track set` and `es track reset`.

use es_core::{ApplicationRecorder, Tracking};
use serde::Serialize;

use crate::{
    arguments::{Change, Connection, Track, TrackReset, TrackSet},
    color::Color,
    configuration::Settings,
    confirmation::confirm,
    database::Database,
    failure::{Exit, Failure},
    output::{Format, Output, printable},
    target::is_position_elsewhere,
};

/// The change of a position, as JSON.
#[derive(Debug, Serialize)]
struct Difference<'a> {
    consumer: &'a str,
    before: Option<i64>,
    after: Option<i64>,
    is_applied: bool,
}

pub(crate) async fn run(command: &Track, color: Color) -> Result<Exit, Failure> {
    match command {
        Track::Set(arguments) => set(arguments, color).await,
        Track::Reset(arguments) => reset(arguments, color).await,
    }
}

async fn set(arguments: &TrackSet, color: Color) -> Result<Exit, Failure> {
    let TrackSet { consumer, position, connection, .. } = arguments;
    check_name(consumer)?;
    let before = position_of(connection, consumer).await?;
    if before.is_none() && !arguments.create {
        return Err(unknown(consumer).with_hint("--create sets the position of a new consumer"));
    }
    if *position < 0 {
        return Err(Failure::usage("a position is not negative"));
    }
    if !is_position_elsewhere(consumer) {
        let database = match &arguments.upstream {
            None => Database::of(connection)?,
            Some(upstream) => Database::open(Settings::find(Some(upstream), &connection.sources)?)?,
        };
        let head = database.log().await?.max_notification_id().await?.unwrap_or(0);
        if *position > head {
            return Err(Failure::usage(format!("position {position} is after the end of the log, {head}"))
                .with_hint("--upstream names the log that the consumer follows, if that is another one"));
        }
    }
    let difference = Difference { consumer, before, after: Some(*position), is_applied: false };
    apply(vec![difference], connection, &arguments.change, color).await
}

async fn reset(arguments: &TrackReset, color: Color) -> Result<Exit, Failure> {
    let mut differences = Vec::new();
    for consumer in &arguments.consumers {
        check_name(consumer)?;
        let before = position_of(&arguments.connection, consumer).await?;
        let before = Some(before.ok_or_else(|| unknown(consumer))?);
        differences.push(Difference { consumer, before, after: None, is_applied: false });
    }
    apply(differences, &arguments.connection, &arguments.change, color).await
}

/// Verifies that a consumer may have the name.
fn check_name(consumer: &str) -> Result<(), Failure> {
    Tracking::new(consumer, 0).map(drop).map_err(|error| Failure::usage(error.to_string()))
}

async fn position_of(connection: &Connection, consumer: &str) -> Result<Option<i64>, Failure> {
    let trackers = Database::of(connection)?.catalog().await?.trackers().await?;
    Ok(trackers.into_iter().find(|tracker| tracker.name == consumer).map(|tracker| tracker.position))
}

fn unknown(consumer: &str) -> Failure {
    Failure::not_found(format!("consumer {consumer:?} has no position"))
}

/// Makes the changes, unless nothing is to be changed, and prints them.
async fn apply(
    mut differences: Vec<Difference<'_>>,
    connection: &Connection,
    change: &Change,
    color: Color,
) -> Result<Exit, Failure> {
    let (mut output, format) = (Output::new(), change.formatting.format);
    if format == Format::Text {
        differences.iter().try_for_each(|difference| print(&mut output, difference, color))?;
        output.flush()?;
    }
    if !change.dry_run {
        confirm("change the positions", change.yes)?;
        let settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
        let mut writer = Database::open_for_writing(&settings)?.sql_writer().await?;
        for difference in &mut differences {
            writer.set_position(difference.consumer, difference.before, difference.after).await?;
            difference.is_applied = true;
        }
    }
    if format == Format::Json {
        differences.iter().try_for_each(|difference| output.json(difference))?;
        output.flush()?;
    }
    Ok(Exit::Success)
}

/// Prints a change as a difference of lines.
fn print(output: &mut Output, difference: &Difference<'_>, color: Color) -> Result<(), Failure> {
    let Difference { consumer, before, after, .. } = difference;
    let consumer = printable(consumer);
    if before == after {
        return output.line(&format!("  {consumer} {}", before.unwrap_or(0)));
    }
    if let Some(before) = before {
        output.line(&color.bad(&format!("- {consumer} {before}")))?;
    }
    match after {
        Some(after) => output.line(&color.topic(&format!("+ {consumer} {after}"))),
        None => Ok(()),
    }
}
