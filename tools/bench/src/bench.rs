//! Rounds: systems do the same work in turns, so that other load on the machine affects all of them.

use anyhow::{Context, Result, ensure};

use crate::{
    plan::{Plan, PlannedComparison},
    report::{
        ChartPoint, Comparison, Durability, Experiment, Figures, LatencySummary, Measure, Missing,
        SystemResult,
    },
    statistics::Summary,
    system::{Sample, System},
    table,
};

/// The amount of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// A full run, whose figures can be quoted.
    Full,
    /// Every workload once, to check that it works.
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

/// A run of the benchmarks: the selected experiments, and their results.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) scale: Scale,
    filter: String,
    max_rounds: usize,
    /// The largest number of events that are stored before a measurement of growth.
    pub(crate) max_stored: usize,
    pub(crate) durability: Vec<Durability>,
    pub(crate) experiments: Vec<Experiment>,
    pub(crate) missing: Vec<Missing>,
}

impl Bench {
    /// Creates a run of the experiments whose names contain `filter`, with at most `max_rounds` rounds each.
    pub(crate) fn new(scale: Scale, filter: &str, max_rounds: usize) -> Self {
        Self {
            scale,
            filter: filter.to_lowercase(),
            max_rounds: scale.pick(max_rounds.max(1), 1),
            max_stored: usize::MAX,
            durability: Vec::new(),
            experiments: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub(crate) fn selects(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.filter)
    }

    /// Records the meaning of a commit in a datastore, once.
    pub(crate) fn report_durability(&mut self, datastore: &str, settings: &str) {
        if self.durability.iter().all(|known| known.datastore != datastore || known.settings != settings) {
            self.durability.push(Durability { datastore: datastore.into(), settings: settings.into() });
        }
    }

    pub(crate) fn report_missing(&mut self, what: &str, reason: &str) {
        self.missing.push(Missing { what: what.into(), reason: reason.into(), experiments: Vec::new() });
    }

    /// Runs the experiment if it is selected. The systems are created only then.
    pub(crate) async fn measure<'a>(
        &mut self,
        plan: Plan,
        systems: impl AsyncFnOnce() -> Result<Vec<Box<dyn System + 'a>>>,
    ) -> Result<()> {
        if !self.selects(&plan.name) {
            return Ok(());
        }
        let rounds = plan.rounds.min(self.max_rounds);
        let made = async {
            let mut runs: Vec<_> = systems().await?.into_iter().map(Run::new).collect();
            run_rounds(&mut runs, self.scale, rounds).await?;
            Ok::<_, anyhow::Error>(runs)
        };
        let runs = made.await.with_context(|| format!("experiment {:?} failed", plan.name))?;
        self.record_outcomes(&plan.name, &runs);
        let experiment = self.experiment(&plan, rounds, &runs)?;
        print!("{}", table::Block(&experiment));
        self.experiments.push(experiment);
        Ok(())
    }

    /// Records the durability settings that systems report, and the systems that failed.
    fn record_outcomes(&mut self, experiment: &str, runs: &[Run<'_>]) {
        for Run { system, failure, .. } in runs {
            let name = system.name();
            if let Some(settings) = system.durability() {
                self.report_durability(name, settings);
            }
            let Some(reason) = failure else { continue };
            match self.missing.iter_mut().find(|known| known.what == name && known.reason == *reason) {
                Some(known) => known.experiments.push(experiment.into()),
                None => self.missing.push(Missing {
                    what: name.into(),
                    reason: reason.clone(),
                    experiments: vec![experiment.into()],
                }),
            }
        }
    }

    fn experiment(&self, plan: &Plan, rounds: usize, runs: &[Run<'_>]) -> Result<Experiment> {
        let present = || runs.iter().filter(|run| run.failure.is_none());
        let named = |name: &str| runs.iter().find(|run| run.system.name() == name);
        let ours = present().next().context("no system could be measured")?;
        let results: Option<Vec<_>> = present()
            .map(|run| {
                let name = run.system.name();
                result(name, &run.samples, plan.point(name))
            })
            .collect();
        let mut comparisons = Vec::new();
        for planned in &plan.comparisons {
            let find = |name: &Option<String>| match name {
                Some(name) => {
                    named(name).with_context(|| format!("the plan names an unknown system, {name:?}"))
                }
                None => Ok(ours),
            };
            let (subject, baseline) = (find(&planned.subject)?, find(&planned.baseline)?);
            // A system that failed is listed as missing, with the reason.
            if baseline.failure.is_none() {
                let value = compare(planned.measure, &subject.samples, &baseline.samples);
                let name = subject.system.name();
                comparisons.push(self.comparison(
                    name,
                    planned,
                    value.context("no samples for a comparison")?,
                ));
            }
        }
        Ok(Experiment {
            name: plan.name.clone(),
            rounds,
            results: results.context("no round was measured")?,
            comparisons,
        })
    }

    fn comparison(&self, system: &str, planned: &PlannedComparison, value: Summary) -> Comparison {
        Comparison {
            system: system.into(),
            baseline: planned.baseline.clone(),
            measure: planned.measure,
            value,
            target: planned.target,
            is_met: planned
                .target
                .filter(|_| self.scale == Scale::Full)
                .map(|target| target.is_met_by(value.median)),
        }
    }
}

/// A system with its samples.
struct Run<'a> {
    system: Box<dyn System + 'a>,
    samples: Vec<Sample>,
    failure: Option<String>,
}

impl<'a> Run<'a> {
    fn new(system: Box<dyn System + 'a>) -> Self {
        Self { system, samples: Vec::new(), failure: None }
    }

