//! A server of our own, started from installed binaries.
//!
//! It listens on loopback alone, on a free port, without Unix sockets (their paths are limited to about 100
//! bytes, which a checkout's path can exceed). Everything that bears on durability and speed is PostgreSQL's
//! default, so that what a benchmark measures is what a user gets.

use std::{
    fs::{self, File, OpenOptions},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    connection::{Connection, random_hex},
    directory::{ClusterDirectory, write_secret},
    locate::Binaries,
};
use crate::process;

/// Tests run in parallel and have pools each; a benchmark of 256 threads has a connection for each.
const MAX_CONNECTIONS: u16 = 500;
/// Tests prepare transactions, which PostgreSQL allows none by default.
const MAX_PREPARED_TRANSACTIONS: u16 = 64;
/// Far more than a start takes, crash recovery included.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Between our choice of a free port and the server's use of it, another process can take it.
const PORT_ATTEMPTS: usize = 5;
const LOG_TAIL_LINES: usize = 20;

/// The lifetime of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The lifetime of its guard; where the system supports it, the server also ends if xtask is killed.
    ThisProcess,
    /// Until `cargo xtask postgres down`.
    UntilStopped,
}

/// A server, and the guard that stops it and deletes its data when dropped, unless it is to run until it is
/// stopped.
#[derive(Debug)]
pub(crate) struct Cluster {
    binaries: Binaries,
    directory: ClusterDirectory,
    connection: Connection,
    lifetime: Lifetime,
    server: Option<Child>,
    is_kept: bool,
}

impl Cluster {
    /// Starts a server on the data that are there if their password is given, on new data otherwise.
    pub(crate) fn start(
        binaries: Binaries,
        directory: ClusterDirectory,
        password: Option<String>,
        lifetime: Lifetime,
    ) -> Result<Self> {
        let has_data = password.is_some();
        let password = password.map_or_else(random_hex, Ok)?;
        let connection = Connection::to_own_server(free_port()?, password);
        let mut cluster = Self { binaries, directory, connection, lifetime, server: None, is_kept: false };
        let started =
            if has_data { cluster.launch() } else { cluster.create_data().and_then(|()| cluster.launch()) };
        started.with_context(|| cluster.end_of_log())?;
        cluster.is_kept = lifetime == Lifetime::UntilStopped;
        Ok(cluster)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The directory of the server's programs.
    pub(crate) fn programs(&self) -> &Path {
        self.binaries.directory()
    }

    fn create_data(&self) -> Result<()> {
        let data = self.directory.data();
        if data.exists() {
            fs::remove_dir_all(&data).context("cannot delete half-made data")?;
        }
        let password_file = self.directory.home().join("password");
        write_secret(&password_file, &self.connection.password)?;
        self.directory.account().own(&password_file)?;
        let mut initdb =
            self.directory.account().command(self.binaries.path("initdb"), self.directory.home());
        initdb.arg("--pgdata").arg(data).arg("--pwfile").arg(&password_file);
        initdb.args(["--username", &self.connection.user, "--auth=scram-sha-256"]);
        // The same on every machine, whatever its locale. No sync: new data need not be durable.
        initdb.args(["--encoding=UTF8", "--no-locale", "--no-sync"]);
        process::check(self.logged(&mut initdb)?)?;
        fs::remove_file(&password_file).context("cannot delete the password file")
    }

    fn launch(&mut self) -> Result<()> {
        for _ in 0..PORT_ATTEMPTS {
            let mut command = self.server_command();
            let server = self.logged(&mut command)?.spawn().context("cannot run postgres")?;
            if self.wait_until_ready(server)? {
                return Ok(());
            }
            self.connection.port = free_port()?.to_string();
        }
        bail!("each of {PORT_ATTEMPTS} ports was taken by others before the server could use it")
    }

    fn server_command(&self) -> Command {
        let postgres = self.binaries.path("postgres");
        let account = self.directory.account();
        let mut command = if self.lifetime == Lifetime::ThisProcess && can_end_with_parent() {
            let mut setpriv = account.command("setpriv", self.directory.home());
            setpriv.args(["--pdeathsig", "QUIT"]).arg(postgres);
            setpriv
        } else {
            account.command(postgres, self.directory.home())
        };
        command.arg("-D").arg(self.directory.data());
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.connection.port),
            "unix_socket_directories=".to_owned(),
            format!("max_connections={MAX_CONNECTIONS}"),
            format!("max_prepared_transactions={MAX_PREPARED_TRANSACTIONS}"),
        ] {
            command.arg("-c").arg(setting);
        }
        // Ctrl-C at the terminal is for us: the server is to outlive those who use it. And messages that we
        // look for are to be in English.
        command.process_group(0).env("LC_ALL", "C");
        command
    }

    /// False if the port was taken.
    fn wait_until_ready(&mut self, server: Child) -> Result<bool> {
        let pid = server.id();
        let server = self.server.insert(server);
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(&self.directory, pid) {
            if process::interrupted().is_some() {
                bail!("interrupted");
            }
            if let Some(status) = server.try_wait()? {
                if self.end_of_log().contains("could not bind") {
                    return Ok(false);
                }
                bail!("postgres ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("postgres was not ready within {} seconds", START_TIMEOUT.as_secs());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(true)
    }

    fn logged<'command>(&self, command: &'command mut Command) -> Result<&'command mut Command> {
        let path = self.directory.log();
        let log: Result<File, _> = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let errors = log.try_clone().context("cannot share the log")?;
        Ok(command.stdin(Stdio::null()).stdout(log).stderr(errors))
    }

    fn end_of_log(&self) -> String {
        let path = self.directory.log();
        let log = fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("the server did not start; {} ends with:\n{}\n", path.display(), tail.join("\n"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = stop(&self.binaries, &self.directory) {
            eprintln!("xtask: {error:#}");
        }
        if let Some(server) = &mut self.server {
            // Ended by now, or so stuck that nothing else helps.
            let _ = server.kill();
            let _ = server.wait();
        }
        if self.lifetime == Lifetime::ThisProcess {
            self.directory.delete_home();
        }
    }
}

/// Stops the server on the directory's data if there is one, without a checkpoint: these data will not be
/// used again.
pub(crate) fn stop(binaries: &Binaries, directory: &ClusterDirectory) -> Result<()> {
    if !directory.data().join("postmaster.pid").exists() {
        return Ok(());
    }
    let mut command = directory.account().command(binaries.path("pg_ctl"), directory.home());
    command.args(["stop", "--silent", "--wait", "--mode=immediate", "--pgdata"]).arg(directory.data());
    // A second Ctrl-C must not end this.
    let output = command.stdin(Stdio::null()).process_group(0).output().context("cannot run pg_ctl")?;
    if !output.status.success() {
        bail!("cannot stop the server: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// Reads the server's process id and, in line 8, its state, as `pg_ctl` does.
fn is_ready(directory: &ClusterDirectory, pid: u32) -> bool {
    let file = fs::read_to_string(directory.data().join("postmaster.pid")).unwrap_or_default();
    let mut lines = file.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}

/// Returns whether this system's `setpriv` can request a signal for a child whose parent has ended (Linux).
fn can_end_with_parent() -> bool {
    let mut probe = Command::new("setpriv");
    probe.args(["--pdeathsig", "QUIT", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// A port on loopback without a listener at this moment.
pub(crate) fn free_port() -> Result<u16> {
    let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(address.context("cannot find a free port")?.port())
}
