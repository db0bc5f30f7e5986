//! `es copy`.

use std::{pin::pin, sync::Arc};

use es_core::{
    AggregateRecorder, AggregateRecorderExt, ApplicationRecorder, DynAggregateRecorder,
    DynApplicationRecorder, DynProcessRecorder, EventRange, NotificationSelection, SegmentChange,
    SegmentRecorder, Segments, StoredEvent, Tracking, TrackingRecorder, uuid::Uuid,
};
use futures_util::TryStreamExt;
use serde::Serialize;

use crate::{
    arguments::Copy,
    catalog::Tracker,
    configuration::Settings,
    confirmation::confirm,
    database::Database,
    failure::{Exit, Failure},
    output::{Format, Output},
    progress::Progress,
    state::Recoder,
    target::{COPY, Target, is_position_elsewhere},
};

/// The number of aggregates whose snapshots are read by one query for their ids.
const ORIGINATORS: usize = 1_000;

/// The result as JSON.
#[derive(Serialize)]
struct Summary {
    /// The events of this run.
    events: u64,
    /// The id of the source up to which events are copied.
    position: i64,
    ids: &'static str,
    states: &'static str,
    snapshots: u64,
    trackers: u64,
}

pub(crate) async fn run(arguments: &Copy) -> Result<Exit, Failure> {
    let writing = &arguments.writing;
    confirm(&format!("copy {} to {}", arguments.from, arguments.to), writing.yes)?;
    let mut to_sources = arguments.sources.clone();
    to_sources.application = arguments.to_application.clone().or(to_sources.application);
    to_sources.env_file = arguments.to_env_file.clone().or(to_sources.env_file);
    let from = Database::open(Settings::find(Some(&arguments.from), &arguments.sources)?)?;
    let to = Database::open_for_writing(&Settings::find(Some(&arguments.to), &to_sources)?)?;

    let mut catalog = from.catalog().await?;
    let log = from.log().await?;
    // First the positions, then the end of the log, so that the effects of each position are copied.
    let partitioned = catalog.partitioned().await?;
    let segments = read_segments(&from, &partitioned).await?;
    let trackers = catalog.trackers().await?;
    let head = log.max_notification_id().await?.unwrap_or(0);
    let recoder = from.recoder(&to)?;
    let mut target = Target::open(&to, COPY, writing.renumber).await?;
    let last = NotificationSelection::new(1).start(target.position()).stop(target.position());
    if let Some(last) = log.select_notifications(last).await?.first() {
        target.verify_last(last, target.last_event().await?)?;
    }

    let events = copy_events(&log, head, &mut target, &recoder, writing.batch.get()).await?;
    let mut snapshots = 0;
    if catalog.has_snapshots().await? {
        let (source, copied) = (from.snapshots().await?, to.snapshots().await?);
        let mut after = String::new();
        loop {
            let originators = catalog.snapshot_originators(&after, ORIGINATORS).await?;
            let Some(last) = originators.last() else { break };
            after.clone_from(last);
            for originator in &originators {
                let id = Uuid::try_parse(originator).map_err(|_| {
                    Failure::new(format!("the snapshots of originator {originator:?} have no UUID"))
                })?;
                snapshots += copy_snapshots(id, &source, &copied, target.recorder(), &recoder).await?;
            }
        }
    }
    let mut copied = 0;
    if !writing.renumber {
        let plain: Vec<_> =
            trackers.into_iter().filter(|tracker| !tracker.is_of_segment(&partitioned)).collect();
        copied += copy_trackers(&plain, target.recorder()).await?;
        copied += copy_segments(segments, &to).await?;
    }
    let summary = Summary {
        events,
        position: target.position(),
        ids: if writing.renumber { "renumbered" } else { "kept" },
        states: if recoder.is_verbatim() { "unchanged" } else { "encoded anew" },
        snapshots,
        trackers: copied,
    };
    from.close().await?;
    to.close().await?;
    print(arguments.formatting.format, &summary)?;
    Ok(Exit::Success)
}

