//! The code that all peers share: the protocol (`src/systems/program.rs` of es-bench) and the workloads.
//!
//! A peer implements [`Peer`] and calls [`serve`]. Timing is done here, so starting the program and
//! communicating with it are not measured. The events to store are made before the clock starts.

use std::future::Future;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// Notifications per page where a workload does not give a number.
const PAGE: usize = 1_000;
/// Events per commit while the store is filled for later reads.
const FILLED_AT_ONCE: usize = 1_000;
/// Bytes of state of those events.
const FILLED_SIZE: usize = 200;

/// A library that stores events of aggregates.
///
/// An adapter does what a well-written program on that library would do. It returns owned events, or counts
/// them and drops them itself.
pub trait Peer: Send + Sync + 'static {
    /// Stores the events durably, in one commit, unless the first version is taken. Returns true if they were
    /// stored.
    fn append(&self, events: Events) -> impl Future<Output = Result<bool>> + Send;

    /// Returns the version of an aggregate's last event, or 0 if there is none.
    fn last_version(&self, aggregate: &str) -> impl Future<Output = Result<i64>> + Send;

    /// Loads the events of an aggregate and returns their number.
    fn load(&self, aggregate: &str) -> impl Future<Output = Result<usize>> + Send;

    /// Reads the first `events` events of all aggregates in pages, in their order, and returns their number.
    fn page(&self, events: usize, page: usize) -> impl Future<Output = Result<usize>> + Send;
}

/// Events of one aggregate, with versions from `first` on.
#[derive(Clone, Debug)]
pub struct Events {
    pub aggregate: String,
    pub first: i64,
    pub states: Vec<String>,
}

/// The datastore to open.
#[derive(Debug, Deserialize)]
#[serde(tag = "datastore", rename_all = "snake_case")]
pub enum Datastore {
    Sqlite {
        path: String,
    },
    /// On the server that the environment names.
    Postgres {
        schema: String,
    },
}

impl Datastore {
    /// Returns the address of the server, with the schema first in the search path.
    pub fn postgres_url(schema: &str) -> Result<String> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        Ok(format!(
            "postgres://{}:{}@{}:{}/{}?options=-c%20search_path%3D{schema}",
            variable("POSTGRES_USER")?,
            variable("POSTGRES_PASSWORD")?,
            variable("POSTGRES_HOST")?,
            variable("POSTGRES_PORT")?,
            variable("POSTGRES_DBNAME")?,
        ))
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
enum Work {
    Append { tasks: usize, commits: usize, events: usize, size: usize },
    Contend { aggregates: usize, tasks: usize, commits: usize },
    Load { originator_id: String, events: usize, times: usize },
    PacedAppend { commits: usize, pause: u64 },
    PacedLoad { originator_ids: Vec<String>, events: usize, pause: u64 },
    Page { events: usize, page: usize },
    Stream { events: usize },
}

/// The first line of the input: the datastore to open.
pub fn datastore() -> Result<Datastore> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Reports that the datastore is open, with the settings that decide the cost of a commit. Then does the work
/// of each line of the input.
pub async fn serve<P: Peer>(peer: P, settings: &str) -> Result<()> {
    answer(&json!({ "settings": settings }))?;
    let worker = Worker { peer: Arc::new(peer), names: AtomicU64::new(0) };
    for line in std::io::stdin().lock().lines() {
        let work = serde_json::from_str(&line?)?;
        answer(&worker.work(work).await.unwrap_or_else(|error| failure(&error)))?;
    }
    Ok(())
}

/// Reports why the datastore cannot be opened.
pub fn fail(error: &anyhow::Error) -> Result<()> {
    answer(&failure(error))
}

fn failure(error: &anyhow::Error) -> Value {
    json!({ "error": format!("{error:#}").lines().next() })
}

fn answer(value: &Value) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{value}")?;
    Ok(output.flush()?)
}

struct Worker<P> {
    peer: Arc<P>,
    names: AtomicU64,
}

impl<P: Peer> Worker<P> {
    async fn work(&self, work: Work) -> Result<Value> {
        match work {
            Work::Append { tasks, commits, events, size } => {
                let batch = |_| Events { aggregate: self.name(), first: 1, states: states(events, size) };
                let batches = |_| (0..commits).map(batch).collect();
                self.append((0..tasks).map(batches).collect(), events).await
            }
            Work::Contend { aggregates, tasks, commits } => self.contend(aggregates, tasks, commits).await,
            Work::Load { originator_id, events, times } => self.load(originator_id, events, times).await,
            Work::PacedAppend { commits, pause } => {
                let batch = |_| Events { aggregate: self.name(), first: 1, states: states(1, FILLED_SIZE) };
                let peer = Arc::clone(&self.peer);
                paced(1, pause, (0..commits).map(batch).collect(), move |batch| {
                    let peer = Arc::clone(&peer);
                    async move { peer.append(batch).await.map(drop) }
                })
                .await
            }
            Work::PacedLoad { originator_ids, events, pause } => {
                for aggregate in &originator_ids {
                    if self.peer.last_version(aggregate).await? == 0 {
                        self.fill(aggregate, events).await?;
                    }
                }
                let peer = Arc::clone(&self.peer);
                paced(events, pause, originator_ids, move |aggregate| {
                    let peer = Arc::clone(&peer);
                    async move { load_all(&*peer, &aggregate, events).await }
                })
                .await
            }
            Work::Page { events, page } => self.page(events, page).await,
            Work::Stream { events } => self.page(events, PAGE).await,
        }
    }

