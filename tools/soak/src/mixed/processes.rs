//! Processes of a mixed soak: started, listened to, killed, started again.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{
    Shared, Stage,
    database::Address,
    participant::{Job, Role},
};

/// The argument that a job follows.
pub(crate) const JOB: &str = "--job";

/// A process that takes longer to stop is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// The job of a process.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Rust(Role, Address),
    Python { follows: bool },
}

impl Program {
    fn writes(&self) -> bool {
        matches!(self, Self::Rust(Role::Write | Role::InsertOnly, _) | Self::Python { follows: false })
    }

    fn command(&self, shared: &Shared, name: &str, incarnation: u32) -> Result<Command> {
        match self {
            Self::Rust(role, address) => {
                let job = Job {
                    role: *role,
                    name: name.to_owned(),
                    incarnation,
                    address: address.clone(),
                    positions: shared.journal().positions(name),
                };
                let mut command = Command::new(&shared.program);
                command.args([JOB, &serde_json::to_string(&job)?]);
                Ok(command)
            }
            Self::Python { follows } => {
                let (role, name, position) = if *follows {
                    ("follow", name.to_owned(), shared.journal().position(name))
                } else {
                    ("write", format!("{name}.{incarnation}"), 0)
                };
                python(shared, role, &name, position)
            }
        }
    }
}

/// The Python half, with the Python library.
pub(crate) fn python(shared: &Shared, role: &str, name: &str, position: i64) -> Result<Command> {
    let python = shared.python.as_ref().context("there is no environment of the Python library")?;
    let Address { host, port, dbname, user, password, .. } = &shared.address;
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/mixed.py"));
    command.args([role, name, &position.to_string()]).env_clear();
    command.envs([
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PERSISTENCE_MODULE", "eventsourcing.postgres"),
        ("CREATE_TABLE", if role == "open" { "yes" } else { "no" }),
        ("POSTGRES_HOST", host),
        ("POSTGRES_PORT", &port.to_string()),
        ("POSTGRES_DBNAME", dbname),
        ("POSTGRES_USER", user),
        ("POSTGRES_PASSWORD", password),
    ]);
    Ok(command)
}

/// Keeps a process running: when it was killed, it is started again, until its work is done.
pub(crate) async fn supervise(shared: Arc<Shared>, name: String, program: Program) -> Result<()> {
    let kill = shared.killable();
    let mut incarnation = 0;
    loop {
        incarnation += 1;
        let mut command = program.command(&shared, &name, incarnation)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut input = child.stdin.take();
        let output = child.stdout.take().context("a process has no output")?;
        let mut listening = tokio::spawn(listen(Arc::clone(&shared), output));
        let is_killed = tokio::select! {
            listened = &mut listening => { listened??; false }
            () = kill.notified() => true,
            stopped = stop(&shared, &program, &mut input) => {
                stopped.with_context(|| format!("process {name}"))?;
                false
            }
        };
        if is_killed {
            child.start_kill()?;
            // What it said before it was killed counts.
            listening.await??;
            shared.count_kill();
        }
        let status = child.wait().await?;
        drop(input);
        if !is_killed {
            ensure!(status.success(), "process {name} ended with {status}");
            ensure!(shared.stage() != Stage::Write, "process {name} ended by itself");
            return Ok(());
        }
        if program.writes() && shared.stage() != Stage::Write {
            return Ok(());
        }
        sleep(Duration::from_millis(fastrand::u64(..300))).await;
    }
}

async fn listen(shared: Arc<Shared>, output: ChildStdout) -> Result<()> {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    // Of the last line, a killed process may have written a part.
    while output.read_until(b'\n', &mut line).await? > 0 && line.pop() == Some(b'\n') {
        shared.journal().take(std::str::from_utf8(&line).context("a process printed bytes")?)?;
        line.clear();
    }
    Ok(())
}

/// Stops the process when it is time, and fails if it is stuck.
async fn stop(shared: &Shared, program: &Program, input: &mut Option<ChildStdin>) -> Result<()> {
    let mut stages = shared.stages();
    let stage = stages.wait_for(|stage| match stage {
        Stage::Write => false,
        Stage::Stop => program.writes(),
        Stage::Read(_) => true,
    });
    let stage = *stage.await?;
    let line = match stage {
        Stage::Read(end) => format!("end {end}\n"),
        _ => "stop\n".to_owned(),
    };
    if let Some(input) = input {
        // It may have ended.
        let _ = input.write_all(line.as_bytes()).await;
    }
    sleep(PATIENCE).await;
    bail!("it does not stop within {PATIENCE:?}")
}

/// Runs the Python half to its end.
pub(crate) async fn run_python(shared: &Shared, role: &str) -> Result<()> {
    let status = timeout(PATIENCE, python(shared, role, "open", 0)?.kill_on_drop(true).status()).await??;
    ensure!(status.success(), "the Python library cannot open the database: {status}");
    Ok(())
}
