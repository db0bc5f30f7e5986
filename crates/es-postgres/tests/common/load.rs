//! Writers and a reader that continue through faults, and checks of the results that they received.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ErrorKind, NotificationSelection, PersistenceError,
    ProcessRecorder, StoredEvent, Tracking, TrackingRecorder, uuid::Uuid,
};
use es_postgres::PostgresProcessRecorder;
use tokio::{sync::watch, task::JoinHandle};

use super::first;

/// Between the end of a fault and the next acknowledgement: for a test that fails.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(5);

/// The result that a writer received.
#[derive(Debug)]
enum Told {
    Recorded(Vec<i64>),
    NotRecorded,
    Unknown,
}

/// Requests: the events' originators, the position, and the answer.
type History = Vec<(Vec<Uuid>, Option<Tracking>, Told)>;

#[derive(Debug)]
pub struct Load {
    recorder: PostgresProcessRecorder,
    history: Arc<Mutex<History>>,
    acknowledged: watch::Receiver<usize>,
    /// For writers, and for the reader, which has to see the last events they wrote.
    is_over: [Arc<AtomicBool>; 2],
    writers: Vec<JoinHandle<()>>,
    reader: JoinHandle<Vec<i64>>,
}

impl Load {
    pub fn start(recorder: &PostgresProcessRecorder, writers: usize) -> Self {
        let (history, is_over) = (Arc::<Mutex<History>>::default(), <[Arc<AtomicBool>; 2]>::default());
        let (count, acknowledged) = watch::channel(0);
        let count = Arc::new(count);
        let writers = (0..writers)
            .map(|number| {
                let (recorder, history) = (recorder.clone(), Arc::clone(&history));
                let (is_over, count) = (Arc::clone(&is_over[0]), Arc::clone(&count));
                tokio::spawn(async move { write(number, &recorder, &history, &is_over, &count).await })
            })
            .collect();
        let reader = tokio::spawn({
            let (recorder, is_over) = (recorder.clone(), Arc::clone(&is_over[1]));
            async move { follow(&recorder, &is_over).await }
        });
        Self { recorder: recorder.clone(), history, acknowledged, is_over, writers, reader }
    }

    /// Waits until so many more requests are acknowledged.
    pub async fn until_more(&mut self, requests: usize) {
        let enough = *self.acknowledged.borrow() + requests;
        let wait = self.acknowledged.wait_for(|count| *count >= enough);
        let waited = tokio::time::timeout(RECOVERY_TIMEOUT, wait).await;
        waited.expect("it recovers without a restart of the process").expect("the writers are there");
    }

    /// Ends it, and compares the results of all writers with the recorded events. Returns the numbers of
    /// requests that were acknowledged, refused, and unknown.
    pub async fn finish(self) -> [usize; 3] {
        self.is_over[0].store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.is_over[1].store(true, Ordering::SeqCst);
        let seen = self.reader.await.unwrap();
        let page = self.recorder.select_notifications(NotificationSelection::new(1_000_000)).await.unwrap();
        let ids: Vec<i64> = page.iter().map(|notification| notification.id).collect();
        assert_eq!(seen, ids, "the reader saw each event once, in the order of ids");
        let mut recorded: HashMap<Uuid, i64> = HashMap::new();
        for notification in page {
            let before = recorded.insert(notification.event.originator_id, notification.id);
            assert_eq!(before, None, "an event is written once");
        }
        let mut counts = [0; 3];
        let mut positions: BTreeMap<String, i64> = BTreeMap::new();
        let history = std::mem::take(&mut *self.history.lock().unwrap());
        for (originators, tracking, told) in history {
            let found: Vec<i64> = originators.iter().filter_map(|id| recorded.remove(id)).collect();
            let is_recorded = match &told {
                Told::Recorded(ids) => {
                    assert_eq!(&found, ids, "what was acknowledged is there");
                    true
                }
                Told::NotRecorded => {
                    assert!(found.is_empty(), "what was refused is not there");
                    false
                }
                Told::Unknown => {
                    assert!(found.is_empty() || found.len() == originators.len(), "whole or not at all");
                    !found.is_empty()
                }
            };
            counts[match told {
                Told::Recorded(_) => 0,
                Told::NotRecorded => 1,
                Told::Unknown => 2,
            }] += 1;
            if let (true, Some(tracking)) = (is_recorded, tracking) {
                let position = tracking.notification_id();
                positions.insert(tracking.application_name().to_owned(), position);
            }
        }
        assert!(recorded.is_empty(), "no event is recorded that was not written");
        for (application, position) in positions {
            let tracked = self.recorder.max_tracking_id(&application).await.unwrap();
            assert_eq!(tracked, Some(position), "positions are those of the events that are there");
        }
        counts
    }
}

async fn write(
    number: usize,
    recorder: &PostgresProcessRecorder,
    history: &Mutex<History>,
    is_over: &AtomicBool,
    count: &watch::Sender<usize>,
) {
    for round in 1.. {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let events: Vec<StoredEvent> = (0..1 + round % 3).map(|_| first()).collect();
        let originators = events.iter().map(|event| event.originator_id).collect();
        // Half of them with a position, each of its own.
        let tracking =
            number.is_multiple_of(2).then(|| Tracking::new(format!("upstream{number}"), round).unwrap());
        let answer = match &tracking {
            Some(tracking) => recorder.insert_events_with_tracking(events, tracking.clone()).await,
            None => recorder.insert_events(events).await,
        };
        let told = judge(answer);
        let is_recorded = matches!(told, Told::Recorded(_));
        history.lock().unwrap().push((originators, tracking, told));
        if is_recorded {
            count.send_modify(|count| *count += 1);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// No other errors than these come of a server's faults.
fn judge(answer: Result<Vec<i64>, PersistenceError>) -> Told {
    match answer {
        Ok(ids) => Told::Recorded(ids),
        Err(error) if error.is_outcome_unknown() => Told::Unknown,
        Err(error) if error.is_transient() && error.kind() == ErrorKind::Operational => Told::NotRecorded,
        Err(error) => panic!("not an error of a server that is not there: {error:?}"),
    }
}

async fn follow(recorder: &PostgresProcessRecorder, is_over: &AtomicBool) -> Vec<i64> {
    let mut seen: Vec<i64> = Vec::new();
    loop {
        let is_last = is_over.load(Ordering::SeqCst);
        let after = seen.last().copied().unwrap_or(0);
        match recorder.select_notifications(NotificationSelection::new(50).after(after)).await {
            Ok(page) if page.is_empty() && is_last => return seen,
            Ok(page) => seen.extend(page.iter().map(|notification| notification.id)),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
