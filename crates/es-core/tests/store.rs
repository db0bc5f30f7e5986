//! An event store over recorders in memory.

#![expect(clippy::expect_used, reason = "these are tests")]

mod support;

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, Conflict, DynProcessRecorder, ErrorKind,
    EventRange, EventStore, Expected, Mapper, Metadata, NotificationSelection, Recorder, StopHandle, Topic,
    Tracking, TrackingRecorder,
};
use es_popo::PopoProcessRecorder;
use futures_util::{FutureExt, TryStreamExt};
use support::{Closed, Credited, ID, Json, at, credited, now, stored};

fn store() -> EventStore<Arc<dyn DynProcessRecorder>, Json> {
    EventStore::new(Arc::new(PopoProcessRecorder::new()), Mapper::new(Json))
}

#[test]
fn put_events_are_returned_by_get_and_stream() {
    let store = store();
    let events: Vec<_> = (1..=5).map(|version| at(version, credited(10 * version))).collect();
    assert_eq!(now(store.put(&events)).unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(now(store.get(ID, EventRange::all())).unwrap(), events);
    assert_eq!(now(store.get(ID, EventRange::all().gt(1).lte(3))).unwrap(), events[1..3]);
    let streamed: Vec<_> = now(store.stream(ID, EventRange::all()).try_collect()).unwrap();
    assert_eq!(streamed, events);
}

#[test]
fn putting_an_empty_list_is_accepted() {
    assert!(now(store().put::<Credited>(&[])).unwrap().is_empty());
}

#[test]
fn appended_events_are_numbered_after_the_expected_version() {
    let store = store();
    let versions = || {
        let events = now(store.get::<Credited>(ID, EventRange::all())).unwrap();
        events.iter().map(|event| event.originator_version).collect::<Vec<_>>()
    };
    let append = |expected, count| now(store.append(ID, expected, (0..count).map(credited)));
    let taken = |originator_version| Conflict::Version { originator_id: ID, originator_version };
    assert_eq!(append(Expected::New, 2).unwrap(), [1, 2]);
    assert_eq!(append(Expected::Version(2), 1).unwrap(), [3]);
    assert_eq!(append(Expected::Any, 2).unwrap(), [4, 5]);
    assert!(append(Expected::Version(9), 0).unwrap().is_empty());
    assert_eq!(append(Expected::Version(0), 1).unwrap_err().conflict(), Some(&taken(1)));
    assert_eq!(versions(), [1, 2, 3, 4, 5]);

    for (expected, version) in [(Expected::New, 1), (Expected::Version(3), 4)] {
        assert_eq!(append(expected, 1).unwrap_err().conflict(), Some(&taken(version)));
    }
    for missing in [6, i64::MAX, -1] {
        let conflict = Conflict::MissingVersion { originator_id: ID, originator_version: missing };
        let error = append(Expected::Version(missing), 1).unwrap_err();
        assert_eq!(error.conflict(), Some(&conflict), "a gap is refused");
    }
    assert_eq!(versions(), [1, 2, 3, 4, 5]);
}

#[test]
fn appended_events_have_the_metadata_of_the_append() {
    let store = store();
    let metadata = Metadata::new().with_actor("alice");
    let events = [credited(1), credited(2)];
    now(store.append_with_metadata(ID, Expected::Any, &metadata, events)).unwrap();
    let events = now(store.get::<Credited>(ID, EventRange::all())).unwrap();
    assert!(events.iter().all(|event| event.metadata == metadata));
}

#[test]
fn a_conflict_records_nothing_of_the_batch() {
    let store = store();
    now(store.put(&[at(1, credited(1))])).unwrap();
    let batch = now(store.batch().with(&[at(2, credited(2))])).unwrap();
    let batch = now(batch.with(&[at(1, Closed {})])).unwrap();
    assert!(now(batch.commit()).unwrap_err().is_conflict());
    assert_eq!(now(store.get::<Credited>(ID, EventRange::all())).unwrap().len(), 1);
}

#[test]
fn a_batch_contains_events_of_several_types_and_a_position() {
    let store = store();
    let tracking = Tracking::new("upstream", 7).unwrap();
    let batch = now(store.batch().with(&[at(1, credited(1))])).unwrap();
    let batch = now(batch.with(&[at(2, Closed {})])).unwrap();
    assert_eq!(now(batch.commit_with_tracking(tracking.clone())).unwrap(), [1, 2]);
    assert_eq!(now(store.recorder().max_tracking_id("upstream")).unwrap(), Some(7));

    let again = now(store.batch().with(&[at(3, Closed {})])).unwrap();
    assert!(now(again.commit_with_tracking(tracking)).unwrap_err().is_conflict());
    let topics = [Closed::TOPIC];
    let closings = now(store.recorder().select_notifications(NotificationSelection::new(9).topics(topics)));
    assert_eq!(closings.unwrap().len(), 1);
}

#[test]
fn a_subscription_returns_decoded_events_of_its_type_from_a_position() {
    let store = EventStore::new(PopoProcessRecorder::new(), Mapper::new(Json));
    let batch = now(store.batch().with(&[at(1, credited(1))])).unwrap();
    let batch = now(batch.with(&[at(2, Closed {})])).unwrap();
    now(now(batch.with(&[at(3, credited(3))])).unwrap().commit()).unwrap();
    let mut events = store.subscribe::<Credited>().after(1);
    let next = now(events.next()).unwrap().unwrap();
    assert_eq!((next.id, next.event), (3, at(3, credited(3))));
    assert_eq!(events.position(), 3);
    assert!(events.next().now_or_never().is_none(), "it waits");
    now(store.put(&[at(4, credited(4))])).unwrap();
    assert_eq!(now(events.next()).unwrap().unwrap().id, 4);

    now(store.recorder().close()).unwrap();
    assert!(now(events.next()).unwrap().is_none());
}

#[test]
fn a_subscription_does_not_skip_an_event_that_it_cannot_decode() {
    let store = EventStore::new(PopoProcessRecorder::new(), Mapper::new(Json));
    now(store.recorder().insert_events(vec![stored(Credited::TOPIC, b"not JSON")])).unwrap();
    let mut events = store.subscribe::<Credited>();
    for _ in 0..2 {
        let error = now(events.next()).unwrap_err();
        assert_eq!((error.kind(), events.position()), (ErrorKind::Data, 0), "{error}");
        let context = error.event_context().unwrap();
        assert_eq!((context.notification_id, &context.topic), (Some(1), &Some(Credited::TOPIC)), "{error}");
    }
}

#[test]
fn a_stop_handle_ends_a_wait_and_what_is_left_of_a_page() {
    let store = EventStore::new(PopoProcessRecorder::new(), Mapper::new(Json));
    let mut waiting = store.subscribe::<Credited>();
    let stop = waiting.stop_handle();
    let thread = std::thread::spawn(move || stop.stop());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(waiting.next()).unwrap().is_none());
    thread.join().expect("the thread stops the subscription");

    now(store.append(ID, Expected::New, [credited(1), credited(2)])).unwrap();
    let mut reading = store.subscribe::<Credited>();
    let stop = reading.stop_handle();
    assert_eq!(now(reading.next()).unwrap().unwrap().id, 1);
    stop.stop();
    assert!(now(reading.next()).unwrap().is_none());
    assert_eq!(reading.position(), 1, "a later subscription continues with the event that was not returned");
}

