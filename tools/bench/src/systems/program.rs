//! Systems that are separate programs: in another language, or with dependencies that conflict with ours.
//!
//! The command line of a program selects one of its systems. The program reads lines of JSON and answers each
//! with one:
//!
//! - First comes a [`Datastore`], answered by `{"settings": …}`.
//! - Then comes the work of each round, answered by `{"events": …, "seconds": …, "p50": …, "p99": …,
//!   "mebibytes": …}`: the quantiles in seconds, where calls were timed one by one, and the peak of the
//!   memory above idle.
//! - `{"error": …}` is a valid answer to any line.
//!
//! The program measures itself, so starting it and communicating with it are not measured. A line that is not
//! an object is ignored, since some libraries print.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::system::{BoxFuture, Latency, Sample, System};

/// The datastore that a program opens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "datastore", rename_all = "snake_case")]
pub(crate) enum Datastore {
    Popo,
    Sqlite {
        path: PathBuf,
    },
    /// On the server that the environment names.
    Postgres {
        schema: String,
        /// True if each append records a position, too.
        is_tracked: bool,
    },
    Mapper {
        is_compressed: bool,
        /// In base64.
        cipher_key: Option<String>,
    },
}

/// The programs of a run, by datastore.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    /// The Python library, with adapters for everything, on the tables that our recorders use.
    pub(crate) python: Vec<Program>,
    /// Rust libraries with tables of their own.
    pub(crate) sqlite: Vec<Program>,
    /// Rust libraries with tables of their own, or with servers of their own.
    pub(crate) postgres: Vec<Program>,
}

/// A system that is a separate program, or the reason why it is not available.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    name: String,
    command: Result<Vec<PathBuf>, String>,
}

impl Program {
    /// The command with its arguments.
    pub(crate) fn new(name: impl Into<String>, command: Result<Vec<PathBuf>>) -> Self {
        Self { name: name.into(), command: command.map_err(|error| format!("{error:#}")) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the program as a system, started with the first round.
    pub(crate) fn boxed(&self, datastore: Datastore, work: impl Serialize) -> Result<Box<dyn System>> {
        let work = serde_json::to_string(&work)?;
        let program = self.clone();
        Ok(Box::new(External { program, datastore, work, running: None, measures_memory: false }))
    }

    /// Returns the program as a system whose memory use is measured: it is started again for each round.
    pub(crate) fn memory_use(&self, datastore: Datastore, work: impl Serialize) -> Result<Box<dyn System>> {
        let work = serde_json::to_string(&work)?;
        let program = self.clone();
        Ok(Box::new(External { program, datastore, work, running: None, measures_memory: true }))
    }
}

struct External {
    program: Program,
    datastore: Datastore,
    work: String,
    running: Option<Running>,
    measures_memory: bool,
}

impl External {
    fn run(&mut self) -> Result<Sample> {
        let running = match &mut self.running {
            Some(running) => running,
            None => self.running.insert(Running::start(&self.program, &self.datastore)?),
        };
        let Measured { events, seconds, p50, p99, mebibytes } = running.ask(&self.work)?;
        ensure!(events > 0 && seconds > 0.0, "the program reported {events} events in {seconds} s");
        let latency = p50.zip(p99).map(|(p50, p99)| Latency { p50, p99 });
        let mebibytes = mebibytes.filter(|_| self.measures_memory);
        if self.measures_memory {
            self.running = None;
        }
        Ok(Sample { events, elapsed: Duration::from_secs_f64(seconds), latency, mebibytes })
    }
}

impl System for External {
    fn name(&self) -> &str {
        self.program.name()
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async { self.run() })
    }

    /// The program is not part of this project, and may not be installed.
    fn may_fail(&self) -> bool {
        true
    }

    fn durability(&self) -> Option<&str> {
        self.running.as_ref().map(|running| running.settings.as_str()).filter(|settings| !settings.is_empty())
    }
}

/// A program that has opened its datastore. It is killed when this is dropped.
struct Running {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    settings: String,
}

#[derive(Deserialize)]
struct Opened {
    settings: String,
}

#[derive(Deserialize)]
struct Measured {
    events: usize,
    seconds: f64,
    p50: Option<f64>,
    p99: Option<f64>,
    mebibytes: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: String },
    Value(T),
}

impl Running {
    fn start(program: &Program, datastore: &Datastore) -> Result<Self> {
        let command = program.command.as_ref().map_err(|reason| anyhow!("{reason}"))?;
        let (executable, arguments) = command.split_first().context("the command is empty")?;
        let mut process = Command::new(executable)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", executable.display()))?;
        let requests = process.stdin.take().context("the program has no standard input")?;
        let answers = BufReader::new(process.stdout.take().context("the program has no standard output")?);
        let mut running = Self { process, requests, answers, settings: String::new() };
        running.settings = running.ask::<Opened>(&serde_json::to_string(datastore)?)?.settings;
        Ok(running)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &str) -> Result<T> {
        writeln!(self.requests, "{request}").context("the program has exited")?;
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            ensure!(self.answers.read_line(&mut line)? > 0, "the program exited without an answer");
        }
        match serde_json::from_str(&line).with_context(|| format!("the program answered {line:?}"))? {
            Answer::Value(value) => Ok(value),
            Answer::Error { error } => bail!("{error}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The remaining work is not needed, and the process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{Datastore, Program};
    use crate::{system::System, workload::Work};

    /// Creates a program that answers with these lines, one by one.
    fn answering(lines: &[&str]) -> Box<dyn System> {
        let script: String = lines.iter().map(|line| format!("read _; echo '{line}'; ")).collect();
        let command = ["sh", "-c", &script].map(Into::into).to_vec();
        Program::new("a program", Ok(command)).boxed(Datastore::Popo, Work::Stream { events: 2 }).unwrap()
    }

    #[tokio::test]
    async fn a_program_reports_its_durations() {
        let measured = r#"{"events": 4, "seconds": 2, "p50": 0.25, "p99": 0.5}"#;
        let mut program = answering(&[r#"{"settings": "durable"}"#, measured]);
        let sample = program.round().await.unwrap();
        assert_eq!((sample.events, sample.elapsed.as_secs()), (4, 2));
        assert_eq!(sample.latency.map(|latency| latency.p99), Some(0.5));
        assert_eq!(program.durability(), Some("durable"));
    }

    #[tokio::test]
    async fn errors_of_a_program_are_passed_on() {
        let mut program = answering(&[r#"{"settings": ""}"#, r#"{"error": "no room"}"#]);
        assert_eq!(program.round().await.unwrap_err().to_string(), "no room");
    }

    #[tokio::test]
    async fn an_early_end_or_invalid_output_is_an_error() {
        assert!(answering(&[]).round().await.is_err());
        assert!(answering(&["hello"]).round().await.is_err());
        assert!(answering(&["{hello}"]).round().await.is_err());
    }

    #[tokio::test]
    async fn an_unavailable_program_reports_the_reason() {
        let absent = Program::new("a program", Err(anyhow::anyhow!("no interpreter")));
        let mut absent = absent.boxed(Datastore::Popo, Work::Stream { events: 2 }).unwrap();
        assert!(absent.may_fail());
        assert_eq!(absent.round().await.unwrap_err().to_string(), "no interpreter");
    }
}
