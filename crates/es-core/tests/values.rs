//! Topics, positions, versions and errors: rejected values and messages.

use std::{cmp::Ordering, collections::HashSet, error::Error};

use es_core::{
    Bytes, Conflict, DomainEvent, ErrorKind, Notification, NotificationBatch, NotificationSelection,
    PersistenceError, StoredEvent, Topic, Tracking, next_version, uuid::Uuid,
};
use proptest::prelude::*;

fn event(originator_version: i64) -> StoredEvent {
    StoredEvent {
        originator_id: Uuid::nil(),
        originator_version,
        topic: Topic::from_static("bank:Opened"),
        state: Bytes::new(),
    }
}

#[test]
fn a_topic_is_not_empty_and_has_no_nul() {
    for text in ["", "\0", "bank:Account\0.Opened"] {
        let error = Topic::new(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn topics_of_literals_and_of_texts_are_alike() {
    let literal = Topic::from_static("bank:Account.Opened");
    let text = Topic::try_from("bank:Account.Opened".to_owned()).unwrap();
    assert_eq!(literal, text);
    assert_eq!(HashSet::from([literal.clone(), text.clone()]).len(), 1);
    assert!(HashSet::from([text]).contains("bank:Account.Opened"));
    assert_eq!(literal.to_string(), "bank:Account.Opened");
    assert_eq!(format!("{literal:?}"), "\"bank:Account.Opened\"");
}

#[test]
fn topics_are_compared_as_their_texts() {
    let (closed, opened) = (Topic::from_static("bank:Closed"), Topic::from_static("bank:Opened"));
    assert!(closed == *"bank:Closed" && closed == "bank:Closed" && closed == closed.clone());
    assert!(closed != *"bank:Opened" && closed != "bank:Opened" && closed != opened);
    assert_eq!(closed.cmp(&opened), Ordering::Less);
    assert!(closed < opened && closed <= closed.clone());
    let text: &str = opened.as_ref();
    assert_eq!(text, "bank:Opened");
}

#[test]
#[should_panic(expected = "a topic is not empty")]
fn an_invalid_topic_literal_panics() {
    let _ = Topic::from_static("");
}

#[test]
fn an_application_name_is_not_empty_reserved_or_with_a_nul() {
    for name in ["", "up\0stream", Tracking::RESERVED_NAME] {
        let error = Tracking::new(name, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }
    let tracking = Tracking::new("upstream", i64::MIN).unwrap();
    assert_eq!((tracking.application_name(), tracking.notification_id()), ("upstream", i64::MIN));
}

#[test]
fn a_position_accounts_for_notifications_from_the_first_on() {
    let several = Tracking::spanning("upstream", 3, 7).unwrap();
    assert_eq!((several.first_notification_id(), several.notification_id()), (3, 7));
    assert_eq!(Tracking::new("upstream", 7).unwrap().first_notification_id(), 7);
    let error = Tracking::spanning("upstream", 8, 7).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert_eq!(error.to_string(), "notifications 8 to 7 for consumer \"upstream\" are an empty range");
}

#[test]
fn a_batch_is_recorded_from_its_first_notification_to_the_last_that_is_handled() {
    let notifications = [4, 6, 9].map(|id| Notification { id, event: event(id) });
    let batch = NotificationBatch {
        application_name: "upstream",
        notifications: &notifications,
        position: 12,
        expected_position: None,
    };
    assert_eq!([0, 1, 2, 3, 4].map(|handled| batch.position_after(handled)), [3, 4, 6, 12, 12]);
    assert_eq!(batch.tracking(2).unwrap(), Tracking::spanning("upstream", 4, 6).unwrap());
    assert_eq!(batch.tracking(3).unwrap(), Tracking::spanning("upstream", 4, 12).unwrap());

    let empty = NotificationBatch { notifications: &[], ..batch };
    assert_eq!(empty.tracking(0).unwrap(), Tracking::new("upstream", 12).unwrap());
    let nameless = NotificationBatch { application_name: "", ..batch };
    assert_eq!(nameless.tracking(1).unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn the_last_version_has_no_next_one() {
    assert_eq!(next_version(i64::MIN).unwrap(), i64::MIN + 1);
    let error = next_version(i64::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains(&i64::MAX.to_string()), "{error}");
}

#[test]
fn an_event_that_happens_now_is_stamped_in_whole_microseconds() {
    let event = DomainEvent::new(Uuid::nil(), 1, ());
    assert_eq!(event.timestamp.nanosecond() % 1_000, 0);
}

#[test]
fn a_conflict_is_an_integrity_error_that_names_the_version() {
    let version = Conflict::Version { originator_id: Uuid::max(), originator_version: -5 };
    let position = Conflict::Tracking { application_name: "up".to_owned(), notification_id: 7 };
    for (conflict, named) in [
        (version, "version -5 of originator ffffffff-ffff-ffff-ffff-ffffffffffff"),
        (position, "notification 7 does not follow the recorded position of consumer \"up\""),
    ] {
        let error = PersistenceError::from(conflict.clone());
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(error.is_conflict() && !error.is_transient() && !error.is_outcome_unknown());
        assert_eq!(error.conflict(), Some(&conflict));
        assert!(error.to_string().starts_with(named), "{error}");
    }
}

#[test]
fn a_tracking_record_follows_the_position_that_it_expects() {
    let tracking = Tracking::spanning("up", 8, 10).unwrap().after(5).unwrap();
    assert_eq!(tracking.expected_position(), Some(5));
    assert!(tracking.validate(Some(5)).is_ok());
    for ahead in [6, 7, 8, 10, i64::MAX] {
        let error = tracking.validate(Some(ahead)).unwrap_err();
        assert_eq!(error.conflict(), Some(&tracking.conflict()), "recorded: {ahead}");
    }
    for (behind, named) in [(None, "none"), (Some(4), "4"), (Some(i64::MIN), "-9223372036854775808")] {
        let error = tracking.validate(behind).unwrap_err();
        assert_eq!((error.kind(), error.conflict()), (ErrorKind::RolledBack, None), "recorded: {behind:?}");
        for part in ["\"up\"", "notification 5", &format!("position is {named}:")] {
            assert!(error.to_string().contains(part), "{error} lacks {part}");
        }
    }
    let first = Tracking::new("up", 1).unwrap().after(0).unwrap();
    assert!(first.validate(None).is_ok() && first.validate(Some(0)).is_ok());
    let unconditional = Tracking::spanning("up", 8, 10).unwrap();
    assert_eq!(unconditional.expected_position(), None);
    assert!([None, Some(0), Some(7)].iter().all(|recorded| unconditional.validate(*recorded).is_ok()));
    assert!(unconditional.validate(Some(8)).unwrap_err().is_conflict());
}

#[test]
fn a_tracking_record_comes_after_the_position_that_it_expects() {
    for position in [8, 9, i64::MAX] {
        let error = Tracking::spanning("up", 8, 10).unwrap().after(position).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
    }
}

#[test]
fn each_kind_of_error_has_its_constructor() {
    for (error, kind) in [
        (PersistenceError::interface("x"), ErrorKind::Interface),
        (PersistenceError::data("x"), ErrorKind::Data),
        (PersistenceError::operational("x"), ErrorKind::Operational),
        (PersistenceError::internal("x"), ErrorKind::Internal),
        (PersistenceError::programming("x"), ErrorKind::Programming),
        (PersistenceError::not_supported("x"), ErrorKind::NotSupported),
        (PersistenceError::new(ErrorKind::Database, "x"), ErrorKind::Database),
        (PersistenceError::new(ErrorKind::OutcomeUnknown, "x"), ErrorKind::OutcomeUnknown),
        (PersistenceError::new(ErrorKind::RolledBack, "x"), ErrorKind::RolledBack),
    ] {
        assert_eq!(error.kind(), kind);
        assert_eq!(error.to_string(), "x");
        assert!(!error.is_conflict() && !error.is_transient());
        assert_eq!(error.is_outcome_unknown(), kind == ErrorKind::OutcomeUnknown);
        assert_eq!(error.is_rolled_back(), kind == ErrorKind::RolledBack);
    }
}

#[test]
fn kinds_of_errors_have_names() {
    assert_eq!(ErrorKind::OutcomeUnknown.to_string(), "outcome unknown");
    assert_eq!(ErrorKind::Integrity.to_string(), "integrity error");
}

#[test]
fn debug_of_an_error_has_kind_message_conflict_and_cause() {
    let conflict = Conflict::Tracking { application_name: "up".to_owned(), notification_id: 7 };
    let cause = std::io::Error::other("the disk is full");
    let shown = format!("{:?}", PersistenceError::from(conflict).with_source(cause));
    for part in ["Integrity", "does not follow the recorded", "conflict: Tracking", "the disk is full"] {
        assert!(shown.contains(part), "{shown} lacks {part:?}");
    }
}

#[test]
fn an_error_keeps_its_cause_apart_from_its_message() {
    let cause = std::io::Error::other("the disk is full");
    let error = PersistenceError::operational("recording failed").with_source(cause).transient();
    assert_eq!(error.to_string(), "recording failed");
    let note = error.source().unwrap();
    assert_eq!(note.to_string(), "the failure is transient");
    assert_eq!(note.source().unwrap().to_string(), "the disk is full");
    assert!(error.is_transient());

    let permanent = PersistenceError::operational("recording failed").with_source(error);
    assert!(!permanent.is_transient());
    assert_eq!(permanent.clone().source().unwrap().to_string(), "recording failed");
}

#[test]
fn an_error_is_about_the_event_that_was_named_first() {
    let error =
        PersistenceError::data("not JSON").with_event(&event(4).context()).with_event(&event(5).context());
    let named =
        "event \"bank:Opened\", version 4 of originator 00000000-0000-0000-0000-000000000000: not JSON";
    assert_eq!(error.to_string(), named);
    let context = error.event_context().unwrap();
    assert_eq!((context.originator_id, context.originator_version), (Some(Uuid::nil()), Some(4)));
    assert_eq!(context.topic, Some(Topic::from_static("bank:Opened")));
    assert_eq!(context.notification_id, None);
}

#[test]
fn an_error_is_about_the_notification_that_was_named_first() {
    let error = PersistenceError::data("not JSON").with_notification(7).with_notification(8);
    assert_eq!(error.to_string(), "notification 7: not JSON");
    assert_eq!(error.event_context().unwrap().notification_id, Some(7));
}

/// Wrappers hide the error itself: `transparent` passes its sources on, and so does a boxed `anyhow::Error`.
#[test]
fn the_context_of_an_error_is_found_through_errors_that_wrap_it() {
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Transparent(PersistenceError);

    #[derive(Debug, thiserror::Error)]
    #[error("the order was not placed")]
    struct Outer(#[source] Transparent);

    let error = || PersistenceError::from(event(4).conflict());
    let wrapped: [Box<dyn Error>; 5] = [
        Box::new(error()),
        Box::new(Transparent(error())),
        Box::new(Outer(Transparent(error()))),
        anyhow::Error::new(error()).into_boxed_dyn_error(),
        anyhow::Error::new(Transparent(error())).context("placing an order").into_boxed_dyn_error(),
    ];
    for wrapped in wrapped {
        let context = PersistenceError::event_context_in(&*wrapped).unwrap();
        assert_eq!((context.originator_version, &context.topic), (Some(4), &None), "{wrapped:?}");
    }
    let unrelated = std::io::Error::other("the disk is full");
    assert_eq!(PersistenceError::event_context_in(&unrelated), None);
    // The first error decides: what it is about is unknown.
    let outer = PersistenceError::internal("a request failed").with_source(error());
    assert_eq!(PersistenceError::event_context_in(&outer), None);
}

#[test]
fn the_source_of_an_error_about_an_event_is_its_kind() {
    let cause = std::io::Error::other("expected a value");
    let error = PersistenceError::data("not JSON").with_source(cause).with_event(&event(4).context());
    let kind = error.source().unwrap();
    assert_eq!(kind.to_string(), "data error");
    assert_eq!(kind.source().unwrap().to_string(), "expected a value");
}

/// Numbers that are often equal.
fn near() -> impl Strategy<Value = i64> {
    prop_oneof![-2..=2_i64, any::<i64>()]
}

proptest! {
    #[test]
    fn a_topic_is_the_text_that_it_was_made_of(text in "\\PC{1,40}") {
        let topic = Topic::new(text.clone()).unwrap();
        prop_assert_eq!(topic.as_str(), text.as_str());
        prop_assert_eq!(topic.clone(), topic);
    }

    #[test]
    fn a_selection_contains_the_ids_between_its_bounds(id in near(), start in near(), stop in near()) {
        let all = NotificationSelection::new(1);
        prop_assert!(all.contains(id));
        prop_assert_eq!(all.clone().start(start).contains(id), start <= id);
        prop_assert_eq!(all.clone().after(start).contains(id), start < id);
        prop_assert_eq!(all.clone().stop(stop).contains(id), id <= stop);
        prop_assert_eq!(all.start(start).stop(stop).contains(id), (start..=stop).contains(&id));
    }
}

/// `Debug` of stored events and of all that contain them printed whole states: personal data, and megabytes
/// in a log.
#[test]
fn debug_shows_the_length_and_a_digest_of_a_state_only() {
    let state = |byte: u8| StoredEvent { state: Bytes::from(vec![byte; 1_000_000]), ..event(7) };
    let shown = format!("{:?}", state(b'a'));
    assert!(shown.contains("1000000 bytes #") && shown.len() < 300, "{shown}");
    assert!(!shown.contains("aaa"), "{shown}");
    assert_eq!(shown, format!("{:?}", state(b'a')), "equal states have equal digests");
    assert_ne!(shown, format!("{:?}", state(b'b')), "different states have different digests");

    let notification = Notification { id: 3, event: state(b'a') };
    let batch = NotificationBatch {
        application_name: "balances",
        notifications: std::slice::from_ref(&notification),
        position: 3,
        expected_position: None,
    };
    for shown in [format!("{notification:?}"), format!("{batch:#?}")] {
        assert!(shown.contains("1000000 bytes #") && shown.len() < 600 && !shown.contains("aaa"), "{shown}");
    }
}

/// A batch that has a version twice was reported as a conflict with stored data.
#[test]
fn a_version_twice_in_a_batch_is_a_programming_error() {
    StoredEvent::verify_unique_versions(&[]).unwrap();
    StoredEvent::verify_unique_versions(&[event(2), event(1), event(3)]).unwrap();
    let other = StoredEvent { originator_id: Uuid::max(), ..event(1) };
    StoredEvent::verify_unique_versions(&[event(1), other.clone(), event(2)]).unwrap();
    let error = StoredEvent::verify_unique_versions(&[event(1), other, event(2), event(1)]).unwrap_err();
    assert_eq!((error.kind(), error.is_conflict()), (ErrorKind::Programming, false));
    assert!(error.to_string().contains("version 1 of originator"), "{error}");
}
