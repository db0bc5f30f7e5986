//! The plot of `docs/scale.md`.

use std::fmt::Display;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{Cost, Measurements};
use crate::table::short;

const SIZE: (u32, u32) = (1200, 420);
const PANELS: [(Cost, &str); 3] = [
    (Cost::AppendLog, "Bytes of the write-ahead log per append"),
    (Cost::AppendReads, "PostgreSQL: pages not in its cache, per append"),
    (Cost::LoadPages, "PostgreSQL: pages per load of 10 events"),
];

/// Draws costs by the number of stored events, as SVG.
pub(super) fn draw(measurements: &Measurements) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let failed = |error: &dyn Display| anyhow!("a plot cannot be drawn: {error}");
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    for (area, (cost, title)) in root.split_evenly((1, PANELS.len())).iter().zip(PANELS) {
        draw_panel(area, measurements, cost, title).map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))?;
    drop(root);
    Ok(svg)
}

fn draw_panel<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    measurements: &Measurements,
    cost: Cost,
    title: &str,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let lines: Vec<_> = measurements
        .logs()
        .iter()
        .map(|log| {
            let point = |value: f64, stored: usize| (stored as f64, value);
            let points = log.iter().filter_map(|sample| Some(point(sample.cost(cost)?, sample.stored)));
            (format!("{}, {}", log[0].backend, log[0].ids.name()), points.collect::<Vec<_>>())
        })
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let points = || lines.iter().flat_map(|(_, points)| points);
    let (least, most) = points()
        .fold((f64::MAX, 0.0_f64), |(least, most), (stored, _)| (least.min(*stored), most.max(*stored)));
    let highest = points().fold(0.0_f64, |highest, (_, value)| highest.max(*value));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(55)
        .build_cartesian_2d((least..most).log_scale(), 0.0..highest.max(0.01) * 1.4)?;
    let label = |value: &f64| short(*value);
    chart
        .configure_mesh()
        .x_desc("events stored")
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()
}
