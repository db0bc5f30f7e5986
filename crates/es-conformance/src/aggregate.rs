//! The rules of every recorder that keeps events: what is recorded, what is refused, what is read.

use std::sync::Arc;

use es_core::{AggregateRecorder, Bytes, Conflict, EventRange, Recorder, StoredEvent, Topic, uuid::Uuid};

use crate::{
    Fixture,
    support::{
        assert_closed, event, events, insert, insert_refused, late_event, select, select_all, versions,
        versions_of,
    },
};

/// Recording nothing succeeds and gives no ids.
pub async fn inserting_nothing_is_fine(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    assert!(insert(&recorder, Vec::new()).await.is_empty());
}

/// An unknown aggregate has no events.
pub async fn an_unknown_aggregate_has_no_events(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), [1])).await;
    assert!(select_all(&recorder, Uuid::new_v4()).await.is_empty());
}

/// A topic of any script is read back as it was.
pub async fn topics_are_unicode(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    for text in ["konto:Übertrag.Gebucht", "銀行:口座.開設", "bank:🏦", "e\u{301}", "' \" ; -- \\ % _"]
    {
        assert_kept(fixture, text, b"state").await;
    }
}

/// A topic is not cut off.
pub async fn topics_may_be_long(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_kept(fixture, &"long".repeat(1_000), b"state").await;
}

/// An empty state is a state.
pub async fn a_state_may_be_empty(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_kept(fixture, "topic", b"").await;
}

/// A state may hold every byte, text or not.
pub async fn a_state_may_hold_every_byte(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let every_byte: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    assert_kept(fixture, "topic", &every_byte).await;
}

/// A state of a mebibyte is read back whole.
pub async fn a_state_may_be_large(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let large: Vec<u8> = b"0123456789abcdefg".iter().copied().cycle().take(1 << 20).collect();
    assert_kept(fixture, "topic", &large).await;
}

/// The UUIDs of only zeros and only ones name aggregates like any other.
pub async fn nil_and_max_are_ids(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    for id in [Uuid::nil(), Uuid::max()] {
        insert(&recorder, events(id, [1, 2])).await;
        assert_eq!(select_all(&recorder, id).await, events(id, [1, 2]));
    }
}

/// Aggregates whose ids differ in one bit only are different aggregates.
pub async fn similar_ids_are_different(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    let similar = [id, flip(id, 0), flip(id, 64), flip(id, 127)];
    for (id, version) in similar.iter().zip(1..) {
        insert(&recorder, events(*id, [version])).await;
    }
    for (id, version) in similar.iter().zip(1..) {
        assert_eq!(select_all(&recorder, *id).await, events(*id, [version]));
    }
}

/// One batch may hold events of several aggregates.
pub async fn a_batch_may_span_aggregates(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    insert(&recorder, vec![event(one, 1), event(other, 1), event(one, 2), event(other, 2)]).await;
    assert_eq!(select_all(&recorder, one).await, events(one, [1, 2]));
    assert_eq!(select_all(&recorder, other).await, events(other, [1, 2]));
}

/// A batch is not limited by how many parameters a statement may have.
pub async fn a_batch_may_be_large(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=17_000)).await;
    assert_eq!(versions(&recorder, id, EventRange::all()).await, (1..=17_000).collect::<Vec<_>>());
}

/// Events are read in the order of their versions, however they came.
pub async fn versions_may_come_in_any_order(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [7, 5, 6])).await;
    insert(&recorder, events(id, [3])).await;
    insert(&recorder, events(id, [9, 1])).await;
    assert_eq!(select_all(&recorder, id).await, events(id, [1, 3, 5, 6, 7, 9]));
}

/// A version is any `bigint`.
pub async fn versions_are_any_bigint(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    let extremes = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    insert(&recorder, events(id, extremes)).await;
    assert_eq!(select_all(&recorder, id).await, events(id, extremes));
}

/// `gt` leaves out the version that it names.
pub async fn gt_leaves_out_its_bound(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().gt(4), &[5, 6, 7, 8]).await;
}

