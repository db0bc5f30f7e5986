//! Memory of a workload, measured in a process that does nothing else.

use std::time::Instant;

use anyhow::Result;

use crate::{
    child::{Child, Job},
    contestant::{BoxFuture, Contestant, Sample},
};

/// A job for a new process in each round, which answers with the MiB above idle.
pub(crate) struct Weighed {
    name: String,
    events: usize,
    job: Job,
}

impl Weighed {
    pub(crate) fn boxed(name: impl Into<String>, events: usize, job: Job) -> Box<dyn Contestant> {
        Box::new(Self { name: name.into(), events, job })
    }

    fn run(&self) -> Result<Sample> {
        let mut child = Child::spawn(&self.job)?;
        let start = Instant::now();
        child.start()?;
        let mebibytes = Some(child.finish()?);
        Ok(Sample { events: self.events, elapsed: start.elapsed(), latency: None, mebibytes })
    }
}

impl Contestant for Weighed {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async { self.run() })
    }
}
