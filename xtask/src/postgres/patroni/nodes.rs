//! The processes of the cluster's parts.

use std::{
    fmt,
    fs::{self, OpenOptions},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    configuration::{MemberPorts, NodePorts},
    http,
    network::{Host, Link},
};
use crate::postgres::account::Account;

/// A node: Patroni and its PostgreSQL.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) home: PathBuf,
    pub(super) host: Host,
    pub(super) ports: NodePorts,
}

/// The role of a node in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    /// The standby that has each commit before it is acknowledged.
    SyncStandby,
    Standby,
    Unavailable,
}

/// A member of etcd.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) home: PathBuf,
    pub(super) host: Host,
    pub(super) ports: MemberPorts,
}

impl Node {
    pub(super) fn configuration(&self) -> PathBuf {
        self.home.join("patroni.json")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn start(&self, account: Account) -> Result<()> {
        let mut command = self.host.command(account, "patroni", &self.home);
        command.arg(self.configuration());
        start(&mut command, &self.home, &self.patroni())
    }

    pub(super) fn role(&self) -> Role {
        let roles = [("/primary", Role::Primary), ("/sync", Role::SyncStandby), ("/replica", Role::Standby)];
        let role = roles.into_iter().find(|(path, _)| http::is_ok(self.interface(), path));
        role.map_or(Role::Unavailable, |(_, role)| role)
    }

    /// The address of Patroni's interface.
    fn interface(&self) -> SocketAddr {
        (self.host.address(Link::Clients), self.ports.patroni).into()
    }

    /// Returns the number of standbys that stream from this node. A standby that Patroni is about to rewind
    /// counts as running.
    pub(super) fn followers(&self) -> usize {
        let status = http::request(self.interface(), "GET", "/patroni", "", http::TIMEOUT);
        status.map_or(0, |(_, status)| status.matches(r#""state": "streaming""#).count())
    }

    pub(super) fn postmaster(&self) -> Process {
        Process::read(&self.data().join("postmaster.pid"), &self.data())
    }

    fn patroni(&self) -> Process {
        Process::read(&self.home.join("pid"), &self.configuration())
    }

    /// Sends a signal to Patroni, the postmaster and its children.
    pub(super) fn signal(&self, signal: Signal) {
        // First, so that it does not start the postmaster again.
        self.patroni().signal(signal);
        self.signal_postgres(signal);
    }

    /// Sends a signal to the postmaster and its children.
    pub(super) fn signal_postgres(&self, signal: Signal) {
        let postmaster = self.postmaster();
        let children = postmaster.children();
        postmaster.signal(signal);
        for child in children {
            // It may have ended.
            let _ = kill_process(child, signal);
        }
    }

    /// Requests the end of all processes.
    pub(super) fn stop(&self) {
        self.patroni().signal(Signal::KILL);
        self.signal_postgres(Signal::CONT);
        // An immediate shutdown, which also frees the shared memory.
        self.postmaster().signal(Signal::QUIT);
    }

    pub(super) fn is_alive(&self) -> bool {
        self.postmaster().is_alive() || self.patroni().is_alive()
    }

    /// Copies the data of the primary again, as `patronictl reinit`.
    pub(super) fn reinitialize(&self) -> Result<()> {
        let body = r#"{"force": true}"#;
        let (status, answer) = http::request(self.interface(), "POST", "/reinitialize", body, http::TIMEOUT)?;
        ensure!(status == 200, "Patroni refuses to reinitialize {}: {answer}", self.name);
        Ok(())
    }

    /// Makes a standby the primary instead of this node.
    pub(super) fn switch_over(&self) -> Result<()> {
        let body = format!(r#"{{"leader": "{}"}}"#, self.name);
        // The answer comes when a standby has taken over.
        let (status, answer) =
            http::request(self.interface(), "POST", "/switchover", &body, SWITCHOVER_TIMEOUT)?;
        ensure!(status == 200, "Patroni refuses the switchover: {answer}");
        Ok(())
    }
}

/// The longest wait for the end of a switchover.
const SWITCHOVER_TIMEOUT: Duration = Duration::from_secs(60);

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Primary => "primary",
            Self::SyncStandby => "synchronous standby",
            Self::Standby => "standby",
            Self::Unavailable => "unavailable",
        })
    }
}

