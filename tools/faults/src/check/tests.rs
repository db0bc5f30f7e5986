//! A good history passes, and each promise that is broken in it by hand is found.

use super::*;
use crate::history::Message;

/// Two puts to one aggregate, one after the other, a conflict, two gets and a reader.
fn good() -> History {
    let mut history = History::default();
    did(&mut history, "a", 10, 20, put([(1, 1), (1, 2)]), Answer::Recorded(vec![1, 2]));
    did(&mut history, "g", 12, 18, Call::Get { aggregate: 1 }, Answer::Events(Vec::new()));
    did(&mut history, "b", 30, 40, put([(1, 3)]), Answer::Recorded(vec![4]));
    did(&mut history, "c", 32, 38, put([(1, 3)]), Answer::Conflict);
    let found = vec![event(1, 1, "a", 0), event(1, 2, "a", 1)];
    did(&mut history, "h", 35, 45, Call::Get { aggregate: 1 }, Answer::Events(found));
    did(&mut history, "t", 50, 60, tracked(9, 1), Answer::Recorded(vec![5]));
    history.log = vec![
        recorded(1, event(1, 1, "a", 0)),
        recorded(2, event(1, 2, "a", 1)),
        recorded(4, event(1, 3, "b", 0)),
        recorded(5, event(9, 1, "t", 0)),
    ];
    history.positions.insert("feed".to_owned(), 1);
    let page = history.log.iter().take(3).cloned().collect();
    did(&mut history, "r", 42, 55, all_after(0), Answer::Notifications(page));
    history
}

fn event(aggregate: u64, version: i64, put: &str, index: usize) -> Event {
    Event { aggregate, version, put: put.to_owned(), index }
}

fn recorded(id: i64, event: Event) -> Recorded {
    Recorded { id, event }
}

fn put<const N: usize>(places: [(u64, i64); N]) -> Call {
    Call::Put { places: places.to_vec(), tracking: None }
}

fn tracked(aggregate: u64, position: i64) -> Call {
    Call::Put { places: vec![(aggregate, position)], tracking: Some(("feed".to_owned(), position)) }
}

fn all_after(after: i64) -> Call {
    Call::Select { after, limit: 10, topic: None, required: Required::Acknowledged }
}

fn did(history: &mut History, key: &str, invoked: u64, returned: u64, call: Call, answer: Answer) {
    history.record(Message::Invoked { key: key.to_owned(), at: invoked, call });
    history.record(Message::Returned { key: key.to_owned(), at: returned, answer });
}

/// Changes the good history, and says what is found then.
fn found(change: impl FnOnce(&mut History)) -> Vec<Violation> {
    let mut history = good();
    change(&mut history);
    check(&history)
}

fn operation<'h>(history: &'h mut History, key: &str) -> &'h mut Operation {
    history.operations.iter_mut().find(|operation| operation.key == key).unwrap()
}

fn answer(history: &mut History, key: &str, answer: Answer) {
    operation(history, key).returned.as_mut().unwrap().1 = answer;
}

#[test]
fn a_good_history_passes() {
    assert_eq!(check(&good()), []);
    assert_eq!(check(&History::default()), []);
    let nothing_new = found(|history| {
        did(history, "n", 70, 80, all_after(5), Answer::Notifications(Vec::new()));
    });
    assert_eq!(nothing_new, []);
}

#[test]
fn an_operation_without_an_answer_may_be_either() {
    let unanswered = |key| move |history: &mut History| operation(history, key).returned = None;
    for key in ["a", "g", "b", "c", "h", "t", "r"] {
        assert_eq!(found(unanswered(key)), [], "{key}");
    }
    let gone = found(|history| {
        operation(history, "t").returned = None;
        history.log.pop();
        history.positions.clear();
    });
    assert_eq!(gone, []);
}

#[test]
fn a_missing_acknowledged_put_is_found() {
    let lost = found(|history| {
        history.log.pop();
        history.positions.clear();
    });
    assert_eq!(lost, [Violation::Lost("t".to_owned())]);
    let moved = found(|history| answer(history, "t", Answer::Recorded(vec![6])));
    assert!(moved.contains(&Violation::Lost("t".to_owned())));
}

#[test]
fn half_a_put_is_found() {
    let torn = found(|history| {
        operation(history, "a").returned = None;
        history.log.remove(1);
    });
    assert!(torn.contains(&Violation::Torn("a".to_owned())), "{torn:?}");
    let turned = found(|history| {
        let (first, second) = (history.log[0].event.clone(), history.log[1].event.clone());
        history.log[0].event = second;
        history.log[1].event = first;
    });
    assert!(turned.contains(&Violation::Torn("a".to_owned())), "{turned:?}");
}

