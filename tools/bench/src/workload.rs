//! The workloads, defined once, and the operations that a system must implement to be measured with them.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use es_core::StoredEvent;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    data::{self, Supply},
    system::{Latency, Sample},
};

/// Notifications per page where a workload does not give a number.
const PAGE: usize = 1_000;

/// The error of a system that supports appends only.
const APPENDS_ONLY: &str = "this system supports appends only";

/// The work of each round. Programs of other workspaces and languages receive it as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub(crate) enum Work {
    /// Each task makes `commits` commits of `events` events of a new aggregate each. An event has `size`
    /// bytes of state.
    Append { tasks: usize, commits: usize, events: usize, size: usize },
    /// Each task appends `commits` events, one at a time, to one of a few new aggregates that all tasks
    /// append to. It reads the last version, tries the next one, and starts again if another task was faster.
    Contend { aggregates: usize, tasks: usize, commits: usize },
    /// Loads an aggregate of `events` events, `times` times.
    Load { originator_id: Uuid, events: usize, times: usize },
    /// One task makes `commits` commits of one event each, and computes for so many microseconds before each.
    PacedAppend { commits: usize, pause: u64 },
    /// Loads each of these aggregates of `events` events in turn, and computes for so many microseconds
    /// before each.
    PacedLoad { originator_ids: Vec<Uuid>, events: usize, pause: u64 },
    /// Pages through `events` notifications, from the first whose id is greater than `after`.
    Page { after: i64, events: usize, page: usize },
    /// Reads the first `events` notifications in the way that takes the least memory.
    Stream { events: usize },
    /// Stores `aggregates` aggregates, one event at a time, and loads each.
    AppendAndLoad { aggregates: usize, events: usize },
}

impl Work {
    /// Returns the same work with fewer repetitions, for systems that would take minutes: figures are per
    /// event.
    pub(crate) fn reduced(&self) -> Self {
        match *self {
            Self::Load { originator_id, events, times } => {
                Self::Load { originator_id, events, times: times.div_ceil(10) }
            }
            Self::Page { after, events, page } => Self::Page { after, events: events.div_ceil(20), page },
            Self::Stream { events } => Self::Stream { events: events.div_ceil(20) },
            Self::AppendAndLoad { aggregates, events } => {
                Self::AppendAndLoad { aggregates: aggregates.div_ceil(10), events }
            }
            Self::Append { .. }
            | Self::Contend { .. }
            | Self::PacedAppend { .. }
            | Self::PacedLoad { .. } => self.clone(),
        }
    }
}

/// A datastore that events can be written to and read from, implemented by each adapter.
///
/// An adapter does what a well-written program on that system would do. It returns owned events, or counts
/// them and drops them itself, so that all adapters do the same work.
pub(crate) trait Store: Send + Sync + 'static {
    /// Stores the events durably, in one commit.
    fn append(&self, events: Vec<StoredEvent>) -> impl Future<Output = Result<()>> + Send;

    /// Stores the event durably, unless its version is taken. Returns true if it was stored.
    fn append_if_new(&self, _: StoredEvent) -> impl Future<Output = Result<bool>> + Send {
        async { bail!(APPENDS_ONLY) }
    }

    /// Returns the version of an aggregate's last event, or 0 if there is none.
    fn last_version(&self, _: Uuid) -> impl Future<Output = Result<i64>> + Send {
        async { bail!(APPENDS_ONLY) }
    }

    /// Loads the events of an aggregate and returns their number.
    fn load(&self, _: Uuid) -> impl Future<Output = Result<usize>> + Send {
        async { bail!(APPENDS_ONLY) }
    }

    /// Reads at most `limit` notifications with ids greater than `after`.
    fn page(&self, _: i64, _: usize) -> impl Future<Output = Result<Page>> + Send {
        async { bail!(APPENDS_ONLY) }
    }

    /// Reads the first `events` notifications in bounded memory and returns their number.
    fn stream(&self, events: usize) -> impl Future<Output = Result<usize>> + Send {
        page_through(self, 0, events, PAGE)
    }
}

/// A page of notifications.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page {
    pub(crate) count: usize,
    /// The id of the last notification; 0 if there is none.
    pub(crate) last: i64,
}

