//! The tool `es`: copies between all pairs of backends, verification, and a followed log.

use std::path::Path;

use anyhow::Result;
use es_core::{Bytes, StoredEvent};

use crate::{
    bench::Bench,
    data,
    plan::Plan,
    system::System,
    systems::{
        postgres_schema::Schema,
        tool::{Backend, BareCopy, Copy, Database, FollowLatency, Tool, Verify},
    },
};

/// Events of each aggregate.
const OF_AGGREGATE: usize = 10;
/// The time within which a followed event is printed, in milliseconds.
const FOLLOWED_WITHIN: f64 = 100.0;
/// The time of a copy, as a multiple of a bare read and a bare insert.
const COPIED_WITHIN: f64 = 1.3;

/// Runs the experiments with the program.
pub(crate) async fn run(
    bench: &mut Bench,
    program: &Path,
    directory: &Path,
    has_postgres: bool,
) -> Result<()> {
    let tool = Tool { program: program.to_owned(), directory: directory.to_owned() };
    let backends = if has_postgres { &[Backend::Sqlite, Backend::Postgres][..] } else { &[Backend::Sqlite] };
    for backend in backends.iter().copied() {
        follow(bench, &tool, backend).await?;
        verify(bench, &tool, backend).await?;
        for to in backends.iter().copied() {
            copy(bench, &tool, backend, to).await?;
        }
    }
    if has_postgres { Schema::drop_all().await } else { Ok(()) }
}

async fn follow(bench: &mut Bench, tool: &Tool, backend: Backend) -> Result<()> {
    let name = format!("{} es log --follow, from commit to line", backend.name());
    let plan = Plan::new(name, 5).p99_milliseconds(FOLLOWED_WITHIN);
    let events = events(bench.scale.pick(500, 20));
    bench
        .measure(plan, async || {
            Ok(vec![Box::new(FollowLatency { tool: tool.clone(), backend, events }) as Box<dyn System>])
        })
        .await
}

async fn verify(bench: &mut Bench, tool: &Tool, backend: Backend) -> Result<()> {
    let count = bench.scale.pick(1_000_000, 2_000);
    let plan = Plan::new(format!("{} es verify of {count}", backend.name()), 5);
    bench
        .measure(plan, async || {
            let database = tool.filled(backend, "verified", &events(count)).await?;
            Ok(vec![Box::new(Verify { tool: tool.clone(), database, events: count }) as Box<dyn System>])
        })
        .await
}

async fn copy(bench: &mut Bench, tool: &Tool, from: Backend, to: Backend) -> Result<()> {
    let count = bench.scale.pick(200_000, 2_000);
    let name = format!("{} es copy of {count} to {}", from.name(), to.name());
    let plan = Plan::new(name, 5).within(COPIED_WITHIN, BareCopy::NAME);
    bench
        .measure(plan, async || {
            let events = events(count);
            let source: Database = tool.filled(from, "source", &events).await?;
            let copy = Copy { tool: tool.clone(), from: source.clone(), to, events: count };
            let bare = BareCopy { tool: tool.clone(), from: source, to, events };
            Ok(vec![Box::new(copy) as Box<dyn System>, Box::new(bare)])
        })
        .await
}

/// Returns events whose states are JSON.
fn events(count: usize) -> Vec<StoredEvent> {
    let aggregate = |index| data::events(data::originator(index), OF_AGGREGATE, data::STATE_SIZE);
    let json = |mut event: StoredEvent| {
        event.state = Bytes::from([&b"{\"note\":\""[..], &event.state, b"\"}"].concat());
        event
    };
    (0..).flat_map(aggregate).map(json).take(count).collect()
}
