//! Following the log with each of our recorders: catching up, receiving new events, and processing.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Result;
use es_core::{DEFAULT_PAGE_SIZE, ProcessRecorder, SegmentRecorder, StoredEvent};
use es_popo::PopoProcessRecorder;
use es_postgres::NotificationOrdering;
use es_process::DEFAULT_BATCH_SIZE;
use es_sqlite::SqliteOptions;

use super::fixture::Fixture;
use crate::{
    bench::Bench,
    data,
    plan::Plan,
    report::Measure,
    system::StoreSystem,
    systems::{
        followers::{CatchUp, CreateRecorder, DeliveryLatency, IdleSubscribers, Processing},
        postgres_schema::Schema,
        recorder::RecorderStore,
        workers::Workers,
    },
    workload::Work,
};

/// Subscribers without events to read.
const SUBSCRIBERS: usize = 1_000;
/// Events of each aggregate while a log is filled.
const OF_AGGREGATE: usize = 100;
/// Events of a commit while the log is filled.
const BATCH: usize = 1_000;

pub(crate) async fn run(bench: &mut Bench, directory: &Path, has_postgres: bool) -> Result<()> {
    let fresh = Arc::new(AtomicUsize::new(0));
    let number = move || fresh.fetch_add(1, Relaxed);
    let popo = Suite { backend: "popo", writers: 1, milliseconds: 1.0, within: None };
    popo.run(bench, Arc::new(|| Box::pin(async { Ok(PopoProcessRecorder::new()) }))).await?;
    let sqlite = Suite { backend: "SQLite", writers: 1, milliseconds: 1.0, within: Some(20.0) };
    let (directory, of_file) = (directory.to_owned(), number.clone());
    let file: CreateRecorder<_> = Arc::new(move || {
        let path = directory.join(format!("following {}.db", of_file()));
        Box::pin(async { Ok(SqliteOptions::new(path).open().await?.process_recorder().await?) })
    });
    sqlite.run(bench, file).await?;
    if !has_postgres {
        return Ok(());
    }
    for (backend, ordering) in [
        ("PostgreSQL", NotificationOrdering::Serialized),
        ("PostgreSQL, parallel", NotificationOrdering::Parallel),
    ] {
        let postgres = Suite { backend, writers: 64, milliseconds: 2.0, within: Some(20.0) };
        let of_schema = number.clone();
        let schema: CreateRecorder<_> = Arc::new(move || {
            let name = format!("following_{}", of_schema());
            Box::pin(async move {
                let schema = Schema::create(&name).await?;
                let datastore = schema.options().ordering(ordering).open().await?;
                Ok(datastore.process_recorder("").await?)
            })
        });
        postgres.run(bench, schema).await?;
    }
    Schema::drop_all().await
}

struct Suite {
    backend: &'static str,
    /// Tasks that append while a subscriber follows the log.
    writers: usize,
    /// The upper bound of the median time from a commit to its delivery.
    milliseconds: f64,
    /// The factor by which batches must be faster than single commits, where a commit is durable.
    within: Option<f64>,
}

impl Suite {
    /// Runs the experiments. `create` makes a recorder on an empty datastore.
    async fn run<R>(&self, bench: &mut Bench, create: CreateRecorder<R>) -> Result<()>
    where
        R: ProcessRecorder + SegmentRecorder + Clone + 'static,
    {
        self.catch_up(bench, &create).await?;
        self.delivery_latency(bench, &create).await?;
        self.processing(bench, &create).await?;
        self.workers(bench, &create).await?;
        self.idle_subscribers(bench, &create).await
    }

    async fn catch_up<R>(&self, bench: &mut Bench, create: &CreateRecorder<R>) -> Result<()>
    where
        R: ProcessRecorder + Clone + 'static,
    {
        const OURS: &str = "subscription";
        const BY_HAND: &str = "paging by hand";
        const SMALLER: &str = "subscription, pages of 100";
        const LARGER: &str = "subscription, pages of 10000";
        let events = Fixture::new(bench.scale).events;
        let plan = Plan::new(format!("{} catch up with {events}", self.backend), 9)
            .within(1.2, BY_HAND)
            .compare(SMALLER, Measure::Time)
            .compare(LARGER, Measure::Time);
        let (smaller, larger) =
            const { (NonZeroUsize::new(100).unwrap(), NonZeroUsize::new(10_000).unwrap()) };
        bench
            .measure(plan, async || {
                let recorder = filled(create, events).await?;
                let page = Work::Page { after: 0, events, page: 1_000 };
                Ok(vec![
                    CatchUp::boxed(OURS, recorder.clone(), DEFAULT_PAGE_SIZE, events),
                    StoreSystem::boxed(BY_HAND, RecorderStore(recorder.clone()), &page),
                    CatchUp::boxed(SMALLER, recorder.clone(), smaller, events),
                    CatchUp::boxed(LARGER, recorder, larger, events),
                ])
            })
            .await
    }

