//! The network of a cluster: a namespace for each node where the system lets us create them, else loopback.
//!
//! With namespaces, each node has a link to three networks, as machines in production can have: one for
//! clients, one for the other nodes (replication) and one for etcd. A cut takes links down: packets vanish
//! without an answer. This process and the programs under test are outside of the namespaces, and connected
//! to all three networks.

use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Write as _},
    net::Ipv4Addr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::NODES;
use crate::postgres::{account::Account, locate};

/// The file of the network's number.
const FILE: &str = "network";

/// Each cluster of a machine has a number, which is part of its addresses and names.
const NUMBERS: RangeInclusive<u8> = 1..=250;

/// The network of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// All nodes are on loopback, and no link can be cut.
    Loopback,
    /// Each node has a namespace.
    Namespaces(u8),
}

/// A network that each node has a link to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Clients,
    Nodes,
    Etcd,
}

/// The place of a node in the network, and of the member of etcd beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) network: Network,
    /// From 1 on.
    pub(super) number: u8,
}

impl Link {
    pub(super) const ALL: [Self; 3] = [Self::Clients, Self::Nodes, Self::Etcd];

    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Nodes => "nodes",
            Self::Etcd => "etcd",
        }
    }
}

impl Network {
    /// Creates namespaces, or else uses loopback.
    pub(super) fn create() -> Self {
        for number in NUMBERS {
            let network = Self::Namespaces(number);
            if network.exists() {
                continue;
            }
            match network.set_up() {
                Ok(()) => return network,
                // Another process was faster.
                Err(error) if error.to_string().contains("File exists") => {}
                Err(_) => {
                    network.delete();
                    break;
                }
            }
        }
        Self::Loopback
    }

    /// Creates the namespaces again if the machine was restarted.
    pub(super) fn restore(self) -> Result<()> {
        if self.exists() { Ok(()) } else { self.set_up() }
    }

    /// Reads the network of a cluster: loopback if there is none yet.
    pub(super) fn read(home: &Path) -> Result<Self> {
        match fs::read_to_string(home.join(FILE)) {
            Ok(number) => number.parse().map(Self::Namespaces).context("the file of the network is damaged"),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Loopback),
            Err(error) => Err(error).context("cannot read the file of the network"),
        }
    }

    pub(super) fn write(self, home: &Path) -> Result<()> {
        let Self::Namespaces(number) = self else { return Ok(()) };
        fs::write(home.join(FILE), number.to_string()).context("cannot write the file of the network")
    }

    /// Connects all links.
    pub(super) fn heal(self) -> Result<()> {
        let Self::Namespaces(_) = self else { return Ok(()) };
        let links = self.hosts().flat_map(|host| Link::ALL.map(|link| host.outer_end(link)));
        ip(None, &links.map(|link| format!("link set {link} up\n")).collect::<String>())
    }

    /// Deletes the namespaces, after the processes in them have ended.
    pub(super) fn delete(self) {
        let mut script = String::new();
        for host in self.hosts() {
            for link in Link::ALL {
                let _ = writeln!(script, "link del {}", host.outer_end(link));
            }
            let _ = writeln!(script, "netns del {}", host.namespace());
        }
        for link in Link::ALL {
            let _ = writeln!(script, "link del {}", self.bridge(link));
        }
        if self != Self::Loopback {
            // Some of it may not exist.
            let _ = ip(None, &script);
        }
    }

    pub(super) fn host(self, number: u8) -> Host {
        Host { network: self, number }
    }

    fn hosts(self) -> impl Iterator<Item = Host> {
        (1..).take(NODES).map(move |number| self.host(number))
    }

    fn exists(self) -> bool {
        self.host(1).namespace_file().is_none_or(|file| file.exists())
    }

    fn set_up(self) -> Result<()> {
        locate::on_path("nsenter").context("nsenter is not installed (Debian's package util-linux)")?;
        // Fails if the number is taken.
        ip(None, &format!("netns add {}\n", self.host(1).namespace()))?;
        let others = self.hosts().skip(1);
        let mut script: String = others.map(|host| format!("netns add {}\n", host.namespace())).collect();
        for link in Link::ALL {
            let (bridge, address) = (self.bridge(link), self.host(0).address(link));
            write!(
                script,
                "link add {bridge} type bridge\naddr add {address}/26 dev {bridge}\nlink set {bridge} up\n"
            )?;
            for host in self.hosts() {
                let (outer, inner, namespace) = (host.outer_end(link), link.name(), host.namespace());
                writeln!(script, "link add {outer} type veth peer name {inner} netns {namespace}")?;
                writeln!(script, "link set {outer} master {bridge} up")?;
            }
        }
        ip(None, &script)?;
        for host in self.hosts() {
            let mut script = "link set lo up\n".to_owned();
            for link in Link::ALL {
                let (name, address) = (link.name(), host.address(link));
                write!(script, "addr add {address}/26 dev {name}\nlink set {name} up\n")?;
            }
            ip(Some(&host.namespace()), &script)?;
        }
        Ok(())
    }

    fn bridge(self, link: Link) -> String {
        let Self::Namespaces(number) = self else { return String::new() };
        format!("es{number}-{}", link.name())
    }
}

impl Host {
    /// The address on a network. That of host 0 is ours.
    pub(super) fn address(self, link: Link) -> Ipv4Addr {
        match self.network {
            Network::Loopback => Ipv4Addr::LOCALHOST,
            // A range that is reserved for tests of networks (RFC 2544).
            Network::Namespaces(number) => Ipv4Addr::new(198, 18, number, 64 * link as u8 + self.number + 1),
        }
    }

    /// The address that a server listens on: on all networks, or on loopback.
    pub(super) fn listen_address(self) -> Ipv4Addr {
        match self.network {
            Network::Loopback => Ipv4Addr::LOCALHOST,
            Network::Namespaces(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// A command that runs as the account on this host.
    pub(super) fn command(self, account: Account, program: &str, directory: &Path) -> Command {
        match self.namespace_file() {
            Some(namespace) => account.command_in_namespace(&namespace, program, directory),
            None => account.command(program, directory),
        }
    }

    /// Takes links down.
    pub(super) fn cut(self, links: &[Link]) -> Result<()> {
        ensure!(self.network != Network::Loopback, "the nodes are on loopback, and have no links to cut");
        ip(
            None,
            &links
                .iter()
                .map(|link| format!("link set {} down\n", self.outer_end(*link)))
                .collect::<String>(),
        )
    }

    fn namespace(self) -> String {
        let Network::Namespaces(number) = self.network else { return String::new() };
        format!("es{number}-node{}", self.number)
    }

    fn namespace_file(self) -> Option<PathBuf> {
        (self.network != Network::Loopback).then(|| Path::new("/run/netns").join(self.namespace()))
    }

    /// The end of a link that is outside of the namespace.
    fn outer_end(self, link: Link) -> String {
        format!("{}{}", self.network.bridge(link), self.number)
    }
}

/// Runs commands of `ip`. All of them are tried, and an error has the first message.
fn ip(namespace: Option<&str>, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-netns", namespace]);
    }
    command
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run ip (Debian's package iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).context("cannot give commands to ip")?;
    }
    let output = child.wait_with_output().context("ip does not end")?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}
