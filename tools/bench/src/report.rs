//! The results for programs: the format of `results.json`.

use serde::{Deserialize, Serialize};

use crate::{machine::Machine, statistics::Summary};

/// The version of the format, which changes when a field changes its name or meaning.
pub(crate) const FORMAT: u32 = 2;

/// Everything that was measured.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    /// The time at which the run began, RFC 3339, UTC.
    pub(crate) date: String,
    pub(crate) commit: String,
    /// Earlier runs from which experiments were kept.
    #[serde(default)]
    pub(crate) earlier_runs: Vec<String>,
    /// The seed of the stored events.
    pub(crate) seed: u64,
    /// True for a quick run: every workload once, no figures to quote.
    pub(crate) is_quick: bool,
    pub(crate) machine: Machine,
    /// The durability that each datastore was measured with.
    pub(crate) durability: Vec<Durability>,
    pub(crate) experiments: Vec<Experiment>,
    /// Requested systems that could not be measured.
    pub(crate) missing: Vec<Missing>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Durability {
    pub(crate) datastore: String,
    pub(crate) settings: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) reason: String,
    /// The experiments without it; empty if it was left out of all.
    pub(crate) experiments: Vec<String>,
}

/// One workload on several systems, round by round in turns.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Experiment {
    pub(crate) name: String,
    pub(crate) rounds: usize,
    pub(crate) results: Vec<SystemResult>,
    pub(crate) comparisons: Vec<Comparison>,
}

/// The result of one system.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SystemResult {
    pub(crate) system: String,
    /// The point in a chart of several experiments.
    #[serde(rename = "place", default, skip_serializing_if = "Option::is_none")]
    pub(crate) point: Option<ChartPoint>,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// A point of a chart of several experiments.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct ChartPoint {
    pub(crate) chart: String,
    /// The unit that `x` counts.
    pub(crate) axis: String,
    pub(crate) series: String,
    pub(crate) x: f64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    Speed {
        events_per_second: Summary,
        microseconds_per_event: Summary,
        /// Durations of single calls; only where they were timed one by one.
        latency: Option<LatencySummary>,
    },
    Memory {
        /// The peak of the resident memory above that of the idle process.
        mebibytes_above_idle: Summary,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) p50_microseconds: Summary,
    pub(crate) p99_microseconds: Summary,
}

/// The comparison of a system with a baseline: another system, or a fixed bound.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Comparison {
    pub(crate) system: String,
    /// The other system; absent where a figure is compared with a fixed bound.
    #[serde(rename = "beside")]
    pub(crate) baseline: Option<String>,
    pub(crate) measure: Measure,
    /// The ratios of the rounds (this system's figure by the other's of the same round), or the figure
    /// itself.
    pub(crate) value: Summary,
    pub(crate) target: Option<Target>,
    /// True if the median reaches the target; absent without a target, and in a quick run.
    pub(crate) is_met: Option<bool>,
}

impl Comparison {
    /// Returns the name of the baseline: another system, or the unit of a fixed bound.
    pub(crate) fn baseline_name(&self) -> String {
        match (self.measure, self.baseline.as_deref()) {
            (Measure::P99, Some(other)) => format!("{other}, p99"),
            (_, Some(other)) => other.to_owned(),
            (Measure::Median, None) => "ms, median".to_owned(),
            (Measure::P99Milliseconds, None) => "ms, p99".to_owned(),
            (_, None) => "MiB above idle".to_owned(),
        }
    }
}

/// The measure of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Time for the same work.
    Time,
    /// Work in the same time.
    Speed,
    /// The time that 99 of 100 calls stay below.
    P99,
    /// Milliseconds that 99 of 100 calls stay below.
    P99Milliseconds,
    /// Milliseconds that half of the calls stay below.
    Median,
    /// MiB above idle.
    Memory,
}