/// Does the work once. The events to store are made before the clock starts.
pub(crate) async fn do_work<S: Store>(store: &Arc<S>, work: &Work, supply: &Supply) -> Result<Sample> {
    match *work {
        Work::Append { tasks, commits, events, size } => {
            append(store, events, supply.batches(tasks, commits, events, size)).await
        }
        Work::Contend { aggregates, tasks, commits } => {
            contend(store, supply, aggregates, tasks, commits).await
        }
        Work::Load { originator_id, events, times } => load(store, originator_id, events, times).await,
        Work::PacedAppend { commits, pause } => {
            let store = Arc::clone(store);
            let events = (0..commits).map(|_| supply.events(1, data::STATE_SIZE)).collect::<Vec<_>>();
            let append = move |events| {
                let store = Arc::clone(&store);
                async move { store.append(events).await }
            };
            paced(1, pause, events, append).await
        }
        Work::PacedLoad { ref originator_ids, events, pause } => {
            let store = Arc::clone(store);
            let load = move |originator_id| {
                let store = Arc::clone(&store);
                async move { load_all(&*store, originator_id, events).await }
            };
            paced(events, pause, originator_ids.clone(), load).await
        }
        Work::Page { after, events, page } => {
            read_all(store, events, async move |store: Arc<S>| {
                page_through(&*store, after, events, page).await
            })
            .await
        }
        Work::Stream { events } => {
            read_all(store, events, async move |store: Arc<S>| store.stream(events).await).await
        }
        Work::AppendAndLoad { aggregates, events } => {
            append_and_load(store, supply, aggregates, events).await
        }
    }
}

