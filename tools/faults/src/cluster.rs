//! The cluster that the environment names, and the faults of its parts.

use std::{env, ffi::OsString, fmt, process::Command};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

/// Names the program that controls the cluster.
const PROGRAM: &str = "ES_TEST_CLUSTER";

/// A cluster of PostgreSQL nodes.
#[derive(Clone, Debug)]
pub struct Cluster {
    program: OsString,
    faults: Vec<Fault>,
}

/// A fault of a part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[non_exhaustive]
pub enum Fault {
    /// The primary's postmaster is killed
    Primary,
    /// The primary is cut off from the other nodes and from etcd, but not from clients
    Cut,
    /// A standby becomes the primary, in order
    Switchover,
    /// All processes of the primary's node are killed
    Node,
    /// The primary's processes are stopped by SIGSTOP, and continue after a standby has taken over
    Pause,
    /// The same, and they continue 30 seconds later
    LongPause,
    /// The leader of etcd is killed
    Etcd,
    /// The primary and its member of etcd are cut off from the other members
    CutEtcd,
    /// The primary is cut off from all, clients included
    CutAll,
    /// The synchronous standby is cut off from all
    CutStandby,
    /// The primary is cut off from the other nodes, and keeps its leadership
    CutNodes,
}

impl Fault {
    /// Returns whether the fault is a cut of the network.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::Cut | Self::CutEtcd | Self::CutAll | Self::CutStandby | Self::CutNodes)
    }

    /// Returns whether the fault lasts until [`Cluster::resume`].
    pub fn lasts(self) -> bool {
        self.is_cut() || matches!(self, Self::Pause | Self::LongPause)
    }

    /// Returns whether a primary may still answer reads after another node has become the primary.
    pub fn leaves_two_primaries(self) -> bool {
        self.lasts() && self != Self::CutStandby
    }

    fn target(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Switchover => "switchover",
            Self::Node => "node",
            Self::Pause | Self::LongPause => "pause",
            Self::Etcd => "etcd",
            Self::Cut => "cut",
            Self::CutEtcd => "cut-etcd",
            Self::CutAll => "cut-all",
            Self::CutStandby => "cut-standby",
            Self::CutNodes => "cut-nodes",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "crash of the primary",
            Self::Switchover => "switchover",
            Self::Node => "crash of the primary's node",
            Self::Pause => "pause of the primary",
            Self::LongPause => "pause of the primary for 30 s",
            Self::Etcd => "crash of etcd's leader",
            Self::Cut => "cut of the primary from nodes and etcd",
            Self::CutEtcd => "cut of the primary from etcd",
            Self::CutAll => "cut of the primary from nodes, etcd and clients",
            Self::CutStandby => "cut of the synchronous standby from all",
            Self::CutNodes => "cut of the primary from nodes",
        })
    }
}

impl Cluster {
    /// The cluster, if there is one.
    pub fn from_environment() -> Option<Self> {
        let program = env::var_os(PROGRAM)?;
        // Nodes on loopback have no links to cut.
        let has_links = env::var("POSTGRES_HOST").is_ok_and(|hosts| !hosts.starts_with("127."));
        let faults = Fault::value_variants().iter().copied().filter(|fault| has_links || !fault.is_cut());
        Some(Self { program, faults: faults.collect() })
    }

    /// The same with one kind of fault.
    #[must_use]
    pub fn only(self, fault: Fault) -> Self {
        Self { faults: vec![fault], ..self }
    }

    /// The faults that this cluster can have.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Returns the name of the primary, if there is one at the moment.
    ///
    /// # Errors
    /// When the program fails.
    pub fn primary(&self) -> Result<Option<String>> {
        let status = self.run(&["status"])?;
        let primary = status.lines().find(|line| line.ends_with(": primary"));
        Ok(primary.and_then(|line| line.split_whitespace().next()).map(str::to_owned))
    }

    /// Starts what does not run, and waits until the cluster is complete. Returns the variables by which it
    /// is found.
    ///
    /// # Errors
    /// When it does not start; the program has said why.
    pub fn up(&self) -> Result<Vec<(String, String)>> {
        let exports = self.run(&["up"])?;
        let variables = exports.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Causes a fault.
    ///
    /// # Errors
    /// When the part is not to be found at the moment.
    pub fn cause(&self, fault: Fault) -> Result<()> {
        self.run(&["kill", fault.target()]).map(drop)
    }

    /// Lets paused processes continue, and connects all links.
    ///
    /// # Errors
    /// When the program fails.
    pub fn resume(&self) -> Result<()> {
        self.run(&["kill", "resume"]).map(drop)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).args(["postgres", "cluster"]).args(arguments).output();
        let output = output.context("cannot run the program that controls the cluster")?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("cluster {}: {}", arguments.join(" "), error.trim_end());
        }
        report(&String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[expect(clippy::print_stderr, reason = "a node that had to be rebuilt is part of the report")]
fn report(messages: &str) {
    eprint!("{messages}");
}
