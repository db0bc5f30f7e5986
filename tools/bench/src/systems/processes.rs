//! Several processes that do the same work at the same time.

use std::time::Instant;

use anyhow::Result;

use crate::{
    child::{Child, Job},
    system::{BoxFuture, Sample, System},
};

/// Processes that start each round on request.
pub(crate) struct Processes {
    name: String,
    children: Vec<Child>,
    events: usize,
}

impl Processes {
    /// Starts a process for each job. Together they store `events` events in a round.
    pub(crate) fn boxed(
        name: impl Into<String>,
        events: usize,
        jobs: impl IntoIterator<Item = Job>,
    ) -> Result<Box<dyn System>> {
        let children = jobs.into_iter().map(|job| Child::spawn(&job)).collect::<Result<_>>()?;
        Ok(Box::new(Self { name: name.into(), children, events }))
    }

    /// Measures from the first request until the last answer.
    fn run(&mut self) -> Result<Sample> {
        let start = Instant::now();
        for child in &mut self.children {
            child.start()?;
        }
        for child in &mut self.children {
            child.finish()?;
        }
        Ok(Sample { events: self.events, elapsed: start.elapsed(), latency: None, mebibytes: None })
    }
}

impl System for Processes {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async { self.run() })
    }
}
