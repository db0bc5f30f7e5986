//! Charts as inline SVG: lines over a logarithmic axis, bars, and how far from their targets figures are.

use std::{collections::BTreeSet, fmt::Write};

use crate::statistics::Summary;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
const ROW: f64 = 24.0;

/// A line of a chart.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) is_dashed: bool,
    pub(crate) points: Vec<(f64, Summary)>,
}

/// A bar, or a figure beside its target.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: Summary,
    /// What stands behind it.
    pub(crate) label: String,
    pub(crate) class: &'static str,
}

/// The colour of a system, the same in all charts: ours, the bare drivers, the Python library and peers have families.
pub(crate) fn colour(system: &str) -> &'static str {
    let palette = [
        ("parallel", "#7c3aed"),
        ("es-", "#2563eb"),
        ("mapper", "#2563eb"),
        ("spawn_blocking", "#94a3b8"),
        ("pool's defaults", "#94a3b8"),
        ("bare", "#475569"),
        ("serde_json", "#475569"),
        ("Python 9.1", "#f59e0b"),
        ("Python 9.5", "#dc2626"),
        ("evento", "#059669"),
        ("disintegrate", "#0891b2"),
        ("umadb", "#be185d"),
    ];
    // Peers whose names begin like ours.
    if system.starts_with("sqlite-es") || system.starts_with("postgres-es") {
        return "#65a30d";
    }
    palette.into_iter().find(|(part, _)| system.contains(part)).map_or("#64748b", |(_, colour)| colour)
}

/// Text in HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number as people write it: 1.2M, 34k, 560, 7.8.
pub(crate) fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let places = match scaled.abs() {
        size if size >= 99.5 || scaled.fract() == 0.0 => 0,
        size if size >= 9.95 => 1,
        _ => 2,
    };
    format!("{scaled:.places$}{unit}")
}

/// Lines with the quartiles as whiskers; the values on a logarithmic axis, the places evenly spaced.
pub(crate) fn lines(series: &[Series], axis: &str, unit: &str) -> String {
    let places = places(series);
    let summaries = series.iter().flat_map(|series| series.points.iter().map(|(_, summary)| summary));
    let (low, high) = summaries
        .fold((f64::MAX, f64::MIN), |(low, high), summary| (low.min(summary.low), high.max(summary.high)));
    if low <= 0.0 || low > high {
        return String::new();
    }
    let (bottom, top) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
    let x = |place: f64| {
        let index = places.iter().position(|&known| known == place).unwrap_or(0) as f64;
        let gaps = (places.len().max(2) - 1) as f64;
        LEFT + 18.0 + index / gaps * (WIDTH - LEFT - RIGHT - 36.0)
    };
    let y =
        |value: f64| HEIGHT - BOTTOM - (value.log10() - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#);
    for power in bottom as i32..=top as i32 {
        let (value, right) = (10_f64.powi(power), WIDTH - RIGHT);
        let (height, text) = (y(value), short(value));
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{height:.1}" y2="{height:.1}"/><text class="tick" x="{}" y="{:.1}" text-anchor="end">{text}</text>"#,
            LEFT - 8.0,
            height + 4.0
        );
    }
    for &place in &places {
        let _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
            x(place),
            HEIGHT - BOTTOM + 18.0,
            short(place)
        );
    }
    let _ = write!(
        svg,
        r#"<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text><text class="axis" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        escape(axis),
        (HEIGHT - BOTTOM + TOP) / 2.0,
        escape(unit)
    );
    for series in series {
        svg.push_str(&line(series, &x, &y));
    }
    svg + "</svg>"
}

fn places(series: &[Series]) -> Vec<f64> {
    let places: BTreeSet<_> =
        series.iter().flat_map(|series| series.points.iter().map(|(x, _)| x.to_bits())).collect();
    // The bits of numbers that are not negative are in the numbers' order.
    places.into_iter().map(f64::from_bits).collect()
}

