//! A fixed short history of requests, their outcomes, and a check of a database against them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ErrorKind, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, StoredEvent, Tracking, TrackingRecorder,
};
use es_sqlite::{Fault, FaultHooks, FaultPoint, SqliteOptions, SqliteProcessRecorder, Synchronous};
use es_sqlite_vfs::Disk;
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use rusqlite::Connection;

use crate::support::{event_of, id};

pub(crate) const FILE: &str = "events.db";

/// A request and its outcome.
#[derive(Debug)]
pub(crate) struct Answer {
    originator: u128,
    events: i64,
    /// The position that was to be recorded with the events, of an application of the same name as the
    /// originator.
    position: Option<i64>,
    outcome: Result<Vec<i64>, PersistenceError>,
    /// True if the power was cut before the outcome: an error then proves nothing.
    is_after_power_cut: bool,
}

/// All outcomes and reads of a program.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) answers: Vec<Answer>,
    read: Vec<Notification>,
}

/// The program that sends the requests.
pub(crate) struct Program<'d> {
    disk: &'d Disk,
    hold: Hold,
    recorder: SqliteProcessRecorder,
    pub(crate) observed: Observed,
}

/// Holds the writer, which has taken one request, while others arrive.
#[derive(Clone, Default)]
struct Hold(Arc<Mutex<()>>);

impl FaultHooks for Hold {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        if step == FaultPoint::Append {
            drop(self.0.lock().unwrap());
        }
        Ok(())
    }
}

impl Answer {
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.outcome.is_ok()
    }
}

impl<'d> Program<'d> {
    pub(crate) async fn start(disk: &'d Disk, synchronous: Synchronous) -> Result<Self, PersistenceError> {
        let hold = Hold::default();
        let options = SqliteOptions::new(disk.uri(FILE)).synchronous(synchronous).hooks(hold.clone());
        let datastore = options.lock_timeout(Duration::from_millis(100)).open().await?;
        let recorder = match datastore.process_recorder().await {
            Ok(recorder) => recorder,
            Err(error) => {
                datastore.close().await.unwrap();
                return Err(error);
            }
        };
        Ok(Self { disk, hold, recorder, observed: Observed::default() })
    }

    /// Single events, batches, positions, reads, groups, and checkpoints after which the log begins anew.
    pub(crate) async fn run(&mut self) {
        self.insert(1, 1, None).await;
        self.insert(2, 3, None).await;
        self.insert(3, 2, Some(7)).await;
        self.read().await;
        self.checkpoint("TRUNCATE");
        self.insert(4, 1, None).await;
        self.insert_together(&[(5, 2, None), (6, 1, Some(9)), (7, 4, None), (8, 1, None)]).await;
        self.read().await;
        self.checkpoint("PASSIVE");
        self.insert(9, 1, None).await;
        self.insert(10, 20, Some(11)).await;
        self.insert(11, 1, None).await;
        self.read().await;
    }

    pub(crate) async fn insert(&mut self, originator: u128, events: i64, position: Option<i64>) {
        self.insert_together(&[(originator, events, position)]).await;
    }

    pub(crate) async fn close(self) -> Observed {
        self.recorder.datastore().close().await.unwrap();
        self.observed
    }

    /// The whole database can be read, and agrees with the outcomes.
    pub(crate) async fn check(&mut self, context: &str) {
        let contents = Contents::read(&self.recorder).await;
        check(&contents, &self.observed, context);
    }

    async fn insert_together(&mut self, requests: &[(u128, i64, Option<i64>)]) {
        let hold = self.hold.0.lock().unwrap();
        let mut outcomes = join_all(requests.iter().map(|request| insert(&self.recorder, *request)));
        let early = outcomes.poll_unpin(&mut Context::from_waker(Waker::noop()));
        drop(hold);
        let outcomes = match early {
            Poll::Ready(outcomes) => outcomes,
            Poll::Pending => outcomes.await,
        };
        for (outcome, (originator, events, position)) in outcomes.into_iter().zip(requests) {
            let is_after_power_cut = self.disk.is_cut();
            let (originator, events, position) = (*originator, *events, *position);
            self.observed.answers.push(Answer { originator, events, position, outcome, is_after_power_cut });
        }
    }

    /// Events that were read are a promise too: they must not disappear.
    async fn read(&mut self) {
        let read = self.recorder.select_notifications(NotificationSelection::new(1_000)).await;
        match read {
            Ok(read) => self.observed.read = read,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Operational, "{error:?}"),
        }
        let events = self.recorder.select_events(id(2), EventRange::all()).await;
        if let Ok(events) = events {
            assert!(events.is_empty() || events == events_of(2, 3), "{events:?}");
        }
    }

    /// By another connection, as another program would.
    fn checkpoint(&self, mode: &str) {
        let Ok(connection) = Connection::open(self.disk.uri(FILE)) else { return };
        // It fails where the disk does.
        let _ = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |_| Ok(()));
    }
}

