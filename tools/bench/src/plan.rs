//! Plans of experiments: the systems to compare, and the targets.

use crate::{
    report::{ChartPoint, Measure, Target},
    systems::program::Program,
};

/// The plan of an experiment.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) rounds: usize,
    pub(crate) comparisons: Vec<PlannedComparison>,
    /// The subject of the next comparisons; the first system if absent.
    subject: Option<String>,
    points: ChartPoints,
}

/// Returns the chart point of a system's result, by the system's name.
type ChartPoints = Box<dyn Fn(&str) -> Option<ChartPoint>>;

/// A comparison of a system with a baseline: another system, or a fixed bound.
#[derive(Clone, Debug)]
pub(crate) struct PlannedComparison {
    /// The system that is compared; the first system if absent.
    pub(crate) subject: Option<String>,
    /// The other system; absent where a figure is compared with a fixed bound.
    pub(crate) baseline: Option<String>,
    pub(crate) measure: Measure,
    pub(crate) target: Option<Target>,
}

impl Plan {
    /// Creates a plan of so many rounds (one in a quick run), after one to warm up.
    pub(crate) fn new(name: impl Into<String>, rounds: usize) -> Self {
        Self { name: name.into(), rounds, comparisons: Vec::new(), subject: None, points: Box::new(|_| None) }
    }

    /// Sets the subject of the following comparisons, instead of the first system.
    pub(crate) fn subject(self, subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..self }
    }

    /// Compares the first system with this one.
    pub(crate) fn compare(self, baseline: &str, measure: Measure) -> Self {
        self.add(Some(baseline), measure, None)
    }

    /// Requires that the first system does the work within `times` the time of this one.
    pub(crate) fn within(self, times: f64, baseline: &str) -> Self {
        self.add(Some(baseline), Measure::Time, Some(Target::AtMost(times)))
    }

    /// Requires that the first system does at least `times` the work of this one in the same time.
    pub(crate) fn faster(self, times: f64, baseline: &str) -> Self {
        self.add(Some(baseline), Measure::Speed, Some(Target::AtLeast(times)))
    }

    /// Requires that the slowest calls of the first system are no slower than those of this one.
    pub(crate) fn p99_within(self, baseline: &str) -> Self {
        self.add(Some(baseline), Measure::P99, Some(Target::AtMost(1.0)))
    }

    /// Requires that 99 of 100 calls take less than so many milliseconds.
    pub(crate) fn p99_milliseconds(self, milliseconds: f64) -> Self {
        self.add(None, Measure::P99Milliseconds, Some(Target::AtMost(milliseconds)))
    }

    /// Requires that half of the calls of the first system take less than so many milliseconds.
    pub(crate) fn median_milliseconds(self, milliseconds: f64) -> Self {
        self.add(None, Measure::Median, Some(Target::AtMost(milliseconds)))
    }

    /// Requires that the first system takes no more than so many MiB above idle.
    pub(crate) fn memory_within(self, mebibytes: f64) -> Self {
        self.add(None, Measure::Memory, Some(Target::AtMost(mebibytes)))
    }

    /// Requires that the first system is faster than the libraries that a user would choose instead.
    pub(crate) fn ahead_of(self, peers: &[Program]) -> Self {
        let plan = Self { subject: None, ..self };
        peers.iter().fold(plan, |plan, peer| plan.faster(1.0, peer.name()))
    }

    /// Makes the results points of a chart, each in the series of its system, at `x`.
    pub(crate) fn at(self, chart: &str, axis: &str, x: f64) -> Self {
        let (chart, axis) = (chart.to_owned(), axis.to_owned());
        self.chart_points(move |system| {
            Some(ChartPoint { chart: chart.clone(), axis: axis.clone(), series: system.to_owned(), x })
        })
    }

    /// Makes the results points of charts; the function returns the point for a system's name.
    pub(crate) fn chart_points(mut self, points: impl Fn(&str) -> Option<ChartPoint> + 'static) -> Self {
        self.points = Box::new(points);
        self
    }

    pub(crate) fn point(&self, system: &str) -> Option<ChartPoint> {
        (self.points)(system)
    }

    fn add(mut self, baseline: Option<&str>, measure: Measure, target: Option<Target>) -> Self {
        let (subject, baseline) = (self.subject.clone(), baseline.map(str::to_owned));
        self.comparisons.push(PlannedComparison { subject, baseline, measure, target });
        self
    }
}
