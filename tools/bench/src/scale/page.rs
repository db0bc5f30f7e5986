//! The page `docs/scale.md`.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use super::{Cost, Measurements, Sample, model, plot};
use crate::table::short;

impl Cost {
    const ALL: [(Self, &'static str); 11] = [
        (Self::TableBytes, "bytes of the table, per event"),
        (Self::KeyBytes, "bytes of the index of originators and versions, per event"),
        (Self::IdBytes, "bytes of the index of notification ids, per event"),
        (Self::KeyLevels, "levels of the index of originators and versions"),
        (Self::AppendPages, "append: pages"),
        (Self::AppendReads, "append: pages not in the server's cache"),
        (Self::AppendLog, "append: bytes of the write-ahead log"),
        (Self::AppendImages, "append: images of pages in the write-ahead log"),
        (Self::LoadPages, "load of 10 events: pages"),
        (Self::LoadReads, "load of 10 events: pages not in the server's cache"),
        (Self::ReadPages, "read of 1,000 notifications: pages"),
    ];
}

impl Sample {
    pub(super) fn cost(&self, cost: Cost) -> Option<f64> {
        self.costs.iter().find(|(measured, _)| *measured == cost).map(|(_, value)| *value)
    }
}

impl Measurements {
    /// Returns the logs of each backend and kind of ids, by their sizes.
    pub(super) fn logs(&self) -> Vec<Vec<&Sample>> {
        let mut logs: Vec<Vec<&Sample>> = Vec::new();
        for sample in &self.samples {
            match logs.iter_mut().find(|log| log[0].backend == sample.backend && log[0].ids == sample.ids) {
                Some(log) => log.push(sample),
                None => logs.push(vec![sample]),
            }
        }
        logs
    }
}

/// Returns the tables.
pub(crate) fn tables(measurements: &Measurements) -> String {
    let mut text = String::new();
    for log in measurements.logs() {
        let (backend, ids) = (&log[0].backend, log[0].ids.name());
        let amounts: Vec<_> = log.iter().map(|sample| short(sample.stored as f64)).collect();
        let _ = writeln!(text, "\n### {backend}, {ids} ids\n\n| events stored | {} |", amounts.join(" | "));
        let _ = writeln!(text, "|---|{}", "---:|".repeat(amounts.len()));
        for (cost, name) in Cost::ALL {
            let cells: Vec<_> = log.iter().filter_map(|sample| cell(sample, cost)).collect();
            if !cells.is_empty() {
                let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
            }
        }
    }
    text.push_str("\n### Subscribers on PostgreSQL\n\n");
    text.push_str(
        "| processes | subscribers in each | statements per commit | statements/s without commits |\n",
    );
    text.push_str("|---:|---:|---:|---:|\n");
    for sample in &measurements.following {
        let (processes, subscribers) = (sample.processes, sample.subscribers);
        let (commit, idle) = (short(sample.per_commit), short(sample.idle_per_second));
        let _ = writeln!(text, "| {processes} | {subscribers} | {commit} | {idle} |");
    }
    text
}

/// Returns what was measured, and what the model says in parentheses.
fn cell(sample: &Sample, cost: Cost) -> Option<String> {
    let measured = short(sample.cost(cost)?);
    Some(match model::cost(cost, sample) {
        Some(expected) => format!("{measured} ({})", short(expected)),
        None => measured,
    })
}

/// Writes `docs/scale.md` and its plot: the text of `SCALE.md`, with the tables at its end.
pub(crate) fn write_page(measurements: &Measurements) -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = package.join("../../docs").canonicalize()?;
    let text = fs::read_to_string(package.join("SCALE.md")).context("cannot read SCALE.md")?;
    let Measurements { date, commit, server, .. } = measurements;
    let tables = tables(measurements);
    let page = format!(
        "{text}\n## Measurements\n\nMeasured {date}, commit {commit}. Server: {server}. In parentheses the \
         model's value, where it has one.\n{tables}"
    );
    let plot = docs.join("benchmarks/scale.svg");
    fs::write(&plot, plot::draw(measurements)?)
        .with_context(|| format!("cannot write {}", plot.display()))?;
    let file = docs.join("scale.md");
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("written to {}", file.display());
    Ok(())
}