fn line(series: &Series, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let colour = colour(&series.name);
    let dashes = if series.is_dashed { r#" stroke-dasharray="5 4""# } else { "" };
    let path: Vec<_> = (series.points.iter())
        .map(|(place, summary)| format!("{:.1},{:.1}", x(*place), y(summary.median)))
        .collect();
    let mut svg =
        format!(r#"<polyline class="line" stroke="{colour}"{dashes} points="{}"/>"#, path.join(" "));
    for (place, Summary { low, median, high }) in &series.points {
        let place_x = x(*place);
        let _ = write!(
            svg,
            r#"<line stroke="{colour}" x1="{place_x:.1}" x2="{place_x:.1}" y1="{:.1}" y2="{:.1}"/><circle fill="{colour}" cx="{place_x:.1}" cy="{:.1}" r="3.5"><title>{}: {} ({} to {})</title></circle>"#,
            y(*low),
            y(*high),
            y(*median),
            escape(&series.name),
            short(*median),
            short(*low),
            short(*high)
        );
    }
    svg
}

/// The systems that colours stand for.
pub(crate) fn legend<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut known = BTreeSet::new();
    let entries = names
        .into_iter()
        .filter(|name| known.insert(name.to_string()))
        .map(|name| format!(r#"<span><i style="background:{}"></i>{}</span>"#, colour(name), escape(name)));
    format!(r#"<p class="legend">{}</p>"#, entries.collect::<String>())
}

/// Bars from zero, with the quartiles as whiskers.
pub(crate) fn bars(rows: &[Row]) -> String {
    const NAME: f64 = 200.0;
    const LABEL: f64 = 130.0;
    let largest = rows.iter().map(|row| row.value.high).fold(f64::MIN_POSITIVE, f64::max);
    let width = |value: f64| value / largest * (WIDTH - NAME - LABEL);
    let height = rows.len() as f64 * ROW + 4.0;
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img">"#);
    for (index, Row { name, value, label, class }) in rows.iter().enumerate() {
        let (middle, colour) = (index as f64 * ROW + ROW / 2.0 + 2.0, colour(name));
        let _ = write!(
            svg,
            r#"<text class="name {class}" x="{}" y="{}" text-anchor="end">{}</text><rect fill="{colour}" x="{NAME}" y="{}" width="{:.1}" height="14" rx="2"/><line class="whisker" x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}"/><text class="label" x="{:.1}" y="{}">{}</text>"#,
            NAME - 8.0,
            middle + 4.0,
            escape(name),
            middle - 7.0,
            width(value.median).max(1.0),
            NAME + width(value.low),
            NAME + width(value.high),
            NAME + width(value.high) + 6.0,
            middle + 4.0,
            escape(label)
        );
    }
    svg + "</svg>"
}

/// How many times better than its target each figure is, on a logarithmic axis: right of the line is reached.
pub(crate) fn targets(rows: &[Row]) -> String {
    const FULL: f64 = 1_140.0;
    const NAME: f64 = 620.0;
    const LABEL: f64 = 150.0;
    const FURTHEST: f64 = 1.5;
    let x = |value: f64| {
        let power = value.max(f64::MIN_POSITIVE).log10().clamp(-FURTHEST, FURTHEST);
        NAME + (power + FURTHEST) / (2.0 * FURTHEST) * (FULL - NAME - LABEL)
    };
    let height = rows.len() as f64 * ROW + 22.0;
    let mut svg = format!(r#"<svg viewBox="0 0 {FULL} {height}" role="img">"#);
    for power in [0.1, 0.3, 1.0, 3.0, 10.0] {
        let class = if power == 1.0 { "goal" } else { "grid" };
        let _ = write!(
            svg,
            r#"<line class="{class}" x1="{0:.1}" x2="{0:.1}" y1="16" y2="{height}"/><text class="tick" x="{0:.1}" y="11" text-anchor="middle">{1}</text>"#,
            x(power),
            if power == 1.0 { "target".to_owned() } else { format!("× {power}") }
        );
    }
    for (index, Row { name, value, label, class }) in rows.iter().enumerate() {
        let middle = index as f64 * ROW + ROW / 2.0 + 18.0;
        let _ = write!(
            svg,
            r#"<text class="name" x="{}" y="{}" text-anchor="end">{}</text><line class="spread {class}" x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}"/><circle class="dot {class}" cx="{:.1}" cy="{middle}" r="5"/><text class="label" x="{}" y="{}">{}</text>"#,
            NAME - 10.0,
            middle + 4.0,
            escape(name),
            x(value.low),
            x(value.high),
            x(value.median),
            FULL - LABEL + 12.0,
            middle + 4.0,
            escape(label)
        );
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::{Row, Series, bars, escape, lines, short, targets};
    use crate::statistics::Summary;

    fn around(median: f64) -> Summary {
        Summary { low: median / 2.0, median, high: median * 2.0 }
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.5, 7.25, 12.34, 560.0, 34_000.0, 1_234_567.0].map(short);
        assert_eq!(written, ["0.50", "7.25", "12.3", "560", "34k", "1.23M"]);
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape(r#"<a href="x">&"#), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }

    #[test]
    fn a_higher_figure_stands_higher() {
        let points = vec![(1.0, around(100.0)), (64.0, around(10_000.0))];
        let svg =
            lines(&[Series { name: "es-sqlite".into(), is_dashed: false, points }], "tasks", "events/s");
        let heights: Vec<f64> = (svg.match_indices(r#"cy=""#))
            .map(|(at, found)| svg[at + found.len()..].split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(heights.len(), 2);
        assert!(heights[0] > heights[1], "the axis of SVG points down");
    }

    #[test]
    fn nothing_to_draw_is_an_empty_chart() {
        assert_eq!(lines(&[], "tasks", "events/s"), "");
    }

    #[test]
    fn every_row_is_drawn() {
        let row = |name: &str| Row { name: name.into(), value: around(3.0), label: "3".into(), class: "" };
        assert_eq!(bars(&[row("one"), row("two")]).matches("<rect").count(), 2);
        assert_eq!(targets(&[row("one"), row("two")]).matches("<circle").count(), 2);
    }
}
