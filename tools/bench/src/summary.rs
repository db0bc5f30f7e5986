//! The results as a page of the repository, `docs/benchmarks.md`: the headlines, and the reasons for missed
//! targets.

use std::fmt::{self, Display, Formatter};

use crate::{
    report::{Comparison, Experiment, Figures, Measure, Report},
    statistics::Summary,
    systems::python::{PYTHON_9_1, PYTHON_9_5},
    table::{Ratio, bound, short},
};

/// Headings, and for each table the beginning and a part of the names of its experiments.
const TABLES: [(&str, &[(&str, &str)]); 6] = [
    ("Append, one task", &[("SQLite", "1 task,"), ("PostgreSQL", "1 task,")]),
    ("Append, several tasks and processes", &[("SQLite insert", " tasks"), ("PostgreSQL insert", " tasks")]),
    ("Load an aggregate", &[("SQLite load", ""), ("SQLite :memory: load", ""), ("PostgreSQL load", "")]),
    (
        "Read and follow the log",
        &[("", "page through"), ("", "stream 1"), ("", "catch up with"), ("", "processor, catching up")],
    ),
    (
        "Mapper and memory",
        &[("mapper encode, JSON + zlib", ""), ("mapper decode, JSON + zlib", ""), ("popo insert", "")],
    ),
    ("Growth", &[("", "insert, 1 task, 1 per"), ("", "64 tasks"), ("", "load, 10 events")]),
];

/// The page. `notes` has a line with the reason for each missed target, "- `beginning of its name` reason",
/// followed by sections that are copied unchanged.
pub(crate) struct Page<'a> {
    pub(crate) report: &'a Report,
    pub(crate) notes: &'a str,
    /// The file with all figures, relative to the directory of this page.
    pub(crate) details: &'a str,
    /// The files with plots, and their titles.
    pub(crate) plots: &'a [(String, &'a str)],
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { report, notes, details, plots } = self;
        let machine = &report.machine;
        let memory = machine.memory_mebibytes.map_or(String::new(), |memory| format!(", {memory} MiB"));
        writeln!(
            f,
            "# Benchmarks\n\nWritten by `cargo xtask bench --write-results`; do not edit. [All figures]({details}).\n\n\
             {}, {} threads{memory}, {}. Last run: {}.{}\n\n\
             Systems take turns with the same work, round by round. Events/s are medians; the other columns are the\n\
             work of this library relative to another system's in the same time (more is better), the median of the\n\
             rounds with its quartiles. \"Bare\" is the driver alone. Commits are durable.\n",
            machine.processor,
            machine.threads,
            machine.system,
            machine.run(&report.date, &report.commit),
            match report.earlier_runs.len() {
                0 => String::new(),
                runs => format!(" Experiments that it did not repeat are from {runs} earlier runs."),
            },
        )?;
        for (file, title) in *plots {
            writeln!(f, "![{title}]({file})\n")?;
        }
        for (heading, names) in TABLES {
            write_table(f, report, heading, names)?;
        }
        let (reasons, rest) = notes.split_once("\n## ").unwrap_or((notes, ""));
        write_missed(f, report, reasons)?;
        if rest.is_empty() { Ok(()) } else { writeln!(f, "\n## {}", rest.trim_end()) }
    }
}

fn write_table(f: &mut Formatter<'_>, report: &Report, heading: &str, names: &[(&str, &str)]) -> fmt::Result {
    let is_growth = heading == "Growth";
    let is_of_table = |experiment: &&Experiment| {
        let name = &experiment.name;
        name.contains("growth") == is_growth
            && names.iter().any(|(beginning, part)| name.starts_with(beginning) && name.contains(part))
    };
    let experiments: Vec<_> = report.experiments.iter().filter(is_of_table).collect();
    if experiments.is_empty() {
        return Ok(());
    }
    let others = if is_growth { ["empty table", "bare", ""] } else { ["bare", PYTHON_9_1, PYTHON_9_5] };
    writeln!(f, "## {heading}\n\n| | events/s | {} | {} | {} |", others[0], others[1], others[2])?;
    writeln!(f, "|---|---:|---:|---:|---:|")?;
    for experiment in experiments {
        let speed = match experiment.results.first().map(|result| &result.figures) {
            Some(Figures::Speed { events_per_second, .. }) => short(events_per_second.median),
            _ => String::new(),
        };
        let cells = others.map(|other| ratio(experiment, other));
        writeln!(f, "| {} | {speed} | {} | {} | {} |", experiment.name, cells[0], cells[1], cells[2])?;
    }
    writeln!(f)
}

