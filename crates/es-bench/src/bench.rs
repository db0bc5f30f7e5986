//! Rounds: contestants take turns with the same work, so that whatever else happens on the machine hits all of them.

use std::collections::HashMap;

use anyhow::{Context, Result};

use crate::report::{
    Comparison, Durability, Experiment, Figures, LatencySummary, Measure, Missing, SystemResult, Target,
};
use crate::statistics::Summary;
use crate::table;
use crate::workload::{Contestant, Sample};

/// How much work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Enough to quote.
    Full,
    /// Everything once, to see that it works.
    Quick,
}

impl Scale {
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// An experiment before it is made.
#[derive(Debug)]
pub(crate) struct Plan {
    name: String,
    rounds: usize,
    besides: Vec<Beside>,
}

/// What the first contestant is compared with.
#[derive(Clone, Copy, Debug)]
struct Beside {
    other: &'static str,
    measure: Measure,
    target: Option<Target>,
}

impl Plan {
    /// So many rounds (one in a quick run), after one to warm up.
    pub(crate) fn new(name: impl Into<String>, rounds: usize) -> Self {
        Self { name: name.into(), rounds, besides: Vec::new() }
    }

    /// Compares the first contestant with this one.
    pub(crate) fn beside(mut self, other: &'static str, measure: Measure) -> Self {
        self.besides.push(Beside { other, measure, target: None });
        self
    }

    /// The first contestant is to do the work within `times` the time of this one.
    pub(crate) fn within(mut self, times: f64, other: &'static str) -> Self {
        self.besides.push(Beside { other, measure: Measure::Time, target: Some(Target::AtMost(times)) });
        self
    }

    /// The first contestant is to do at least `times` the work of this one in the same time.
    pub(crate) fn faster(mut self, times: f64, other: &'static str) -> Self {
        self.besides.push(Beside { other, measure: Measure::Speed, target: Some(Target::AtLeast(times)) });
        self
    }

    /// The slowest calls of the first contestant are to be no slower than those of this one.
    pub(crate) fn steadier(mut self, other: &'static str) -> Self {
        self.besides.push(Beside { other, measure: Measure::P99, target: Some(Target::AtMost(1.0)) });
        self
    }
}

/// A run: which experiments are wanted, and what came of those that were made.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) scale: Scale,
    filter: String,
    pub(crate) durability: Vec<Durability>,
    pub(crate) experiments: Vec<Experiment>,
    pub(crate) missing: Vec<Missing>,
}

