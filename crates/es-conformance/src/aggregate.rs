//! The rules of all recorders of events: recording, conflicts and reading.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, Bytes, Conflict, ErrorKind, EventRange, Recorder, StoredEvent, Topic, uuid::Uuid,
};

use crate::{
    Fixture,
    support::{
        assert_closed, event, events, insert, insert_refused, late_event, select, select_all, versions,
        versions_of,
    },
};

/// Inserting no events succeeds and returns no ids.
pub async fn an_empty_batch_succeeds(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    assert!(insert(&recorder, Vec::new()).await.is_empty());
}

/// An unknown aggregate has no events.
pub async fn an_unknown_aggregate_has_no_events(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), [1])).await;
    assert!(select_all(&recorder, Uuid::new_v4()).await.is_empty());
}

/// A topic in any script is read back unchanged.
pub async fn topics_are_unicode(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    for text in ["konto:Übertrag.Gebucht", "銀行:口座.開設", "bank:🏦", "e\u{301}", "' \" ; -- \\ % _"]
    {
        assert_kept(fixture, text, b"state").await;
    }
}

/// A long topic is not truncated.
pub async fn topics_may_be_long(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_kept(fixture, &"long".repeat(1_000), b"state").await;
}

/// An empty state is stored and read back.
pub async fn a_state_may_be_empty(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_kept(fixture, "topic", b"").await;
}

/// A state may contain any byte, valid UTF-8 or not.
pub async fn a_state_may_contain_any_byte(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let every_byte: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    assert_kept(fixture, "topic", &every_byte).await;
}

/// A state of a mebibyte is not truncated.
pub async fn a_state_may_be_large(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let large: Vec<u8> = b"0123456789abcdefg".iter().copied().cycle().take(1 << 20).collect();
    assert_kept(fixture, "topic", &large).await;
}

/// The nil UUID and the max UUID are ids like any other.
pub async fn nil_and_max_uuids_are_valid_ids(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    for id in [Uuid::nil(), Uuid::max()] {
        insert(&recorder, events(id, [1, 2])).await;
        assert_eq!(select_all(&recorder, id).await, events(id, [1, 2]));
    }
}

/// Ids that differ in one bit belong to different aggregates.
pub async fn ids_are_compared_in_full(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
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

/// A batch may contain events of several aggregates.
pub async fn a_batch_may_span_aggregates(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    insert(&recorder, vec![event(one, 1), event(other, 1), event(one, 2), event(other, 2)]).await;
    assert_eq!(select_all(&recorder, one).await, events(one, [1, 2]));
    assert_eq!(select_all(&recorder, other).await, events(other, [1, 2]));
}

/// The size of a batch is not limited by the number of parameters of a statement.
pub async fn a_batch_may_be_large(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=17_000)).await;
    assert_eq!(versions(&recorder, id, EventRange::all()).await, (1..=17_000).collect::<Vec<_>>());
}

/// Events are read in the order of their versions, not in the order of insertion.
pub async fn events_are_ordered_by_version(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [7, 5, 6])).await;
    insert(&recorder, events(id, [3])).await;
    insert(&recorder, events(id, [9, 1])).await;
    assert_eq!(select_all(&recorder, id).await, events(id, [1, 3, 5, 6, 7, 9]));
}

/// A version is any `bigint`, including negative ones.
pub async fn versions_cover_the_bigint_range(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    let extremes = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    insert(&recorder, events(id, extremes)).await;
    assert_eq!(select_all(&recorder, id).await, events(id, extremes));
}

/// `gt` excludes its bound.
pub async fn gt_is_exclusive(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().gt(4), &[5, 6, 7, 8]).await;
}

/// `lte` includes its bound.
pub async fn lte_is_inclusive(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().lte(4), &[1, 2, 3, 4]).await;
}

/// `desc` returns the highest version first.
pub async fn desc_reverses_the_order(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().desc(), &[8, 7, 6, 5, 4, 3, 2, 1]).await;
}

/// `limit` bounds the number of selected events.
pub async fn limit_bounds_a_selection(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().limit(3), &[1, 2, 3]).await;
}

/// A limit of 0 selects no events.
pub async fn limit_zero_selects_no_events(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    assert_selects(fixture, EventRange::all().limit(0), &[]).await;
}

/// A limit beyond the range of `bigint` is accepted and has no effect.
pub async fn limit_may_exceed_bigint(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    for limit in [8, 9, i64::MAX as usize, i64::MAX as usize + 1, usize::MAX] {
        assert_selects(fixture, EventRange::all().limit(limit), &[1, 2, 3, 4, 5, 6, 7, 8]).await;
    }
}

