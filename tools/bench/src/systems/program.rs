//! Systems that are programs of their own: in another language, or with dependencies that cannot stand beside ours.
//!
//! A program is told on its command line which of its systems is meant. It reads lines of JSON and answers each with
//! one: first a [`Datastore`], answered by `{"settings": …}`, then the work of each round, answered by `{"events": …,
//! "seconds": …, "p50": …, "p99": …, "mebibytes": …}`: the quantiles in seconds, where calls were timed one by one, and the
//! peak of the memory above idle. It measures itself, so that starting it and talking to it cost nothing. `{"error": …}` is an answer to anything, and a line that is
//! no object is none, since some libraries print.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::contestant::{BoxFuture, Contestant, Latency, Sample};

/// What a program is to open.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "datastore", rename_all = "snake_case")]
pub(crate) enum Datastore {
    Popo,
    Sqlite {
        path: PathBuf,
    },
    /// On the server that the environment names.
    Postgres {
        schema: String,
        /// Whether each append records a position, too.
        is_tracked: bool,
    },
    Mapper {
        is_compressed: bool,
        /// In base64.
        cipher_key: Option<String>,
    },
}

impl Datastore {
    pub(crate) fn sqlite(path: &Path) -> Self {
        Self::Sqlite { path: path.to_owned() }
    }

    pub(crate) fn postgres(schema: &str) -> Self {
        Self::Postgres { schema: schema.to_owned(), is_tracked: false }
    }
}

/// Which programs take part, by what they store in.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    /// The Python library: it does everything, on the tables that our recorders use.
    pub(crate) python: Vec<Program>,
    /// Rust libraries with tables of their own.
    pub(crate) sqlite: Vec<Program>,
    /// The same, servers of their own included.
    pub(crate) postgres: Vec<Program>,
}

/// A system that is a program of its own, or why it cannot be had.
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

    /// Lets it take part. It is started with the first round.
    pub(crate) fn boxed(&self, datastore: Datastore, work: impl Serialize) -> Result<Box<dyn Contestant>> {
        let work = serde_json::to_string(&work)?;
        let program = self.clone();
        Ok(Box::new(External { program, datastore, work, running: None, is_weighed: false }))
    }

    /// Lets its memory be measured: it is started anew with each round.
    pub(crate) fn weighed(&self, datastore: Datastore, work: impl Serialize) -> Result<Box<dyn Contestant>> {
        let work = serde_json::to_string(&work)?;
        let program = self.clone();
        Ok(Box::new(External { program, datastore, work, running: None, is_weighed: true }))
    }
}

struct External {
    program: Program,
    datastore: Datastore,
    work: String,
    running: Option<Running>,
    is_weighed: bool,
}

impl External {
    fn run(&mut self) -> Result<Sample> {
        let running = match &mut self.running {
            Some(running) => running,
            None => self.running.insert(Running::start(&self.program, &self.datastore)?),
        };
        let Measured { events, seconds, p50, p99, mebibytes } = running.ask(&self.work)?;
        ensure!(events > 0 && seconds > 0.0, "it measured {events} events in {seconds} s");
        let latency = p50.zip(p99).map(|(p50, p99)| Latency { p50, p99 });
        let mebibytes = mebibytes.filter(|_| self.is_weighed);
        if self.is_weighed {
            self.running = None;
        }
        Ok(Sample { events, elapsed: Duration::from_secs_f64(seconds), latency, mebibytes })
    }
}

impl Contestant for External {
    fn name(&self) -> &str {
        self.program.name()
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async { self.run() })
    }

    /// It is none of ours, and may not be there at all.
    fn may_fail(&self) -> bool {
        true
    }

    fn durability(&self) -> Option<&str> {
        self.running.as_ref().map(|running| running.settings.as_str()).filter(|settings| !settings.is_empty())
    }
}

/// A program that has opened its datastore. It ends when this is dropped.
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
        let (executable, arguments) = command.split_first().context("there is no command")?;
        let mut process = Command::new(executable)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", executable.display()))?;
        let requests = process.stdin.take().context("it has no input")?;
        let answers = BufReader::new(process.stdout.take().context("it has no output")?);
        let mut running = Self { process, requests, answers, settings: String::new() };
        running.settings = running.ask::<Opened>(&serde_json::to_string(datastore)?)?.settings;
        Ok(running)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &str) -> Result<T> {
        writeln!(self.requests, "{request}").context("it is gone")?;
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            ensure!(self.answers.read_line(&mut line)? > 0, "it ended before it answered");
        }
        match serde_json::from_str(&line).with_context(|| format!("it answered {line:?}"))? {
            Answer::Value(value) => Ok(value),
            Answer::Error { error } => bail!("{error}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing that it still does is wanted; it may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{Datastore, Program};
    use crate::{contestant::Contestant, workload::Work};

    /// A program that answers with these lines, one by one.
    fn answering(lines: &[&str]) -> Box<dyn Contestant> {
        let script: String = lines.iter().map(|line| format!("read _; echo '{line}'; ")).collect();
        let command = ["sh", "-c", &script].map(Into::into).to_vec();
        Program::new("a program", Ok(command)).boxed(Datastore::Popo, Work::Stream { events: 2 }).unwrap()
    }

    #[tokio::test]
    async fn a_program_says_how_long_it_took() {
        let measured = r#"{"events": 4, "seconds": 2, "p50": 0.25, "p99": 0.5}"#;
        let mut program = answering(&[r#"{"settings": "durable"}"#, measured]);
        let sample = program.round().await.unwrap();
        assert_eq!((sample.events, sample.elapsed.as_secs()), (4, 2));
        assert_eq!(sample.latency.map(|latency| latency.p99), Some(0.5));
        assert_eq!(program.durability(), Some("durable"));
    }

    #[tokio::test]
    async fn what_a_program_complains_of_is_passed_on() {
        let mut program = answering(&[r#"{"settings": ""}"#, r#"{"error": "no room"}"#]);
        assert_eq!(program.round().await.unwrap_err().to_string(), "no room");
    }

    #[tokio::test]
    async fn a_program_that_ends_or_babbles_is_an_error() {
        assert!(answering(&[]).round().await.is_err());
        assert!(answering(&["hello"]).round().await.is_err());
        assert!(answering(&["{hello}"]).round().await.is_err());
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_had_says_why() {
        let absent = Program::new("a program", Err(anyhow::anyhow!("no interpreter")));
        let mut absent = absent.boxed(Datastore::Popo, Work::Stream { events: 2 }).unwrap();
        assert!(absent.may_fail());
        assert_eq!(absent.round().await.unwrap_err().to_string(), "no interpreter");
    }
}