#[test]
fn one_handle_stops_several_subscriptions_and_later_ones() {
    let store = EventStore::new(PopoProcessRecorder::new(), Mapper::new(Json));
    let stop = StopHandle::new();
    let mut events = store.subscribe::<Credited>().stopped_by(stop.clone());
    let mut pages = store.recorder().subscribe(0, []).stopped_by(stop.clone());
    assert!(events.next().now_or_never().is_none() && pages.next_page().now_or_never().is_none());
    assert!(!stop.is_stopped() && stop.stopped().now_or_never().is_none());
    stop.stop();
    now(stop.stopped());
    assert!(stop.is_stopped());
    let mut later = store.subscribe::<Credited>().stopped_by(stop);
    assert!(now(events.next()).unwrap().is_none() && now(later.next()).unwrap().is_none());
    assert!(now(pages.next_page()).unwrap().is_none());
}

#[test]
fn the_metadata_of_what_follows_names_the_event_and_its_correlation() {
    let first = at(3, credited(1));
    let id = format!("{ID}/3");
    let follows = Metadata::caused_by(&first);
    assert_eq!((follows.correlation_id(), follows.causation_id()), (Some(id.as_str()), Some(id.as_str())));
    let request = Metadata::new().with_correlation_id("request").with_actor("alice");
    let follows = Metadata::caused_by(&first.with_metadata(request.clone()));
    assert_eq!((follows.correlation_id(), follows.causation_id()), (Some("request"), Some(id.as_str())));
    assert_eq!(follows.actor(), None);
    let both = follows.with_defaults(&request);
    assert_eq!(
        (both.correlation_id(), both.causation_id(), both.actor()),
        (Some("request"), Some(id.as_str()), Some("alice"))
    );
}

#[test]
fn a_row_that_cannot_be_decoded_is_an_error_that_names_it() {
    let store = store();
    now(store.put(&[at(1, credited(1))])).unwrap();
    now(store.recorder().insert_events(vec![stored(Topic::from_static("bank:Unknown"), b"{}")])).unwrap();
    let error = now(store.get::<Credited>(ID, EventRange::all())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().starts_with("event \"bank:Unknown\", version 3 of originator"), "{error}");

    let streamed: Result<Vec<_>, _> = now(store.stream::<Credited>(ID, EventRange::all()).try_collect());
    assert_eq!(streamed.unwrap_err().to_string(), error.to_string());
}

/// Compiles, which it once did not: with recorders bound to `'static`, the compiler could not see that
/// these futures are `Send` when the recorder is chosen at run time.
#[test]
fn tasks_share_a_store_whose_recorder_was_chosen_at_run_time() {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        now(task);
    }
    let store = Arc::new(store());
    spawn(async move {
        let events = [at(1, credited(1))];
        store.put(&events).await.unwrap();
        let position = Tracking::new("upstream", 1).unwrap();
        let batch = store.batch().with(&[at(2, credited(2))]).await.unwrap();
        batch.commit_with_tracking(position).await.unwrap();
        assert_eq!(store.get::<Credited>(ID, EventRange::all().limit(1)).await.unwrap(), events);
        let streamed: Vec<_> = store.stream::<Credited>(ID, EventRange::all()).try_collect().await.unwrap();
        assert_eq!(streamed.len(), 2);
        let page = store.recorder().select_notifications(NotificationSelection::new(10)).await.unwrap();
        assert_eq!(page.len(), 2);
    });
}
