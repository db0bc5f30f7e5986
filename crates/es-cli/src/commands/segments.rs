//! `es segments`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    ApplicationRecorder, DynSegmentRecorder, Segment, SegmentChange, SegmentRecorder, Segments as Consumer,
};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    arguments::{Segments, SegmentsChange, SegmentsList},
    color::Color,
    configuration::Settings,
    confirmation::confirm,
    database::Database,
    failure::{Exit, Failure},
    output::{Cell, Format, Output, printable, table},
};

/// The pause between attempts at a change.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A segment, as JSON.
#[derive(Serialize)]
struct Status<'a> {
    consumer: &'a str,
    /// The lowest hash, which names the segment, and the highest one.
    segment: String,
    last_hash: String,
    position: i64,
    lag: i64,
    worker: Option<&'a str>,
    epoch: i64,
}

/// A change, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    consumer: &'a str,
    change: &'a str,
    segments_before: usize,
    segments_after: usize,
    is_applied: bool,
}

pub(crate) async fn run(command: &Segments, color: Color) -> Result<Exit, Failure> {
    match command {
        Segments::List(arguments) => list(arguments, color).await,
        Segments::Split(arguments) => {
            change("split", |first_hash| SegmentChange::Split { first_hash }, arguments, color).await
        }
        Segments::Merge(arguments) => {
            change("merge", |first_hash| SegmentChange::Merge { first_hash }, arguments, color).await
        }
    }
}

async fn list(arguments: &SegmentsList, color: Color) -> Result<Exit, Failure> {
    let SegmentsList { consumer: name, upstream, connection, formatting } = arguments;
    let database = Database::of(connection)?;
    let consumer = find(&database, name).await?;
    let log = match upstream {
        None => database.log().await?,
        Some(upstream) => Database::open(Settings::find(Some(upstream), &connection.sources)?)?.log().await?,
    };
    let head = log.max_notification_id().await?.unwrap_or(0);
    let statuses: Vec<_> = consumer.segments.iter().map(|segment| status(&consumer, segment, head)).collect();
    let mut output = Output::new();
    match formatting.format {
        Format::Json => statuses.iter().try_for_each(|status| output.json(status))?,
        Format::Text => {
            let row = |status: &Status<'_>| {
                vec![
                    Cell::text_of(&status.segment),
                    Cell::text_of(&status.last_hash),
                    Cell::number(status.position),
                    Cell::number(status.lag),
                    Cell::text_of(status.worker.unwrap_or("")),
                ]
            };
            let rows: Vec<_> = statuses.iter().map(row).collect();
            table(&mut output, color, &["SEGMENT", "LAST HASH", "POSITION", "LAG", "WORKER"], &rows)?;
        }
    }
    output.flush()?;
    Ok(Exit::Success)
}

/// Verifies a change, prints it, and makes it.
async fn change(
    change: &str,
    of_segment: fn(i64) -> SegmentChange,
    arguments: &SegmentsChange,
    color: Color,
) -> Result<Exit, Failure> {
    let SegmentsChange { consumer: name, segment, wait, connection, change: options } = arguments;
    let of_segment = of_segment(first_hash(segment)?);
    let settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    let before = find(&Database::of(connection)?, name).await?;
    let mut after = before.clone();
    // Those of segments to merge need not be equal yet.
    after.segments.iter_mut().for_each(|segment| segment.position = Segment::UNSTARTED);
    after.apply(&of_segment, Consumer::local_time())?;
    let (mut output, format) = (Output::new(), options.formatting.format);
    if format == Format::Text {
        let removed = before.segments.iter().filter(|old| !has_range(&after, old));
        removed.map(|old| line('-', old)).try_for_each(|line| output.line(&color.bad(&line)))?;
        let added = after.segments.iter().filter(|new| !has_range(&before, new));
        added.map(|new| line('+', new)).try_for_each(|line| output.line(&color.topic(&line)))?;
        output.flush()?;
    }
    if !options.dry_run {
        confirm(&format!("{change} the segment of {}", printable(name)), options.yes)?;
        let recorder = Database::open_for_writing(&settings)?.segments().await?;
        change_within(Duration::from_secs(*wait), &recorder, name, &of_segment).await?;
    }
    if format == Format::Json {
        let (segments_before, segments_after) = (before.segments.len(), after.segments.len());
        let is_applied = !options.dry_run;
        output.json(&Report { consumer: name, change, segments_before, segments_after, is_applied })?;
        output.flush()?;
    }
    Ok(Exit::Success)
}

/// Makes a change as soon as the positions allow it: they are not just being recorded, and those of segments
/// to merge are equal.
async fn change_within(
    wait: Duration,
    recorder: &Arc<dyn DynSegmentRecorder>,
    name: &str,
    change: &SegmentChange,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut is_waiting = false;
    loop {
        match recorder.change_segments(name, change.clone()).await {
            Err(error) if error.is_transient() && began.elapsed() < wait => {
                if !std::mem::replace(&mut is_waiting, true) {
                    tracing::warn!(target: "es_cli", %error, "waiting for the positions");
                }
                sleep(RETRY_PAUSE).await;
            }
            Err(error) if error.is_transient() => {
                return Err(Failure::from(error).with_hint("--wait sets the time to wait for the positions"));
            }
            changed => return Ok(changed.map(drop)?),
        }
    }
}

async fn find(database: &Database, name: &str) -> Result<Consumer, Failure> {
    let consumer = database.segments().await?.segments(name).await?;
    if consumer.segments.is_empty() {
        return Err(Failure::not_found(format!("consumer {name:?} has no segments")));
    }
    Ok(consumer)
}

/// Reads the name of a segment: its lowest hash in hexadecimal digits.
fn first_hash(segment: &str) -> Result<i64, Failure> {
    let digits = i64::from_str_radix(segment, 16).ok().filter(|_| !segment.starts_with(['+', '-']));
    digits.ok_or_else(|| {
        Failure::usage(format!("{segment:?} is not a segment"))
            .with_hint("`es segments list` prints the segments, in hexadecimal digits")
    })
}

fn has_range(consumer: &Consumer, segment: &Segment) -> bool {
    let range = |segment: &Segment| (segment.first_hash, segment.last_hash);
    consumer.segments.iter().any(|other| range(other) == range(segment))
}

fn line(sign: char, segment: &Segment) -> String {
    format!("{sign} {} to {}", hash(segment.first_hash), hash(segment.last_hash))
}

fn hash(hash: i64) -> String {
    format!("{hash:016x}")
}

fn status<'a>(consumer: &'a Consumer, segment: &'a Segment, head: i64) -> Status<'a> {
    let position = segment.position.max(0);
    Status {
        consumer: &consumer.consumer_name,
        segment: hash(segment.first_hash),
        last_hash: hash(segment.last_hash),
        position,
        lag: head.saturating_sub(position).max(0),
        worker: segment.owner.as_deref(),
        epoch: segment.epoch,
    }
}