/// The target of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub(crate) fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl Report {
    /// Returns the day on which the run began.
    pub(crate) fn day(&self) -> &str {
        self.date.split('T').next().unwrap_or_default()
    }

    /// Keeps the experiments of an earlier report that this run did not repeat, in their old places;
    /// experiments are independent of each other. A report without experiments leaves the earlier one
    /// unchanged.
    pub(crate) fn add_to(mut self, earlier: Self) -> Self {
        if self.experiments.is_empty() {
            return earlier;
        }
        let is_new = |name: &str| self.experiments.iter().any(|made| made.name == name);
        let mut missing: Vec<_> = (earlier.missing.into_iter())
            .filter_map(|mut known| {
                let had_any = !known.experiments.is_empty();
                known.experiments.retain(|name| !is_new(name));
                (had_any && !known.experiments.is_empty()).then_some(known)
            })
            .collect();
        let mut experiments = earlier.experiments;
        for made in self.experiments {
            match experiments.iter_mut().find(|known| known.name == made.name) {
                Some(known) => *known = made,
                None => experiments.push(made),
            }
        }
        let mut durability = earlier.durability;
        for settings in self.durability {
            if durability.iter().all(|known| *known != settings) {
                durability.push(settings);
            }
        }
        missing.append(&mut self.missing);
        let mut earlier_runs = earlier.earlier_runs;
        earlier_runs.push(earlier.machine.run(&earlier.date, &earlier.commit));
        Self { experiments, durability, missing, earlier_runs, ..self }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::{
        ChartPoint, Comparison, Durability, Experiment, FORMAT, Figures, LatencySummary, Measure, Missing,
        Report, SystemResult, Target,
    };
    use crate::{machine::Machine, statistics::Summary};

    pub(crate) fn example() -> Report {
        let around = |median: f64| Summary { low: median / 2.0, median, high: median * 2.0 };
        let latency = LatencySummary { p50_microseconds: around(8.0), p99_microseconds: around(64.0) };
        let speed = Figures::Speed {
            events_per_second: around(1000.0),
            microseconds_per_event: around(1000.0),
            latency: Some(latency),
        };
        let point =
            ChartPoint { chart: "SQLite".into(), axis: "tasks".into(), series: "es-sqlite".into(), x: 64.0 };
        let memory = Figures::Memory { mebibytes_above_idle: around(4.0) };
        let append = Experiment {
            name: "sqlite append, 64 tasks, 1 event per commit".into(),
            rounds: 3,
            results: vec![SystemResult { system: "es-sqlite".into(), point: Some(point), figures: speed }],
            comparisons: vec![Comparison {
                system: "es-sqlite".into(),
                baseline: Some("bare rusqlite".into()),
                measure: Measure::Speed,
                value: around(12.0),
                target: Some(Target::AtLeast(10.0)),
                is_met: Some(true),
            }],
        };
        let stream = Experiment {
            name: "sqlite stream, memory".into(),
            rounds: 1,
            results: vec![SystemResult { system: "es-sqlite".into(), point: None, figures: memory }],
            comparisons: vec![],
        };
        Report {
            format: FORMAT,
            date: "2026-01-31T12:00:00Z".into(),
            commit: "0123abc".into(),
            earlier_runs: vec![],
            seed: 7,
            is_quick: false,
            machine: Machine {
                processor: "a processor".into(),
                threads: 2,
                memory_mebibytes: Some(1024),
                system: "linux 6".into(),
                load_before: Some(0.5),
                load_after: Some(0.7),
            },
            durability: vec![Durability { datastore: "SQLite".into(), settings: "synchronous=FULL".into() }],
            experiments: vec![append, stream],
            missing: vec![Missing {
                what: "PostgreSQL".into(),
                reason: "left out".into(),
                experiments: vec![],
            }],
        }
    }

    #[test]
    fn the_results_have_the_documented_format() {
        let summary = |median: f64| json!({"low": median / 2.0, "median": median, "high": median * 2.0});
        let expected = json!({
            "format": 2,
            "date": "2026-01-31T12:00:00Z",
            "commit": "0123abc",
            "earlier_runs": [],
            "seed": 7,
            "is_quick": false,
            "machine": {
                "processor": "a processor", "threads": 2, "memory_mebibytes": 1024, "system": "linux 6",
                "load_before": 0.5, "load_after": 0.7,
            },
            "durability": [{"datastore": "SQLite", "settings": "synchronous=FULL"}],
            "experiments": [
                {
                    "name": "sqlite append, 64 tasks, 1 event per commit",
                    "rounds": 3,
                    "results": [{
                        "system": "es-sqlite",
                        "place": {"chart": "SQLite", "axis": "tasks", "series": "es-sqlite", "x": 64.0},
                        "events_per_second": summary(1000.0),
                        "microseconds_per_event": summary(1000.0),
                        "latency": {"p50_microseconds": summary(8.0), "p99_microseconds": summary(64.0)},
                    }],
                    "comparisons": [{
                        "system": "es-sqlite",
                        "beside": "bare rusqlite",
                        "measure": "speed",
                        "value": summary(12.0),
                        "target": {"at_least": 10.0},
                        "is_met": true,
                    }],
                },
                {
                    "name": "sqlite stream, memory",
                    "rounds": 1,
                    "results": [{"system": "es-sqlite", "mebibytes_above_idle": summary(4.0)}],
                    "comparisons": [],
                },
            ],
            "missing": [{"what": "PostgreSQL", "reason": "left out", "experiments": []}],
        });
        assert_eq!(serde_json::to_value(example()).unwrap(), expected);
    }

    #[test]
    fn a_written_report_can_be_read() {
        let written = serde_json::to_value(example()).unwrap();
        let read: Report = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), written);
    }

    #[test]
    fn a_report_replaces_repeated_experiments() {
        let (mut earlier, mut later) = (example(), example());
        later.experiments.truncate(1);
        later.experiments[0].rounds = 99;
        later.missing.clear();
        let names =
            ["sqlite append, 64 tasks, 1 event per commit", "sqlite stream, memory"].map(String::from);
        earlier.missing =
            vec![Missing { what: "a peer".into(), reason: "down".into(), experiments: names.into() }];
        let both = later.add_to(earlier);
        assert_eq!(both.experiments.iter().map(|made| made.rounds).collect::<Vec<_>>(), [99, 1]);
        assert_eq!(both.missing[0].experiments, ["sqlite stream, memory"]);
        assert_eq!(both.durability.len(), 1);
        let mut nothing = example();
        nothing.experiments.clear();
        nothing.date = "later".into();
        assert_eq!(nothing.add_to(example()).date, example().date);
        assert_eq!(
            both.earlier_runs,
            ["2026-01-31T12:00:00Z, commit 0123abc, load average 0.5 before, 0.7 after"]
        );
    }

    #[test]
    fn targets_include_their_bounds() {
        assert!(Target::AtMost(1.2).is_met_by(1.2));
        assert!(!Target::AtMost(1.2).is_met_by(1.21));
        assert!(Target::AtLeast(10.0).is_met_by(10.0));
        assert!(!Target::AtLeast(10.0).is_met_by(9.9));
    }
}