    /// Runs a round. Does nothing after a failure.
    async fn round(&mut self) -> Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        match self.system.round().await {
            Ok(sample) => self.samples.push(sample),
            Err(error) if self.system.may_fail() => self.failure = Some(format!("{error:#}")),
            Err(error) => return Err(error.context(format!("{} failed", self.system.name()))),
        }
        Ok(())
    }
}

/// Changes the order with each round, so that no system always follows the same one.
async fn run_rounds(runs: &mut [Run<'_>], scale: Scale, rounds: usize) -> Result<()> {
    ensure!(!runs.is_empty(), "the experiment has no systems");
    if scale == Scale::Full {
        for run in runs.iter_mut() {
            run.round().await?;
            run.samples.clear();
        }
    }
    for round in 0..rounds {
        let mut turn: Vec<_> = runs.iter_mut().collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for run in turn {
            run.round().await?;
        }
    }
    Ok(())
}

fn result(system: &str, samples: &[Sample], point: Option<ChartPoint>) -> Option<SystemResult> {
    let microseconds = |of: fn(&Sample) -> Option<f64>| {
        Summary::of(samples.iter().filter_map(of).map(|seconds| seconds * 1e6))
    };
    let p50 = microseconds(|sample| sample.latency.map(|latency| latency.p50));
    let p99 = microseconds(|sample| sample.latency.map(|latency| latency.p99));
    let memory = Summary::of(samples.iter().filter_map(|sample| sample.mebibytes));
    let figures = match memory {
        Some(mebibytes_above_idle) => Figures::Memory { mebibytes_above_idle },
        None => Figures::Speed {
            events_per_second: Summary::of(samples.iter().map(|sample| 1.0 / seconds_per_event(sample)))?,
            microseconds_per_event: Summary::of(
                samples.iter().map(|sample| seconds_per_event(sample) * 1e6),
            )?,
            latency: p50.zip(p99).map(|(p50_microseconds, p99_microseconds)| LatencySummary {
                p50_microseconds,
                p99_microseconds,
            }),
        },
    };
    Some(SystemResult { system: system.into(), point, figures })
}

/// Returns the ratios of rounds made one right after the other, which a busy machine slows alike.
fn compare(measure: Measure, ours: &[Sample], others: &[Sample]) -> Option<Summary> {
    let of_round = |(ours, others): (&Sample, &Sample)| match measure {
        Measure::Time => Some(seconds_per_event(ours) / seconds_per_event(others)),
        Measure::Speed => Some(seconds_per_event(others) / seconds_per_event(ours)),
        Measure::P99 => Some(ours.latency?.p99 / others.latency?.p99),
        Measure::P99Milliseconds => ours.latency.map(|latency| latency.p99 * 1e3),
        Measure::Median => ours.latency.map(|latency| latency.p50 * 1e3),
        Measure::Memory => ours.mebibytes,
    };
    Summary::of(ours.iter().zip(others).filter_map(of_round))
}

fn seconds_per_event(sample: &Sample) -> f64 {
    sample.elapsed.as_secs_f64() / sample.events as f64
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use anyhow::bail;

    use super::{Bench, Plan, Scale, compare};
    use crate::{
        report::Measure,
        system::{BoxFuture, Latency, Sample, System},
    };

    /// A system that reports this duration and records each of its turns.
    struct Scripted {
        name: &'static str,
        elapsed: Duration,
        turns: Arc<Mutex<Vec<&'static str>>>,
    }

    impl System for Scripted {
        fn name(&self) -> &str {
            self.name
        }

        fn round(&mut self) -> BoxFuture<'_, Sample> {
            self.turns.lock().unwrap().push(self.name);
            let sample = sample(100, self.elapsed, None);
            Box::pin(async move { Ok(sample) })
        }
    }

    /// A system that is not available.
    struct Absent;

    impl System for Absent {
        fn name(&self) -> &str {
            "absent"
        }

        fn round(&mut self) -> BoxFuture<'_, Sample> {
            Box::pin(async { bail!("it is not installed") })
        }

        fn may_fail(&self) -> bool {
            true
        }
    }

    fn sample(events: usize, elapsed: Duration, latency: Option<Latency>) -> Sample {
        Sample { events, elapsed, latency, mebibytes: None }
    }

    async fn run(bench: &mut Bench, plan: Plan) -> Vec<&'static str> {
        let turns = Arc::new(Mutex::new(Vec::new()));
        let system = |name, milliseconds| -> Box<dyn System> {
            Box::new(Scripted {
                name,
                elapsed: Duration::from_millis(milliseconds),
                turns: Arc::clone(&turns),
            })
        };
        let systems = async || Ok(vec![system("ours", 20), Box::new(Absent), system("bare", 10)]);
        bench.measure(plan, systems).await.unwrap();
        turns.lock().unwrap().clone()
    }

    fn full() -> Bench {
        Bench::new(Scale::Full, "", usize::MAX)
    }

    #[tokio::test]
    async fn systems_take_turns_after_a_warm_up_round() {
        let turns = run(&mut full(), Plan::new("append", 2)).await;
        assert_eq!(turns, ["ours", "bare", "ours", "bare", "bare", "ours"]);
    }

    #[tokio::test]
    async fn rounds_can_be_limited() {
        let turns = run(&mut Bench::new(Scale::Full, "", 1), Plan::new("append", 2)).await;
        assert_eq!(turns, ["ours", "bare", "ours", "bare"]);
    }

    #[tokio::test]
    async fn targets_are_judged_by_the_median_ratio() {
        let mut bench = full();
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
        let mut bench = Bench::new(Scale::Quick, "", usize::MAX);
        let turns = run(&mut bench, Plan::new("append", 9).within(1.0, "bare")).await;
        assert_eq!(turns, ["ours", "bare"]);
        assert_eq!(bench.experiments[0].comparisons[0].is_met, None);
    }

    #[tokio::test]
    async fn an_unavailable_system_is_reported_and_the_others_continue() {
        let mut bench = full();
        run(&mut bench, Plan::new("append", 1).faster(2.0, "absent").compare("bare", Measure::Time)).await;
        run(&mut bench, Plan::new("load", 1)).await;
        assert_eq!(bench.experiments[0].results.len(), 2);
        assert_eq!(bench.experiments[0].comparisons.len(), 1);
        assert_eq!(bench.missing.len(), 1, "the same reason is reported once");
        assert_eq!(bench.missing[0].reason, "it is not installed");
        assert_eq!(bench.missing[0].experiments, ["append", "load"]);
    }

    #[tokio::test]
    async fn filtered_experiments_are_not_run() {
        let mut bench = Bench::new(Scale::Quick, "Load", usize::MAX);
        assert!(run(&mut bench, Plan::new("append", 1)).await.is_empty());
        assert_eq!(run(&mut bench, Plan::new("SQLite load", 1)).await.len(), 2);
    }

    #[tokio::test]
    async fn a_comparison_without_systems_is_an_error() {
        let outcome = full().measure(Plan::new("append", 1).within(1.0, "bare"), async || Ok(vec![])).await;
        assert!(outcome.is_err());
    }

    #[tokio::test]
    async fn results_have_the_chart_points_of_the_plan() {
        let mut bench = full();
        run(&mut bench, Plan::new("append", 1).at("appends", "tasks", 64.0)).await;
        let point = bench.experiments[0].results[1].point.as_ref().unwrap();
        assert_eq!((point.chart.as_str(), point.series.as_str(), point.x), ("appends", "bare", 64.0));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let seconds = |seconds| sample(1, Duration::from_secs(seconds), None);
        // The machine was ten times slower in the second round, for both.
        let ratio = compare(Measure::Time, &[seconds(2), seconds(20)], &[seconds(1), seconds(10)]).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn slow_calls_are_compared_where_calls_were_timed() {
        let latency = |p99| Some(Latency { p50: 1.0, p99 });
        let timed = |p99| [sample(1, Duration::from_secs(1), latency(p99))];
        assert_eq!(compare(Measure::P99, &timed(3.0), &timed(6.0)).unwrap().median, 0.5);
        let untimed = [sample(1, Duration::from_secs(1), None)];
        assert_eq!(compare(Measure::P99, &timed(3.0), &untimed), None);
    }
}
