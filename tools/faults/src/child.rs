//! What a process does that will be killed.

use std::{io, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    clients::Clients,
    effects::{self, Kind},
    fuse::{Fuse, Plan},
    history::Message,
    place::Place,
    report::Report,
};

/// What the parent writes for a child to end in order. Without it, the end of the input means that
/// there is no parent any more.
pub const STOP: &str = "stop";

/// A process ends by itself after this, whatever it does.
const LIFETIME: Duration = Duration::from_secs(120);

/// What a process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its name, unique in a life.
    pub name: String,
    /// What its choices follow from.
    pub seed: u32,
    /// The round of the life.
    pub round: u32,
    /// Where events are written, or followed.
    pub upstream: Place,
    /// What it does there.
    pub role: Role,
    /// Where it is killed, if at a point.
    pub fuse: Option<Plan>,
}

/// What a process does with the upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Role {
    /// Writes and reads, with so many writers.
    Clients(u32),
    /// Processes it, or one of its topics, with effects of this kind there.
    Processor(Place, (Kind, Option<usize>)),
}

/// Does a job until told to stop.
///
/// # Errors
/// When something fails in a way that it must not.
pub async fn run(job: Job) -> Result<()> {
    let (told, stop) = watch::channel(false);
    thread::spawn(move || listen(&told));
    thread::spawn(|| {
        thread::sleep(LIFETIME);
        std::process::exit(4);
    });
    let fuse = Fuse::new(job.fuse);
    let report = Arc::new(Report::to_stdout(job.name));
    match job.role {
        Role::Clients(writers) => {
            let recorder = job.upstream.open(&fuse).await?;
            report.say(Message::Ready);
            let clients = Clients::new(recorder.clone(), report, job.round, job.seed, stop);
            clients.run(writers, job.seed.into()).await?;
            es_core::Recorder::close(&recorder).await?;
        }
        Role::Processor(downstream, work) => {
            let upstream = job.upstream.open(&Fuse::new(None)).await?;
            report.say(Message::Ready);
            effects::process(upstream, &downstream, work, fuse, job.seed.into(), stop).await?;
        }
    }
    Ok(())
}

fn listen(told: &watch::Sender<bool>) {
    let mut line = String::new();
    match io::stdin().read_line(&mut line).context("cannot read") {
        Ok(length) if length > 0 && line.trim() == STOP => told.send_replace(true),
        _ => std::process::exit(3),
    };
}
