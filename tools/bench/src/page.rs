//! What came of it, as one self-contained page for a browser: `report.html`.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use crate::{
    chart::{self, Row, Series, escape, short},
    report::{Comparison, Experiment, Figures, LatencySummary, Report, SystemResult, Target},
    statistics::Summary,
    table::{Sentence, places},
};

const STYLE: &str = include_str!("page.css");

/// The page.
pub(crate) struct Page<'a>(pub(crate) &'a Report);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let title = "What event persistence costs";
        write!(
            f,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><main>"
        )?;
        write!(f, "<header><h1>{title}</h1>{}</header>", circumstances(report))?;
        write!(f, "{}", targets(report))?;
        for (heading, charts) in charts(report) {
            write!(f, "<section><h2>{heading}</h2><div class=\"cards\">{charts}</div></section>")?;
        }
        for (heading, prefix) in GROUPS {
            write!(f, "{}", group(report, heading, prefix))?;
        }
        write!(f, "{}</main></body></html>", missing(report))
    }
}

/// Experiments by the beginning of their names.
const GROUPS: [(&str, &str); 4] =
    [("Mapper", "mapper"), ("In memory", "popo"), ("SQLite", "SQLite"), ("PostgreSQL", "PostgreSQL")];

fn circumstances(report: &Report) -> String {
    let machine = &report.machine;
    let memory = machine.memory_mebibytes.map_or(String::new(), |memory| format!(", {memory} MiB"));
    let note = if report.is_quick {
        "<p class=\"warning\">A quick run: every workload once, nothing to quote.</p>"
    } else {
        ""
    };
    let settings: String = (report.durability.iter())
        .map(|one| format!("<dt>{}</dt><dd>{}</dd>", escape(&one.datastore), escape(&one.settings)))
        .collect();
    let earlier: String = report.earlier_runs.iter().map(|run| format!("<li>{}</li>", escape(run))).collect();
    format!(
        "<p>{}<br>{}, {} threads{memory}, {}; seed {:#x}</p>{note}\
         <p>Medians, with the quartiles as whiskers. Systems took turns with the same work, so that figures of one \
         experiment can be compared with each other, and those of different ones cannot.</p>\
         <details><summary>What a commit means in each system</summary><dl>{settings}</dl></details>\
         <details><summary>Earlier runs that experiments were kept of</summary><ul>{earlier}</ul></details>",
        escape(&machine.run(&report.date, &report.commit)),
        escape(&machine.processor),
        machine.threads,
        escape(&machine.system),
        report.seed,
    )
}

fn targets(report: &Report) -> String {
    let rows: Vec<_> = (report.experiments.iter())
        .flat_map(|experiment| experiment.comparisons.iter().map(move |one| (experiment, one)))
        .filter_map(|(experiment, comparison)| target_row(experiment, comparison))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let met = rows.iter().filter(|row| row.class == "met").count();
    let of = rows.iter().filter(|row| !row.class.is_empty()).count();
    let verdict = if of == 0 { String::new() } else { format!(": {met} of {of} reached") };
    format!(
        "<section><h2>Targets{verdict}</h2><div class=\"card wide\">{}</div></section>",
        chart::targets(&rows)
    )
}

fn target_row(experiment: &Experiment, comparison: &Comparison) -> Option<Row> {
    let target = comparison.target?;
    let Summary { low, median, high } = comparison.value;
    let (value, bound) = match target {
        Target::AtLeast(bound) => {
            (Summary { low: low / bound, median: median / bound, high: high / bound }, format!("≥ {bound}"))
        }
        Target::AtMost(bound) => {
            (Summary { low: bound / high, median: bound / median, high: bound / low }, format!("≤ {bound}"))
        }
    };
    let class = match comparison.is_met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    };
    Some(Row {
        name: format!("{} — {}", experiment.name, comparison.beside_what()),
        value,
        label: format!("{:.2} ({bound})", comparison.value.median),
        class,
    })
}

/// Sections of charts of several experiments each: what they show, and the charts.
fn charts(report: &Report) -> impl Iterator<Item = (&'static str, String)> {
    let mut by_name: BTreeMap<&str, Vec<&SystemResult>> = BTreeMap::new();
    for result in report.experiments.iter().flat_map(|experiment| &experiment.results) {
        if let Some(place) = &result.place {
            by_name.entry(&place.chart).or_default().push(result);
        }
    }
    let section = |is_growth: bool| {
        (by_name.iter())
            .filter(|(name, _)| name.contains("growth") == is_growth)
            .map(|(name, results)| line_charts(name, results, is_growth))
            .collect::<String>()
    };
    [("Throughput and latency by concurrency", section(false)), ("Growth", section(true))]
        .into_iter()
        .filter(|(_, charts)| !charts.is_empty())
}

