//! The workloads, said once, and what a system must be able to do to be measured with them.

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use es_core::StoredEvent;
use uuid::Uuid;

use crate::data::Supply;
use crate::statistics::quantile;

/// Something to do in each round.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Each task makes `commits` commits of `events` events of a new aggregate each.
    Append { tasks: usize, commits: usize, events: usize },
    /// Loads an aggregate of `events` events, `times` times.
    Load { originator_id: Uuid, events: usize, times: usize },
    /// Pages through `events` notifications from the first to the last.
    Page { events: usize, page: usize },
    /// Stores `aggregates` aggregates, one event at a time, and loads each.
    AppendAndLoad { aggregates: usize, events: usize },
}

/// A datastore that events can be written to and read from: what an adapter implements.
///
/// An adapter does what a well-written program on that system would do, and hands back owned events (or drops them
/// itself after counting), so that all of them do the same work.
pub(crate) trait Store: Send + Sync + 'static {
    /// Stores the events durably, in one commit.
    fn append(&self, events: Vec<StoredEvent>) -> impl Future<Output = Result<()>> + Send;

    /// Loads the events of an aggregate, and says how many there are.
    fn load(&self, originator_id: Uuid) -> impl Future<Output = Result<usize>> + Send;

    /// Reads at most `limit` notifications with ids greater than `after`.
    fn page(&self, after: i64, limit: usize) -> impl Future<Output = Result<Page>> + Send;
}

/// A page of notifications that was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page {
    pub(crate) count: usize,
    /// The id of the last notification; 0 where there is none.
    pub(crate) last: i64,
}

/// What one round of one contestant took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) events: usize,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Option<Latency>,
}

/// How long single calls took, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// A future on the heap: contestants of different types stand in one list.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// One who takes part in an experiment.
pub(crate) trait Contestant {
    fn name(&self) -> &str;

    /// Does the work of a round, once.
    fn round(&mut self) -> BoxFuture<'_, Sample>;
}

/// A store with its work.
pub(crate) struct Working<S> {
    name: String,
    store: Arc<S>,
    work: Work,
    supply: Supply,
}

impl<S: Store> Working<S> {
    pub(crate) fn boxed(name: impl Into<String>, store: S, work: &Work) -> Box<dyn Contestant> {
        let (name, store, work) = (name.into(), Arc::new(store), work.clone());
        Box::new(Self { name, store, work, supply: Supply::default() })
    }
}

impl<S: Store> Contestant for Working<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(do_work(&self.store, &self.work, &self.supply))
    }
}

/// A store that is made anew for each round, so that none grows from round to round.
pub(crate) struct Fresh<F> {
    name: String,
    create: F,
    work: Work,
}

impl<'a, S: Store, F: Fn() -> S + Send + Sync + 'a> Fresh<F> {
    pub(crate) fn boxed(name: impl Into<String>, create: F, work: &Work) -> Box<dyn Contestant + 'a> {
        Box::new(Self { name: name.into(), create, work: work.clone() })
    }
}

impl<S: Store, F: Fn() -> S + Send + Sync> Contestant for Fresh<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        let store = Arc::new((self.create)());
        Box::pin(async move { do_work(&store, &self.work, &Supply::default()).await })
    }
}

/// A computation that is made many times in each round, an event each time.
pub(crate) struct Repeated<F> {
    name: String,
    times: usize,
    compute: F,
}

impl<'a, T, E: Into<anyhow::Error>, F: FnMut() -> Result<T, E> + Send + 'a> Repeated<F> {
    pub(crate) fn boxed(name: impl Into<String>, times: usize, compute: F) -> Box<dyn Contestant + 'a> {
        Box::new(Self { name: name.into(), times, compute })
    }
}

impl<T, E: Into<anyhow::Error>, F: FnMut() -> Result<T, E> + Send> Contestant for Repeated<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        let start = Instant::now();
        for _ in 0..self.times {
            if let Err(error) = (self.compute)().map(black_box) {
                return Box::pin(ready(Err(error.into())));
            }
        }
        let sample = Sample { events: self.times, elapsed: start.elapsed(), latency: None };
        Box::pin(ready(Ok(sample)))
    }
}

/// Does the work once; what is to be stored is made before the clock starts.
pub(crate) async fn do_work<S: Store>(store: &Arc<S>, work: &Work, supply: &Supply) -> Result<Sample> {
    match *work {
        Work::Append { tasks, commits, events } => append(store, supply, tasks, commits, events).await,
        Work::Load { originator_id, events, times } => load(store, originator_id, events, times).await,
        Work::Page { events, page } => read_all(store, events, page).await,
        Work::AppendAndLoad { aggregates, events } => {
            append_and_load(store, supply, aggregates, events).await
        }
    }
}

