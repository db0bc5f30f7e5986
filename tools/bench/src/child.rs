//! Child processes, for workloads of several processes and for measurements of memory, which need a process
//! that has done nothing else.
//!
//! A child is this program with `--child` and a [`Job`]. It prints a line when it is ready. Then it runs the
//! job once for each line of its input, and prints a figure for each run.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const READY: &str = "ready";

/// The job of a child: the measured system, and the work.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Job {
    Mapper(crate::suites::mapper::ChildJob),
    Store(crate::suites::backend::ChildJob),
}

/// A child process that runs its job on request. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts the process and waits until it is ready.
    pub(crate) fn spawn(job: &Job) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--child", &serde_json::to_string(job)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a child process")?;
        let commands = process.stdin.take().context("the child process has no standard input")?;
        let answers =
            BufReader::new(process.stdout.take().context("the child process has no standard output")?);
        let mut child = Self { process, commands, answers };
        match child.line()?.as_str() {
            READY => Ok(child),
            other => bail!("the child process printed {other:?} instead of {READY:?}"),
        }
    }

    /// Requests one run of the job.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.commands.write_all(b"go\n").context("the child process has exited")
    }

    /// Waits until the job is done, and returns the answer.
    pub(crate) fn finish(&mut self) -> Result<f64> {
        let line = self.line()?;
        line.parse().with_context(|| format!("the child process printed {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the child process exited without an answer");
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The remaining work is not needed, and the process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `work` in the child process for each line of the input, until the input ends.
pub(crate) async fn serve(mut work: impl AsyncFnMut() -> Result<f64>) -> Result<()> {
    println!("{READY}");
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", work().await?);
    }
    Ok(())
}
