//! A participant's process, as the scenario sees it.

use std::{future::Future, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout_at},
};

use crate::{
    configuration::{Language, PythonVersion},
    participant::READY,
    role::Role,
};

/// The time limit of a process: it takes seconds, and much longer on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(120);
const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// The shared settings of the processes of a scenario.
#[derive(Debug)]
pub(crate) struct Circumstances<'a> {
    pub(crate) environments: &'a Path,
    pub(crate) python: PythonVersion,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) turns: u32,
}

/// A process that plays a role. It is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    deadline: Instant,
}

impl Process {
    /// Starts it, and waits until it has opened what it needs.
    pub(crate) async fn start(
        circumstances: &Circumstances<'_>,
        language: Language,
        role: Role,
    ) -> Result<Self> {
        let mut process = Self::spawn(circumstances, language, role)?;
        let line = process.line().await?;
        ensure!(line == READY, "{} said {line:?} instead of {READY:?}", process.name);
        Ok(process)
    }

    fn spawn(circumstances: &Circumstances<'_>, language: Language, role: Role) -> Result<Self> {
        let mut command = match language {
            Language::Rust => rust()?,
            Language::Python => python(circumstances.environments, circumstances.python, "participant.py"),
        };
        command.arg(role.to_string()).arg(circumstances.turns.to_string());
        let settings = circumstances.settings.iter().map(|(name, value)| (*name, value.as_str()));
        command.envs(settings).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let name = format!("{language} {role}");
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().context("the child has no input")?;
        let output = BufReader::new(child.stdout.take().context("the child has no output")?);
        Ok(Self { name, child, input, output, deadline: Instant::now() + TIME_LIMIT })
    }

    /// Lets it begin.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.input.write_all(b"begin\n").await.with_context(|| format!("{} is gone", self.name))
    }

    /// Tells it that everything is written, and waits for its findings and its end.
    pub(crate) async fn finish<F: DeserializeOwned>(mut self) -> Result<F> {
        drop(self.input);
        let mut findings = String::new();
        let reading = self.output.read_line(&mut findings);
        within(self.deadline, &self.name, reading).await?.context("cannot read a child's output")?;
        let status = within(self.deadline, &self.name, self.child.wait()).await??;
        ensure!(status.success(), "{} failed: {status}", self.name);
        serde_json::from_str(&findings).with_context(|| format!("the findings of {} are none", self.name))
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let reading = self.output.read_line(&mut line);
        if within(self.deadline, &self.name, reading).await?? == 0 {
            bail!("{} ended before it was ready", self.name);
        }
        Ok(line.trim_end().to_owned())
    }
}

/// This very program.
fn rust() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env_clear().arg("participant");
    Ok(command)
}

/// A script of ours, run by a version of the library.
pub(crate) fn python(environments: &Path, version: PythonVersion, script: &str) -> Command {
    let environment = environments.join(format!("python-{version}"));
    let mut command = Command::new(environment.join("bin").join("python"));
    command.env_clear().arg(format!("{SOURCE}/python/{script}"));
    let modules = ["testdata/python", "crates/es-crypto/python"].map(|path| format!("{SOURCE}/../../{path}"));
    command.env("PYTHONPATH", modules.join(":"));
    // No files beside the sources, and UTF-8 whatever the locale.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUTF8", "1");
    command
}

pub(crate) async fn within_limit<T>(name: &str, future: impl Future<Output = T>) -> Result<T> {
    within(Instant::now() + TIME_LIMIT, name, future).await
}

async fn within<T>(deadline: Instant, name: &str, future: impl Future<Output = T>) -> Result<T> {
    let limit = TIME_LIMIT.as_secs();
    timeout_at(deadline, future).await.with_context(|| format!("{name} did not end within {limit} s"))
}
