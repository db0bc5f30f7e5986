//! Results of requests whose connection is lost: certain conflicts are conflicts, and if the server is gone,
//! all requests of a group fail within one bound.
//!
//! Defects that were once here: a conflict with a tracking position was looked at again and again
//! until the time was over, and then called unknown; each request of a lost group waited for its
//! own time, one after the other, so that the last of 4,096 would have waited for a day.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::{
    prelude::*,
    proxy::{Cut, Proxy},
};

const MARK: &[u8] = b"cut the connection here";

fn marked() -> StoredEvent {
    StoredEvent { state: Bytes::from_static(MARK), ..first() }
}

/// A rival records position 7 while the outcome is unknown.
struct Tracks(Server, String);

impl FaultHooks for Tracks {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == FaultPoint::OutcomeDoubtful {
                let insert = format!("INSERT INTO {} VALUES ('upstream', 7)", self.1);
                run(&mut self.0.connect().await, &insert).await;
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rivals_position_is_a_certain_conflict() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(schema.server.clone(), MARK).await;
    let hooks = Tracks(schema.server.clone(), schema.table("bank_tracking"));
    // The bound is for a test that fails; the answer needs no time to run out.
    let options = schema.options().host("127.0.0.1").port(proxy.port).hooks(hooks);
    let options = options.connect_timeout(Duration::from_secs(5));
    let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
    proxy.arm(Cut::Request);
    let tracking = Tracking::new("upstream", 7).unwrap();
    let refused = recorder.insert_events_with_tracking(vec![marked()], tracking).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused:?}");
    assert_eq!(recorder.max_notification_id().await.unwrap(), None, "nothing of it was written");
}

/// Holds the first group back, and counts groups and doubts.
#[derive(Clone)]
struct Watch {
    groups: Arc<AtomicUsize>,
    doubts: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Watch {
    fn new() -> Self {
        Self { groups: Arc::default(), doubts: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    async fn until_held(&self) {
        while self.groups.load(Atomic::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl FaultHooks for Watch {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == FaultPoint::GroupFormed && self.groups.fetch_add(1, Atomic::SeqCst) == 0 {
                self.gate.acquire().await.unwrap().forget();
            }
            if point == FaultPoint::OutcomeDoubtful {
                self.doubts.fetch_add(1, Atomic::SeqCst);
            }
        })
    }
}

fn through(proxy: &Proxy, schema: &Schema, watch: &Watch) -> PostgresOptions {
    schema.options().host("127.0.0.1").port(proxy.port).hooks(watch.clone())
}

#[tokio::test]
async fn a_group_whose_server_is_gone_is_unknown_all_at_once() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(schema.server.clone(), MARK).await;
    let watch = Watch::new();
    let options = through(&proxy, &schema, &watch).connect_timeout(Duration::from_secs(1));
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    // Polled in this order, on the only thread: all are one group.
    let release = async {
        watch.until_held().await;
        proxy.arm(Cut::AnswerForGood);
        watch.gate.add_permits(1);
    };
    let insert = || recorder.insert_events(vec![marked()]);
    let (one, two, three, four, ()) = tokio::join!(insert(), insert(), insert(), insert(), release);
    for lost in [one, two, three, four] {
        let lost = lost.unwrap_err();
        assert!(lost.is_outcome_unknown(), "{lost:?}");
    }
    assert_eq!(watch.doubts.load(Atomic::SeqCst), 1, "one of them waits for the server, not each");
}

#[tokio::test]
async fn a_group_whose_connection_is_lost_is_found_or_sent_again() {
    let schema = Schema::create().await;
    // A first position is recorded apart from its group.
    let other = schema.open().await.process_recorder("bank").await.unwrap();
    other.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap();
    for cut in [Cut::Answer, Cut::Request] {
        let proxy = Proxy::start(schema.server.clone(), MARK).await;
        let watch = Watch::new();
        let options = through(&proxy, &schema, &watch);
        let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
        let taken = first();
        let opening = recorder.insert_events(vec![taken.clone()]);
        let release = async {
            watch.until_held().await;
            proxy.arm(cut);
            watch.gate.add_permits(1);
        };
        let tracking = Tracking::new("upstream", 5 + i64::from(cut == Cut::Request)).unwrap();
        let (opened, one, conflict, three, four, ()) = tokio::join!(
            opening,
            recorder.insert_events(vec![marked(), first()]),
            recorder.insert_events(vec![first(), taken.clone()]),
            recorder.insert_events_with_tracking(vec![first()], tracking),
            recorder.insert_events(vec![first()]),
            release
        );
        let start = opened.unwrap()[0];
        assert_eq!(one.unwrap(), [start + 1, start + 2]);
        assert!(conflict.unwrap_err().is_conflict());
        assert_eq!((three.unwrap(), four.unwrap()), (vec![start + 3], vec![start + 4]));
    }
    let count = format!("SELECT count(*) FROM {}", schema.table("bank_events"));
    assert_eq!(scalar::<i64>(&mut schema.connect().await, &count).await, 10);
}

/// Locks the events table while the outcome is unknown.
struct Locks(Arc<tokio::sync::Mutex<PgConnection>>, String);

impl FaultHooks for Locks {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == FaultPoint::OutcomeDoubtful {
                run(&mut *self.0.lock().await, &self.1).await;
            }
        })
    }
}

/// A request that is sent again waits for a lock as any other does, also beyond the time of its recovery:
/// ending it would make its outcome unknown, although the server is at work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_again_waits_for_a_lock() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(schema.server.clone(), MARK).await;
    let events = schema.table("bank_events");
    let holder = Arc::new(tokio::sync::Mutex::new(schema.connect().await));
    let lock = format!("BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE");
    let options = schema.options().host("127.0.0.1").port(proxy.port).hooks(Locks(Arc::clone(&holder), lock));
    let options = options.connect_timeout(Duration::from_secs(2));
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    proxy.arm(Cut::Request);
    let append = tokio::spawn(async move { recorder.insert_events(vec![marked()]).await });
    let has_waited = format!(
        "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) \
         WHERE l.relation = '{events}'::regclass AND NOT l.granted \
         AND clock_timestamp() - a.query_start > interval '2 s')"
    );
    until(&mut schema.connect().await, &has_waited).await;
    run(&mut *holder.lock().await, "COMMIT").await;
    assert_eq!(append.await.unwrap().unwrap(), [1]);
}
