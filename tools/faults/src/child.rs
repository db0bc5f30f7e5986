//! The job of a process that will be killed.

use std::{io, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use es_core::{ErrorKind, PersistenceError};
use es_process::ProcessorError;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    clients::Clients,
    effects::{self, Kind},
    history::Message,
    kill_point::{KillPoint, Plan},
    report::Report,
    switches::{self, Task},
    test_database::TestDatabase,
    workers::{self, Work},
};

/// The line by which the parent stops a child in order. Without it, the end of the input means that
/// there is no parent any more.
pub const STOP: &str = "stop";

/// A process ends by itself after this, whatever it does.
const LIFETIME: Duration = Duration::from_secs(600);

/// The pause between two attempts to open a database.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// The job of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its name, unique in a campaign.
    pub name: String,
    /// The seed of its random choices.
    pub seed: u32,
    /// The round of the campaign.
    pub round: u32,
    /// The database to write to, or to follow.
    pub upstream: TestDatabase,
    /// Its role.
    pub role: Role,
    /// The point at which it is killed, if any.
    pub kill_point: Option<Plan>,
}

/// The role of a process on the upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Role {
    /// Writes and reads, with this number of writers and this pause between the calls of each.
    Clients(u32, Duration),
    /// Reads from standbys, with this pause.
    Readers(Duration),
    /// Takes part in the campaign on versions of a projection.
    Switches(Task),
    /// Works on segments of the upstream, with effects in the other database.
    Worker(TestDatabase, Work),
    /// Processes the upstream, or one of its topics, with effects of this kind in the other database.
    Processor(TestDatabase, (Kind, Option<usize>)),
}

/// Runs a job until the stop signal.
///
/// # Errors
/// If a call fails with an error that the faults do not explain.
pub async fn run(job: Job) -> Result<()> {
    let (stopper, stop) = watch::channel(false);
    thread::spawn(move || listen(&stopper));
    thread::spawn(|| {
        thread::sleep(LIFETIME);
        std::process::exit(4);
    });
    let kill_point = KillPoint::new(job.kill_point);
    let report = Arc::new(Report::to_stdout(job.name));
    match job.role {
        Role::Clients(writers, pause) => {
            let recorder = job.upstream.open(&kill_point).await?;
            report.say(Message::Ready);
            let clients = Clients::new(recorder.clone(), report, job.round, job.seed, stop).pause(pause);
            clients.run(writers, job.seed.into()).await?;
            es_core::Recorder::close(&recorder).await?;
        }
        Role::Readers(pause) => {
            let recorder = job.upstream.open(&kill_point).await?;
            report.say(Message::Ready);
            let clients = Clients::new(recorder.clone(), report, job.round, job.seed, stop).pause(pause);
            clients.run_on_standbys(job.seed.into()).await?;
            es_core::Recorder::close(&recorder).await?;
        }
        Role::Switches(task) => {
            switches::work(task, &job.upstream, kill_point, job.seed.into(), &report, stop).await?;
        }
        Role::Processor(downstream, work) => {
            let upstream = job.upstream.open(&KillPoint::new(None)).await?;
            report.say(Message::Ready);
            let process = || {
                let (upstream, kill_point, stop) = (upstream.clone(), kill_point.clone(), stop.clone());
                effects::process(upstream, &downstream, work, kill_point, job.seed.into(), stop)
            };
            while let Err(error) = process().await {
                let is_rolled_back = kind(&error) == Some(ErrorKind::RolledBack);
                if is_rolled_back {
                    report.say(Message::RolledBack);
                }
                // Opening fails while a cluster has no primary.
                let failed = error.downcast_ref::<PersistenceError>();
                let is_transient = failed.is_some_and(PersistenceError::is_transient);
                if !(is_rolled_back || is_transient) || *stop.borrow() {
                    return Err(error);
                }
                report.say(Message::Restarted);
                tokio::time::sleep(OPEN_PAUSE).await;
            }
        }
        Role::Worker(downstream, work) => {
            let upstream = job.upstream.open(&KillPoint::new(None)).await?;
            report.say(Message::Ready);
            workers::process(upstream, &downstream, work, kill_point, stop).await?;
        }
    }
    Ok(())
}

/// The kind of the error that ended a processor.
fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    match error.downcast_ref::<ProcessorError>()? {
        ProcessorError::Persistence { source, .. } => Some(source.kind()),
        _ => None,
    }
}

fn listen(stopper: &watch::Sender<bool>) {
    let mut line = String::new();
    match io::stdin().read_line(&mut line).context("cannot read") {
        Ok(length) if length > 0 && line.trim() == STOP => stopper.send_replace(true),
        _ => std::process::exit(3),
    };
}