/// Runs one task for each list of batches.
async fn append<S: Store>(
    store: &Arc<S>,
    events: usize,
    batches: Vec<Vec<Vec<StoredEvent>>>,
) -> Result<Sample> {
    let start = Instant::now();
    let tasks: Vec<_> =
        batches.into_iter().map(|batches| tokio::spawn(commit_each(Arc::clone(store), batches))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = start.elapsed();
    Ok(Sample { events: latencies.len() * events, elapsed, latency: Latency::of(latencies), mebibytes: None })
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

async fn contend<S: Store>(
    store: &Arc<S>,
    supply: &Supply,
    aggregates: usize,
    tasks: usize,
    commits: usize,
) -> Result<Sample> {
    let hot: Vec<_> = (0..aggregates).flat_map(|_| supply.events(1, data::STATE_SIZE)).collect();
    let start = Instant::now();
    let tasks: Vec<_> = (hot.into_iter().cycle().take(tasks))
        .map(|event| tokio::spawn(retry_each(Arc::clone(store), event, commits)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = start.elapsed();
    Ok(Sample { events: latencies.len(), elapsed, latency: Latency::of(latencies), mebibytes: None })
}

/// Returns the time until each event was stored, including attempts that met a conflict.
async fn retry_each<S: Store>(store: Arc<S>, event: StoredEvent, commits: usize) -> Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(commits);
    for _ in 0..commits {
        let start = Instant::now();
        loop {
            let originator_version = store.last_version(event.originator_id).await? + 1;
            if store.append_if_new(StoredEvent { originator_version, ..event.clone() }).await? {
                break;
            }
        }
        latencies.push(start.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

async fn load<S: Store>(store: &Arc<S>, originator_id: Uuid, events: usize, times: usize) -> Result<Sample> {
    let store = Arc::clone(store);
    // A database in memory has no events before the first round.
    if store.load(originator_id).await? == 0 {
        store.append(data::events(originator_id, events, data::STATE_SIZE).collect()).await?;
    }
    let elapsed = in_a_task(async move {
        for _ in 0..times {
            load_all(&*store, originator_id, events).await?;
        }
        Ok(())
    });
    Ok(Sample { events: events * times, elapsed: elapsed.await?, latency: None, mebibytes: None })
}

async fn load_all<S: Store>(store: &S, originator_id: Uuid, events: usize) -> Result<()> {
    let found = store.load(originator_id).await?;
    ensure!(found == events, "{found} events were loaded, not {events}");
    Ok(())
}

/// Makes a call with each of the inputs, after a pause in which the thread computes, as between the calls of
/// a program that does other work: caches are filled with other data meanwhile, and idle processors enter
/// sleep states. Only the calls are measured.
async fn paced<T: Send + 'static, F: Future<Output = Result<()>> + Send>(
    events: usize,
    pause: u64,
    inputs: Vec<T>,
    call: impl Fn(T) -> F + Send + 'static,
) -> Result<Sample> {
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
        Ok::<_, anyhow::Error>(latencies)
    });
    let latencies = task.await??;
    let elapsed = Duration::from_secs_f64(latencies.iter().sum());
    Ok(Sample { events: latencies.len() * events, elapsed, latency: Latency::of(latencies), mebibytes: None })
}

async fn read_all<S: Store, R>(
    store: &Arc<S>,
    events: usize,
    read: impl FnOnce(Arc<S>) -> R,
) -> Result<Sample>
where
    R: Future<Output = Result<usize>> + Send + 'static,
{
    let reading = read(Arc::clone(store));
    let elapsed = in_a_task(async move {
        let seen = reading.await?;
        ensure!(seen == events, "{seen} notifications were read, not {events}");
        Ok(())
    });
    Ok(Sample { events, elapsed: elapsed.await?, latency: None, mebibytes: None })
}

/// Reads pages until so many notifications were read, or there are no more.
async fn page_through<S: Store + ?Sized>(
    store: &S,
    mut after: i64,
    events: usize,
    limit: usize,
) -> Result<usize> {
    let mut seen = 0;
    while seen < events {
        let page = store.page(after, limit.min(events - seen)).await?;
        if page.count == 0 {
            break;
        }
        seen += page.count;
        after = page.last;
    }
    Ok(seen)
}

async fn append_and_load<S: Store>(
    store: &Arc<S>,
    supply: &Supply,
    aggregates: usize,
    events: usize,
) -> Result<Sample> {
    let batches: Vec<_> = (0..aggregates).map(|_| supply.events(events, data::STATE_SIZE)).collect();
    let store = Arc::clone(store);
    let elapsed = in_a_task(async move {
        for batch in batches {
            let originator_id = batch.first().map(|event| event.originator_id).unwrap_or_default();
            for event in batch {
                store.append(vec![event]).await?;
            }
            load_all(&*store, originator_id, events).await?;
        }
        Ok(())
    });
    Ok(Sample { events: aggregates * events, elapsed: elapsed.await?, latency: None, mebibytes: None })
}

/// Measures the time on a thread of the runtime, where a program's own tasks run.
async fn in_a_task(work: impl Future<Output = Result<()>> + Send + 'static) -> Result<Duration> {
    let task = tokio::spawn(async move {
        let start = Instant::now();
        work.await.map(|()| start.elapsed())
    });
    task.await?
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::{Store, Work, do_work};
    use crate::{
        data::{self, Supply},
        systems::hash_map::HashMapStore,
    };

    pub(crate) const APPEND: Work = Work::Append { tasks: 4, commits: 5, events: 3, size: 50 };
    pub(crate) const PAGE: Work = Work::Page { after: 0, events: 60, page: 7 };

    /// Tests an adapter with each kind of call, and commits of one, a few and many events.
    pub(crate) async fn writes_and_reads(store: impl Store) {
        let (store, supply) = (Arc::new(store), Supply::default());
        for work in [
            APPEND,
            PAGE,
            Work::Append { tasks: 1, commits: 2, events: 200, size: 50 },
            Work::Contend { aggregates: 1, tasks: 3, commits: 2 },
            Work::AppendAndLoad { aggregates: 2, events: 3 },
            Work::Page { after: 0, events: 472, page: 100 },
        ] {
            do_work(&store, &work, &supply).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_append_stores_the_commits_of_each_task() {
        let store = Arc::new(HashMapStore::default());
        let work = Work::Append { tasks: 3, commits: 2, events: 5, size: 200 };
        let sample = do_work(&store, &work, &Supply::default()).await.unwrap();
        assert_eq!(sample.events, 30);
        assert!(sample.latency.is_some());
        for read in [Work::Page { after: 0, events: 30, page: 7 }, Work::Stream { events: 30 }] {
            assert_eq!(do_work(&store, &read, &Supply::default()).await.unwrap().events, 30);
        }
    }

    #[tokio::test]
    async fn contended_appends_are_all_stored() {
        let store = Arc::new(HashMapStore::default());
        let work = Work::Contend { aggregates: 2, tasks: 5, commits: 4 };
        assert_eq!(do_work(&store, &work, &Supply::default()).await.unwrap().events, 20);
        let page = Work::Page { after: 0, events: 20, page: 100 };
        do_work(&store, &page, &Supply::default()).await.unwrap();
    }

    #[tokio::test]
    async fn missing_events_are_an_error() {
        let store = Arc::new(HashMapStore::default());
        let originator_id = uuid::Uuid::nil();
        store.append(data::events(originator_id, 9, 50).collect()).await.unwrap();
        let load = Work::Load { originator_id, events: 10, times: 1 };
        assert!(do_work(&store, &load, &Supply::default()).await.is_err());
        let page = Work::Page { after: 0, events: 10, page: 10 };
        assert!(do_work(&store, &page, &Supply::default()).await.is_err());
    }

    #[tokio::test]
    async fn calls_with_pauses_do_the_same_work() {
        let store = Arc::new(HashMapStore::default());
        let work = Work::PacedAppend { commits: 3, pause: 1 };
        let sample = do_work(&store, &work, &Supply::default()).await.unwrap();
        assert!(sample.events == 3 && sample.latency.is_some());
        let load =
            |events| Work::PacedLoad { originator_ids: vec![data::originator(0); 2], events, pause: 1 };
        assert_eq!(do_work(&store, &load(1), &Supply::default()).await.unwrap().events, 2);
        assert!(do_work(&store, &load(10), &Supply::default()).await.is_err());
    }

    #[test]
    fn work_is_serialized_by_name() {
        let load = Work::Load { originator_id: uuid::Uuid::nil(), events: 10, times: 1 };
        let expected = serde_json::json!({
            "work": "load", "originator_id": "00000000-0000-0000-0000-000000000000", "events": 10, "times": 1,
        });
        assert_eq!(serde_json::to_value(load).unwrap(), expected);
    }
}
