//! A recorder that is chosen at run time behaves as it does without the object-safe version.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, DynProcessRecorder, ErrorKind, EventRange, NotificationSelection,
    ProcessRecorder, Recorder, StoredEvent, Topic, Tracking, TrackingRecorder,
};
use es_popo::PopoProcessRecorder;
use futures_util::FutureExt;
use support::{ID, now, stored};

const OPENED: Topic = Topic::from_static("bank:Account.Opened");

fn event(originator_version: i64) -> StoredEvent {
    StoredEvent { originator_version, ..stored(OPENED, b"{}") }
}

fn position(notification_id: i64) -> Tracking {
    Tracking::new("upstream", notification_id).unwrap()
}

#[test]
fn the_object_safe_version_calls_the_recorder() {
    let recorder = PopoProcessRecorder::new();
    let object_safe: Arc<dyn DynProcessRecorder> = Arc::new(recorder.clone());

    assert_eq!(now(object_safe.insert_events(vec![event(1), event(2)])).unwrap(), [1, 2]);
    assert_eq!(now(object_safe.insert_events_with_tracking(vec![event(3)], position(7))).unwrap(), [3]);
    assert!(now(object_safe.insert_events(vec![event(3)])).unwrap_err().is_conflict());
    assert_eq!(now(object_safe.select_events(ID, EventRange::all().gt(1))).unwrap(), [event(2), event(3)]);
    let selection = NotificationSelection::new(10).after(2);
    let notifications = now(object_safe.select_notifications(selection.clone())).unwrap();
    assert_eq!(notifications, now(recorder.select_notifications(selection)).unwrap());
    assert_eq!(notifications.len(), 1);
    assert_eq!(now(object_safe.max_notification_id()).unwrap(), Some(3));

    assert_eq!(now(object_safe.max_tracking_id("upstream")).unwrap(), Some(7));
    now(object_safe.insert_tracking(position(9))).unwrap();
    assert!(now(object_safe.insert_tracking(position(9))).unwrap_err().is_conflict());
    assert_eq!(now(recorder.max_tracking_id("upstream")).unwrap(), Some(9));
    assert_eq!(now(object_safe.max_tracking_id("elsewhere")).unwrap(), None);
    for (notification_id, is_processed) in [(8, true), (9, true), (10, false)] {
        assert_eq!(now(object_safe.has_tracking_id("upstream", notification_id)).unwrap(), is_processed);
        assert_eq!(now(recorder.has_tracking_id("upstream", notification_id)).unwrap(), is_processed);
    }
}

#[test]
fn a_listener_of_the_object_safe_version_is_woken_by_the_recorder() {
    let recorder = PopoProcessRecorder::new();
    let object_safe: Arc<dyn DynProcessRecorder> = Arc::new(recorder.clone());
    let (mut commits, mut positions) =
        (object_safe.commit_signal().listen([OPENED]), object_safe.tracking_signal().listen(["upstream"]));
    now(recorder.insert_events_with_tracking(vec![event(1)], position(1))).unwrap();
    assert_eq!(commits.notified().now_or_never(), Some(true));
    assert_eq!(positions.notified().now_or_never(), Some(true));
}

#[test]
fn closing_the_object_safe_version_closes_the_recorder() {
    let recorder = PopoProcessRecorder::new();
    let object_safe: Arc<dyn DynProcessRecorder> = Arc::new(recorder.clone());
    now(object_safe.close()).unwrap();
    let error = now(recorder.insert_events(vec![event(1)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interface);
}
