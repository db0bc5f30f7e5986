//! Systems of an experiment, and their measurements.

use std::{
    future::{Future, ready},
    hint::black_box,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    data::Supply,
    statistics::quantile,
    workload::{Store, Work, do_work},
};

/// The measurements of one round of one system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) events: usize,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Option<Latency>,
    /// The peak of the resident memory above that of the idle process; only in measurements of memory.
    pub(crate) mebibytes: Option<f64>,
}

/// Durations of single calls, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// A boxed future: systems of different types are in one list.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A measured system in an experiment.
pub(crate) trait System {
    fn name(&self) -> &str;

    /// Does the work of one round.
    fn round(&mut self) -> BoxFuture<'_, Sample>;

    /// True if a failure does not end the experiment; the failure is listed in the results.
    fn may_fail(&self) -> bool {
        false
    }

    /// Returns the durability settings, known after the first round; absent where the suite records them.
    fn durability(&self) -> Option<&str> {
        None
    }
}

/// A store with its workload.
pub(crate) struct StoreSystem<S> {
    name: String,
    store: Arc<S>,
    work: Work,
    supply: Supply,
}

impl<S: Store> StoreSystem<S> {
    pub(crate) fn boxed(name: impl Into<String>, store: S, work: &Work) -> Box<dyn System> {
        Self::supplied(name, store, work, Supply::default())
    }

    /// Creates a system with its own supply: systems that store in one datastore need different
    /// aggregates.
    pub(crate) fn supplied(
        name: impl Into<String>,
        store: S,
        work: &Work,
        supply: Supply,
    ) -> Box<dyn System> {
        Box::new(Self { name: name.into(), store: Arc::new(store), work: work.clone(), supply })
    }
}

impl<S: Store> System for StoreSystem<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(do_work(&self.store, &self.work, &self.supply))
    }
}

/// A store that is created again for each round, so that it does not grow from round to round.
pub(crate) struct FreshStore<F> {
    name: String,
    create: F,
    work: Work,
}

impl<'a, S: Store, F: Fn() -> S + Send + Sync + 'a> FreshStore<F> {
    pub(crate) fn boxed(name: impl Into<String>, create: F, work: &Work) -> Box<dyn System + 'a> {
        Box::new(Self { name: name.into(), create, work: work.clone() })
    }
}

impl<S: Store, F: Fn() -> S + Send + Sync> System for FreshStore<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        let store = Arc::new((self.create)());
        Box::pin(async move { do_work(&store, &self.work, &Supply::default()).await })
    }
}

/// A computation that is repeated in each round, one event per repetition.
pub(crate) struct RepeatedCall<F> {
    name: String,
    times: usize,
    compute: F,
}

impl<'a, T, E: Into<anyhow::Error>, F: FnMut() -> Result<T, E> + Send + 'a> RepeatedCall<F> {
    pub(crate) fn boxed(name: impl Into<String>, times: usize, compute: F) -> Box<dyn System + 'a> {
        Box::new(Self { name: name.into(), times, compute })
    }
}

impl<T, E: Into<anyhow::Error>, F: FnMut() -> Result<T, E> + Send> System for RepeatedCall<F> {
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
        let sample = Sample { events: self.times, elapsed: start.elapsed(), latency: None, mebibytes: None };
        Box::pin(ready(Ok(sample)))
    }
}

impl Latency {
    /// Returns the durations' quantiles, or `None` if there are no durations.
    pub(crate) fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        Some(Self { p50: quantile(&seconds, 0.5)?, p99: quantile(&seconds, 0.99)? })
    }
}
