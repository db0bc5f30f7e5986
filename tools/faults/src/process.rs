//! A process as its parent sees it: started, listened to, ended, and never left behind.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{
    child::{Job, STOP},
    history::Message,
};

/// The argument that a job follows.
pub const JOB: &str = "--job";

/// A process that takes longer to start or to stop is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// A process that does a job.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    input: Option<ChildStdin>,
    ready: Receiver<()>,
    /// Nothing once they were taken.
    messages: Option<JoinHandle<Result<Vec<Message>>>>,
    has_kill_point: bool,
    is_killed: bool,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It ended after a stop signal.
    Stopped,
    /// Its parent killed it.
    Killed,
    /// It killed itself at its kill point.
    SelfKilled,
}

impl Child {
    /// Starts `program`, this crate's, with a job.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(program: &Path, job: &Job) -> Result<Self> {
        let mut process = Command::new(program)
            .args([JOB, &serde_json::to_string(job)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("a process has no output")?;
        let (sender, ready) = mpsc::channel();
        let messages = Some(thread::spawn(move || listen(output, &sender)));
        let (name, has_kill_point) = (job.name.clone(), job.kill_point.is_some());
        Ok(Self { name, process, input, ready, messages, has_kill_point, is_killed: false })
    }

    /// Waits until it is at work, or has ended.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        match self.ready.recv_timeout(PATIENCE) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                bail!("process {} is not at work after {PATIENCE:?}", self.name)
            }
        }
    }

    /// Sends the stop signal.
    pub fn stop(&mut self) {
        if let Some(input) = &mut self.input {
            // It may have ended.
            let _ = writeln!(input, "{STOP}");
        }
    }

    /// Kills it, unless it has ended.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self) -> Result<()> {
        if self.process.try_wait()?.is_some() {
            return Ok(());
        }
        self.is_killed = true;
        self.process.kill().context("cannot kill a process")
    }

    /// Pauses it.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it continue, if it is paused.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.process.try_wait()?.is_some() {
            return Ok(());
        }
        // It has not been reaped: the id is its own.
        kill_process(Pid::from_child(&self.process), signal).context("cannot signal a process")
    }

    /// Returns whether the process pauses itself in time.
    ///
    /// # Errors
    /// When the state of the process cannot be read.
    pub fn pauses_itself_within(&mut self, patience: Duration) -> Result<bool> {
        let id = Pid::from_child(&self.process);
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let began = Instant::now();
        while began.elapsed() < patience {
            // All threads have stopped then.
            if waitid(WaitId::Pid(id), options)?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(false)
    }

    /// Returns whether the process ends at its kill point in time; false at once without a kill point.
    ///
    /// # Errors
    /// When the state of the process cannot be read.
    pub fn kills_itself_within(&mut self, patience: Duration) -> Result<bool> {
        let began = Instant::now();
        while self.has_kill_point && began.elapsed() < patience {
            if self.process.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(false)
    }

    /// Waits for the end, and returns it with all messages.
    ///
    /// # Errors
    /// When it does not end, ended with an error, or said what cannot be understood.
    pub fn end(mut self) -> Result<(End, Vec<Message>)> {
        let status = self.wait()?;
        let end = match status.signal() {
            Some(SIGKILL) if self.is_killed => End::Killed,
            Some(SIGKILL) if self.has_kill_point => End::SelfKilled,
            None if status.success() => End::Stopped,
            _ => bail!("process {} ended with {status}", self.name),
        };
        let messages = self.messages.take().context("a process is listened to once")?;
        let messages = messages.join().map_err(|_| anyhow!("a thread that listens panicked"))??;
        Ok((end, messages))
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            // It may have paused itself after it was resumed.
            self.resume()?;
            thread::sleep(Duration::from_millis(2));
        }
        bail!("process {} does not end within {PATIENCE:?}", self.name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; in any case it is reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn listen(output: ChildStdout, ready: &Sender<()>) -> Result<Vec<Message>> {
    let mut output = BufReader::new(output);
    let mut messages = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        output.read_until(b'\n', &mut line)?;
        // Of the last line, a killed process may have written a part.
        if line.pop() != Some(b'\n') {
            return Ok(messages);
        }
        match serde_json::from_slice(&line).context("a process says what is no message")? {
            // The receiver is gone if the start took too long.
            Message::Ready => drop(ready.send(())),
            message => messages.push(message),
        }
    }
}
