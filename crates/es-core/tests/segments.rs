//! The rules of segments, under random changes and a clock that the test moves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU16,
    time::Duration,
};

use es_core::{Segment, SegmentChange, SegmentStep, Segments};
use proptest::prelude::*;

const NAME: &str = "audit";
const WORKERS: [&str; 3] = ["a", "b", "c"];
const LEASE: Duration = Duration::from_millis(10);

/// The segments, and the positions that a datastore has.
struct Model {
    segments: Segments,
    positions: HashMap<String, i64>,
    /// All names that positions have had.
    names: HashSet<String>,
    now: i64,
}

impl Model {
    fn new() -> Self {
        let segments = Segments::new(NAME, Vec::new(), Vec::new());
        let mut model = Self { segments, positions: HashMap::new(), names: HashSet::new(), now: 0 };
        model.apply(&SegmentChange::Create(NonZeroU16::new(3).unwrap())).unwrap();
        model
    }

    fn apply(&mut self, change: &SegmentChange) -> Result<(), es_core::PersistenceError> {
        for segment in &mut self.segments.segments {
            segment.position = self.positions[&segment.tracking_name(NAME)];
        }
        let steps = self.segments.apply(change, self.now)?;
        for step in steps {
            self.perform(step);
        }
        Ok(())
    }

    fn perform(&mut self, step: SegmentStep) {
        match step {
            SegmentStep::BeginPosition { to, .. } => self.insert(to, Segment::UNSTARTED),
            SegmentStep::CopyPosition { from, to } => self.insert(to, self.positions[&from]),
            SegmentStep::MovePosition { from, to, position } => {
                let moved = self.positions.remove(&from).unwrap();
                assert!(position.is_none_or(|position| position == moved));
                self.insert(to, if moved == 0 { Segment::UNSTARTED } else { moved });
            }
            SegmentStep::InsertPosition { name, position } => self.insert(name, position),
            SegmentStep::RemovePosition { name, position } => {
                assert_eq!(self.positions.remove(&name), Some(position));
            }
            _ => {}
        }
    }

    fn insert(&mut self, name: String, position: i64) {
        assert!(self.names.insert(name.clone()), "{name} has been a name before");
        self.positions.insert(name, position);
    }

