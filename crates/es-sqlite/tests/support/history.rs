//! A fixed little history through the recorder, what was answered, and whether a database agrees with it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ErrorKind, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, StoredEvent, Tracking, TrackingRecorder,
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

/// What was asked, and answered.
#[derive(Debug)]
pub(crate) struct Answer {
    originator: u128,
    events: i64,
    /// The position that was to be recorded with the events, of an application of the same name as the originator.
    position: Option<i64>,
    outcome: Result<Vec<i64>, PersistenceError>,
    /// Whether the power was cut before it was answered: an error then says nothing.
    is_after_power_cut: bool,
}

/// Everything that a program has been told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) answers: Vec<Answer>,
    read: Vec<Notification>,
}

/// The one who asks.
pub(crate) struct Program<'d> {
    disk: &'d Disk,
    hold: Hold,
    recorder: SqliteProcessRecorder,
    pub(crate) told: Told,
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
        Ok(Self { disk, hold, recorder, told: Told::default() })
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

    pub(crate) async fn close(self) -> Told {
        self.recorder.close().await.unwrap();
        self.told
    }

    /// Everything that stands in the database can be read, and is what it was told to be.
    pub(crate) async fn check(&mut self, context: &str) {
        let stands = Stands::read(&self.recorder).await;
        check(&stands, &self.told, context);
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
            self.told.answers.push(Answer { originator, events, position, outcome, is_after_power_cut });
        }
    }

    /// What is read is a promise too: nobody may see it go again.
    async fn read(&mut self) {
        let read = self.recorder.select_notifications(NotificationSelection::new(1_000)).await;
        match read {
            Ok(read) => self.told.read = read,
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

/// What stands in a database.
struct Stands {
    notifications: Vec<Notification>,
    positions: BTreeMap<u128, Option<i64>>,
}

impl Stands {
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

/// Acknowledged means present under the ids that were told, refused means absent, and batches are whole, positions
/// included.
fn check(stands: &Stands, told: &Told, context: &str) {
    for answer in &told.answers {
        let Answer { originator, outcome, is_after_power_cut, .. } = answer;
        let recorded = check_whole(stands, answer, context);
        match outcome {
            Ok(ids) => {
                assert!(recorded, "{context}: {originator} was acknowledged and is lost");
                assert_eq!(&stands.ids(*originator), ids, "{context}: {originator}");
            }
            Err(error) if error.is_outcome_unknown() || *is_after_power_cut => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Operational, "{context}: {originator}: {error:?}");
                assert!(!recorded, "{context}: {originator} was refused and is recorded: {error:?}");
            }
        }
    }
    for notification in &told.read {
        assert!(stands.notifications.contains(notification), "{context}: {} was read", notification.id);
    }
}

/// Whether a request is recorded, which it is as a whole if at all.
fn check_whole(stands: &Stands, answer: &Answer, context: &str) -> bool {
    let originator = answer.originator;
    let recorded = stands.events(originator);
    let position = stands.positions.get(&originator).copied().flatten();
    if recorded.is_empty() {
        assert_eq!(position, None, "{context}: the position of {originator} alone");
        return false;
    }
    assert_eq!(recorded, events_of(originator, answer.events), "{context}: {originator}");
    assert_eq!(position, answer.position, "{context}: the position of {originator}");
    true
}

/// Opens a database as another program would, once those who used it are gone: it agrees with what was told, and works.
pub(crate) async fn check_anew(directory: &Path, told: &Told, context: &str) {
    let stands = recover(directory, context).await;
    check(&stands, told, context);
}

/// The same where what was acknowledged may be lost: what is left is whole and the beginning of the log.
pub(crate) async fn check_beginning(directory: &Path, told: &Told, context: &str) -> usize {
    let stands = recover(directory, context).await;
    let mut lost = 0;
    for answer in &told.answers {
        let is_recorded = check_whole(&stands, answer, context);
        if let Ok(ids) = &answer.outcome {
            assert!(!is_recorded || *ids == stands.ids(answer.originator), "{context}");
            lost += usize::from(!is_recorded);
        }
    }
    lost
}

/// What stands in a database that is opened after a crash; it is sound, and goes on.
async fn recover(directory: &Path, context: &str) -> Stands {
    let path = directory.join(FILE);
    let datastore = SqliteOptions::new(&path).synchronous(Synchronous::Off).open().await;
    let datastore = datastore.unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let recorder = datastore.process_recorder().await.unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let stands = Stands::read(&recorder).await;
    let last = stands.notifications.last().map_or(0, |last| last.id);
    let ids: Vec<_> = stands.notifications.iter().map(|it| it.id).collect();
    assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "{context}: the log begins at 1 and has no gaps");
    let next = recorder.insert_events(events_of(1_000, 2)).await;
    assert_eq!(
        next.unwrap_or_else(|error| panic!("{context}: {error:?}")),
        [last + 1, last + 2],
        "{context}"
    );
    recorder.close().await.unwrap();
    let check: String =
        Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{context}");
    stands
}