/// Returns the work of the first system relative to that of the other one.
fn ratio(experiment: &Experiment, other: &str) -> String {
    let is_other = |baseline: &str| match other {
        "" => false,
        "bare" => ["bare", "serde_json", "paging"].iter().any(|bare| baseline.starts_with(bare)),
        "empty table" => baseline.ends_with("none stored"),
        name => baseline == name,
    };
    let ours = experiment.results.first().map(|result| result.system.as_str());
    let found = experiment.comparisons.iter().find(|one| {
        Some(one.system.as_str()) == ours
            && one.baseline.as_deref().is_some_and(is_other)
            && matches!(one.measure, Measure::Time | Measure::Speed)
    });
    found.map_or(String::new(), |one| {
        let Summary { low, median, high } = one.value;
        let work = match one.measure {
            Measure::Time => Summary { low: 1.0 / high, median: 1.0 / median, high: 1.0 / low },
            _ => one.value,
        };
        Ratio(&work).to_string()
    })
}

fn write_missed(f: &mut Formatter<'_>, report: &Report, reasons: &str) -> fmt::Result {
    let judged: Vec<_> =
        report.experiments.iter().flat_map(|one| &one.comparisons).filter_map(|one| one.is_met).collect();
    let met = judged.iter().filter(|is_met| **is_met).count();
    writeln!(f, "## Missed targets\n\n{met} of {} targets are met.\n", judged.len())?;
    for experiment in &report.experiments {
        let missed = experiment.comparisons.iter().filter(|one| one.is_met == Some(false));
        let missed: Vec<_> = missed.map(missed_target).collect();
        if !missed.is_empty() {
            let name = &experiment.name;
            writeln!(f, "- {name}: {}. {}", missed.join("; "), reason(reasons, name))?;
        }
    }
    Ok(())
}

fn missed_target(comparison: &Comparison) -> String {
    let measure = match comparison.measure {
        Measure::Time => "time of ",
        Measure::Speed => "work of ",
        _ => "",
    };
    let target = comparison.target.map(bound).unwrap_or_default();
    format!("{measure}{} {}, target {target}", comparison.baseline_name(), Ratio(&comparison.value))
}

/// Returns the reason with the longest matching beginning of the name.
fn reason<'a>(reasons: &'a str, name: &str) -> &'a str {
    let reasons = reasons.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("` "));
    let of_name = reasons.filter(|(beginning, _)| name.starts_with(beginning));
    of_name.max_by_key(|(beginning, _)| beginning.len()).map_or("Not examined.", |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::{Page, reason};
    use crate::report::tests::example;

    #[test]
    fn the_page_has_headlines_and_reasons_for_missed_targets() {
        let mut report = example();
        report.experiments[0].name = "SQLite insert, 64 tasks, 1 × 200 B per commit".into();
        report.experiments[0].comparisons[0].is_met = Some(false);
        let notes = "- `SQLite insert` The disk.\n\n## Rejected\n\nA larger group.\n";
        let plots = [("benchmarks/throughput.svg".to_owned(), "throughput")];
        let page =
            Page { report: &report, notes, details: "benchmarks/2026-01-31.md", plots: &plots }.to_string();
        for part in [
            "| SQLite insert, 64 tasks, 1 × 200 B per commit | 1k | 12.00 (6.00–24.00) |  |  |",
            "- SQLite insert, 64 tasks, 1 × 200 B per commit: work of bare rusqlite 12.00 (6.00–24.00), target ≥ 10. The disk.",
            "0 of 1 targets are met",
            "![throughput](benchmarks/throughput.svg)",
            "## Rejected\n\nA larger group.",
        ] {
            assert!(page.contains(part), "{part:?} is missing in {page}");
        }
        assert!(!page.contains("## Growth"), "{page}");
    }

    #[test]
    fn the_longest_beginning_has_the_reason() {
        let reasons = "- `SQLite` One.\n- `SQLite load` Two.\n";
        assert_eq!(reason(reasons, "SQLite load, 10 events"), "Two.");
        assert_eq!(reason(reasons, "SQLite page"), "One.");
        assert_eq!(reason(reasons, "PostgreSQL"), "Not examined.");
    }
}
