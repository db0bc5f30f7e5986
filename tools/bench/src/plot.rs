//! Plots of the page of the repository, as SVG.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::{
    report::{Figures, Report, SystemResult},
    table::short,
};

const SIZE: (u32, u32) = (1200, 480);

/// The figure of a result that a plot shows; absent where it was not measured.
type Figure = fn(&Figures) -> Option<f64>;

pub(crate) fn events_per_second(figures: &Figures) -> Option<f64> {
    match figures {
        Figures::Speed { events_per_second, .. } => Some(events_per_second.median),
        Figures::Memory { .. } => None,
    }
}

pub(crate) fn p99_milliseconds(figures: &Figures) -> Option<f64> {
    match figures {
        Figures::Speed { latency: Some(latency), .. } => Some(latency.p99_microseconds.median / 1e3),
        _ => None,
    }
}

/// Draws one panel for each chart whose name ends with `charts`. Returns `None` if there are no such charts.
pub(crate) fn draw(report: &Report, charts: &str, unit: &str, figure: Figure) -> Result<Option<String>> {
    let mut panels: BTreeMap<&str, Lines<'_>> = BTreeMap::new();
    for result in report.experiments.iter().flat_map(|experiment| &experiment.results) {
        let Some(point) = result.point.as_ref().filter(|point| point.chart.ends_with(charts)) else {
            continue;
        };
        panels.entry(&point.chart).or_default().add(result, figure);
    }
    panels.retain(|_, lines| !lines.0.is_empty());
    if panels.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("a plot cannot be drawn: {error}");
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    for (area, (name, lines)) in root.split_evenly((1, panels.len())).iter().zip(&panels) {
        draw_panel(area, name, unit, lines).map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))?;
    drop(root);
    Ok(Some(svg))
}

/// The points of each system, in the order of the results.
#[derive(Default)]
struct Lines<'a>(Vec<(&'a str, Vec<(f64, f64)>)>);

impl<'a> Lines<'a> {
    fn add(&mut self, result: &'a SystemResult, figure: Figure) {
        let Some((point, value)) = result.point.as_ref().zip(figure(&result.figures)) else { return };
        match self.0.iter_mut().find(|(series, _)| *series == point.series) {
            Some((_, points)) => points.push((point.x, value)),
            None => self.0.push((&point.series, vec![(point.x, value)])),
        }
    }

    /// Returns the least and the greatest of a coordinate, with a margin on a logarithmic axis.
    fn span(&self, coordinate: impl Fn(&(f64, f64)) -> f64, room: f64) -> std::ops::Range<f64> {
        let values = self.0.iter().flat_map(|(_, points)| points).map(coordinate);
        let (low, high) =
            values.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        low / room..high * room
    }
}

fn draw_panel<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    name: &str,
    unit: &str,
    lines: &Lines<'_>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let (x, y) = (lines.span(|point| point.0, 1.0), lines.span(|point| point.1, 1.5));
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    let label = |value: &f64| short(*value);
    chart
        .configure_mesh()
        .x_desc("tasks")
        .y_desc(unit)
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, (series, points)) in lines.0.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
            .label(*series)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()
}

#[cfg(test)]
mod tests {
    use super::{draw, events_per_second};
    use crate::report::tests::example;

    #[test]
    fn a_plot_has_a_line_for_each_system_of_its_charts() {
        let svg = draw(&example(), "QLite", "events/s", events_per_second).unwrap().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("es-sqlite"), "{svg}");
        assert!(draw(&example(), "absent", "events/s", events_per_second).unwrap().is_none());
    }
}