/// Bounds, direction and limit can be combined; the limit is applied after the direction.
pub async fn range_options_combine(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
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

/// Bounds at both ends of `bigint` do not overflow.
pub async fn bounds_cover_the_bigint_range(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let all = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_selects(fixture, EventRange::all().gt(i64::MAX), &[]).await;
    assert_selects(fixture, EventRange::all().gt(i64::MIN), &all).await;
    assert_selects(fixture, EventRange::all().lte(i64::MAX), &all).await;
    assert_selects(fixture, EventRange::all().lte(i64::MIN), &[]).await;
}

/// A recorded version is refused, even if the event is identical.
pub async fn a_recorded_version_is_refused(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1, 2])).await;
    insert_refused(&recorder, vec![late_event(id, 2)]).await;
    insert_refused(&recorder, events(id, [2])).await;
}

/// A batch that contains a version twice is refused.
pub async fn a_duplicate_version_in_a_batch_is_refused(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    let outcome = recorder.insert_events(vec![event(id, 2), event(id, 3), event(id, 2)]).await;
    outcome.expect_err("inserting a version twice in a batch should fail");
    assert_eq!(select_all(&recorder, id).await, events(id, [1]));
}

/// A batch that contains a version twice is refused with a programming error, and not with a conflict: to
/// load the aggregate again and retry would never end.
pub async fn a_duplicate_version_in_a_batch_is_no_conflict(
    fixture: &impl Fixture<Recorder: AggregateRecorder>,
) {
    let recorder = fixture.open().await;
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    insert(&recorder, events(one, [1])).await;
    let batch = vec![event(other, 2), event(one, 2), event(one, 3), event(one, 2)];
    // That it is refused is a rule of its own.
    let Err(error) = recorder.insert_events(batch).await else { return };
    assert!(!error.is_conflict(), "a duplicate version in a batch is no conflict: {error}");
    assert_eq!(error.kind(), ErrorKind::Programming, "a duplicate version is a programming error: {error}");
    assert!(!error.is_transient(), "{error}");
}

/// A conflict names the aggregate and the version.
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

/// A batch with a conflict, at any index, records none of its events.
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
pub async fn a_conflict_does_not_change_recorded_events(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    insert_refused(&recorder, vec![late_event(id, 1)]).await;
    assert_eq!(select_all(&recorder, id).await, events(id, [1]));
}

/// A recorder that has refused a batch accepts the next one.
pub async fn the_recorder_is_usable_after_a_conflict(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
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
pub async fn calls_after_close_fail(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    recorder.close().await.expect("closing should succeed");
    assert_closed(recorder.insert_events(events(id, [2])).await, "insert_events");
    assert_closed(recorder.insert_events(Vec::new()).await, "insert_events of nothing");
    assert_closed(recorder.select_events(id, EventRange::all()).await, "select_events");
}

/// A second `close()` succeeds.
pub async fn close_is_idempotent(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    recorder.close().await.expect("closing should succeed");
    recorder.close().await.expect("closing again should succeed");
}

/// Closing a recorder leaves the other recorders of its datastore open.
pub async fn close_leaves_other_recorders_open(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let [recorder, other] = fixture.open_two().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    recorder.close().await.expect("closing should succeed");
    insert(&other, events(id, [2])).await;
    assert_eq!(select_all(&other, id).await, events(id, [1, 2]));
}

/// Events recorded before `close()` are found when the datastore is opened again.
pub async fn events_persist_after_close(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1, 2])).await;
    recorder.close().await.expect("closing should succeed");
    drop(recorder);

    let reopened = fixture.open().await;
    assert_eq!(select_all(&reopened, id).await, events(id, [1, 2]));
}

/// Events recorded through one recorder are readable through another one on the same datastore.
pub async fn events_are_visible_to_other_recorders(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let [one, other] = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let id = Uuid::new_v4();
    for (version, writer, reader) in [(1, &one, &other), (2, &other, &one), (3, &one, &other)] {
        insert(&**writer, events(id, [version])).await;
        assert_eq!(select_all(&**reader, id).await, events(id, 1..=version));
    }
}

/// Asserts that an event with this topic and this state is read back unchanged.
async fn assert_kept(fixture: &impl Fixture<Recorder: AggregateRecorder>, topic: &str, state: &[u8]) {
    let recorder = fixture.open().await;
    let topic = Topic::new(topic).expect("it is a topic");
    let state = Bytes::copy_from_slice(state);
    let event = StoredEvent { topic, state, ..event(Uuid::new_v4(), 1) };
    insert(&recorder, vec![event.clone()]).await;
    let selected = select_all(&recorder, event.originator_id).await;
    // Not `assert_eq!`, which would print mebibytes.
    assert!(selected == [event], "the event is changed");
}

/// Asserts that the range selects these of the versions 1 to 8.
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

/// Returns the versions of 1 to 8 that a range selects.
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