impl Bench {
    /// A run of the experiments whose names contain `filter`.
    pub(crate) fn new(scale: Scale, filter: &str) -> Self {
        let filter = filter.to_lowercase();
        Self { scale, filter, durability: Vec::new(), experiments: Vec::new(), missing: Vec::new() }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.filter)
    }

    pub(crate) fn has_durability(&mut self, datastore: &str, settings: String) {
        self.durability.push(Durability { datastore: datastore.into(), settings });
    }

    pub(crate) fn is_missing(&mut self, what: &str, reason: &str) {
        self.missing.push(Missing { what: what.into(), reason: reason.into() });
    }

    /// Lets the contestants compete, if the experiment is wanted; only then are they brought.
    pub(crate) async fn compete<'a>(
        &mut self,
        plan: Plan,
        contestants: impl AsyncFnOnce() -> Result<Vec<Box<dyn Contestant + 'a>>>,
    ) -> Result<()> {
        if !self.wants(&plan.name) {
            return Ok(());
        }
        let name = plan.name.clone();
        let made = async {
            let mut contestants = contestants().await?;
            let rounds = self.scale.pick(plan.rounds, 1);
            let samples = take_turns(&mut contestants, self.scale, rounds).await?;
            self.experiment(plan, rounds, &contestants, &samples)
        };
        let experiment = made.await.with_context(|| format!("experiment {name:?} failed"))?;
        self.add(experiment);
        Ok(())
    }

    /// Measures memory above idle, in MiB, once per round, and holds it against a bound.
    pub(crate) async fn weigh(
        &mut self,
        name: &str,
        system: &str,
        bound: f64,
        mut weigh: impl AsyncFnMut() -> Result<f64>,
    ) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let rounds = self.scale.pick(3, 1);
        let mut weights = Vec::new();
        for _ in 0..rounds {
            weights.push(weigh().await.with_context(|| format!("experiment {name:?} failed"))?);
        }
        let value = Summary::of(weights).context("there was no round")?;
        let figures = Figures::Memory { mebibytes_above_idle: value };
        let compared = Beside { other: "", measure: Measure::Memory, target: Some(Target::AtMost(bound)) };
        self.add(Experiment {
            name: name.into(),
            rounds,
            results: vec![SystemResult { system: system.into(), figures }],
            comparisons: vec![Comparison { beside: None, ..self.comparison(system, compared, value) }],
        });
        Ok(())
    }

    fn add(&mut self, experiment: Experiment) {
        print!("{}", table::Block(&experiment));
        self.experiments.push(experiment);
    }

    fn experiment(
        &self,
        plan: Plan,
        rounds: usize,
        contestants: &[Box<dyn Contestant + '_>],
        samples: &[Vec<Sample>],
    ) -> Result<Experiment> {
        let named: HashMap<_, _> = contestants.iter().map(|one| one.name()).zip(samples).collect();
        let first = contestants.first().context("there is nobody to measure")?.name();
        let ours = named.get(first).context("nothing was measured")?;
        let results: Option<Vec<_>> =
            contestants.iter().zip(samples).map(|(one, samples)| result(one.name(), samples)).collect();
        let mut comparisons = Vec::new();
        for beside in plan.besides {
            let others =
                named.get(beside.other).with_context(|| format!("there is no {:?}", beside.other))?;
            let value = ratio(beside.measure, ours, others).context("nothing was measured")?;
            comparisons.push(self.comparison(first, beside, value));
        }
        Ok(Experiment {
            name: plan.name,
            rounds,
            results: results.context("no round was made")?,
            comparisons,
        })
    }

    fn comparison(&self, system: &str, beside: Beside, value: Summary) -> Comparison {
        Comparison {
            system: system.into(),
            beside: Some(beside.other.into()),
            measure: beside.measure,
            value,
            target: beside.target,
            is_met: beside
                .target
                .filter(|_| self.scale == Scale::Full)
                .map(|target| target.is_met_by(value.median)),
        }
    }
}