    /// Each hash is in one segment, each segment has one position, and there are no others.
    fn check(&self) {
        let segments = &self.segments.segments;
        assert_eq!(segments.first().unwrap().first_hash, 0);
        assert_eq!(segments.last().unwrap().last_hash, i64::MAX);
        for pair in segments.windows(2) {
            assert_eq!(pair[0].last_hash + 1, pair[1].first_hash);
        }
        let names: HashSet<_> = segments.iter().map(|segment| segment.tracking_name(NAME)).collect();
        assert_eq!(names, self.positions.keys().cloned().collect());
        let shares: usize = WORKERS
            .iter()
            .filter(|worker| self.segments.workers.iter().any(|recorded| recorded.name == **worker))
            .map(|worker| self.segments.fair_share(worker))
            .sum();
        assert!(self.segments.workers.is_empty() || shares == segments.len());
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Renew(usize),
    Claim(usize, usize),
    Release(usize, usize),
    Leave(usize),
    Split(usize),
    Merge(usize),
    /// As many equal ranges, at one position.
    Restore(i64, i64),
    /// A worker commits a position.
    Commit(usize),
    Pass(i64),
}

fn action() -> impl Strategy<Value = Action> {
    let (worker, segment) = (0..3_usize, 0..64_usize);
    prop_oneof![
        3 => worker.clone().prop_map(Action::Renew),
        4 => (worker.clone(), segment.clone()).prop_map(|(worker, segment)| Action::Claim(worker, segment)),
        2 => (worker.clone(), segment.clone()).prop_map(|(worker, segment)| Action::Release(worker, segment)),
        1 => worker.prop_map(Action::Leave),
        1 => segment.clone().prop_map(Action::Split),
        2 => segment.clone().prop_map(Action::Merge),
        1 => (1..6_i64, 0..20_i64).prop_map(|(count, position)| Action::Restore(count, position)),
        4 => segment.prop_map(Action::Commit),
        2 => (1..20_i64).prop_map(Action::Pass),
    ]
}

proptest! {
    #[test]
    fn rules_hold_after_random_changes(actions in prop::collection::vec(action(), 1..200)) {
        let mut model = Model::new();
        model.check();
        for action in actions {
            let segments = model.segments.segments.clone();
            let first_hash = |index: usize| segments[index % segments.len()].first_hash;
            let worker = |index: usize| WORKERS[index].to_owned();
            let change = match action {
                Action::Renew(index) => SegmentChange::Renew { worker: worker(index), lease: LEASE },
                Action::Claim(index, segment) => {
                    let first_hash = first_hash(segment);
                    SegmentChange::Claim { worker: worker(index), lease: LEASE, first_hash }
                }
                Action::Release(index, segment) => {
                    SegmentChange::Release { worker: worker(index), first_hash: first_hash(segment) }
                }
                Action::Leave(index) => SegmentChange::Leave { worker: worker(index) },
                Action::Split(segment) => SegmentChange::Split { first_hash: first_hash(segment) },
                Action::Merge(segment) => SegmentChange::Merge { first_hash: first_hash(segment) },
                Action::Restore(count, position) => SegmentChange::Restore(ranges(count, position)),
                Action::Commit(segment) => {
                    let name = segments[segment % segments.len()].tracking_name(NAME);
                    let position = model.positions.get_mut(&name).unwrap();
                    *position = (*position).max(0) + 1;
                    continue;
                }
                Action::Pass(milliseconds) => {
                    model.now += milliseconds;
                    continue;
                }
            };
            let mut before = model.segments.clone();
            for segment in &mut before.segments {
                segment.position = model.positions[&segment.tracking_name(NAME)];
            }
            // A merge of segments with different positions is refused.
            let result = model.apply(&change);
            model.check();
            let owner_of = |segments: &Segments, hash| segments.of_hash(hash).unwrap().owner.clone();
            for segment in &model.segments.segments {
                let (old, new) = (owner_of(&before, segment.first_hash), segment.owner.clone());
                let taken = old.filter(|old| new.as_ref().is_some_and(|new| new != old));
                // No worker with a lease loses a segment to another one, and each claim begins an epoch.
                prop_assert!(taken.is_none_or(|old| !before.has_lease(&old, model.now)), "{change:?}");
                let held = before.segments.iter().find(|held| held.first_hash == segment.first_hash);
                let is_claimed = segment.owner.is_some() && held.is_some_and(|held| held.owner != segment.owner);
                prop_assert!(!is_claimed || held.is_some_and(|held| held.epoch < segment.epoch));
            }
            if let SegmentChange::Restore(_) = &change {
                let is_used = before.workers.iter().any(|worker| worker.expires_at > model.now);
                let unchanged = before.segments == model.segments.segments;
                prop_assert!(!is_used || unchanged, "segments of workers were replaced");
                for segment in &model.segments.segments {
                    let before = before.of_hash(segment.first_hash).unwrap();
                    let position = model.positions[&segment.tracking_name(NAME)];
                    prop_assert!(unchanged || before.position <= position, "a position was moved back");
                    prop_assert!(unchanged || segment.owner.is_none(), "a restored segment is claimed");
                }
            }
            let may_fail = matches!(
                change,
                SegmentChange::Merge { .. } | SegmentChange::Split { .. } | SegmentChange::Restore(_)
            );
            prop_assert!(result.is_ok() || may_fail);
        }
    }
}

fn renew(worker: &str) -> SegmentChange {
    SegmentChange::Renew { worker: worker.to_owned(), lease: LEASE }
}

fn claim(worker: &str, first_hash: i64) -> SegmentChange {
    SegmentChange::Claim { worker: worker.to_owned(), lease: LEASE, first_hash }
}

fn ranges(count: i64, position: i64) -> Vec<Segment> {
    let first = |index: i64| (i64::MAX / count) * index;
    let last = |index: i64| if index + 1 == count { i64::MAX } else { first(index + 1) - 1 };
    let owner = || Some("of the source".to_owned());
    (0..count).map(|index| Segment::new(first(index), last(index), 0, owner(), position)).collect()
}

#[test]
fn segments_that_lack_hashes_are_not_restored() {
    let mut model = Model::new();
    let [gap, overlap, end, none] = [0, 1, 2, 3].map(|defect| {
        let mut ranges = ranges(3, 1);
        match defect {
            0 => ranges[1].first_hash += 1,
            1 => ranges[1].first_hash -= 1,
            2 => ranges[2].last_hash -= 1,
            _ => ranges.clear(),
        }
        ranges
    });
    for defect in [gap, overlap, end, none] {
        let refused = model.apply(&SegmentChange::Restore(defect)).unwrap_err();
        assert!(refused.to_string().contains("each hash once"), "{refused}");
        model.check();
    }
    model.apply(&SegmentChange::Restore(ranges(3, 1))).unwrap();
    model.check();
}

#[test]
fn a_worker_loses_its_segments_with_its_lease() {
    let mut model = Model::new();
    let owner = |model: &Model| model.segments.segments[0].owner.clone();
    model.apply(&claim("a", 0)).unwrap();
    // Times are rounded down: ten milliseconds may not be over at 10.
    model.now = 10;
    model.apply(&renew("b")).unwrap();
    model.apply(&claim("b", 0)).unwrap();
    assert_eq!(owner(&model).as_deref(), Some("a"));
    model.now = 11;
    model.apply(&claim("b", 0)).unwrap();
    assert_eq!(owner(&model).as_deref(), Some("b"));
    assert_eq!(model.segments.segments[0].epoch, 2);
}

#[test]
fn a_worker_that_renews_too_late_has_no_segments() {
    let mut model = Model::new();
    let [first, second] = [0, 1].map(|index: usize| model.segments.segments[index].first_hash);
    let owners = |model: &Model| [0, 1].map(|index: usize| model.segments.segments[index].owner.clone());
    model.apply(&renew("a")).unwrap();
    model.apply(&claim("a", first)).unwrap();
    model.now = 11;
    model.apply(&renew("a")).unwrap();
    assert_eq!(owners(&model), [None, None]);
    model.apply(&claim("a", first)).unwrap();
    model.now = 22;
    model.apply(&claim("a", second)).unwrap();
    assert_eq!(owners(&model), [None, Some("a".to_owned())]);
    model.check();
}

#[test]
fn a_claim_renews_the_lease() {
    let mut model = Model::new();
    model.apply(&claim("a", 0)).unwrap();
    model.now = 5;
    // It is not free.
    model.apply(&claim("a", 0)).unwrap();
    model.apply(&claim("b", 0)).unwrap();
    for worker in ["a", "b"] {
        assert!(model.segments.has_lease(worker, 15) && !model.segments.has_lease(worker, 16));
    }
    assert_eq!(model.segments.segments[0].owner.as_deref(), Some("a"));
    model.check();
}

/// The clock of the datastore is set forward: leases end early. It is set back: those of workers that have
/// ended last longer, by as much.
#[test]
fn clocks_that_are_set_delay_claims_at_most() {
    let mut model = Model::new();
    let owner = |model: &Model| model.segments.segments[0].owner.clone();
    model.now = 1_000;
    model.apply(&renew("a")).unwrap();
    model.apply(&claim("a", 0)).unwrap();
    model.now = 5_000;
    model.apply(&renew("b")).unwrap();
    model.apply(&claim("b", 0)).unwrap();
    assert_eq!(owner(&model).as_deref(), Some("b"));
    // The first worker still runs. It begins a lease without segments.
    model.apply(&renew("a")).unwrap();
    model.apply(&claim("a", 0)).unwrap();
    assert_eq!(owner(&model).as_deref(), Some("b"));
    model.now = 1_000;
    for now in 1_000..1_050 {
        model.now = now;
        model.apply(&renew("b")).unwrap();
        model.apply(&claim("a", 0)).unwrap();
        assert_eq!(owner(&model).as_deref(), Some("b"), "a worker that renews its lease keeps its segments");
    }
    // The lease of the first one lasts until 5,011, and the second one has left.
    model.now = 5_000;
    model.apply(&SegmentChange::Leave { worker: "b".to_owned() }).unwrap();
    model.apply(&claim("a", 0)).unwrap();
    model.now = 1_100;
    model.apply(&claim("b", 0)).unwrap();
    assert_eq!(owner(&model).as_deref(), Some("a"));
    model.now = 5_011;
    model.apply(&renew("b")).unwrap();
    model.apply(&claim("b", 0)).unwrap();
    assert_eq!(owner(&model).as_deref(), Some("b"));
    model.check();
}
