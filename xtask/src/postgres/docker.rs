//! A server from the repository's `docker-compose.yml`.

use std::process::{self, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{
    cluster::free_port,
    connection::{Connection, random_hex},
};
use crate::{process::check, workspace};

/// The project of the development server.
pub(crate) const DEV_SERVER_PROJECT: &str = "es-persistence";

/// A Compose project, and the guard that removes it with its volumes when dropped.
#[derive(Debug)]
pub(crate) struct Compose {
    project: String,
    connection: Connection,
}

impl Compose {
    /// A server for this run.
    pub(crate) fn throw_away() -> Result<Self> {
        let connection = own_connection()?;
        // The guard first: a start that fails half-way leaves something, too.
        let compose = Self { project: format!("es-persistence-run-{}", process::id()), connection };
        start(&compose.project, &compose.connection)?;
        Ok(compose)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if let Err(error) = down(&self.project) {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// Starts the development server, which runs until [`down`].
pub(crate) fn up_dev_server() -> Result<Connection> {
    let connection = own_connection()?;
    start(DEV_SERVER_PROJECT, &connection)?;
    Ok(connection)
}

/// Removes containers and volumes of a project.
pub(crate) fn down(project: &str) -> Result<()> {
    let mut command = compose(project);
    // Not through `check`, which starts nothing once we are interrupted: then above all this is to be done.
    let output = command.args(["down", "--volumes"]).stdin(Stdio::null()).output();
    let output = output.context("cannot run docker")?;
    if !output.status.success() {
        bail!("docker compose down failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// Why Docker cannot start a server here, if it cannot.
pub(crate) fn unavailable() -> Option<&'static str> {
    if !succeeds(&["--version"]) {
        return Some("is not installed");
    }
    if !succeeds(&["compose", "version"]) {
        return Some("is installed, but its Compose plugin is not");
    }
    if !succeeds(&["info"]) {
        return Some("is installed, but its daemon cannot be reached");
    }
    None
}

fn succeeds(arguments: &[&str]) -> bool {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn own_connection() -> Result<Connection> {
    Ok(Connection::to_own_server(free_port()?, random_hex()?))
}

fn start(project: &str, connection: &Connection) -> Result<()> {
    let mut command = compose(project);
    // `postgres up` is read by `eval`, so the standard output is not for what Docker says.
    command.args(["up", "--detach", "--wait"]).envs(connection.variables()).stdout(Stdio::null());
    check(&mut command)
}

fn compose(project: &str) -> Command {
    let mut command = Command::new("docker");
    command.current_dir(workspace::root()).args(["compose", "--project-name", project]);
    command
}
