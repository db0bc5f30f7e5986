//! `cargo xtask faults`: kills processes that write, read and process, or the nodes of their PostgreSQL
//! cluster.

use anyhow::Result;
use clap::Args;

use crate::{
    postgres::{Server, TestCluster},
    process,
    test::WITHOUT_POSTGRES,
    workspace,
};

/// Kill processes that write, read and process databases, and check what is left
///
/// The PostgreSQL server is found as for `cargo xtask test`. Databases, tasks and kills follow from the seed.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The number of rounds: in each, several processes are started and killed
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// The seed of the first database; each further one has the next seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead of the rounds, kill `es copy` this number of times between each pair of backends
    #[arg(long, value_name = "KILLS", conflicts_with = "rounds")]
    copy_kills: Option<u32>,
    /// Instead, switch between the versions of a projection while processes write, project and read
    #[arg(long, conflicts_with_all = ["copy_kills", "failovers"])]
    projections: bool,
    /// Instead of recorders and processors, disturb the workers of a partitioned consumer
    #[arg(long, conflicts_with_all = ["copy_kills", "projections"])]
    workers: bool,
    /// Instead of the rounds, let a part of a PostgreSQL cluster fail this number of times: its primary, the
    /// node of the primary, or the leader of etcd, by crashes, pauses and switchovers, and by cuts of the
    /// network where the nodes can have namespaces (root on Linux). Patroni and etcd are needed
    #[arg(long, value_name = "FAULTS", conflicts_with_all = ["rounds", "copy_kills", "workers", "without_postgres"])]
    failovers: Option<u32>,
    /// With --failovers, cause faults of one kind alone: primary, switchover, node, etcd, pause, long-pause,
    /// cut, cut-etcd, cut-all, cut-standby or cut-nodes
    #[arg(long, value_name = "KIND", requires = "failovers")]
    fault: Option<String>,
    /// Skip everything that needs a PostgreSQL server
    #[arg(long)]
    without_postgres: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (rounds, seed) = (arguments.rounds.to_string(), arguments.seed.to_string());
    let mut command = workspace::cargo();
    if let Some(failovers) = arguments.failovers {
        let cluster = TestCluster::provide()?;
        command.args(["run", "--package", "es-faults", "--", "--seed", &seed]);
        command.args(["--failovers", &failovers.to_string()]);
        if let Some(fault) = &arguments.fault {
            command.args(["--fault", fault]);
        }
        command.envs(cluster.start()?.variables()).envs(cluster.variables()?);
        return process::check(&mut command);
    }
    match arguments.copy_kills {
        Some(kills) => {
            let test = "copying::a_killed_copy_continues_without_a_duplicate";
            command.args([
                "test",
                "--package",
                "es-cli",
                "--test",
                "cli",
                "--",
                "--exact",
                test,
                "--nocapture",
            ]);
            command.env("ES_COPY_KILLS", kills.to_string())
        }
        None => command
            .args(["run", "--package", "es-faults", "--", "--rounds", &rounds, "--seed", &seed])
            .args(arguments.projections.then_some("--projections"))
            .args(arguments.workers.then_some("--workers")),
    };
    // Lives until the last process has ended.
    let server = if arguments.without_postgres { None } else { Some(Server::provide(None)?) };
    match &server {
        Some(server) => command.env_remove(WITHOUT_POSTGRES).envs(server.variables()),
        None => command.env(WITHOUT_POSTGRES, "1"),
    };
    process::check(&mut command)
}
