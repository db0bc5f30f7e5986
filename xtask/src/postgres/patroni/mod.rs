//! `cargo xtask postgres cluster`: three nodes of PostgreSQL under Patroni, which etcd coordinates.
//!
//! The replication is synchronous and strict: a commit is acknowledged when a standby has it on disk, and
//! without a standby there are no commits. Nodes can be reached from this machine alone. The periods of
//! Patroni are as short as it takes for a hundred failovers in an hour; in production they are several times
//! as long.

mod configuration;
mod http;
mod network;
mod nodes;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};
use configuration::Ports;
use network::{Link, Network};
use nodes::{Member, Node, Role};
use rustix::process::Signal;

use super::{
    connection::{Connection, random_hex},
    directory::{ClusterDirectory, write_secret},
    locate,
};
use crate::process;

/// Names the program that controls a cluster to tests.
const PROGRAM: &str = "ES_TEST_CLUSTER";
/// Names the directory of that cluster.
const DIRECTORY: &str = "ES_TEST_CLUSTER_DIRECTORY";

/// Members of the cluster, and of etcd: a majority of three survives the loss of one.
const NODES: usize = 3;
/// Far more than it takes to create three nodes.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// A node that has not come back by then needs an operator: an interrupted `pg_rewind` leaves data with which
/// it cannot start, and Patroni 3.0 does not notice.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(40);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Three PostgreSQL nodes under Patroni with etcd, which run until `down`.
///
/// Debian's packages patroni, etcd-server, python3-etcd and postgresql are needed. Data and logs are in
/// target/postgres/cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start what does not run, wait for a primary with two standbys, and print `export` lines
    Up,
    /// Stop all nodes and delete their data
    Down,
    /// Kill, pause, move or cut off a part of the cluster; `up` starts again what was killed
    Kill { target: Target },
    /// Print the role of each node
    Status,
}

/// A part of the cluster, and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The postmaster of the primary, with SIGKILL
    Primary,
    /// All processes of the primary's node, Patroni's included, with SIGKILL
    Node,
    /// The leader of etcd, with SIGKILL
    Etcd,
    /// Pauses all processes of the primary's PostgreSQL, with SIGSTOP
    Pause,
    /// Continues all paused processes, with SIGCONT, and connects all links
    Resume,
    /// Makes a standby the primary, in order
    Switchover,
    /// Cuts the primary off from the other nodes: it keeps its leadership
    CutNodes,
    /// Cuts the primary and its member of etcd off from the other members
    CutEtcd,
    /// Cuts the primary off from the other nodes and etcd, but not from clients
    Cut,
    /// Cuts the primary off from all, clients included
    CutAll,
    /// Cuts the synchronous standby off from all
    CutStandby,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Up => up(),
        Command::Down => down(),
        Command::Kill { target } => existing()?.context(NOT_RUNNING)?.kill(*target),
        Command::Status => status(),
    }
}

const NOT_RUNNING: &str = "the cluster does not run; start it with: cargo xtask postgres cluster up";

/// Checks that a cluster can be started here; the error is the reason.
pub(crate) fn availability() -> Result<()> {
    for (program, package) in [("patroni", "patroni"), ("etcd", "etcd-server")] {
        locate::on_path(program)
            .with_context(|| format!("{program} is not installed (Debian's package {package})"))?;
    }
    let binaries = locate::binaries().context("PostgreSQL is not installed")?;
    for program in ["pg_basebackup", "pg_rewind"] {
        ensure!(binaries.path(program).is_file(), "{program} is not among PostgreSQL's programs");
    }
    Ok(())
}

/// The file of a test cluster that has the reason why it did not start.
const FAILURE: &str = "failure";

/// A directory for a cluster that tests start when they need it, by `cluster up`. Dropping it stops the
/// cluster.
#[derive(Debug)]
pub(crate) struct TestCluster(ClusterDirectory);

impl TestCluster {
    /// Creates the directory; an error says why there can be no cluster.
    pub(crate) fn provide() -> Result<Self> {
        availability()?;
        Ok(Self(ClusterDirectory::throw_away("-cluster")?))
    }

