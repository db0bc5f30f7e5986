//! All workloads at the same time, and the samples beside them.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use es_faults::{progress, test_database::Backend};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

use crate::{gauges::Gauges, meters::Meters, workload};

const SAMPLE_PAUSE: Duration = Duration::from_secs(2);

/// The result of a run. No reader missed an event or received one twice, or there would be none.
#[derive(Debug)]
pub struct Report {
    duration: Duration,
    /// The metrics of the workload of each datastore.
    pub workloads: Vec<(Backend, Arc<Meters>)>,
    gauges: Gauges,
}

/// Puts a mixed load on each datastore for so long, and then lets the readers reach the end.
///
/// # Errors
/// When a reader missed an event or received one twice, or anything fails that no fault explains.
pub async fn run(duration: Duration) -> Result<Report> {
    let backends = Backend::available();
    let workloads: Vec<(Backend, Arc<Meters>)> =
        backends.iter().map(|backend| (*backend, Arc::default())).collect();
    let gauges = Gauges::new(backends).await?;
    let (stop, stopped) = watch::channel(false);
    // Aborted when it is dropped.
    let mut working = JoinSet::new();
    for (backend, meters) in &workloads {
        working.spawn(workload::run(*backend, Arc::clone(meters), stopped.clone()));
    }
    let mut report = Report { duration, workloads, gauges };
    tokio::select! {
        sampled = report.watch() => sampled?,
        ended = working.join_next() => match ended {
            Some(ended) => { ended??; bail!("a workload ended too early") }
            None => bail!("there is no datastore"),
        },
    }
    stop.send_replace(true);
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    Ok(report)
}

impl Report {
    /// Names the resources that grew beyond their bounds.
    pub fn growing(&self) -> Vec<String> {
        self.gauges.growing()
    }

    /// Takes samples until the time is over.
    async fn watch(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut ticks = interval(SAMPLE_PAUSE);
        while began.elapsed() < self.duration {
            tokio::select! {
                _ = ticks.tick() => {
                    progress::show(format_args!("{}", self.progress(began.elapsed())));
                    self.gauges.sample(began.elapsed(), &self.workloads).await?;
                }
                () = sleep_until(began + self.duration) => {}
            }
            if began.elapsed() > self.duration / 2 {
                self.workloads.iter().for_each(|(_, meters)| meters.begin_second_half());
            }
        }
        progress::show(format_args!(""));
        Ok(())
    }

    fn progress(&self, elapsed: Duration) -> String {
        let events: u64 = self.workloads.iter().map(|(_, meters)| meters.recorded.count()).sum();
        let minutes = |duration: Duration| duration.as_secs_f64() / 60.0;
        format!("{:.1} of {:.1} minutes: {events} events", minutes(elapsed), minutes(self.duration))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} minutes: no reader missed an event or received one twice",
            self.duration.as_secs_f64() / 60.0
        )?;
        for (backend, meters) in &self.workloads {
            write!(f, "\n{backend:?}\n{meters}")?;
        }
        write!(f, "\n{}", self.gauges)
    }
}