    async fn append(&self, batches: Vec<Vec<Events>>, events: usize) -> Result<Value> {
        let start = Instant::now();
        let tasks: Vec<_> = batches
            .into_iter()
            .map(|batches| tokio::spawn(append_each(Arc::clone(&self.peer), batches)))
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await??);
        }
        measured(start.elapsed().as_secs_f64(), events, latencies)
    }

    async fn contend(&self, aggregates: usize, tasks: usize, commits: usize) -> Result<Value> {
        let hot: Vec<_> = (0..aggregates).map(|_| self.name()).collect();
        let start = Instant::now();
        let tasks: Vec<_> = (hot.into_iter().cycle().take(tasks))
            .map(|aggregate| tokio::spawn(retry_each(Arc::clone(&self.peer), aggregate, commits)))
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await??);
        }
        measured(start.elapsed().as_secs_f64(), 1, latencies)
    }

    async fn load(&self, aggregate: String, events: usize, times: usize) -> Result<Value> {
        if self.peer.last_version(&aggregate).await? == 0 {
            self.fill(&aggregate, events).await?;
        }
        let peer = Arc::clone(&self.peer);
        timed(events * times, async move {
            for _ in 0..times {
                load_all(&*peer, &aggregate, events).await?;
            }
            Ok(())
        })
        .await
    }

    async fn page(&self, events: usize, page: usize) -> Result<Value> {
        let seen = self.peer.page(events, page).await?;
        // In aggregates of a hundred each.
        for aggregate in (seen..events).step_by(100).map(|number| format!("filled-{number}")) {
            self.fill(&aggregate, 100).await?;
        }
        let peer = Arc::clone(&self.peer);
        timed(events, async move {
            let seen = peer.page(events, page).await?;
            ensure!(seen == events, "{seen} events were read, not {events}");
            Ok(())
        })
        .await
    }

    async fn fill(&self, aggregate: &str, events: usize) -> Result<()> {
        for first in (1..=events).step_by(FILLED_AT_ONCE) {
            let states = states(FILLED_AT_ONCE.min(events + 1 - first), FILLED_SIZE);
            let filled = Events { aggregate: aggregate.into(), first: i64::try_from(first)?, states };
            ensure!(self.peer.append(filled).await?, "{aggregate} has events already");
        }
        Ok(())
    }

    /// Returns the name of an aggregate without events. Names are scattered, so that indexes receive random
    /// ids.
    fn name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let mut random =
            Random(number.wrapping_mul(0xA076_1D64_78BD_642F) ^ u64::from(std::process::id()) << 32);
        let (a, b) = (random.next(), random.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }
}

async fn load_all<P: Peer>(peer: &P, aggregate: &str, events: usize) -> Result<()> {
    let found = peer.load(aggregate).await?;
    ensure!(found == events, "{found} events were loaded, not {events}");
    Ok(())
}

/// Makes a call with each of the inputs, after computing for so many microseconds on this thread. Only the
/// calls are measured.
async fn paced<T: Send + 'static, F: Future<Output = Result<()>> + Send>(
    events: usize,
    pause: u64,
    inputs: Vec<T>,
    call: impl Fn(T) -> F + Send + 'static,
) -> Result<Value> {
    let task = tokio::spawn(async move {
        let mut latencies = Vec::with_capacity(inputs.len());
        for input in inputs {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(pause) {
                std::hint::spin_loop();
            }
            let start = Instant::now();
            call(input).await?;
            latencies.push(start.elapsed().as_secs_f64());
        }
        anyhow::Ok(latencies)
    });
    let latencies = task.await??;
    measured(latencies.iter().sum(), events, latencies)
}

async fn append_each<P: Peer>(peer: Arc<P>, batches: Vec<Events>) -> Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(batches.len());
    for batch in batches {
        let start = Instant::now();
        // No other task uses the aggregate, so a conflict is a false alarm, which some libraries report under
        // load.
        while !peer.append(batch.clone()).await? {}
        latencies.push(start.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

async fn retry_each<P: Peer>(peer: Arc<P>, aggregate: String, commits: usize) -> Result<Vec<f64>> {
    let states = states(1, FILLED_SIZE);
    let mut latencies = Vec::with_capacity(commits);
    for _ in 0..commits {
        let start = Instant::now();
        loop {
            let first = peer.last_version(&aggregate).await? + 1;
            let events = Events { aggregate: aggregate.clone(), first, states: states.clone() };
            if peer.append(events).await? {
                break;
            }
        }
        latencies.push(start.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

async fn timed(events: usize, work: impl Future<Output = Result<()>> + Send + 'static) -> Result<Value> {
    let seconds = tokio::spawn(async move {
        let start = Instant::now();
        work.await.map(|()| start.elapsed().as_secs_f64())
    });
    Ok(json!({ "events": events, "seconds": seconds.await?? }))
}

fn measured(seconds: f64, events: usize, mut latencies: Vec<f64>) -> Result<Value> {
    latencies.sort_by(f64::total_cmp);
    let quantile = |fraction: f64| {
        let position = fraction * (latencies.len().saturating_sub(1)) as f64;
        let below = latencies.get(position.floor() as usize)?;
        let above = latencies.get(position.ceil() as usize)?;
        Some(below + (above - below) * position.fract())
    };
    let Some((p50, p99)) = quantile(0.5).zip(quantile(0.99)) else { bail!("nothing was stored") };
    Ok(json!({ "events": latencies.len() * events, "seconds": seconds, "p50": p50, "p99": p99 }))
}

fn states(count: usize, size: usize) -> Vec<String> {
    let mut random = Random(0x5EED_0FEE);
    let mut state = || {
        let mut text = String::with_capacity(size + 16);
        while text.len() < size {
            text.push_str(&format!("{:016x}", random.next()));
        }
        text.truncate(size);
        text
    };
    (0..count).map(|_| state()).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
