//! Several processes on one file, and killed processes: acknowledged events are there,
//! batches are whole, and readers miss nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, EventRange, Notification,
    NotificationSelection, ProcessRecorder, Tracking, TrackingRecorder, TrackingRecorderExt,
};
use es_sqlite::{Fault, FaultHooks, FaultPoint, SqliteOptions, SqliteProcessRecorder};
use support::{database, events, id, open_process, process_recorder};

/// Events in each of a child's batches.
const BATCH: i64 = 3;

/// The environment variables of a child.
const PATH: &str = "ES_SQLITE_TEST_PATH";
const ORIGINATOR: &str = "ES_SQLITE_TEST_ORIGINATOR";
const BATCHES: &str = "ES_SQLITE_TEST_BATCHES";
const KILLED_AT: &str = "ES_SQLITE_TEST_KILLED_AT";

/// Not a test by itself: the work of the other processes. It records batches, each with a
/// position, and prints the last version of each when it is acknowledged.
#[tokio::test]
async fn child() {
    let Ok(path) = env::var(PATH) else { return };
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<i64>().ok());
    let originator = number(ORIGINATOR).unwrap();
    let options = SqliteOptions::new(path).hooks(Killer(env::var(KILLED_AT).ok()));
    let recorder = process_recorder(options).await;
    let first = 1 + max_version(&recorder, originator as u128).await;
    println!("ready 0");
    let tracked = format!("upstream {originator}");
    for batch in 0..number(BATCHES).unwrap_or(i64::MAX) {
        let first = first + batch * BATCH;
        let last = first + BATCH - 1;
        let position = Tracking::new(&tracked, last).unwrap();
        recorder
            .insert_events_with_tracking(events(originator as u128, first..=last), position)
            .await
            .unwrap();
        println!("acknowledged {last}");
    }
}

/// Ends the process without cleanup, at a step of its writer.
struct Killer(Option<String>);

impl FaultHooks for Killer {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        if self.0.as_deref() == Some(format!("{step:?}").as_str()) {
            std::process::abort();
        }
        Ok(())
    }
}

fn spawn(path: &str, originator: u128, extra: &[(&str, String)]) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(PATH, path)
        .env(ORIGINATOR, originator.to_string())
        .envs(extra.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The versions that a child acknowledges, until it ends.
fn acknowledged(child: &mut Child) -> impl Iterator<Item = i64> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok())
}

async fn max_version(recorder: &SqliteProcessRecorder, originator: u128) -> i64 {
    let newest = EventRange::all().desc().limit(1);
    recorder
        .select_events(id(originator), newest)
        .await
        .unwrap()
        .first()
        .map_or(0, |it| it.originator_version)
}

/// Everything that was acknowledged is there, in whole batches, each with its position.
async fn assert_intact(path: &str, originator: u128, acknowledged: i64) {
    let recorder = open_process(path).await;
    let recorded = max_version(&recorder, originator).await;
    assert!(recorded >= acknowledged, "{acknowledged} was acknowledged, {recorded} is the last");
    assert_eq!(recorded % BATCH, 0, "a batch is whole");
    let all = recorder.select_events(id(originator), EventRange::all()).await.unwrap();
    assert_eq!(all, events(originator, 1..=recorded));
    let position = recorder.max_tracking_id(&format!("upstream {originator}")).await.unwrap();
    assert_eq!(position.unwrap_or(0), recorded);
}

#[tokio::test]
async fn killed_processes_lose_nothing_that_was_acknowledged() {
    let (_directory, path) = database();
    let mut last = 0;
    for round in 0..30 {
        let mut child = spawn(&path, 1, &[]);
        // Killed after a number of acknowledgements that differs from round to round, in the midst
        // of whatever it is doing then.
        let mut versions = acknowledged(&mut child);
        last = versions.by_ref().nth(round % 7).expect("the child acknowledges");
        child.kill().unwrap();
        // Ids that it wrote to the pipe before it died were acknowledged too.
        last = versions.last().unwrap_or(last);
        child.wait().unwrap();
        assert_intact(&path, 1, last).await;
    }
    assert!(last > 30 * BATCH);
}

