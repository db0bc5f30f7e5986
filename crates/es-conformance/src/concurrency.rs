//! The rules of recorders of events under concurrent use: writers, readers, dropped futures and closing.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use es_core::{AggregateRecorder, ErrorKind, EventRange, Recorder, StoredEvent, uuid::Uuid};
use futures_util::future::{join, join_all, maybe_done};
use tokio::task::yield_now;

use crate::{
    Fixture,
    support::{event, events, insert, poll_once, poll_then_drop, select_all, versions, versions_of},
};

const WRITERS: usize = 8;

/// Concurrent writers of one aggregate, which retry after conflicts, lose no acknowledged event and skip no
/// version.
pub async fn concurrent_writers_lose_no_events(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    const EACH: usize = 5;
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let id = Uuid::new_v4();
    insert(&*recorders[0], events(id, [1])).await;

    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(append_by_turns(Arc::clone(&recorders[writer % 2]), id, writer, EACH)))
        .collect();
    let mut acknowledged = events(id, [1]);
    for writer in writers {
        acknowledged.extend(writer.await.expect("a writer should finish"));
    }

    acknowledged.sort_by_key(|event| event.originator_version);
    let recorded = select_all(&*recorders[0], id).await;
    assert_eq!(versions_of(&recorded), (1..=(WRITERS * EACH) as i64 + 1).collect::<Vec<_>>());
    assert_eq!(recorded, acknowledged, "the acknowledged events differ from the recorded ones");
}

/// Appends `count` events, each at the version after the last one that is recorded.
async fn append_by_turns<R: AggregateRecorder>(
    recorder: Arc<R>,
    id: Uuid,
    writer: usize,
    count: usize,
) -> Vec<StoredEvent> {
    let recorder: &R = &recorder;
    let mut acknowledged = Vec::new();
    while acknowledged.len() < count {
        let last = versions(recorder, id, EventRange::all().desc().limit(1)).await;
        let next = last.first().map_or(1, |version| version + 1);
        let state = format!("by writer {writer}").into();
        let event = StoredEvent { state, ..event(id, next) };
        match recorder.insert_events(vec![event.clone()]).await {
            Ok(_) => acknowledged.push(event),
            Err(error) if error.kind() == ErrorKind::Integrity => yield_now().await,
            Err(error) => panic!("inserting should succeed or conflict: {error}"),
        }
    }
    acknowledged
}

/// Concurrent readers see each batch completely or not at all.
pub async fn readers_see_complete_batches(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    const BATCHES: i64 = 40;
    let writer = fixture.open().await;
    let readers = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let id = Uuid::new_v4();
    insert(&writer, events(id, [1, 2])).await;

    let finished = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read_complete_batches(Arc::clone(&readers[0]), id, Arc::clone(&finished)));
    for batch in 1..BATCHES {
        let insertion = writer.insert_events(events(id, [2 * batch + 1, 2 * batch + 2]));
        let mut insertion = pin!(maybe_done(insertion));
        // Reads between any two steps of the insertion, in addition to those of the other reader at any time.
        while !poll_once(insertion.as_mut()).await {
            assert_complete_batches(&*readers[1], id).await;
        }
        insertion.take_output().expect("it is done").expect("inserting should succeed");
    }
    finished.store(true, Ordering::Release);
    reading.await.expect("the reader should finish");
    assert_eq!(assert_complete_batches(&writer, id).await as i64, 2 * BATCHES);
}

async fn read_complete_batches<R: AggregateRecorder>(recorder: Arc<R>, id: Uuid, finished: Arc<AtomicBool>) {
    while !finished.load(Ordering::Acquire) {
        assert_complete_batches(&*recorder, id).await;
        yield_now().await;
    }
}

/// Returns the number of visible events, and asserts that it is even: each batch has two events.
async fn assert_complete_batches(recorder: &impl AggregateRecorder, id: Uuid) -> usize {
    let count = select_all(recorder, id).await.len();
    assert!(count.is_multiple_of(2), "{count} events of batches of two are visible");
    count
}

/// If the future of an insertion is dropped at any point, either all of its events are recorded or none.
pub async fn a_cancelled_insert_is_atomic(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let mut recorder = fixture.open().await;
    let ids: Vec<Uuid> = (0..12).map(|_| Uuid::new_v4()).collect();
    let beginnings = ids.iter().map(|id| event(*id, 1)).collect();
    insert(&recorder, beginnings).await;
    for (polls, id) in ids.iter().enumerate() {
        poll_then_drop(recorder.insert_events(events(*id, [2, 3, 4, 5])), polls / 2).await;
    }
    // Closing waits for accepted writes: the state after it is final.
    recorder.close().await.expect("closing should succeed");
    recorder = fixture.open().await;
    for id in ids {
        let count = select_all(&recorder, id).await.len();
        assert!(count == 1 || count == 5, "{} events of a batch of four are recorded", count - 1);
    }
}

/// A recorder works as before after futures of its methods were dropped.
pub async fn dropped_futures_leave_the_recorder_usable(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    for polls in 0..6 {
        poll_then_drop(recorder.select_events(id, EventRange::all()), polls).await;
        // A recorded version: the insertion changes nothing, whether it is dropped before or after it is
        // refused.
        poll_then_drop(recorder.insert_events(events(id, [1])), polls).await;
    }
    insert(&recorder, events(id, [2])).await;
    assert_eq!(select_all(&recorder, id).await, events(id, [1, 2]));
}

/// Insertions that are in progress during `close()` are recorded or refused, as their results say: none is
/// acknowledged and lost, and none is refused and recorded.
pub async fn close_waits_for_accepted_writes(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let ids: Vec<Uuid> = (0..16).map(|_| Uuid::new_v4()).collect();
    insert(&recorder, ids.iter().map(|id| event(*id, 1)).collect()).await;

    let mut insertions: Vec<_> =
        ids.iter().map(|id| Box::pin(maybe_done(recorder.insert_events(events(*id, [2, 3]))))).collect();
    for insertion in &mut insertions {
        poll_once(insertion.as_mut()).await;
    }
    let (closed, _) = join(recorder.close(), join_all(insertions.iter_mut().map(|each| each.as_mut()))).await;
    closed.expect("closing should succeed");
    let acknowledged: Vec<bool> = insertions
        .iter_mut()
        .map(|insertion| match insertion.as_mut().take_output().expect("it was awaited") {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::Interface => false,
            Err(error) => panic!("an insertion during close should fail with an interface error: {error}"),
        })
        .collect();
    drop(insertions);
    drop(recorder);

    let reopened = fixture.open().await;
    for (id, acknowledged) in ids.iter().zip(acknowledged) {
        let recorded = if acknowledged { events(*id, 1..=3) } else { events(*id, [1]) };
        assert_eq!(select_all(&reopened, *id).await, recorded, "acknowledged: {acknowledged}");
    }
}
