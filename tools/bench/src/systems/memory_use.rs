//! Memory use of a workload, measured in a child process that does nothing else.

use std::time::Instant;

use anyhow::Result;

use crate::{
    child::{Child, Job},
    system::{BoxFuture, Sample, System},
};

/// A job that runs in a new child process in each round and reports the MiB above idle.
pub(crate) struct MemoryUse {
    name: String,
    events: usize,
    job: Job,
}

impl MemoryUse {
    pub(crate) fn boxed(name: impl Into<String>, events: usize, job: Job) -> Box<dyn System> {
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

impl System for MemoryUse {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async { self.run() })
    }
}