async fn append<S: Store>(
    store: &Arc<S>,
    supply: &Supply,
    tasks: usize,
    commits: usize,
    events: usize,
) -> Result<Sample> {
    let batches: Vec<Vec<_>> =
        (0..tasks).map(|_| (0..commits).map(|_| supply.events(events)).collect()).collect();
    let start = Instant::now();
    let tasks: Vec<_> =
        batches.into_iter().map(|batches| tokio::spawn(commit_each(Arc::clone(store), batches))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = start.elapsed();
    Ok(Sample { events: latencies.len() * events, elapsed, latency: Latency::of(latencies) })
}

async fn commit_each<S: Store>(store: Arc<S>, batches: Vec<Vec<StoredEvent>>) -> Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(batches.len());
    for batch in batches {
        let start = Instant::now();
        store.append(batch).await?;
        latencies.push(start.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

async fn load<S: Store>(store: &Arc<S>, originator_id: Uuid, events: usize, times: usize) -> Result<Sample> {
    let store = Arc::clone(store);
    let elapsed = in_a_task(async move {
        for _ in 0..times {
            let found = store.load(originator_id).await?;
            ensure!(found == events, "{found} events were loaded, not {events}");
        }
        Ok(())
    });
    Ok(Sample { events: events * times, elapsed: elapsed.await?, latency: None })
}

async fn read_all<S: Store>(store: &Arc<S>, events: usize, limit: usize) -> Result<Sample> {
    let store = Arc::clone(store);
    let elapsed = in_a_task(async move {
        let (mut after, mut seen) = (0, 0);
        loop {
            let page = store.page(after, limit).await?;
            seen += page.count;
            if page.count < limit {
                break;
            }
            after = page.last;
        }
        ensure!(seen == events, "{seen} notifications were read, not {events}");
        Ok(())
    });
    Ok(Sample { events, elapsed: elapsed.await?, latency: None })
}

async fn append_and_load<S: Store>(
    store: &Arc<S>,
    supply: &Supply,
    aggregates: usize,
    events: usize,
) -> Result<Sample> {
    let batches: Vec<_> = (0..aggregates).map(|_| supply.events(events)).collect();
    let store = Arc::clone(store);
    let elapsed = in_a_task(async move {
        for batch in batches {
            let originator_id = batch.first().map(|event| event.originator_id).unwrap_or_default();
            for event in batch {
                store.append(vec![event]).await?;
            }
            let found = store.load(originator_id).await?;
            ensure!(found == events, "{found} events were loaded, not {events}");
        }
        Ok(())
    });
    Ok(Sample { events: aggregates * events, elapsed: elapsed.await?, latency: None })
}

/// How long it takes on a thread of the runtime, which is where a program's own tasks run.
async fn in_a_task(work: impl Future<Output = Result<()>> + Send + 'static) -> Result<Duration> {
    let task = tokio::spawn(async move {
        let start = Instant::now();
        work.await.map(|()| start.elapsed())
    });
    task.await?
}

impl Latency {
    pub(crate) fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        Some(Self { p50: quantile(&seconds, 0.5)?, p99: quantile(&seconds, 0.99)? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Work, do_work};
    use crate::data::Supply;
    use crate::systems::hash_map::HashMapStore;

    #[tokio::test]
    async fn an_append_stores_what_each_task_commits() {
        let store = Arc::new(HashMapStore::default());
        let work = Work::Append { tasks: 3, commits: 2, events: 5 };
        let sample = do_work(&store, &work, &Supply::default()).await.unwrap();
        assert_eq!(sample.events, 30);
        assert!(sample.latency.is_some());
        let page = Work::Page { events: 30, page: 7 };
        assert_eq!(do_work(&store, &page, &Supply::default()).await.unwrap().events, 30);
    }

    #[tokio::test]
    async fn a_store_that_leaves_work_out_is_found_out() {
        let store = Arc::new(HashMapStore::default());
        let originator_id = uuid::Uuid::nil();
        let load = Work::Load { originator_id, events: 10, times: 1 };
        assert!(do_work(&store, &load, &Supply::default()).await.is_err());
        let page = Work::Page { events: 10, page: 10 };
        assert!(do_work(&store, &page, &Supply::default()).await.is_err());
    }
}
