//! All figures of a run, as a page of the repository: `docs/benchmarks/<date>.md`.

use std::fmt::{self, Display, Formatter};

use crate::{
    report::{Experiment, Figures, Measure, Report},
    table::{bound, places, short, verdict},
};

/// The page.
pub(crate) struct Details<'a>(pub(crate) &'a Report);

impl Display for Details<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let machine = &report.machine;
        let memory = machine.memory_mebibytes.map_or(String::new(), |memory| format!(", {memory} MiB"));
        writeln!(f, "# All figures of {}\n", report.day())?;
        writeln!(
            f,
            "Written by `cargo xtask bench --write-results`; do not edit. Systems took turns with the same work, round \
             by round, so that the figures of one experiment can be compared with each other; those of different \
             experiments, machines or days cannot. Medians, with the quartiles in brackets; all commits are durable, by \
             the defaults of each system unless said otherwise.\n"
        )?;
        writeln!(
            f,
            "- Machine: {}, {} threads{memory}, {}",
            machine.processor, machine.threads, machine.system
        )?;
        for run in &report.earlier_runs {
            writeln!(f, "- Run: {run}")?;
        }
        writeln!(f, "- Run: {}", machine.run(&report.date, &report.commit))?;
        writeln!(
            f,
            "- A load average above 1 before a run means that other processes used the machine as well"
        )?;
        writeln!(f, "- Events are made from the seed {:#x}", report.seed)?;
        writeln!(f)?;
        write_targets(f, report)?;
        writeln!(f, "\n## All figures\n")?;
        report.experiments.iter().try_for_each(|experiment| write_experiment(f, experiment))?;
        writeln!(f, "## Durability settings\n")?;
        for one in &report.durability {
            writeln!(f, "- {}: {}", one.datastore, one.settings)?;
        }
        if !report.missing.is_empty() {
            writeln!(f, "\n## Not measured\n")?;
        }
        for one in &report.missing {
            writeln!(f, "- {}{}: {}", one.what, places(one), one.reason)?;
        }
        Ok(())
    }
}

fn write_targets(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    writeln!(f, "## Targets\n")?;
    writeln!(f, "| experiment | measure | baseline | measured | target | |\n|---|---|---|---:|---:|---|")?;
    for experiment in &report.experiments {
        for comparison in &experiment.comparisons {
            let Some(target) = comparison.target else { continue };
            let measure = match comparison.measure {
                Measure::Time => "times the time",
                Measure::Speed => "times the work",
                Measure::P99 => "times the p99",
                Measure::Median => "ms, median",
                Measure::P99Milliseconds => "ms, p99",
                Measure::Memory => "MiB above idle",
            };
            let value = comparison.value;
            let verdict = match verdict(comparison) {
                "MISSED" => "**missed**",
                other => other,
            };
            writeln!(
                f,
                "| {} | {} | {} | {:.2} ({:.2}–{:.2}) | {} | {verdict} |",
                experiment.name,
                measure,
                comparison.baseline.as_deref().unwrap_or(""),
                value.median,
                value.low,
                value.high,
                bound(target),
            )?;
        }
    }
    Ok(())
}

fn write_experiment(f: &mut Formatter<'_>, experiment: &Experiment) -> fmt::Result {
    let plural = if experiment.rounds == 1 { "" } else { "s" };
    writeln!(f, "### {} ({} round{plural})\n", experiment.name, experiment.rounds)?;
    let is_memory =
        matches!(experiment.results.first().map(|result| &result.figures), Some(Figures::Memory { .. }));
    if is_memory {
        writeln!(f, "| system | MiB above idle |\n|---|---:|")?;
    } else {
        writeln!(f, "| system | events/s | µs per event | p50 µs | p99 µs |\n|---|---:|---:|---:|---:|")?;
    }
    for result in &experiment.results {
        match &result.figures {
            Figures::Memory { mebibytes_above_idle: memory } => {
                let (low, high) = (memory.low, memory.high);
                writeln!(f, "| {} | {:.2} ({low:.2}–{high:.2}) |", result.system, memory.median)?;
            }
            Figures::Speed { events_per_second: speed, microseconds_per_event: time, latency } => {
                let quantile = |value: Option<f64>| value.map_or(String::new(), short);
                writeln!(
                    f,
                    "| {} | {} ({}–{}) | {:.2} | {} | {} |",
                    result.system,
                    short(speed.median),
                    short(speed.low),
                    short(speed.high),
                    time.median,
                    quantile(latency.map(|latency| latency.p50_microseconds.median)),
                    quantile(latency.map(|latency| latency.p99_microseconds.median)),
                )?;
            }
        }
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::Details;
    use crate::report::tests::example;

    #[test]
    fn the_page_has_figures_targets_and_missing_systems() {
        let page = Details(&example()).to_string();
        for part in [
            "| sqlite append, 64 tasks, 1 event per commit | times the work | bare rusqlite | 12.00 (6.00–24.00) | ≥ 10 | met |",
            "| es-sqlite | 1k (500–2k) | 1000.00 | 8 | 64 |",
            "| es-sqlite | 4.00 (2.00–8.00) |",
            "- PostgreSQL: left out",
            "- SQLite: synchronous=FULL",
            "commit 0123abc, load average 0.5",
        ] {
            assert!(page.contains(part), "{part:?} is missing in {page}");
        }
    }
}
