//! Child processes that end when xtask is interrupted.
//!
//! A signal does not end xtask itself: it ends the child that xtask waits for, and xtask then returns through
//! its own frames as after any failure, so that every guard (the one that stops a server, above all) does its
//! work.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// The signal that interrupted us, or 0.
static INTERRUPTED: AtomicI32 = AtomicI32::new(0);

/// The process group that is being waited for.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

/// Turns SIGHUP, SIGINT and SIGTERM into the end of the running child; a second one into its immediate end.
pub(crate) fn handle_signals() -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot handle signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let is_first = INTERRUPTED.swap(signal, Ordering::SeqCst) == 0;
            end_running(if is_first { Signal::TERM } else { Signal::KILL });
        }
    });
    Ok(())
}

/// The number of the signal that interrupted us, if one did.
pub(crate) fn interrupted() -> Option<u8> {
    u8::try_from(INTERRUPTED.load(Ordering::SeqCst)).ok().filter(|&signal| signal != 0)
}

/// Runs to the end; an exit status other than success is an error that names the command.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = run(command)?;
    ensure!(status.success(), "{} failed: {status}", name(command));
    Ok(())
}

/// Runs to the end, with our own output and no input.
pub(crate) fn run(command: &mut Command) -> Result<ExitStatus> {
    let mut child = spawn(command)?;
    wait(&mut child)
}

/// Runs to the end and hands over each line of the standard output, its end included, as it comes.
pub(crate) fn run_with_lines(command: &mut Command, mut each: impl FnMut(&[u8])) -> Result<ExitStatus> {
    let mut child = spawn(command.stdout(Stdio::piped()))?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).context("cannot read a child's output")? > 0 {
            each(&line);
            line.clear();
        }
    }
    wait(&mut child)
}

/// Spawns in a process group of its own: its end is then the end of all of its descendants (`cargo test`
/// itself does not end its test programs), and Ctrl-C reaches us alone, who decide about the order.
fn spawn(command: &mut Command) -> Result<Child> {
    let mut running = running();
    // Under the lock, and the handler sets the flag before it takes the lock: no child escapes it.
    if interrupted().is_some() {
        bail!("interrupted");
    }
    let child = command.stdin(Stdio::null()).process_group(0).spawn();
    let child = child.with_context(|| format!("cannot run {}", name(command)))?;
    *running = Some(Pid::from_child(&child));
    Ok(child)
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    let status = child.wait();
    *running() = None;
    if interrupted().is_some() {
        bail!("interrupted");
    }
    status.context("cannot wait for a child")
}

fn end_running(signal: Signal) {
    if let Some(group) = *running() {
        // It may just have ended by itself.
        let _ = kill_process_group(group, signal);
    }
}

fn running() -> MutexGuard<'static, Option<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