fn insert(
    recorder: &SqliteProcessRecorder,
    (originator, events, position): (u128, i64, Option<i64>),
) -> BoxFuture<'_, Result<Vec<i64>, PersistenceError>> {
    let events = events_of(originator, events);
    match position {
        None => recorder.insert_events(events).boxed(),
        Some(position) => {
            let tracking = Tracking::new(originator.to_string(), position).unwrap();
            recorder.insert_events_with_tracking(events, tracking).boxed()
        }
    }
}

/// Some larger than a sector, some than a page.
fn events_of(originator: u128, count: i64) -> Vec<StoredEvent> {
    let state = |version: i64| vec![version as u8; [100, 700, 5_000][version as usize % 3]];
    (1..=count).map(|version| event_of(originator, version, state(version))).collect()
}

/// The contents of a database.
struct Contents {
    notifications: Vec<Notification>,
    positions: BTreeMap<u128, Option<i64>>,
}

impl Contents {
    async fn read(recorder: &SqliteProcessRecorder) -> Self {
        let notifications = recorder.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
        let mut positions = BTreeMap::new();
        for originator in 1..=20 {
            positions.insert(originator, recorder.max_tracking_id(&originator.to_string()).await.unwrap());
        }
        Self { notifications, positions }
    }

    /// The notification ids of an aggregate's events.
    fn ids(&self, originator: u128) -> Vec<i64> {
        let own = self.notifications.iter().filter(|it| it.event.originator_id == id(originator));
        own.map(|notification| notification.id).collect()
    }

    fn events(&self, originator: u128) -> Vec<StoredEvent> {
        let own = self.notifications.iter().filter(|it| it.event.originator_id == id(originator));
        own.map(|notification| notification.event.clone()).collect()
    }
}

/// Acknowledged means present under the acknowledged ids, refused means absent, and batches are whole,
/// positions included.
fn check(contents: &Contents, observed: &Observed, context: &str) {
    for answer in &observed.answers {
        let Answer { originator, outcome, is_after_power_cut, .. } = answer;
        let recorded = check_whole(contents, answer, context);
        match outcome {
            Ok(ids) => {
                assert!(recorded, "{context}: {originator} was acknowledged and is lost");
                assert_eq!(&contents.ids(*originator), ids, "{context}: {originator}");
            }
            Err(error) if error.is_outcome_unknown() || *is_after_power_cut => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Operational, "{context}: {originator}: {error:?}");
                assert!(!recorded, "{context}: {originator} was refused and is recorded: {error:?}");
            }
        }
    }
    for notification in &observed.read {
        assert!(contents.notifications.contains(notification), "{context}: {} was read", notification.id);
    }
}

/// Returns true if a request is recorded; it must be recorded as a whole or not at all.
fn check_whole(contents: &Contents, answer: &Answer, context: &str) -> bool {
    let originator = answer.originator;
    let recorded = contents.events(originator);
    let position = contents.positions.get(&originator).copied().flatten();
    if recorded.is_empty() {
        assert_eq!(position, None, "{context}: the position of {originator} alone");
        return false;
    }
    assert_eq!(recorded, events_of(originator, answer.events), "{context}: {originator}");
    assert_eq!(position, answer.position, "{context}: the position of {originator}");
    true
}

/// Opens a database as another program would, once its users have ended: it agrees with the outcomes, and
/// works.
pub(crate) async fn check_anew(directory: &Path, observed: &Observed, context: &str) {
    let contents = recover(directory, context).await;
    check(&contents, observed, context);
}

/// Checks a database that may have lost acknowledged events: the rest is whole and the beginning of the log.
pub(crate) async fn check_beginning(directory: &Path, observed: &Observed, context: &str) -> usize {
    let contents = recover(directory, context).await;
    let mut lost = 0;
    for answer in &observed.answers {
        let is_recorded = check_whole(&contents, answer, context);
        if let Ok(ids) = &answer.outcome {
            assert!(!is_recorded || *ids == contents.ids(answer.originator), "{context}");
            lost += usize::from(!is_recorded);
        }
    }
    lost
}

/// Returns the contents of a database that is opened after a crash; it is sound, and can be written.
async fn recover(directory: &Path, context: &str) -> Contents {
    let path = directory.join(FILE);
    let datastore = SqliteOptions::new(&path).synchronous(Synchronous::Off).open().await;
    let datastore = datastore.unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let recorder = datastore.process_recorder().await.unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let contents = Contents::read(&recorder).await;
    let last = contents.notifications.last().map_or(0, |last| last.id);
    let ids: Vec<_> = contents.notifications.iter().map(|it| it.id).collect();
    assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "{context}: the log begins at 1 and has no gaps");
    let next = recorder.insert_events(events_of(1_000, 2)).await;
    assert_eq!(
        next.unwrap_or_else(|error| panic!("{context}: {error:?}")),
        [last + 1, last + 2],
        "{context}"
    );
    recorder.datastore().close().await.unwrap();
    let check: String =
        Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{context}");
    contents
}
