//! Medians and their spread, which summarize many rounds.

use serde::{Deserialize, Serialize};

/// The median of some figures, with the quartiles as its spread.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Summary {
    /// The first quartile.
    pub(crate) low: f64,
    pub(crate) median: f64,
    /// The third quartile.
    pub(crate) high: f64,
}

impl Summary {
    /// Returns the summary of figures in any order, or `None` if there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Some(Self {
            low: quantile(&figures, 0.25)?,
            median: quantile(&figures, 0.5)?,
            high: quantile(&figures, 0.75)?,
        })
    }
}

/// Returns the value below which a `fraction` of the sorted figures lies, interpolated between its
/// neighbours.
pub(crate) fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = fraction.clamp(0.0, 1.0) * last as f64;
    let below = sorted.get(position.floor() as usize)?;
    let above = sorted.get(position.ceil() as usize)?;
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::{Summary, quantile};

    #[test]
    fn an_empty_set_has_no_median() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn one_figure_is_its_own_summary() {
        assert_eq!(Summary::of([7.0]), Some(Summary { low: 7.0, median: 7.0, high: 7.0 }));
    }

    #[test]
    fn the_order_of_figures_does_not_matter() {
        let summary = Summary::of([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(summary, Some(Summary { low: 2.0, median: 3.0, high: 4.0 }));
    }

    #[test]
    fn an_outlier_does_not_move_the_median() {
        let summary = Summary::of([1.0, 2.0, 3.0, 4.0, 1e9]).unwrap();
        assert_eq!(summary.median, 3.0);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[10.0, 20.0], 0.5), Some(15.0));
        assert_eq!(quantile(&[0.0, 10.0, 20.0, 30.0, 40.0], 0.99), Some(39.6));
    }

    #[test]
    fn the_ends_are_the_least_and_the_greatest() {
        let sorted = [1.0, 2.0, 9.0];
        assert_eq!(quantile(&sorted, 0.0), Some(1.0));
        assert_eq!(quantile(&sorted, 1.0), Some(9.0));
        assert_eq!(quantile(&sorted, 1.5), Some(9.0), "beyond the end is the end");
    }
}
