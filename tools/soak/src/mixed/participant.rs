//! A process that writes, follows or processes with this library, until it is stopped or killed.
//!
//! It prints the lines that a [journal](super::journal) takes. Its input says when to stop: `stop` for
//! writers, `end ID` for followers, which stop when they have read that id.

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, Bytes, EventRange, Notification,
    NotificationConsumer, NotificationSelection, PersistenceError, ProcessRecorder, StoredEvent, Topic,
    Tracking, TrackingRecorder, uuid::Uuid,
};
use es_postgres::{PostgresApplicationRecorder, PostgresProcessRecorder, PostgresProjection};
use es_process::{Handler, HandlerConsumer, Processor};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use sqlx::Postgres;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    database::{APPLICATION, Address, LEDGER, ROWS},
    journal::{self, TOPIC_SUFFIX},
};
use crate::writers::pause;

/// The name under which processors track the events.
pub(crate) const UPSTREAM: &str = "mixed";

const TOPICS: usize = 3;
/// Aggregates that several processes write.
const HOT: usize = 3;
/// Aggregates of each writing task.
const OWNED: usize = 6;

/// The job of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) role: Role,
    pub(crate) name: String,
    /// Counts the processes of this name.
    pub(crate) incarnation: u32,
    pub(crate) address: Address,
    /// The positions of followers of this process's name.
    pub(crate) positions: Vec<(String, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Write,
    /// With a role that may only select and insert.
    InsertOnly,
    Follow,
    Process,
}

/// The message of the parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Control {
    stop: bool,
    end: Option<i64>,
}

/// Does a job.
///
/// # Errors
/// When the database cannot be opened, or a failure is not one that the faults explain.
pub(crate) async fn run(job: Job) -> Result<()> {
    let control = listen();
    let job = Arc::new(job);
    match job.role {
        Role::Write | Role::InsertOnly => write(&job, control).await,
        Role::Follow => follow(&job, control).await,
        Role::Process => process(&job, control).await,
    }
}

fn listen() -> watch::Receiver<Control> {
    let (sender, control) = watch::channel(Control::default());
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match line.split_once(' ') {
                Some((_, end)) => sender.send_modify(|control| control.end = end.parse().ok()),
                None => sender.send_modify(|control| control.stop = true),
            }
        }
        // The parent has ended.
        std::process::exit(3);
    });
    control
}

/// One write for each line: what a pipe holds is there for its reader when the writer is killed.
fn say(line: &str) {
    let written = io::stdout().lock().write_all(format!("{line}\n").as_bytes());
    if written.is_err() || io::stdout().flush().is_err() {
        std::process::exit(3);
    }
}

fn say_ids(kind: &str, name: &str, ids: impl IntoIterator<Item = i64>) {
    let line = ids.into_iter().fold(format!("{kind} {name}"), |line, id| format!("{line} {id}"));
    say(&line);
}

