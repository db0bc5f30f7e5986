//! The cluster that the environment names, and the faults of its parts.

use std::{env, ffi::OsString, fmt, process::Command};

use anyhow::{Context, Result, bail};

/// Names the program that controls the cluster.
const PROGRAM: &str = "ES_TEST_CLUSTER";

/// A cluster of PostgreSQL nodes.
#[derive(Clone, Debug)]
pub struct Cluster {
    program: OsString,
}

/// A fault of a part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// The primary's postmaster is killed.
    Primary,
    /// All processes of the primary's node are killed.
    Node,
    /// The leader of etcd is killed.
    Etcd,
    /// The primary's processes are stopped by SIGSTOP, and continue after a standby has taken over.
    Pause,
    /// A standby becomes the primary, in order.
    Switchover,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Primary, Self::Switchover, Self::Node, Self::Pause, Self::Etcd];

    fn target(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Node => "node",
            Self::Etcd => "etcd",
            Self::Pause => "pause",
            Self::Switchover => "switchover",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "crash of the primary",
            Self::Node => "crash of the primary's node",
            Self::Etcd => "crash of etcd's leader",
            Self::Pause => "pause of the primary",
            Self::Switchover => "switchover",
        })
    }
}

impl Cluster {
    /// The cluster, if there is one.
    pub fn from_environment() -> Option<Self> {
        env::var_os(PROGRAM).map(|program| Self { program })
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

    /// Lets paused processes continue.
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
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