#[test]
fn a_recorded_event_that_was_refused_or_never_put_is_found() {
    for refusal in [Answer::Conflict, Answer::TrackingConflict, Answer::Refused] {
        let unwanted = found(|history| answer(history, "b", refusal));
        assert!(unwanted.contains(&Violation::Unwanted("b".to_owned())), "{unwanted:?}");
    }
    let invented = found(|history| history.log.push(recorded(7, event(3, 1, "nobody", 0))));
    assert_eq!(invented, [Violation::Invented(7)]);
    let elsewhere = found(|history| history.log[2].event.version = 4);
    assert!(elsewhere.contains(&Violation::Invented(4)), "{elsewhere:?}");
}

#[test]
fn gaps_and_doubles_of_versions_are_found() {
    let gap = found(|history| {
        history.log.drain(..2);
    });
    assert!(gap.contains(&Violation::Version(1, 1)), "{gap:?}");
    let twice = found(|history| {
        did(history, "d", 50, 60, put([(1, 3)]), Answer::Recorded(vec![6]));
        history.log.push(recorded(6, event(1, 3, "d", 0)));
    });
    assert!(twice.contains(&Violation::Version(1, 4)), "{twice:?}");
}

#[test]
fn a_log_out_of_order_is_found() {
    let unordered = found(|history| history.log.swap(2, 3));
    assert!(unordered.contains(&Violation::LogUnordered(4)), "{unordered:?}");
    let twice = found(|history| {
        let again = history.log[3].clone();
        history.log.push(again);
    });
    assert!(twice.contains(&Violation::LogUnordered(5)), "{twice:?}");
}

#[test]
fn answers_at_the_wrong_time_are_found() {
    let no_moment = |key: &str| Violation::NoMoment(key.to_owned());
    // It finds nothing, after the first put was acknowledged.
    let stale = found(|history| {
        operation(history, "g").invoked = 22;
        operation(history, "g").returned.as_mut().unwrap().0 = 25;
    });
    assert_eq!(stale, [no_moment("a")]);
    // It finds what is put after it.
    let early = found(|history| operation(history, "h").returned.as_mut().unwrap().0 = 8);
    assert_eq!(early, [no_moment("h")]);
    // Another found more before it began.
    let back = found(|history| {
        let all = history.log.iter().take(3).map(|recorded| recorded.event.clone()).collect();
        did(history, "i", 31, 34, Call::Get { aggregate: 1 }, Answer::Events(all));
    });
    assert_eq!(back, [no_moment("i")]);
    // A conflict with what is put after it, and with nothing.
    let conflict = found(|history| operation(history, "c").returned.as_mut().unwrap().0 = 29);
    assert_eq!(conflict, [no_moment("c")]);
    let nothing = found(|history| did(history, "d", 50, 60, put([(1, 4)]), Answer::Conflict));
    assert_eq!(nothing, [no_moment("d")]);
}

#[test]
fn a_state_that_an_aggregate_never_had_is_found() {
    let never = [Violation::NeverSo("h".to_owned())];
    assert_eq!(found(|history| answer(history, "h", Answer::Events(vec![event(1, 1, "a", 0)]))), never);
    assert_eq!(found(|history| answer(history, "h", Answer::Events(vec![event(1, 3, "b", 0)]))), never);
    let phantom = (1..=4).map(|version| event(1, version, "a", 0)).collect();
    assert_eq!(found(|history| answer(history, "h", Answer::Events(phantom))), never);
}

#[test]
fn events_that_readers_miss_or_misread_are_found() {
    let page = |change: fn(&mut Vec<Recorded>)| {
        found(|history| {
            let mut page = history.log.iter().take(3).cloned().collect();
            change(&mut page);
            answer(history, "r", Answer::Notifications(page));
        })
    };
    assert_eq!(page(|page| drop(page.remove(1))), [Violation::Missed("r".to_owned(), 2)]);
    assert_eq!(page(|page| drop(page.pop())), [Violation::Stale("r".to_owned(), 4)]);
    assert_eq!(page(|page| page.swap(0, 1)), [Violation::Misread("r".to_owned(), 1)]);
    assert_eq!(page(|page| page.push(page[2].clone())), [Violation::Misread("r".to_owned(), 4)]);
    assert_eq!(page(|page| page[1].id = 3), [Violation::Misread("r".to_owned(), 3)]);
    assert_eq!(page(|page| page[1].event.index = 0), [Violation::Misread("r".to_owned(), 2)]);
    // What comes later with a lower id was missed, though it was not there.
    let later = found(|history| {
        did(history, "l", 56, 70, put([(2, 1)]), Answer::Recorded(vec![3]));
        history.log.insert(2, recorded(3, event(2, 1, "l", 0)));
    });
    assert!(later.contains(&Violation::Missed("r".to_owned(), 3)), "{later:?}");
    assert!(later.contains(&Violation::AgainstTime("l".to_owned())), "{later:?}");
}

