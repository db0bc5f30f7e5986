//! PostgreSQL: our recorder beside bare sqlx.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::fixture::Fixture;
use crate::bench::{Bench, Plan};
use crate::systems::bare_postgres::{Connections, Schema};
use crate::workload::{Work, Working};

const BARE: &str = "bare sqlx";

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let schema = Schema::create("es_bench_bare").await?;
    let durability = schema.durability().await?;
    bench.has_durability("PostgreSQL", durability);
    appends(bench).await?;
    let filled = Filled { fixture: Fixture::new(bench.scale), schema: OnceCell::new() };
    reads(bench, &filled).await?;
    for name in ["es_bench_bare", "es_bench_filled"] {
        Schema::existing(name)?.drop().await?;
    }
    Ok(())
}

async fn appends(bench: &mut Bench) -> Result<()> {
    for (events, commits) in [(1, 300), (1_000, 10)] {
        let work = Work::Append { tasks: 1, commits: bench.scale.pick(commits, 2), events };
        let plan = Plan::new(format!("PostgreSQL insert, 1 task, {events} per commit"), 15);
        bench
            .compete(plan, async || Ok(vec![Working::boxed(BARE, bare("es_bench_bare", 1).await?, &work)]))
            .await?;
    }
    Ok(())
}

async fn reads(bench: &mut Bench, filled: &Filled) -> Result<()> {
    let Fixture { events, sizes } = filled.fixture;
    for (index, size) in sizes.into_iter().enumerate() {
        let work = Work::Load {
            originator_id: Fixture::originator(index),
            events: size,
            times: bench.scale.pick(100_000, size) / size,
        };
        read(bench, Plan::new(format!("PostgreSQL load, {size} events"), 15), filled, &work).await?;
    }
    let work = Work::Page { events, page: 1_000 };
    read(bench, Plan::new(format!("PostgreSQL page through {events} by 1000"), 9), filled, &work).await
}

async fn read(bench: &mut Bench, plan: Plan, filled: &Filled, work: &Work) -> Result<()> {
    bench
        .compete(plan, async || {
            Ok(vec![Working::boxed(BARE, Connections::open(filled.schema().await?, 1).await?, work)])
        })
        .await
}

async fn bare(schema: &str, connections: usize) -> Result<Connections> {
    let schema = Schema::create(schema).await?;
    schema.create_table().await?;
    Connections::open(&schema, connections).await
}

/// The table that reads find, filled when the first of them needs it.
struct Filled {
    fixture: Fixture,
    schema: OnceCell<Schema>,
}

impl Filled {
    async fn schema(&self) -> Result<&Schema> {
        let fill = async || {
            let schema = Schema::create("es_bench_filled").await?;
            schema.create_table().await?;
            schema.fill(self.fixture.stored()).await?;
            Ok(schema)
        };
        self.schema.get_or_try_init(fill).await
    }
}

/// What a process of an experiment does.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum ChildJob {}

impl ChildJob {
    pub(crate) async fn serve(self) -> Result<()> {
        match self {}
    }
}