    /// The variables that tests read.
    pub(crate) fn variables(&self) -> Result<[(&'static str, OsString); 2]> {
        let program = env::current_exe().context("cannot find this program")?;
        Ok([(PROGRAM, program.into()), (DIRECTORY, self.0.path().into())])
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Result<Connection> {
        up_at(self.0.path())
    }

    /// The reason why it did not start, if tests tried.
    pub(crate) fn failure(&self) -> Option<String> {
        fs::read_to_string(self.0.path().join(FAILURE)).ok()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if let Err(error) = stop(&self.0) {
            eprintln!("xtask: {error:#}");
        }
        self.0.delete_home();
    }
}

fn up() -> Result<()> {
    let path = path()?;
    let connection = up_at(&path).inspect_err(|error| {
        // Reported again by the run of tests, which goes on without the cluster.
        let _ = fs::write(path.join(FAILURE), format!("{error:#}"));
    })?;
    for (name, value) in connection.variables() {
        println!("export {name}={value}");
    }
    Ok(())
}

/// Creates the cluster if there is none, and starts it.
fn up_at(path: &Path) -> Result<Connection> {
    availability()?;
    let cluster = match Cluster::open(ClusterDirectory::at(path)?)? {
        Ok(cluster) => cluster,
        Err(directory) => Cluster::create(directory)?,
    };
    cluster.start()?;
    Ok(cluster.connection)
}

fn down() -> Result<()> {
    let path = path()?;
    if !path.is_dir() {
        eprintln!("xtask: the cluster does not run");
        return Ok(());
    }
    let directory = ClusterDirectory::at(&path)?;
    stop(&directory)?;
    directory.delete();
    eprintln!("xtask: stopped the cluster and deleted its data");
    Ok(())
}

fn status() -> Result<()> {
    let Some(cluster) = existing()? else {
        println!("{NOT_RUNNING}");
        return Ok(());
    };
    for node in &cluster.nodes {
        let address = node.host.address(Link::Clients);
        println!("{} on {address}:{}: {}", node.name, node.ports.postgres, node.role());
    }
    for member in &cluster.members {
        let address = member.host.address(Link::Clients);
        println!("{} on {address}:{}: {}", member.name, member.ports.client, member.state());
    }
    Ok(())
}

/// Stops all processes of the cluster in a directory.
pub(super) fn stop(directory: &ClusterDirectory) -> Result<()> {
    let network = Network::read(directory.home())?;
    let Some(ports) = Ports::read(directory.home())? else {
        // Nothing was started.
        network.delete();
        return Ok(());
    };
    let (nodes, members) = parts(directory, &ports, network);
    for node in &nodes {
        node.stop();
    }
    for member in &members {
        member.process().signal(Signal::KILL);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while nodes.iter().any(Node::is_alive) {
        if Instant::now() > deadline {
            nodes.iter().for_each(|node| node.signal(Signal::KILL));
        }
        thread::sleep(POLL_INTERVAL);
    }
    network.delete();
    Ok(())
}

/// The directory that the environment names, or the developer's.
fn path() -> Result<PathBuf> {
    match env::var_os(DIRECTORY) {
        Some(path) => Ok(path.into()),
        None => Ok(ClusterDirectory::parent()?.join("cluster")),
    }
}

fn existing() -> Result<Option<Cluster>> {
    let path = path()?;
    if !path.is_dir() {
        return Ok(None);
    }
    Ok(Cluster::open(ClusterDirectory::at(&path)?)?.ok())
}

/// A created cluster, running or not.
struct Cluster {
    directory: ClusterDirectory,
    connection: Connection,
    network: Network,
    nodes: Vec<Node>,
    members: Vec<Member>,
}

impl Cluster {
    /// Returns the cluster in a directory, or the directory if there is none.
    fn open(directory: ClusterDirectory) -> Result<Result<Self, ClusterDirectory>> {
        let Some(ports) = Ports::read(directory.home())? else { return Ok(Err(directory)) };
        // Written before the ports.
        let lines = fs::read_to_string(directory.environment()).context("the cluster has no environment")?;
        let connection = Connection::from_lines(&lines)?.context("the cluster's environment is empty")?;
        let network = Network::read(directory.home())?;
        let (nodes, members) = parts(&directory, &ports, network);
        Ok(Ok(Self { directory, connection, network, nodes, members }))
    }

    fn create(directory: ClusterDirectory) -> Result<Self> {
        let ports = Ports::choose()?;
        let (password, binaries) =
            (random_hex()?, locate::binaries().context("PostgreSQL is not installed")?);
        let network = Network::create();
        network.write(directory.home())?;
        let (nodes, members) = parts(&directory, &ports, network);
        for node in &nodes {
            directory.create_own(&node.home)?;
            let text = configuration::of_node(node, &members, &binaries, &password);
            let file = node.configuration();
            write_secret(&file, &text)?;
            directory.account().own(&file)?;
        }
        for member in &members {
            directory.create_own(&member.home)?;
        }
        let hosts = nodes.iter().map(|node| node.host.address(Link::Clients).to_string());
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let postgres = nodes.iter().map(|node| node.ports.postgres.to_string()).collect::<Vec<_>>().join(",");
        let connection = Connection { host: hosts, port: postgres, ..Connection::to_own_server(0, password) };
        let lines = connection.variables().map(|(name, value)| format!("{name}={value}\n")).concat();
        write_secret(&directory.environment(), &lines)?;
        ports.write(directory.home())?;
        Ok(Self { directory, connection, network, nodes, members })
    }

    /// Starts what does not run, and waits until the cluster survives the loss of a node.
    fn start(&self) -> Result<()> {
        self.network.restore()?;
        let account = self.directory.account();
        let peers = configuration::peers(&self.members);
        for member in &self.members {
            member.start(account, &peers)?;
        }
        for node in &self.nodes {
            node.start(account)?;
        }
        let (began, mut is_repaired) = (Instant::now(), false);
        while !self.is_complete() {
            if process::interrupted().is_some() {
                bail!("interrupted");
            }
            if !is_repaired && began.elapsed() > REPAIR_TIMEOUT {
                is_repaired = true;
                self.repair();
            }
            if began.elapsed() > START_TIMEOUT {
                let roles: Vec<_> =
                    self.nodes.iter().map(|node| format!("{}: {}", node.name, node.role())).collect();
                bail!(
                    "no primary with two standbys within {} seconds ({}); the logs are in {}",
                    START_TIMEOUT.as_secs(),
                    roles.join(", "),
                    self.directory.home().display()
                );
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Rebuilds each node that is not known to follow the primary, if there is one.
    fn repair(&self) {
        if self.primary().is_err() {
            return;
        }
        for node in &self.nodes {
            if matches!(node.role(), Role::Primary | Role::SyncStandby) {
                continue;
            }
            match node.reinitialize() {
                Ok(()) => eprintln!("xtask: {} did not come back, and is rebuilt", node.name),
                Err(error) => eprintln!("xtask: {error:#}"),
            }
        }
    }

    fn is_complete(&self) -> bool {
        let roles: Vec<_> = self.nodes.iter().map(Node::role).collect();
        let count = |wanted| roles.iter().filter(|role| **role == wanted).count();
        let has_standbys = count(Role::SyncStandby) == 1 && count(Role::Standby) == NODES - 2;
        let mut primaries = self.nodes.iter().zip(&roles).filter(|(_, role)| **role == Role::Primary);
        let is_followed = primaries.next().is_some_and(|(node, _)| node.followers() == NODES - 1);
        is_followed
            && primaries.next().is_none()
            && has_standbys
            && self.members.iter().all(Member::is_healthy)
    }

    fn kill(&self, target: Target) -> Result<()> {
        match target {
            Target::Primary => self.primary()?.postmaster().signal(Signal::KILL),
            Target::Node => self.primary()?.signal(Signal::KILL),
            Target::Etcd => {
                let leader = self.members.iter().find(|member| member.is_leader());
                leader.context("etcd has no leader at the moment")?.process().signal(Signal::KILL);
            }
            Target::Pause => self.primary()?.signal_postgres(Signal::STOP),
            Target::Resume => {
                self.nodes.iter().for_each(|node| node.signal_postgres(Signal::CONT));
                self.network.heal()?;
            }
            Target::Switchover => self.primary()?.switch_over()?,
            Target::CutNodes => self.primary()?.host.cut(&[Link::Nodes])?,
            Target::CutEtcd => self.primary()?.host.cut(&[Link::Etcd])?,
            Target::Cut => self.primary()?.host.cut(&[Link::Nodes, Link::Etcd])?,
            Target::CutAll => self.primary()?.host.cut(&Link::ALL)?,
            Target::CutStandby => {
                let standby = self.nodes.iter().find(|node| node.role() == Role::SyncStandby);
                standby.context("no standby is synchronous at the moment")?.host.cut(&Link::ALL)?;
            }
        }
        Ok(())
    }

    fn primary(&self) -> Result<&Node> {
        let primary = self.nodes.iter().find(|node| node.role() == Role::Primary);
        primary.context("the cluster has no primary at the moment")
    }
}

fn parts(directory: &ClusterDirectory, ports: &Ports, network: Network) -> (Vec<Node>, Vec<Member>) {
    let home = |name: &str| -> PathBuf { Path::new(directory.home()).join(name) };
    let nodes = (1..).zip(&ports.nodes).map(|(number, ports)| {
        let name = format!("node{number}");
        Node { home: home(&name), name, host: network.host(number), ports: *ports }
    });
    let members = (1..).zip(&ports.members).map(|(number, ports)| {
        let name = format!("etcd{number}");
        Member { home: home(&name), name, host: network.host(number), ports: *ports }
    });
    (nodes.collect(), members.collect())
}
