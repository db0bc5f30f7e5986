//! All lanes at the same time, and the samples beside them.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use es_faults::place::Backend;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

use crate::{gauges::Gauges, lane, meters::Meters};

const SAMPLE_PAUSE: Duration = Duration::from_secs(2);

/// How often a line tells that the run goes on.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What a run has shown. No reader missed an event or saw one twice, or there would be none.
#[derive(Debug)]
pub struct Report {
    duration: Duration,
    /// What the lane of each datastore has done.
    pub lanes: Vec<(Backend, Arc<Meters>)>,
    gauges: Gauges,
}

/// Puts a mixed load on each datastore for so long, and then lets the readers reach the end.
///
/// # Errors
/// When a reader missed an event or saw one twice, or anything fails that no fault explains.
pub async fn run(duration: Duration) -> Result<Report> {
    let backends = Backend::available();
    let lanes: Vec<(Backend, Arc<Meters>)> =
        backends.iter().map(|backend| (*backend, Arc::default())).collect();
    let gauges = Gauges::new(backends).await?;
    let (stop, stopped) = watch::channel(false);
    // Aborted when it is dropped.
    let mut working = JoinSet::new();
    for (backend, meters) in &lanes {
        working.spawn(lane::run(*backend, Arc::clone(meters), stopped.clone()));
    }
    let mut report = Report { duration, lanes, gauges };
    tokio::select! {
        sampled = report.watch() => sampled?,
        ended = working.join_next() => match ended {
            Some(ended) => { ended??; bail!("a lane ended too early") }
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
    /// What grew beyond its bound.
    pub fn growing(&self) -> Vec<String> {
        self.gauges.growing()
    }

    /// Takes samples until the time is over.
    async fn watch(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut ticks = interval(SAMPLE_PAUSE);
        let mut tell_at = TOLD_EVERY;
        while began.elapsed() < self.duration {
            tokio::select! {
                _ = ticks.tick() => self.gauges.sample(began.elapsed(), &self.lanes).await?,
                () = sleep_until(began + self.duration) => {}
            }
            if began.elapsed() > self.duration / 2 {
                self.lanes.iter().for_each(|(_, meters)| meters.begin_second_half());
            }
            if began.elapsed() > tell_at {
                tell_at += TOLD_EVERY;
                self.tell(began.elapsed());
            }
        }
        Ok(())
    }

    #[expect(clippy::print_stderr, reason = "whoever waits for half an hour wants to know that it goes on")]
    fn tell(&self, elapsed: Duration) {
        let events: u64 = self.lanes.iter().map(|(_, meters)| meters.recorded.count()).sum();
        let minutes = |duration: Duration| duration.as_secs_f64() / 60.0;
        eprintln!("{:.0} of {:.0} minutes: {events} events", minutes(elapsed), minutes(self.duration));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} minutes: no reader missed an event or saw one twice",
            self.duration.as_secs_f64() / 60.0
        )?;
        for (backend, meters) in &self.lanes {
            write!(f, "\n{backend:?}\n{meters}")?;
        }
        write!(f, "\n{}", self.gauges)
    }
}
