//! The results, for the terminal.

use std::fmt::{self, Display, Formatter};

use crate::{
    report::{Comparison, Experiment, Figures, Measure, Missing, Report, SystemResult, Target},
    statistics::Summary,
};

/// One experiment: a line for each system, then a line for each comparison.
pub(crate) struct Block<'a>(pub(crate) &'a Experiment);

impl Display for Block<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Experiment { name, rounds, results, comparisons } = self.0;
        let plural = if *rounds == 1 { "" } else { "s" };
        writeln!(f, "\n{name} ({rounds} round{plural})")?;
        results.iter().try_for_each(|result| write_result(f, result))?;
        comparisons.iter().try_for_each(|comparison| writeln!(f, "  {}", Sentence(comparison)))
    }
}

/// The conditions of a run: the machine, the settings, and the missing systems.
pub(crate) struct RunConditions<'a>(pub(crate) &'a Report);

impl Display for RunConditions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { machine, durability, missing, date, commit, .. } = self.0;
        let memory = machine.memory_mebibytes.map_or(String::new(), |memory| format!(", {memory} MiB"));
        writeln!(f, "\n{}", machine.run(date, commit))?;
        writeln!(f, "{}, {} threads{memory}, {}", machine.processor, machine.threads, machine.system)?;
        durability.iter().try_for_each(|one| writeln!(f, "{}: {}", one.datastore, one.settings))?;
        missing
            .iter()
            .try_for_each(|one| writeln!(f, "not measured: {}{}: {}", one.what, places(one), one.reason))
    }
}

/// The experiments without measurement; empty if it was left out of everything.
pub(crate) fn places(missing: &Missing) -> String {
    match missing.experiments.as_slice() {
        [] => String::new(),
        [only] => format!(" in {only}"),
        many => format!(" in {} experiments", many.len()),
    }
}

/// Every target with the result.
pub(crate) struct Targets<'a>(pub(crate) &'a Report);

impl Display for Targets<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = (self.0.experiments.iter())
            .flat_map(|experiment| experiment.comparisons.iter().map(move |one| (experiment, one)))
            .filter_map(|(experiment, comparison)| Some((experiment, comparison, comparison.target?)))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{:<52} {:<34} {:>9}  {:>8}  ", "experiment", "baseline", "measured", "target")?;
        for (experiment, comparison, target) in rows {
            let baseline = comparison.baseline_name();
            let measured = format!("{:.2}", comparison.value.median);
            let verdict = verdict(comparison);
            writeln!(
                f,
                "{:<52} {baseline:<34} {measured:>9}  {:>8}  {verdict}",
                experiment.name,
                bound(target)
            )?;
        }
        Ok(())
    }
}

fn write_result(f: &mut Formatter<'_>, result: &SystemResult) -> fmt::Result {
    write!(f, "  {:<34}", result.system)?;
    match &result.figures {
        Figures::Memory { mebibytes_above_idle } => {
            writeln!(f, " {} MiB above idle", Spread(mebibytes_above_idle))
        }
        Figures::Speed { events_per_second, microseconds_per_event, latency } => {
            let time = microseconds_per_event.median;
            write!(f, " {:<34} events/s  {time:>10.2} µs/event", Spread(events_per_second).to_string())?;
            if let Some(latency) = latency {
                let (p50, p99) = (latency.p50_microseconds.median, latency.p99_microseconds.median);
                write!(f, "  call p50 {p50:.0} µs, p99 {p99:.0} µs")?;
            }
            writeln!(f)
        }
    }
}

/// `es-sqlite takes 1.10 (1.05–1.20) times the time of bare rusqlite; target ≤ 1.2: met`
pub(crate) struct Sentence<'a>(pub(crate) &'a Comparison);

impl Display for Sentence<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Comparison { system, baseline, measure, value, target, .. } = self.0;
        let (other, value) = (baseline.as_deref().unwrap_or_default(), Ratio(value));
        match measure {
            Measure::Time => write!(f, "{system} takes {value} times the time of {other}")?,
            Measure::Speed => write!(f, "{system} does {value} times the work of {other}")?,
            Measure::P99 => write!(f, "{system} has {value} times the p99 of {other}")?,
            Measure::Median => write!(f, "{system} takes {value} ms in half of the cases")?,
            Measure::P99Milliseconds => write!(f, "{system} takes {value} ms or less in 99 of 100 cases")?,
            Measure::Memory => write!(f, "{system} takes {value} MiB above idle")?,
        }
        match target {
            Some(target) => write!(f, "; target {}{}", bound(*target), judged(self.0)),
            None => Ok(()),
        }
    }
}

fn judged(comparison: &Comparison) -> String {
    match verdict(comparison) {
        "" => String::new(),
        verdict => format!(": {verdict}"),
    }
}

pub(crate) fn verdict(comparison: &Comparison) -> &'static str {
    match comparison.is_met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    }
}

pub(crate) fn bound(target: Target) -> String {
    match target {
        Target::AtMost(bound) => format!("≤ {bound}"),
        Target::AtLeast(bound) => format!("≥ {bound}"),
    }
}

/// Formats a number for readers: 1.2M, 34k, 560, 7.8.
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

/// A median with its quartiles, in whole numbers where they are large.
struct Spread<'a>(&'a Summary);

impl Display for Spread<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Summary { low, median, high } = self.0;
        let places = if *median < 100.0 { 2 } else { 0 };
        write!(f, "{median:>9.places$} ({low:.places$}–{high:.places$})")
    }
}

/// A ratio with its quartiles.
pub(crate) struct Ratio<'a>(pub(crate) &'a Summary);

impl Display for Ratio<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Summary { low, median, high } = self.0;
        write!(f, "{median:.2} ({low:.2}–{high:.2})")
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, RunConditions, Targets, short};
    use crate::report::tests::example;

    #[test]
    fn a_block_has_figures_ratio_target_and_verdict() {
        let report = example();
        let text = Block(&report.experiments[0]).to_string();
        assert!(text.contains("sqlite append, 64 tasks, 1 event per commit (3 rounds)"), "{text}");
        assert!(text.contains("1000 (500–2000)"), "{text}");
        assert!(text.contains("call p50 8 µs, p99 64 µs"), "{text}");
        let sentence = "es-sqlite does 12.00 (6.00–24.00) times the work of bare rusqlite; target ≥ 10: met";
        assert!(text.contains(sentence), "{text}");
    }

    #[test]
    fn the_targets_are_listed_and_a_missed_one_is_marked() {
        let mut report = example();
        report.experiments[0].comparisons[0].is_met = Some(false);
        let text = Targets(&report).to_string();
        assert!(text.contains("MISSED"), "{text}");
    }

    #[test]
    fn missing_systems_are_named() {
        let text = RunConditions(&example()).to_string();
        assert!(text.contains("not measured: PostgreSQL: left out"), "{text}");
        assert!(text.contains("SQLite: synchronous=FULL"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.5, 7.25, 12.34, 560.0, 34_000.0, 1_234_567.0].map(short);
        assert_eq!(written, ["0.50", "7.25", "12.3", "560", "34k", "1.23M"]);
    }
}