/// Copies the events after the position of the target up to `head`; returns their number.
///
/// The next page is read while the one before it is written.
async fn copy_events(
    log: &Arc<dyn DynApplicationRecorder>,
    head: i64,
    target: &mut Target,
    recoder: &Recoder,
    batch: usize,
) -> Result<u64, Failure> {
    let progress = Progress::new("copying", head);
    let read = |after: i64| {
        let selection = NotificationSelection::new(batch)
            .max_bytes(es_core::DEFAULT_PAGE_BYTES.get())
            .after(after)
            .stop(head);
        let log = Arc::clone(log);
        tokio::spawn(async move { log.select_notifications(selection).await })
    };
    let mut events = 0;
    let mut next = read(target.position());
    loop {
        let page = next.await.map_err(|_| Failure::new("the reader of the source has ended"))?;
        let mut page = page.map_err(|error| {
            Failure::from(error).with_hint("`es verify` names each row that cannot be read")
        })?;
        let Some(last) = page.last() else { return Ok(events) };
        next = read(last.id);
        page.iter_mut().try_for_each(|notification| recoder.recode(&mut notification.event))?;
        events += page.len() as u64;
        target.append(page).await?;
        progress.set(target.position());
    }
}

/// Copies the snapshots of an aggregate that are newer than those of the target; returns their number.
async fn copy_snapshots(
    originator_id: Uuid,
    source: &Arc<dyn DynAggregateRecorder>,
    target: &Arc<dyn DynAggregateRecorder>,
    target_log: &Arc<dyn DynProcessRecorder>,
    recoder: &Recoder,
) -> Result<u64, Failure> {
    let newest = EventRange::all().desc().limit(1);
    let version = |events: Vec<StoredEvent>| events.first().map(|event| event.originator_version);
    // A snapshot that was taken after the copied part of the log has no events in the target.
    let Some(last) = version(target_log.select_events(originator_id, newest).await?) else { return Ok(0) };
    let mut range = EventRange::all().up_to(last);
    if let Some(copied) = version(target.select_events(originator_id, newest).await?) {
        range = range.after(copied);
    }
    let mut copied = 0;
    let mut snapshots = pin!(source.stream_events(originator_id, range));
    while let Some(mut snapshot) = snapshots.try_next().await? {
        recoder.recode(&mut snapshot)?;
        target.insert_events(vec![snapshot]).await?;
        copied += 1;
    }
    Ok(copied)
}

/// Copies positions that are higher than those of the target; returns their number.
async fn copy_trackers(trackers: &[Tracker], target: &impl TrackingRecorder) -> Result<u64, Failure> {
    let mut copied = 0;
    for Tracker { name, position } in trackers {
        if is_position_elsewhere(name) || target.has_tracking_id(name, *position).await? {
            continue;
        }
        target.insert_tracking(Tracking::new(name.as_str(), *position)?).await?;
        copied += 1;
    }
    Ok(copied)
}

/// Returns the segments of partitioned consumers.
async fn read_segments(database: &Database, consumers: &[String]) -> Result<Vec<Segments>, Failure> {
    let mut read = Vec::new();
    if !consumers.is_empty() {
        let recorder = database.segments().await?;
        for consumer in consumers {
            read.push(recorder.segments(consumer).await?);
        }
    }
    Ok(read)
}

/// Copies segments with their positions, where they differ; returns the number of positions.
async fn copy_segments(partitioned: Vec<Segments>, target: &Database) -> Result<u64, Failure> {
    let mut copied = 0;
    if !partitioned.is_empty() {
        let recorder = target.segments().await?;
        for Segments { consumer_name, segments, .. } in partitioned {
            let count = segments.len();
            let before = recorder.segments(&consumer_name).await?;
            let after = recorder.change_segments(&consumer_name, SegmentChange::Restore(segments)).await?;
            copied += if after == before { 0 } else { count as u64 };
        }
    }
    Ok(copied)
}

fn print(format: Format, summary: &Summary) -> Result<(), Failure> {
    let mut output = Output::new();
    let Summary { events, position, ids, states, snapshots, trackers } = summary;
    match format {
        Format::Json => output.json(summary)?,
        Format::Text => output.line(&format!(
            "copied {events} events up to id {position}, {snapshots} snapshots and {trackers} positions; ids {ids}, \
             states {states}"
        ))?,
    }
    output.flush()
}