impl Member {
    pub(super) fn start(&self, account: Account, peers: &str) -> Result<()> {
        let data = self.data();
        let url = |address, port| format!("http://{address}:{port}");
        let listen = url(self.host.listen_address(), self.ports.client);
        let client = url(self.host.address(Link::Etcd), self.ports.client);
        let peer = url(self.host.address(Link::Etcd), self.ports.peer);
        let mut command = self.host.command(account, "etcd", &self.home);
        command.args(["--name", &self.name, "--logger", "zap", "--data-dir"]).arg(&data);
        command.args(["--listen-client-urls", &listen, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", peers, "--initial-cluster-state", "new", "--enable-v2"]);
        // Without it, a member that was cut off interrupts the others when it comes back. If the leadership
        // ends then, Patroni 3.0 takes it by the old state that this member reports, and acknowledged commits
        // are lost (a campaign with `--fault cut` found it).
        command.arg("--pre-vote");
        start(&mut command, &self.home, &self.process())
    }

    pub(super) fn process(&self) -> Process {
        Process::read(&self.home.join("pid"), &self.data())
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The address for clients.
    fn address(&self) -> SocketAddr {
        (self.host.address(Link::Clients), self.ports.client).into()
    }

    pub(super) fn is_leader(&self) -> bool {
        let status = http::request(self.address(), "POST", "/v3/maintenance/status", "{}", http::TIMEOUT);
        let Ok((200, status)) = status else { return false };
        let id = |name: &str| {
            let (_, rest) = status.split_once(&format!("\"{name}\":\""))?;
            rest.split_once('"').map(|(id, _)| id.to_owned())
        };
        id("leader").is_some_and(|leader| Some(leader) == id("member_id"))
    }

    pub(super) fn is_healthy(&self) -> bool {
        http::is_ok(self.address(), "/health")
    }

    pub(super) fn state(&self) -> &'static str {
        match (self.process().is_alive(), self.is_leader()) {
            (false, _) => "unavailable",
            (true, true) => "leader",
            (true, false) => "follower",
        }
    }
}

/// Starts a process that outlives us, unless it runs.
fn start(command: &mut Command, home: &Path, process: &Process) -> Result<()> {
    if process.is_alive() {
        return Ok(());
    }
    let log = OpenOptions::new().create(true).append(true).open(home.join("log"));
    let log = log.with_context(|| format!("cannot write a log in {}", home.display()))?;
    let errors = log.try_clone().context("cannot share the log")?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).env("LC_ALL", "C");
    let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    fs::write(home.join("pid"), child.id().to_string()).context("cannot write a process id")
}

/// A process, if it runs.
pub(super) struct Process(Option<Pid>);

impl Process {
    /// Reads the first line of a file. The command line of the process must contain `argument`: the id may be
    /// that of another process by now.
    fn read(file: &Path, argument: &Path) -> Self {
        let id = fs::read_to_string(file).ok();
        let id: Option<i32> = id.and_then(|text| text.lines().next()?.trim().parse().ok());
        let is_it = |id: &i32| {
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let argument = argument.as_os_str().as_encoded_bytes();
            command.windows(argument.len()).any(|part| part == argument)
        };
        Self(id.filter(is_it).and_then(Pid::from_raw))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(id) = self.0 {
            // It may have ended.
            let _ = kill_process(id, signal);
        }
    }

    fn children(&self) -> Vec<Pid> {
        let Some(parent) = self.0 else { return Vec::new() };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| parent_of(*id) == Some(parent.as_raw_nonzero().get()))
            .filter_map(Pid::from_raw)
            .collect()
    }
}

/// The parent's id: the second field after the name of the program, which is in parentheses.
fn parent_of(id: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}
