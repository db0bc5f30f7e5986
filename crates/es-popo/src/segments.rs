//! The segments of partitioned consumers.

use std::collections::HashMap;

use es_core::{PersistenceError, Segment, SegmentChange, SegmentStep, Segments};

/// Returns the segments of a consumer with their positions.
pub(crate) fn load(
    recorded: &HashMap<String, Segments>,
    positions: &HashMap<String, i64>,
    consumer_name: &str,
) -> Segments {
    let none = || Segments::new(consumer_name, Vec::new(), Vec::new());
    let mut segments = recorded.get(consumer_name).cloned().unwrap_or_else(none);
    for segment in &mut segments.segments {
        let position = positions.get(&segment.tracking_name(consumer_name));
        segment.position = position.copied().unwrap_or(Segment::UNSTARTED);
    }
    segments
}

/// Applies a change, all or nothing.
pub(crate) fn change(
    recorded: &mut HashMap<String, Segments>,
    positions: &mut HashMap<String, i64>,
    consumer_name: &str,
    change: &SegmentChange,
) -> Result<Segments, PersistenceError> {
    let mut segments = load(recorded, positions, consumer_name);
    let steps = segments.apply(change, Segments::local_time())?;
    // No position that a step requires is changed by an earlier step.
    steps.iter().try_for_each(|step| verify(positions, step))?;
    for step in steps {
        perform(positions, step);
    }
    recorded.insert(consumer_name.to_owned(), segments);
    Ok(load(recorded, positions, consumer_name))
}

fn verify(positions: &HashMap<String, i64>, step: &SegmentStep) -> Result<(), PersistenceError> {
    let (name, required) = match step {
        SegmentStep::MovePosition { from, position, .. } => (from, *position),
        SegmentStep::RemovePosition { name, position } => (name, Some(*position)),
        _ => return Ok(()),
    };
    let recorded = positions.get(name).copied();
    let is_met = recorded.is_some() && required.is_none_or(|required| recorded == Some(required));
    if is_met { Ok(()) } else { Err(SegmentStep::refused(name)) }
}

/// Performs a step on the positions; the segments and workers are recorded as they are after all steps.
fn perform(positions: &mut HashMap<String, i64>, step: SegmentStep) {
    match step {
        SegmentStep::BeginPosition { from, to } | SegmentStep::MovePosition { from, to, .. } => {
            let position = positions.remove(&from).filter(|position| *position != 0);
            let position = position.unwrap_or(Segment::UNSTARTED);
            positions.insert(to, position);
        }
        SegmentStep::CopyPosition { from, to } => {
            let position = positions.get(&from).copied().unwrap_or(Segment::UNSTARTED);
            positions.insert(to, position);
        }
        SegmentStep::InsertPosition { name, position } => {
            positions.insert(name, position);
        }
        SegmentStep::RemovePosition { name, .. } => {
            positions.remove(&name);
        }
        _ => {}
    }
}