/// The samples of each contestant, round by round. The order changes with each round, so that nobody always comes
/// after the same one.
async fn take_turns(
    contestants: &mut [Box<dyn Contestant + '_>],
    scale: Scale,
    rounds: usize,
) -> Result<Vec<Vec<Sample>>> {
    if scale == Scale::Full {
        for contestant in contestants.iter_mut() {
            contestant.round().await.with_context(|| format!("{} failed", contestant.name()))?;
        }
    }
    let mut samples = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..rounds {
        let mut turn: Vec<_> = contestants.iter_mut().zip(&mut samples).collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for (contestant, samples) in turn {
            let sample = contestant.round().await.with_context(|| format!("{} failed", contestant.name()))?;
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn result(system: &str, samples: &[Sample]) -> Option<SystemResult> {
    let latency = |of: fn(&Sample) -> Option<f64>| {
        Summary::of(samples.iter().filter_map(of).map(|seconds| seconds * 1e6))
    };
    let p50 = latency(|sample| sample.latency.map(|latency| latency.p50));
    let p99 = latency(|sample| sample.latency.map(|latency| latency.p99));
    let figures = Figures::Speed {
        events_per_second: Summary::of(samples.iter().map(|sample| 1.0 / seconds_per_event(sample)))?,
        microseconds_per_event: Summary::of(samples.iter().map(|sample| seconds_per_event(sample) * 1e6))?,
        latency: p50.zip(p99).map(|(p50_microseconds, p99_microseconds)| LatencySummary {
            p50_microseconds,
            p99_microseconds,
        }),
    };
    Some(SystemResult { system: system.into(), figures })
}

/// The ratios of rounds that were made one beside the other, which a busy machine slows alike.
fn ratio(measure: Measure, ours: &[Sample], others: &[Sample]) -> Option<Summary> {
    let of_round = |(ours, others): (&Sample, &Sample)| match measure {
        Measure::Time => Some(seconds_per_event(ours) / seconds_per_event(others)),
        Measure::Speed => Some(seconds_per_event(others) / seconds_per_event(ours)),
        Measure::P99 => Some(ours.latency?.p99 / others.latency?.p99),
        Measure::Memory => None,
    };
    Summary::of(ours.iter().zip(others).filter_map(of_round))
}

fn seconds_per_event(sample: &Sample) -> f64 {
    sample.elapsed.as_secs_f64() / sample.events as f64
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{Bench, Plan, Scale, ratio};
    use crate::report::Measure;
    use crate::workload::{BoxFuture, Contestant, Latency, Sample};

    /// Needs this long, or so it says, and notes each of its turns.
    struct Scripted {
        name: &'static str,
        elapsed: Duration,
        turns: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Contestant for Scripted {
        fn name(&self) -> &str {
            self.name
        }

        fn round(&mut self) -> BoxFuture<'_, Sample> {
            self.turns.lock().unwrap().push(self.name);
            let sample = sample(100, self.elapsed, None);
            Box::pin(async move { Ok(sample) })
        }
    }

    fn sample(events: usize, elapsed: Duration, latency: Option<Latency>) -> Sample {
        Sample { events, elapsed, latency }
    }

    async fn run(bench: &mut Bench, plan: Plan) -> Vec<&'static str> {
        let turns = Arc::new(Mutex::new(Vec::new()));
        let contestant = |name, milliseconds| -> Box<dyn Contestant> {
            Box::new(Scripted {
                name,
                elapsed: Duration::from_millis(milliseconds),
                turns: Arc::clone(&turns),
            })
        };
        bench.compete(plan, async || Ok(vec![contestant("ours", 20), contestant("bare", 10)])).await.unwrap();
        turns.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn contestants_take_turns_after_a_round_to_warm_up() {
        let mut bench = Bench::new(Scale::Full, "");
        let turns = run(&mut bench, Plan::new("append", 2)).await;
        assert_eq!(turns, ["ours", "bare", "ours", "bare", "bare", "ours"]);
    }

    #[tokio::test]
    async fn targets_are_judged_by_the_median_ratio() {
        let mut bench = Bench::new(Scale::Full, "");
        let plan = Plan::new("append", 3).within(1.9, "bare").within(2.0, "bare").faster(0.5, "bare");
        run(&mut bench, plan).await;
        let comparisons = &bench.experiments[0].comparisons;
        assert_eq!(comparisons[0].value.median, 2.0);
        assert_eq!(comparisons[2].value.median, 0.5, "twice the time is half the speed");
        let verdicts: Vec<_> = comparisons.iter().map(|comparison| comparison.is_met).collect();
        assert_eq!(verdicts, [Some(false), Some(true), Some(true)]);
    }

    #[tokio::test]
    async fn a_quick_run_makes_one_round_and_no_verdict() {
        let mut bench = Bench::new(Scale::Quick, "");
        let turns = run(&mut bench, Plan::new("append", 9).within(1.0, "bare")).await;
        assert_eq!(turns, ["ours", "bare"]);
        assert_eq!(bench.experiments[0].comparisons[0].is_met, None);
    }

    #[tokio::test]
    async fn what_the_filter_leaves_out_is_not_run() {
        let mut bench = Bench::new(Scale::Quick, "Load");
        assert!(run(&mut bench, Plan::new("append", 1)).await.is_empty());
        assert_eq!(run(&mut bench, Plan::new("SQLite load", 1)).await.len(), 2);
    }

    #[tokio::test]
    async fn a_comparison_with_nobody_is_an_error() {
        let mut bench = Bench::new(Scale::Quick, "");
        let outcome = bench.compete(Plan::new("append", 1).within(1.0, "bare"), async || Ok(vec![])).await;
        assert!(outcome.is_err());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let seconds = |seconds| sample(1, Duration::from_secs(seconds), None);
        // The machine was ten times slower in the second round, for both.
        let ratio = ratio(Measure::Time, &[seconds(2), seconds(20)], &[seconds(1), seconds(10)]).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn slow_calls_are_compared_where_calls_were_timed() {
        let latency = |p99| Some(Latency { p50: 1.0, p99 });
        let timed = |p99| [sample(1, Duration::from_secs(1), latency(p99))];
        assert_eq!(ratio(Measure::P99, &timed(3.0), &timed(6.0)).unwrap().median, 0.5);
        let untimed = [sample(1, Duration::from_secs(1), None)];
        assert_eq!(ratio(Measure::P99, &timed(3.0), &untimed), None);
    }
}