#[test]
fn a_reader_of_a_standby_may_be_behind_unless_it_has_waited() {
    let read = |required, page: fn(&Recorded) -> bool| {
        found(|history| {
            let page = history.log.iter().filter(|it| page(it)).cloned().collect();
            let call = Call::Select { after: 0, limit: 10, topic: None, required };
            did(history, "s", 70, 80, call, Answer::Notifications(page));
        })
    };
    assert_eq!(read(Required::UpTo(0), |it| it.id <= 2), []);
    assert_eq!(read(Required::UpTo(4), |it| it.id <= 4), []);
    assert_eq!(read(Required::UpTo(5), |it| it.id <= 4), [Violation::Stale("s".to_owned(), 5)]);
    assert_eq!(read(Required::UpTo(0), |it| it.id != 2), [Violation::Missed("s".to_owned(), 2)]);
}

/// All events of the good history are of the second topic, but those of aggregate 2.
#[test]
fn events_that_readers_of_a_topic_miss_or_misread_are_found() {
    let read = |topic, change: fn(&mut Vec<Recorded>), position: fn(i64) -> Option<i64>| {
        found(|history| {
            did(history, "l", 61, 70, put([(2, 1)]), Answer::Recorded(vec![6]));
            did(history, "m", 71, 80, put([(3, 1)]), Answer::Recorded(vec![7]));
            history.log.push(recorded(6, event(2, 1, "l", 0)));
            history.log.push(recorded(7, event(3, 1, "m", 0)));
            let log = history.log.iter();
            let mut page: Vec<Recorded> =
                log.filter(|it| (it.event.aggregate == 2) == (topic == 0)).cloned().collect();
            change(&mut page);
            let last = page.last().map_or(0, |last| last.id);
            let answer = match position(last) {
                Some(position) => Answer::ReadUpTo(page, position),
                None => Answer::Notifications(page),
            };
            let call =
                Call::Select { after: 0, limit: 10, topic: Some(topic), required: Required::Acknowledged };
            did(history, "s", 82, 90, call, answer);
        })
    };
    for topic in [0, 1] {
        assert_eq!(read(topic, |_| {}, |_| None), []);
        assert_eq!(read(topic, |_| {}, |_| Some(7)), []);
    }
    let missed = |id| [Violation::Missed("s".to_owned(), id)];
    let stale = |id| [Violation::Stale("s".to_owned(), id)];
    assert_eq!(read(1, |page| drop(page.remove(1)), |_| None), missed(2));
    assert_eq!(read(1, |page| drop(page.pop()), |_| None), stale(7));
    assert_eq!(read(1, |page| drop(page.pop()), |_| Some(6)), stale(7));
    assert_eq!(read(1, |page| drop(page.pop()), |_| Some(7)), missed(7));
    assert_eq!(read(0, |page| drop(page.pop()), |_| None), stale(6));
    assert_eq!(read(0, |page| drop(page.pop()), |_| Some(7)), missed(6));
    let misread = |id| [Violation::Misread("s".to_owned(), id)];
    assert_eq!(read(0, |page| page.push(recorded(7, event(3, 1, "m", 0))), |_| None), misread(7));
    assert_eq!(read(1, |_| {}, |last| Some(last - 1)), misread(7));
}

#[test]
fn positions_without_their_events_are_found() {
    let feed = |position| [Violation::Position("feed".to_owned(), position)];
    assert_eq!(found(|history| history.positions.clear()), feed(1));
    let moved = found(|history| {
        history.positions.insert("feed".to_owned(), 2);
    });
    assert_eq!(moved, feed(1));
    let alone = found(|history| {
        operation(history, "t").returned = None;
        history.log.pop();
    });
    assert_eq!(alone, feed(1));
    let twice = found(|history| {
        did(
            history,
            "u",
            70,
            80,
            Call::Put { places: vec![(8, 1)], tracking: Some(("feed".to_owned(), 1)) },
            Answer::Recorded(vec![6]),
        );
        history.log.push(recorded(6, event(8, 1, "u", 0)));
    });
    assert_eq!(twice, feed(2));
}
