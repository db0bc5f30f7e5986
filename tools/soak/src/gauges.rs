//! Samples of the resources of a program while it runs, and the check that they do not grow.

use std::{fmt, fs, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use es_faults::test_database::{self, Backend};
use sqlx::PgConnection;
use tokio::runtime::Handle;

use crate::meters::Meters;

/// The minimum of samples in the second half of a run for a verdict.
const MIN_SAMPLES: usize = 10;

/// The permitted growth of each within the second half of a run.
const MEMORY: f64 = 16.0;
const HANDLES: f64 = 8.0;
const CONNECTIONS: f64 = 4.0;
const STATEMENTS: f64 = 4.0;
const TASKS: f64 = 16.0;

/// The sampled resources.
#[derive(Debug)]
pub struct Gauges {
    gauges: Vec<Gauge>,
    /// Counts the connections of others.
    server: Option<PgConnection>,
}

/// One figure over time.
#[derive(Debug)]
struct Gauge {
    name: String,
    /// The permitted growth; `None` for a gauge that is only reported.
    bound: Option<f64>,
    samples: Vec<Sample>,
}

/// Seconds since the beginning, and the figure.
type Sample = (f64, f64);

impl Gauges {
    /// Creates gauges without samples.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn new(backends: &[Backend]) -> Result<Self> {
        let has_server = backends.iter().any(|backend| *backend != Backend::Sqlite);
        let server = if has_server { Some(test_database::connect().await?) } else { None };
        Ok(Self { gauges: Vec::new(), server })
    }

    /// Takes a sample of everything.
    ///
    /// # Errors
    /// When something cannot be read that could be read before.
    pub async fn sample(&mut self, at: Duration, workloads: &[(Backend, Arc<Meters>)]) -> Result<()> {
        let at = at.as_secs_f64();
        let mut sampled: Vec<(String, Option<f64>, f64)> = Vec::new();
        if let Some(memory) = memory() {
            sampled.push(("resident memory, MiB".to_owned(), Some(MEMORY), memory));
        }
        sampled.push(("open file handles".to_owned(), Some(HANDLES), handles()?));
        let tasks = Handle::current().metrics().num_alive_tasks();
        sampled.push(("tasks".to_owned(), Some(TASKS), tasks as f64));
        if let Some(server) = &mut self.server {
            sampled.push(("server connections".to_owned(), Some(CONNECTIONS), connections(server).await?));
        }
        for (backend, meters) in workloads {
            let load =
                |number: &std::sync::atomic::AtomicU64| number.load(std::sync::atomic::Ordering::Relaxed);
            if *backend != Backend::Sqlite {
                let statements = meters.statements.load(std::sync::atomic::Ordering::Relaxed);
                sampled.push((
                    format!("{backend:?}: statements of a session"),
                    Some(STATEMENTS),
                    statements as f64,
                ));
            }
            sampled.push((format!("{backend:?}: write-ahead log, MB"), None, load(&meters.wal) as f64 / 1e6));
            sampled.push((format!("{backend:?}: lag of the subscriber"), None, meters.lag() as f64));
        }
        for (name, bound, figure) in sampled {
            self.gauge(name, bound).samples.push((at, figure));
        }
        Ok(())
    }

    fn gauge(&mut self, name: String, bound: Option<f64>) -> &mut Gauge {
        let index = self.gauges.iter().position(|gauge| gauge.name == name).unwrap_or_else(|| {
            self.gauges.push(Gauge { name, bound, samples: Vec::new() });
            self.gauges.len() - 1
        });
        &mut self.gauges[index]
    }

    /// The names of what grows beyond its bound.
    pub fn growing(&self) -> Vec<String> {
        self.gauges.iter().filter(|gauge| gauge.is_growing()).map(|gauge| gauge.name.clone()).collect()
    }
}

impl fmt::Display for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<40} {:>8} {:>8} {:>8} {:>8}   rise of the line through the first half, the second; bound",
            "", "start", "least", "most", "end"
        )?;
        self.gauges.iter().try_for_each(|gauge| writeln!(f, "{gauge}"))
    }
}

impl Gauge {
    fn is_growing(&self) -> bool {
        let (_, second) = self.halves();
        second.len() >= MIN_SAMPLES && self.bound.is_some_and(|bound| rise(second) > bound)
    }

    fn halves(&self) -> (&[Sample], &[Sample]) {
        self.samples.split_at(self.samples.len() / 2)
    }
}

impl fmt::Display for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = || self.samples.iter().map(|(_, figure)| *figure);
        let least = figures().fold(f64::INFINITY, f64::min);
        let most = figures().fold(f64::NEG_INFINITY, f64::max);
        let (start, end) = (figures().next().unwrap_or(0.0), figures().next_back().unwrap_or(0.0));
        let (first, second) = self.halves();
        write!(
            f,
            "{:<40} {start:>8.1} {least:>8.1} {most:>8.1} {end:>8.1}   {:+.1}, {:+.1}",
            self.name,
            rise(first),
            rise(second)
        )?;
        match self.bound {
            Some(_) if second.len() < MIN_SAMPLES => write!(f, "; too few samples to judge"),
            Some(bound) => write!(f, "; {bound:+.0}"),
            None => Ok(()),
        }
    }
}

/// Returns the rise of a line through the samples from the first to the last. Its slope is the median of the
/// slopes between any two samples, which is robust against single peaks.
fn rise(samples: &[Sample]) -> f64 {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return 0.0 };
    let mut slopes = Vec::new();
    for (index, (at, figure)) in samples.iter().enumerate() {
        let later = samples[index + 1..].iter();
        slopes.extend(later.map(|(later_at, later_figure)| (later_figure - figure) / (later_at - at)));
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).map_or(0.0, |slope| slope * (last.0 - first.0))
}

/// The process's resident memory in MiB, where the system tells it.
fn memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

fn handles() -> Result<f64> {
    Ok(fs::read_dir("/dev/fd").context("cannot count the open handles")?.count() as f64)
}

async fn connections(server: &mut PgConnection) -> Result<f64> {
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    let count: i64 = count.fetch_one(server).await?;
    Ok(count as f64)
}

#[cfg(test)]
mod tests {
    use super::{Gauge, rise};

    fn gauge(figure: impl Fn(usize) -> f64) -> Gauge {
        let samples = (0..60).map(|second| (second as f64, figure(second))).collect();
        Gauge { name: String::new(), bound: Some(8.0), samples }
    }

    #[test]
    fn growth_is_distinguished_from_fluctuation() {
        assert!(gauge(|second| second as f64).is_growing());
        assert!(!gauge(|_| 20.0).is_growing());
        assert!(!gauge(|second| 20.0 + (second % 7) as f64).is_growing());
        assert!(!gauge(|second| if second % 9 == 0 { 500.0 } else { 20.0 }).is_growing());
        assert!(!gauge(|second| 100.0 - second as f64).is_growing());
    }

    #[test]
    fn a_resource_that_fills_at_the_beginning_does_not_grow() {
        assert!(!gauge(|second| second.min(25) as f64).is_growing());
    }

    #[test]
    fn a_line_rises_by_what_it_rises() {
        assert!((rise(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 4.0).abs() < 1e-9);
        assert!(rise(&[]).abs() < 1e-9);
        assert!(rise(&[(1.0, 1.0)]).abs() < 1e-9);
    }
}
