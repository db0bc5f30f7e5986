//! Ports and settings of the cluster's parts.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    NODES,
    network::Link,
    nodes::{Member, Node},
};
use crate::postgres::locate::Binaries;

/// The file of the ports, which is there if the cluster was created.
const FILE: &str = "ports";

/// The ports of all parts. They stay the same as long as the cluster exists.
pub(super) struct Ports {
    pub(super) nodes: Vec<NodePorts>,
    pub(super) members: Vec<MemberPorts>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NodePorts {
    pub(super) postgres: u16,
    /// Patroni's interface.
    pub(super) patroni: u16,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct MemberPorts {
    pub(super) client: u16,
    pub(super) peer: u16,
}

impl Ports {
    /// Chooses ports that are free at the moment.
    pub(super) fn choose() -> Result<Self> {
        // All are bound at the same time, so that they differ.
        let listeners: Result<Vec<_>, _> =
            (0..4 * NODES).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
        let listeners = listeners.context("cannot find free ports")?;
        let ports: Result<Vec<u16>, _> =
            listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect();
        Ok(Self::from_list(&ports?))
    }

    /// Reads the ports of a created cluster.
    pub(super) fn read(home: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(home.join(FILE)) {
            Ok(text) => {
                let ports: Result<Vec<u16>, _> = text.split_whitespace().map(str::parse).collect();
                Ok(Some(Self::from_list(&ports.context("the file of the ports is damaged")?)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot read the ports"),
        }
    }

    pub(super) fn write(&self, home: &Path) -> Result<()> {
        let nodes = self.nodes.iter().flat_map(|ports| [ports.postgres, ports.patroni]);
        let members = self.members.iter().flat_map(|ports| [ports.client, ports.peer]);
        let text: Vec<_> = nodes.chain(members).map(|port| port.to_string()).collect();
        fs::write(home.join(FILE), text.join(" ")).context("cannot write the ports")
    }

    fn from_list(ports: &[u16]) -> Self {
        let pairs: Vec<(u16, u16)> = ports.as_chunks().0.iter().map(|[one, other]| (*one, *other)).collect();
        let (nodes, members) = pairs.split_at(NODES.min(pairs.len()));
        let nodes = nodes.iter().map(|&(postgres, patroni)| NodePorts { postgres, patroni });
        let members = members.iter().map(|&(client, peer)| MemberPorts { client, peer });
        Self { nodes: nodes.collect(), members: members.collect() }
    }
}

/// The members of etcd with their addresses, as each of them is given.
pub(super) fn peers(members: &[Member]) -> String {
    let peers = members.iter().map(|member| {
        format!("{}=http://{}:{}", member.name, member.host.address(Link::Etcd), member.ports.peer)
    });
    peers.collect::<Vec<_>>().join(",")
}

/// The configuration of Patroni on a node, in JSON, which is YAML as well.
///
/// The data survive the end of processes, but no power cut: nothing is flushed.
///
/// With `primary_start_timeout` at zero, a crashed primary is not started again while a standby can take
/// over. With a longer one it would, and its recovery makes commits visible that no standby has.
///
/// Until `wal_sender_timeout`, a primary that is cut off from its standbys does not end, because it waits for
/// them. With the default, 60 seconds, Patroni 3.0 started it a second time before it had ended, and rewound
/// the data of the running one: the node never followed the new primary (`--fault cut` found it).
///
/// The API of etcd is version 2. With version 3, Patroni 3.0 (Debian 12) puts the key of the leader without
/// a comparison: a primary that continues after a pause takes the leadership from its successor, and the
/// successor's acknowledged commits are lost (`cargo xtask faults --failovers 10` found it).
pub(super) fn of_node(node: &Node, members: &[Member], binaries: &Binaries, password: &str) -> String {
    let client = |member: &Member| format!("\"{}:{}\"", member.host.address(Link::Etcd), member.ports.client);
    let etcd: Vec<_> = members.iter().map(client).collect();
    let (listen, address) = (node.host.listen_address(), node.host.address(Link::Nodes));
    let (postgres, patroni) = (node.ports.postgres, node.ports.patroni);
    let (name, etcd, home) = (&node.name, etcd.join(", "), node.home.display());
    let (data, programs) = (node.data(), binaries.directory().display());
    let data = data.display();
    format!(
        r#"{{
  "scope": "es", "name": "{name}",
  "restapi": {{"listen": "{listen}:{patroni}", "connect_address": "{address}:{patroni}"}},
  "etcd": {{"hosts": [{etcd}]}},
  "bootstrap": {{
    "dcs": {{
      "ttl": 5, "loop_wait": 1, "retry_timeout": 2, "primary_start_timeout": 0,
      "synchronous_mode": true, "synchronous_mode_strict": true,
      "postgresql": {{
        "use_pg_rewind": true, "use_slots": true,
        "parameters": {{
          "max_connections": 300, "max_prepared_transactions": 64, "unix_socket_directories": "", "fsync": "off",
          "wal_sender_timeout": "3s", "wal_receiver_timeout": "3s", "lc_messages": "C"
        }}
      }}
    }},
    "initdb": ["no-sync", "no-locale", {{"encoding": "UTF8"}}, {{"auth": "scram-sha-256"}}]
  }},
  "postgresql": {{
    "listen": "{listen}:{postgres}", "connect_address": "{address}:{postgres}",
    "data_dir": "{data}", "bin_dir": "{programs}", "pgpass": "{home}/pgpass",
    "basebackup": [{{"checkpoint": "fast"}}, "no-sync"],
    "remove_data_directory_on_rewind_failure": true,
    "remove_data_directory_on_diverged_timelines": true,
    "pg_hba": ["host all all samenet scram-sha-256", "host replication all samenet scram-sha-256"],
    "authentication": {{
      "superuser": {{"username": "postgres", "password": "{password}"}},
      "replication": {{"username": "replicator", "password": "{password}"}},
      "rewind": {{"username": "rewinder", "password": "{password}"}}
    }}
  }}
}}
"#
    )
}