    async fn delivery_latency<R>(&self, bench: &mut Bench, create: &CreateRecorder<R>) -> Result<()>
    where
        R: ProcessRecorder + Clone + 'static,
    {
        let name =
            format!("{} live, from commit to delivery, tasks that write: {}", self.backend, self.writers);
        let plan = Plan::new(name, 9).median_milliseconds(self.milliseconds);
        let commits = bench.scale.pick(2_000, 100) / self.writers;
        bench
            .measure(plan, async || {
                Ok(vec![DeliveryLatency::boxed("subscription", create().await?, self.writers, commits)])
            })
            .await
    }

    async fn processing<R>(&self, bench: &mut Bench, create: &CreateRecorder<R>) -> Result<()>
    where
        R: ProcessRecorder + Clone + 'static,
    {
        const SINGLE: &str = "one commit per notification";
        let (events, few) = bench.scale.pick((100_000, 2_000), (2_000, 100));
        let plan = Plan::new(format!("{} processor, catching up with {events}", self.backend), 5);
        let plan = match self.within {
            Some(times) => plan.faster(times, SINGLE),
            None => plan.compare(SINGLE, Measure::Speed),
        };
        bench
            .measure(plan, async || {
                let upstream = filled(create, events).await?;
                let batches = Processing::boxed(
                    "processor",
                    upstream.clone(),
                    Arc::clone(create),
                    DEFAULT_BATCH_SIZE,
                    events,
                );
                let single = Processing::boxed(SINGLE, upstream, Arc::clone(create), NonZeroUsize::MIN, few);
                Ok(vec![batches, single])
            })
            .await
    }

    /// Compares the throughput of several workers with that of one.
    async fn workers<R>(&self, bench: &mut Bench, create: &CreateRecorder<R>) -> Result<()>
    where
        R: ProcessRecorder + SegmentRecorder + Clone + 'static,
    {
        let events = bench.scale.pick(3_200, 160);
        let one = Workers::<R>::name_of(1);
        let several: [u16; 3] = [2, 4, 8];
        let name = format!("{} workers with a handler that waits 2 ms", self.backend);
        let plan = several.into_iter().fold(Plan::new(name, 3), |plan, workers| {
            plan.subject(&Workers::<R>::name_of(workers)).faster(0.9 * f64::from(workers), &one)
        });
        bench
            .measure(plan, async || {
                let workers = [1].into_iter().chain(several);
                Ok(workers.map(|workers| Workers::boxed(Arc::clone(create), workers, events)).collect())
            })
            .await
    }

    async fn idle_subscribers<R>(&self, bench: &mut Bench, create: &CreateRecorder<R>) -> Result<()>
    where
        R: ProcessRecorder + Clone + 'static,
    {
        const ALONE: &str = "one subscriber of another topic";
        let plan =
            Plan::new(format!("{} commits, {SUBSCRIBERS} subscribers of another topic", self.backend), 15)
                .within(1.1, ALONE);
        let commits = bench.scale.pick(20_000, 100) / self.writers;
        bench
            .measure(plan, async || {
                Ok(vec![
                    IdleSubscribers::boxed(
                        "subscribers",
                        create().await?,
                        SUBSCRIBERS,
                        self.writers,
                        commits,
                    ),
                    IdleSubscribers::boxed(ALONE, create().await?, 1, self.writers, commits),
                ])
            })
            .await
    }
}

/// Creates a recorder that has so many notifications.
async fn filled<R: ProcessRecorder>(create: &CreateRecorder<R>, events: usize) -> Result<R> {
    let recorder = create().await?;
    let aggregate = |index| data::events(data::originator(index), OF_AGGREGATE, data::STATE_SIZE);
    let mut stored = (0..).flat_map(aggregate).take(events);
    loop {
        let batch: Vec<StoredEvent> = stored.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(recorder);
        }
        recorder.insert_events(batch).await?;
    }
}