/// `lte` takes in the version that it names.
pub async fn lte_takes_in_its_bound(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().lte(4), &[1, 2, 3, 4]).await;
}

/// `desc` reads the highest version first.
pub async fn desc_reads_backwards(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().desc(), &[8, 7, 6, 5, 4, 3, 2, 1]).await;
}

/// `limit` ends a selection.
pub async fn limit_ends_a_selection(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().limit(3), &[1, 2, 3]).await;
}

/// A limit of nothing selects nothing.
pub async fn limit_zero_selects_no_events(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().limit(0), &[]).await;
}

/// A limit that no `bigint` holds is no limit.
pub async fn limit_may_be_any_usize(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    for limit in [8, 9, i64::MAX as usize, i64::MAX as usize + 1, usize::MAX] {
        assert_selects(fixture, EventRange::all().limit(limit), &[1, 2, 3, 4, 5, 6, 7, 8]).await;
    }
}

/// Bounds, direction and limit go together, each with each: the limit counts from the end that
/// `desc` begins at.
pub async fn options_of_a_range_go_together(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=8)).await;
    for gt in [None, Some(-3), Some(2), Some(5), Some(8)] {
        for lte in [None, Some(0), Some(2), Some(6), Some(20)] {
            for desc in [false, true] {
                for limit in [None, Some(0), Some(1), Some(3), Some(100)] {
                    let range = EventRange { gt, lte, desc, limit, max_bytes: None };
                    if options(&range) > 1 {
                        assert_eq!(versions(&recorder, id, range).await, expected(&range), "{range:?}");
                    }
                }
            }
        }
    }
}

/// Bounds at both ends of `bigint` mean what bounds mean.
pub async fn bounds_are_any_bigint(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let all = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_selects(fixture, EventRange::all().gt(i64::MAX), &[]).await;
    assert_selects(fixture, EventRange::all().gt(i64::MIN), &all).await;
    assert_selects(fixture, EventRange::all().lte(i64::MAX), &all).await;
    assert_selects(fixture, EventRange::all().lte(i64::MIN), &[]).await;
}

/// A version that is taken is refused, even to the very event that has it.
pub async fn a_taken_version_is_refused(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1, 2])).await;
    insert_refused(&recorder, vec![late_event(id, 2)]).await;
    insert_refused(&recorder, events(id, [2])).await;
}

/// A version that a batch holds twice is refused.
pub async fn a_version_twice_in_a_batch_is_refused(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    insert_refused(&recorder, vec![event(id, 2), event(id, 3), event(id, 2)]).await;
    assert_eq!(select_all(&recorder, id).await, events(id, [1]));
}

/// A conflict names the aggregate and the version that collided.
pub async fn a_conflict_names_the_version(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    insert(&recorder, events(one, [5])).await;
    insert(&recorder, events(other, [6, i64::MAX])).await;
    let attempts = [
        (vec![late_event(one, 5)], one, 5),
        (vec![event(one, 6), event(other, 6), event(one, 7)], other, 6),
        (vec![event(one, 8), event(other, i64::MAX)], other, i64::MAX),
    ];
    for (batch, originator_id, originator_version) in attempts {
        let error = insert_refused(&recorder, batch).await;
        assert_eq!(error.conflict(), Some(&Conflict::Version { originator_id, originator_version }));
    }
}

/// A batch of which one event collides, at any place, records none of its events.
pub async fn a_refused_batch_records_nothing(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    insert(&recorder, events(one, [5])).await;
    insert(&recorder, events(other, [5])).await;
    for batch in [
        vec![event(one, 5), event(one, 6), event(other, 6)],
        vec![event(one, 6), event(other, 5), event(other, 6)],
        vec![event(one, 6), event(other, 6), event(one, 7), event(other, 5)],
    ] {
        insert_refused(&recorder, batch).await;
        assert_eq!(select_all(&recorder, one).await, events(one, [5]));
        assert_eq!(select_all(&recorder, other).await, events(other, [5]));
    }
}

