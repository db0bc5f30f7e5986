//! Plans of experiments: the systems to compare, and the targets.

use crate::report::{Measure, Place, Target};

/// The plan of an experiment.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) rounds: usize,
    pub(crate) besides: Vec<Beside>,
    /// The contestant that the next comparisons are about; the first one if absent.
    subject: Option<String>,
    place: Placing,
}

/// The place of a contestant's result, by its name.
type Placing = Box<dyn Fn(&str) -> Option<Place>>;

/// A comparison of a contestant with another system or with a fixed bound.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    /// The system that is compared; the first contestant if absent.
    pub(crate) subject: Option<String>,
    /// The other system; absent where a figure is compared with a fixed bound.
    pub(crate) other: Option<String>,
    pub(crate) measure: Measure,
    pub(crate) target: Option<Target>,
}

impl Plan {
    /// Creates a plan of so many rounds (one in a quick run), after one to warm up.
    pub(crate) fn new(name: impl Into<String>, rounds: usize) -> Self {
        Self { name: name.into(), rounds, besides: Vec::new(), subject: None, place: Box::new(|_| None) }
    }

    /// Sets the contestant that the following comparisons are about, instead of the first one.
    pub(crate) fn of(self, subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..self }
    }

    /// Compares the first contestant with this one.
    pub(crate) fn beside(self, other: &str, measure: Measure) -> Self {
        self.compared(Some(other), measure, None)
    }

    /// Requires that the first contestant does the work within `times` the time of this one.
    pub(crate) fn within(self, times: f64, other: &str) -> Self {
        self.compared(Some(other), Measure::Time, Some(Target::AtMost(times)))
    }

    /// Requires that the first contestant does at least `times` the work of this one in the same time.
    pub(crate) fn faster(self, times: f64, other: &str) -> Self {
        self.compared(Some(other), Measure::Speed, Some(Target::AtLeast(times)))
    }

    /// Requires that the slowest calls of the first contestant are no slower than those of this one.
    pub(crate) fn steadier(self, other: &str) -> Self {
        self.compared(Some(other), Measure::P99, Some(Target::AtMost(1.0)))
    }

    /// Requires that 99 of 100 calls take less than so many milliseconds.
    pub(crate) fn bounded(self, milliseconds: f64) -> Self {
        self.compared(None, Measure::P99Milliseconds, Some(Target::AtMost(milliseconds)))
    }

    /// Requires that half of the calls of the first contestant take less than so many milliseconds.
    pub(crate) fn prompt(self, milliseconds: f64) -> Self {
        self.compared(None, Measure::Median, Some(Target::AtMost(milliseconds)))
    }

    /// Requires that the first contestant takes no more than so many MiB above idle.
    pub(crate) fn lighter(self, mebibytes: f64) -> Self {
        self.compared(None, Measure::Memory, Some(Target::AtMost(mebibytes)))
    }

    /// Makes the results points of a chart, each in the series of its system, at `x`.
    pub(crate) fn at(self, chart: &str, axis: &str, x: f64) -> Self {
        let (chart, axis) = (chart.to_owned(), axis.to_owned());
        self.placed(move |system| {
            Some(Place { chart: chart.clone(), axis: axis.clone(), series: system.to_owned(), x })
        })
    }

    /// Makes the results points of charts, at the place that the function returns for a contestant's name.
    pub(crate) fn placed(mut self, place: impl Fn(&str) -> Option<Place> + 'static) -> Self {
        self.place = Box::new(place);
        self
    }

    pub(crate) fn place(&self, system: &str) -> Option<Place> {
        (self.place)(system)
    }

    fn compared(mut self, other: Option<&str>, measure: Measure, target: Option<Target>) -> Self {
        let (subject, other) = (self.subject.clone(), other.map(str::to_owned));
        self.besides.push(Beside { subject, other, measure, target });
        self
    }
}