async fn retried<T, F: Future<Output = Result<T>>>(mut open: impl FnMut() -> F) -> T {
    loop {
        match open().await {
            Ok(opened) => return opened,
            Err(error) => complain("opening", &error),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[expect(clippy::print_stderr, reason = "faults are expected, and are printed on request only")]
fn complain(name: &str, error: &anyhow::Error) {
    if std::env::var_os("MIXED_VERBOSE").is_some() {
        eprintln!("{name}: {error:#}");
    }
}

// Writers.

/// A task that writes.
struct Writer {
    name: String,
    job: Arc<Job>,
    events: PostgresApplicationRecorder,
    process: Option<PostgresProcessRecorder>,
    pool: sqlx::PgPool,
    numbers: Arc<AtomicUsize>,
    task: usize,
    versions: HashMap<Uuid, i64>,
    position: Option<i64>,
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Batch,
    Hot,
    Tracked,
    CallersTransaction,
}

const KINDS: [Kind; 8] = [
    Kind::Single,
    Kind::Single,
    Kind::Batch,
    Kind::Hot,
    Kind::Hot,
    Kind::CallersTransaction,
    Kind::CallersTransaction,
    Kind::Tracked,
];

async fn write(job: &Arc<Job>, control: watch::Receiver<Control>) -> Result<()> {
    let datastore = retried(|| async { job.address.open(false).await }).await;
    let events = retried(|| async { Ok(datastore.application_recorder(APPLICATION).await?) }).await;
    let process = match job.role {
        Role::InsertOnly => None,
        _ => Some(retried(|| async { Ok(datastore.process_recorder(APPLICATION).await?) }).await),
    };
    let pool = retried(|| job.address.pool()).await;
    let numbers = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for (task, kind) in KINDS.into_iter().enumerate() {
        let mut writer = Writer {
            name: format!("{}.{}", job.name, job.incarnation),
            job: Arc::clone(job),
            events: events.clone(),
            process: process.clone(),
            pool: pool.clone(),
            numbers: Arc::clone(&numbers),
            task,
            versions: HashMap::new(),
            position: None,
        };
        let control = control.clone();
        tasks.spawn(async move {
            while !control.borrow().stop {
                if let Err(error) = writer.put(kind).await {
                    complain(&writer.name, &error);
                    writer.versions.clear();
                    writer.position = None;
                    sleep(Duration::from_millis(20)).await;
                }
                pause(Duration::from_millis(40)).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    datastore.close().await?;
    Ok(())
}

impl Writer {
    async fn put(&mut self, kind: Kind) -> Result<()> {
        let key = format!("{}.{}", self.name, self.numbers.fetch_add(1, Ordering::Relaxed));
        let (aggregates, count) = match kind {
            Kind::Single | Kind::Tracked => (vec![self.owned()], 1),
            Kind::Batch => (vec![self.owned(), self.owned(), self.owned()], 5),
            Kind::Hot => {
                let hot = Uuid::from_u64_pair(1, fastrand::u64(0..HOT as u64));
                self.versions.remove(&hot);
                (vec![hot], 1)
            }
            Kind::CallersTransaction => (vec![self.owned()], fastrand::i64(1..4)),
        };
        let events = self.events(&key, aggregates, count).await?;
        match (kind, self.process.clone()) {
            (Kind::Tracked, Some(process)) => {
                let position = match self.position {
                    Some(position) => position + 1,
                    None => process.max_tracking_id(&self.job.name).await?.unwrap_or(0) + 1,
                };
                self.position = Some(position);
                say(&format!("put {key} {} {} {position}", events.len(), self.job.name));
                let tracking = Tracking::new(&self.job.name, position)?;
                finish(&key, process.insert_events_with_tracking(events, tracking).await)
            }
            (Kind::CallersTransaction, _) => {
                say(&format!("put {key} {}", events.len()));
                self.put_in_transaction(&key, &events).await
            }
            _ => {
                say(&format!("put {key} {}", events.len()));
                finish(&key, self.events.insert_events(events).await)
            }
        }
    }

    async fn put_in_transaction(&mut self, key: &str, events: &[StoredEvent]) -> Result<()> {
        let prepared = async {
            let mut transaction = self.pool.begin().await?;
            let ids = self.events.insert_events_in(&mut transaction, events).await?;
            pause(Duration::from_millis(5)).await;
            anyhow::Ok((transaction, ids))
        };
        let (transaction, ids) = match prepared.await {
            Ok(prepared) => prepared,
            // What is not committed is rolled back.
            Err(error) => {
                say(&format!("no {key}"));
                return Err(error);
            }
        };
        if fastrand::u32(0..8) == 0 {
            self.versions.clear();
            say(&format!("no {key}"));
            transaction.rollback().await?;
            return Ok(());
        }
        // A commit that fails may have been made.
        transaction.commit().await?;
        say_ids("ok", key, ids);
        Ok(())
    }

    /// One of this task's aggregates.
    fn owned(&self) -> Uuid {
        let number = (self.task * OWNED + fastrand::usize(0..OWNED)) as u64;
        let owner = self.job.name.bytes().fold(1_u64, |hash, byte| hash.wrapping_mul(257) ^ u64::from(byte));
        Uuid::from_u64_pair(owner, number)
    }

    async fn events(&mut self, key: &str, mut aggregates: Vec<Uuid>, count: i64) -> Result<Vec<StoredEvent>> {
        aggregates.sort_unstable();
        aggregates.dedup();
        let total = aggregates.len() * usize::try_from(count)?;
        let mut events = Vec::new();
        for originator_id in aggregates {
            let last = match self.versions.get(&originator_id) {
                Some(last) => *last,
                None => {
                    let newest = EventRange::all().desc().limit(1);
                    let newest = self.events.select_events(originator_id, newest).await?;
                    newest.first().map_or(0, |newest| newest.originator_version)
                }
            };
            self.versions.insert(originator_id, last + count);
            for originator_version in last + 1..=last + count {
                let number = originator_id.as_u64_pair().1 as usize % TOPICS;
                events.push(StoredEvent {
                    originator_id,
                    originator_version,
                    topic: topic(number)?,
                    state: Bytes::from(journal::state(key, events.len(), total)),
                });
            }
        }
        Ok(events)
    }
}

fn topic(number: usize) -> Result<Topic> {
    Ok(Topic::new(journal::topic(number))?)
}

fn finish(key: &str, result: Result<Vec<i64>, PersistenceError>) -> Result<()> {
    match result {
        Ok(ids) => {
            say_ids("ok", key, ids);
            Ok(())
        }
        Err(error) => {
            if !error.is_outcome_unknown() {
                say(&format!("no {key}"));
            }
            Err(error.into())
        }
    }
}

// Followers.

async fn follow(job: &Arc<Job>, control: watch::Receiver<Control>) -> Result<()> {
    let datastore = retried(|| async { job.address.open(false).await }).await;
    let recorder = retried(|| async { Ok(datastore.application_recorder(APPLICATION).await?) }).await;
    let mut tasks = JoinSet::new();
    for suffix in [".subscription".to_owned(), ".pages".to_owned(), format!("{TOPIC_SUFFIX}1")] {
        let name = format!("{}{suffix}", job.name);
        let position = job.positions.iter().find(|(known, _)| *known == name).map_or(0, |(_, at)| *at);
        let (recorder, control) = (recorder.clone(), control.clone());
        tasks.spawn(async move {
            let position = AtomicI64::new(position);
            let has_ended =
                || control.borrow().end.is_some_and(|end| position.load(Ordering::Relaxed) >= end);
            while !has_ended() {
                let read = match suffix.as_str() {
                    ".pages" => page(&recorder, &name, &position).await,
                    ".subscription" => subscribe(&recorder, &name, None, &position).await,
                    _ => subscribe(&recorder, &name, Some(1), &position).await,
                };
                if let Err(error) = read {
                    complain(&name, &error);
                    sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    datastore.close().await?;
    Ok(())
}

async fn page(recorder: &PostgresApplicationRecorder, name: &str, position: &AtomicI64) -> Result<()> {
    let after = position.load(Ordering::Relaxed);
    let selection = NotificationSelection::new(fastrand::usize(1..200)).after(after);
    let page = recorder.select_notifications(selection).await?;
    let Some(last) = page.last() else {
        pause(Duration::from_millis(10)).await;
        return Ok(());
    };
    position.store(last.id, Ordering::Relaxed);
    say_ids("saw", name, page.iter().map(|notification| notification.id));
    Ok(())
}

/// Follows by a subscription for a while.
async fn subscribe(
    recorder: &PostgresApplicationRecorder,
    name: &str,
    number: Option<usize>,
    position: &AtomicI64,
) -> Result<()> {
    let topics = number.map(topic).transpose()?;
    let page_size = NonZeroUsize::new(fastrand::usize(1..300)).context("a page has a size")?;
    let mut subscription =
        recorder.subscribe(position.load(Ordering::Relaxed), topics.as_slice()).page_size(page_size);
    let mut stay = std::pin::pin!(sleep(Duration::from_millis(fastrand::u64(50..3_000))).fuse());
    loop {
        let page = tokio::select! {
            page = subscription.next_page() => page?,
            () = &mut stay => return Ok(()),
        };
        let page = page.context("a subscription ended although nothing was closed")?;
        if !page.notifications.is_empty() {
            say_ids("saw", name, page.notifications.iter().map(|notification| notification.id));
        }
        position.store(page.position, Ordering::Relaxed);
    }
}

// Processors.

async fn process(job: &Arc<Job>, control: watch::Receiver<Control>) -> Result<()> {
    let datastore = retried(|| async { job.address.open(true).await }).await;
    let mut tasks = JoinSet::new();
    for has_rows in [true, false] {
        let (datastore, control) = (datastore.clone(), control.clone());
        tasks.spawn(async move {
            while control.borrow().end.is_none() {
                let processed = async {
                    let upstream = datastore.application_recorder(APPLICATION).await?;
                    if has_rows {
                        let rows = datastore.process_recorder(ROWS).await?;
                        run_processor(upstream, rows.projector(Effects).await?, control.clone()).await
                    } else {
                        let ledger = datastore.process_recorder(LEDGER).await?;
                        run_processor(upstream, HandlerConsumer::new(ledger, Effects), control.clone()).await
                    }
                };
                if let Err(error) = processed.await {
                    complain("processor", &error);
                    sleep(Duration::from_millis(50)).await;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    datastore.close().await?;
    Ok(())
}

async fn run_processor(
    upstream: PostgresApplicationRecorder,
    downstream: impl NotificationConsumer,
    mut control: watch::Receiver<Control>,
) -> Result<()> {
    let batch_size = NonZeroUsize::new(fastrand::usize(1..64)).context("a batch has a size")?;
    let mut processor = Processor::with_consumer(UPSTREAM, upstream, downstream)
        .batch_size(batch_size)
        .poll_interval(Duration::from_millis(20))
        .standby_pause(Duration::from_millis(20));
    tokio::select! {
        ended = processor.run() => ended?,
        _ = control.wait_for(|control| control.end.is_some()) => {}
    }
    Ok(())
}

/// One effect for each notification. Nothing but tracking keeps it from being recorded twice.
#[derive(Debug)]
struct Effects;

impl Handler for Effects {
    type Error = std::convert::Infallible;

    async fn handle(&mut self, notification: Notification) -> Result<Vec<StoredEvent>, Self::Error> {
        Ok(vec![StoredEvent {
            originator_id: Uuid::from_u64_pair(fastrand::u64(..), fastrand::u64(..)),
            originator_version: 1,
            topic: Topic::from_static("ledger:Effect"),
            state: Bytes::from(notification.id.to_string()),
        }])
    }
}

impl PostgresProjection for Effects {
    type Error = sqlx::Error;

    async fn set_up(&mut self, _: &mut sqlx::Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn project(
        &mut self,
        transaction: &mut sqlx::Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), sqlx::Error> {
        let insert = sqlx::query("INSERT INTO public.effects (notification) VALUES ($1)");
        insert.bind(notification.id).execute(&mut **transaction).await.map(drop)
    }
}