/// A recorded event is unchanged after another event of its version is refused.
pub async fn a_conflict_leaves_what_is_recorded(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    insert_refused(&recorder, vec![late_event(id, 1)]).await;
    assert_eq!(select_all(&recorder, id).await, events(id, [1]));
}

/// A recorder that has refused a batch records the next one.
pub async fn a_conflict_leaves_the_recorder_usable(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    insert_refused(&recorder, vec![late_event(id, 1)]).await;
    insert(&recorder, events(id, [2, 3])).await;
    insert_refused(&recorder, events(id, [4, 3])).await;
    insert(&recorder, events(id, [4])).await;
    assert_eq!(versions(&recorder, id, EventRange::all()).await, [1, 2, 3, 4]);
}

/// After `close()`, inserting and selecting fail with an interface error.
pub async fn a_closed_recorder_says_so(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    recorder.close().await.expect("closing should succeed");
    assert_closed(recorder.insert_events(events(id, [2])).await, "insert_events");
    assert_closed(recorder.insert_events(Vec::new()).await, "insert_events of nothing");
    assert_closed(recorder.select_events(id, EventRange::all()).await, "select_events");
}

/// Closing again succeeds.
pub async fn closing_twice_is_fine(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    recorder.close().await.expect("closing should succeed");
    recorder.close().await.expect("closing again should succeed");
}

/// Events recorded before `close()` are there when the datastore is opened again.
pub async fn events_outlive_the_recorder(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    if !fixture.outlives_recorders() {
        return;
    }
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1, 2])).await;
    recorder.close().await.expect("closing should succeed");
    drop(recorder);

    let reopened = fixture.open().await;
    assert_eq!(select_all(&reopened, id).await, events(id, [1, 2]));
}

/// Events recorded with one recorder are read with another one on the same datastore.
pub async fn another_recorder_reads_the_events(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let [one, other] = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let id = Uuid::new_v4();
    for (version, writer, reader) in [(1, &one, &other), (2, &other, &one), (3, &one, &other)] {
        insert(&**writer, events(id, [version])).await;
        assert_eq!(select_all(&**reader, id).await, events(id, 1..=version));
    }
}

/// An event with this topic and this state is read back as it was.
async fn assert_kept(fixture: &impl Fixture<Recorder: AggregateRecorder>, topic: &str, state: &[u8]) {
    let recorder = fixture.open().await;
    let topic = Topic::new(topic).expect("it is a topic");
    let state = Bytes::copy_from_slice(state);
    let event = StoredEvent { topic, state, ..event(Uuid::new_v4(), 1) };
    insert(&recorder, vec![event.clone()]).await;
    let selected = select_all(&recorder, event.originator_id).await;
    // Not `assert_eq!`, which would print mebibytes.
    assert!(selected == [event], "the event is not as it was");
}

/// Of the versions 1 to 8, the range selects these.
async fn assert_selects(
    fixture: &impl Fixture<Recorder: AggregateRecorder>,
    range: EventRange,
    selected: &[i64],
) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=8)).await;
    let events = select(&recorder, id, range).await;
    assert_eq!(versions_of(&events), selected, "{range:?}");
}

fn options(range: &EventRange) -> usize {
    [range.gt.is_some(), range.lte.is_some(), range.desc, range.limit.is_some()]
        .into_iter()
        .filter(|given| *given)
        .count()
}

/// Returns the versions that a range selects of 1 to 8.
fn expected(range: &EventRange) -> Vec<i64> {
    let within = (1..=8).filter(|version| {
        range.gt.is_none_or(|gt| *version > gt) && range.lte.is_none_or(|lte| *version <= lte)
    });
    let mut versions: Vec<i64> = within.collect();
    if range.desc {
        versions.reverse();
    }
    versions.truncate(range.limit.unwrap_or(usize::MAX));
    versions
}

fn flip(id: Uuid, bit: u32) -> Uuid {
    Uuid::from_u128(id.as_u128() ^ (1 << bit))
}