fn line_charts(name: &str, results: &[&SystemResult], is_growth: bool) -> String {
    let axis = results.iter().find_map(|result| result.place.as_ref()).map_or("", |place| &place.axis);
    let throughput = series(results, false, |speed, _| Some(*speed));
    let names: Vec<_> = throughput.iter().map(|series| series.name.clone()).collect();
    let legend = chart::legend(names.iter().map(String::as_str));
    let mut html =
        card(name, "events/s", &format!("{}{legend}", chart::lines(&throughput, axis, "events/s")));
    let mut latencies = series(results, false, |_, latency| latency.map(|latency| latency.p50_microseconds));
    latencies.extend(series(results, true, |_, latency| latency.map(|latency| latency.p99_microseconds)));
    if !is_growth && latencies.iter().any(|series| !series.points.is_empty()) {
        let chart = chart::lines(&latencies, axis, "µs per call");
        html += &card(name, "p50 (solid) and p99 (dashed) of a call", &format!("{chart}{legend}"));
    }
    html
}

/// A line for each system, through what is taken from its results.
fn series(
    results: &[&SystemResult],
    is_dashed: bool,
    take: impl Fn(&Summary, Option<&LatencySummary>) -> Option<Summary>,
) -> Vec<Series> {
    let mut lines: Vec<Series> = Vec::new();
    for result in results {
        let Some(place) = &result.place else { continue };
        let Figures::Speed { events_per_second, latency, .. } = &result.figures else { continue };
        let Some(summary) = take(events_per_second, latency.as_ref()) else { continue };
        let known = lines.iter().position(|line| line.name == place.series);
        let index = known.unwrap_or(lines.len());
        if known.is_none() {
            lines.push(Series { name: place.series.clone(), is_dashed, points: Vec::new() });
        }
        if let Some(line) = lines.get_mut(index) {
            line.points.push((place.x, summary));
        }
    }
    for line in &mut lines {
        line.points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }
    lines
}

fn group(report: &Report, heading: &str, prefix: &str) -> String {
    let experiments: String = (report.experiments.iter())
        .filter(|experiment| experiment.name.starts_with(prefix) && !experiment.name.contains("growth"))
        .map(bars)
        .collect();
    if experiments.is_empty() {
        return String::new();
    }
    format!("<section><h2>{heading}</h2><div class=\"cards\">{experiments}</div></section>")
}

fn bars(experiment: &Experiment) -> String {
    let rows: Vec<_> = experiment.results.iter().map(bar).collect();
    let comparisons: String = (experiment.comparisons.iter())
        .map(|one| format!("<li>{}</li>", escape(&Sentence(one).to_string())))
        .collect();
    let plural = if experiment.rounds == 1 { "" } else { "s" };
    let unit = match experiment.results.first().map(|result| &result.figures) {
        Some(Figures::Memory { .. }) => "MiB above idle, less is better",
        _ => "events/s",
    };
    let subtitle = format!("{unit}, {} round{plural}", experiment.rounds);
    card(&experiment.name, &subtitle, &format!("{}<ul>{comparisons}</ul>", chart::bars(&rows)))
}

fn bar(result: &SystemResult) -> Row {
    let (value, label) = match &result.figures {
        Figures::Memory { mebibytes_above_idle } => {
            (*mebibytes_above_idle, format!("{} MiB", short(mebibytes_above_idle.median)))
        }
        Figures::Speed { events_per_second, latency, .. } => {
            let latency = latency.map_or(String::new(), |latency| {
                format!(", p99 {} µs", short(latency.p99_microseconds.median))
            });
            (*events_per_second, format!("{}{latency}", short(events_per_second.median)))
        }
    };
    Row { name: result.system.clone(), value, label, class: "" }
}

fn card(title: &str, subtitle: &str, content: &str) -> String {
    format!(
        "<div class=\"card\"><h3>{}</h3><p class=\"subtitle\">{}</p>{content}</div>",
        escape(title),
        escape(subtitle)
    )
}

fn missing(report: &Report) -> String {
    let entries: String = (report.missing.iter())
        .map(|one| {
            let what = escape(&one.what);
            format!("<dt>{what}{}</dt><dd>{}</dd>", escape(&places(one)), escape(&one.reason))
        })
        .collect();
    if entries.is_empty() {
        return String::new();
    }
    format!("<section><h2>Not measured</h2><dl>{entries}</dl></section>")
}

#[cfg(test)]
mod tests {
    use super::Page;
    use crate::report::tests::example;

    #[test]
    fn the_page_is_one_file_with_everything() {
        let page = Page(&example()).to_string();
        for part in ["1 of 1 reached", "bare rusqlite", "left out", "synchronous=FULL", "p50 (solid)", "<svg"]
        {
            assert!(page.contains(part), "{part} is missing");
        }
        for outside in ["src=", "http://", "https://", "<script"] {
            assert!(!page.contains(outside), "{outside} is not of this file");
        }
    }
}