#[tokio::test]
async fn a_process_may_die_at_any_step_of_a_commit() {
    for (step, is_recorded) in [
        (FaultPoint::Begin, false),
        (FaultPoint::Append, false),
        (FaultPoint::Commit, false),
        (FaultPoint::Report, true),
        (FaultPoint::Reply, true),
    ] {
        let (_directory, path) = database();
        let mut child = spawn(&path, 1, &[(KILLED_AT, format!("{step:?}"))]);
        assert_eq!(acknowledged(&mut child).count(), 0);
        assert!(!child.wait().unwrap().success());
        assert_intact(&path, 1, 0).await;
        let recorded = max_version(&open_process(&path).await, 1).await;
        assert_eq!(recorded, if is_recorded { BATCH } else { 0 }, "{step:?}");
        // The next process continues from there.
        let mut child = spawn(&path, 1, &[(BATCHES, "2".to_owned())]);
        assert_eq!(acknowledged(&mut child).last(), Some(recorded + 2 * BATCH));
        assert!(child.wait().unwrap().success());
        assert_intact(&path, 1, recorded + 2 * BATCH).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_file_and_a_reader_misses_nothing() {
    const CHILDREN: u128 = 3;
    const EACH: i64 = 25;
    let (_directory, path) = database();
    let recorder = open_process(&path).await;
    let mut children: Vec<_> =
        (1..=CHILDREN).map(|originator| spawn(&path, originator, &[(BATCHES, EACH.to_string())])).collect();

    // Ids are contiguous here, for nothing is refused: the reader sees each once, and whole batches.
    let mut seen = Vec::new();
    loop {
        let is_running = children.iter_mut().any(|child| child.try_wait().unwrap().is_none());
        let after = seen.last().map_or(0, |last: &Notification| last.id);
        let page = recorder.select_notifications(NotificationSelection::new(50).after(after)).await.unwrap();
        if page.is_empty() && !is_running {
            break;
        }
        seen.extend(page);
    }
    let expected = CHILDREN as i64 * EACH * BATCH;
    let ids: Vec<_> = seen.iter().map(|it| it.id).collect();
    assert_eq!(ids, (1..=expected).collect::<Vec<_>>());
    let mut versions: HashMap<_, i64> = HashMap::new();
    for batch in seen.chunks(BATCH as usize) {
        for notification in batch {
            assert_eq!(notification.event.originator_id, batch[0].event.originator_id, "batches do not mix");
            let version = versions.entry(notification.event.originator_id).or_default();
            *version += 1;
            assert_eq!(notification.event.originator_version, *version);
        }
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
}

#[tokio::test]
async fn commits_of_other_processes_wake_subscriptions_and_waits() {
    const EACH: i64 = 5;
    let (_directory, path) = database();
    let recorder = open_process(&path).await;
    let mut subscription = recorder.subscribe(0, []).poll_interval(Duration::from_secs(3_600));
    let mut positions = recorder.tracking_signal().listen(["upstream 1"]);
    let mut children = [1, 2].map(|originator| spawn(&path, originator, &[(BATCHES, EACH.to_string())]));

    let follow = async {
        let mut ids = Vec::new();
        while (ids.len() as i64) < 2 * EACH * BATCH {
            let page = subscription.next_page().await.unwrap().unwrap();
            ids.extend(page.notifications.iter().map(|notification| notification.id));
        }
        assert_eq!(ids, (1..=2 * EACH * BATCH).collect::<Vec<_>>());
        recorder.wait("upstream 1", EACH * BATCH, Duration::from_secs(30)).await.unwrap();
        assert!(positions.notified().await);
    };
    tokio::time::timeout(Duration::from_secs(60), follow).await.expect("it is woken");
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
}

/// Two processes found no tracking table; the one that was second looked again under the lock, asked
/// its connection's cached schema, and failed because "table tracking already exists".
#[tokio::test]
async fn a_table_that_another_process_has_just_created_is_used() {
    let (_folder, path) = database();
    let slow = SqliteOptions::new(&path).open().await.unwrap();
    slow.application_recorder().await.unwrap();
    let fast = open_process(&path).await;
    fast.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap();
    let recorder = slow.process_recorder().await.unwrap();
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(1));
}
