//! Histories of concurrent clients without faults, checked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use es_core::{ApplicationRecorderExt, NotificationSelection, TrackingRecorder};
use es_faults::{
    check::check,
    clients::{Clients, FEEDS},
    history::{Answer, History, Message, Recorded},
    kill_point::KillPoint,
    report::Report,
    test_database::{Backend, Recorder, TestDatabase},
};
use es_popo::PopoProcessRecorder;
use futures_util::TryStreamExt;
use tokio::sync::watch;

/// The length of a history: two messages for each operation. Every history must pass.
const MESSAGES: usize = 6_000;

/// A client that takes longer is stuck.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

fn is_enough(messages: &[Message]) -> bool {
    let is_page = |message: &Message| matches!(message, Message::Returned { answer: Answer::Notifications(page), .. } if !page.is_empty());
    messages.len() >= MESSAGES && messages.iter().any(is_page)
}

/// Two recorders of one database, each with several writers and readers.
async fn run(recorders: [Recorder; 2]) -> History {
    let began = Instant::now();
    let messages = Arc::new(Mutex::new(Vec::new()));
    let (stop, stopped) = watch::channel(false);
    let mut running = Vec::new();
    for (seed, recorder) in (1..).zip(&recorders) {
        let heard = Arc::clone(&messages);
        let report = Report::new(format!("p{seed}"), move |message| heard.lock().unwrap().push(message));
        let clients = Clients::new(recorder.clone(), Arc::new(report), 1, seed, stopped.clone());
        running.push(tokio::spawn(async move { clients.run(6, seed.into()).await }));
    }
    while began.elapsed() < LONG_ENOUGH && !is_enough(&messages.lock().unwrap()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send_replace(true);
    for clients in running {
        clients.await.unwrap().unwrap();
    }
    let mut history = History::default();
    std::mem::take(&mut *messages.lock().unwrap()).into_iter().for_each(|message| history.record(message));
    let all = recorders[0].stream_notifications(NotificationSelection::new(usize::MAX));
    history.log = all.map_ok(|one| Recorded::read(&one)).try_collect().await.unwrap();
    for name in FEEDS {
        if let Some(position) = recorders[0].max_tracking_id(name).await.unwrap() {
            history.positions.insert(name.to_owned(), position);
        }
    }
    for recorder in recorders {
        es_core::Recorder::close(&recorder).await.unwrap();
    }
    history
}

fn passes(history: &History) {
    let violations = check(history);
    assert!(violations.is_empty(), "{violations:?}");
    let answered = |wanted: fn(&Answer) -> bool| {
        history.operations.iter().any(|one| one.returned.as_ref().is_some_and(|(_, answer)| wanted(answer)))
    };
    assert!(answered(|answer| matches!(answer, Answer::Recorded(_))));
    assert!(answered(|answer| matches!(answer, Answer::Notifications(page) if !page.is_empty())));
}

async fn check_backend(backend: Backend) {
    if !Backend::available().contains(&backend) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = format!("history_{backend:?}").to_lowercase();
    let database = TestDatabase::create(backend, directory.path(), &name).await.unwrap();
    let never = KillPoint::new(None);
    let recorders = [database.open(&never).await.unwrap(), database.open(&never).await.unwrap()];
    let history = run(recorders).await;
    passes(&history);
    database.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory() {
    let recorder = PopoProcessRecorder::new();
    passes(&run([Arc::new(recorder.clone()), Arc::new(recorder)]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    check_backend(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_serialized() {
    check_backend(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_without() {
    check_backend(Backend::Parallel).await;
}
