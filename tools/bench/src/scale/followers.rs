//! The statements that subscribers cause on a PostgreSQL server.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use es_core::{AggregateRecorder, ApplicationRecorderExt};
use es_postgres::PostgresApplicationRecorder;
use sqlx::PgConnection;
use tokio::sync::Semaphore;

use super::{FollowingSample, postgres::wait_for_sessions};
use crate::{
    data::{STATE_SIZE, Supply},
    systems::postgres_schema::Schema,
};

/// Processes, and subscribers in each.
const CASES: [(usize, usize); 7] = [(1, 1), (1, 10), (1, 100), (1, 1_000), (2, 10), (4, 10), (8, 10)];
const COMMITS: usize = 50;
const IDLE: Duration = Duration::from_secs(5);

pub(super) async fn measure() -> Result<Vec<FollowingSample>> {
    let mut samples = Vec::new();
    for (processes, subscribers) in CASES {
        let idle = statements(processes, subscribers, 0).await?;
        let idle_again = statements_idle(processes, subscribers).await?;
        let busy = statements(processes, subscribers, COMMITS).await?;
        samples.push(FollowingSample {
            processes,
            subscribers,
            per_commit: (busy - idle).max(0.0) / COMMITS as f64,
            idle_per_second: (idle_again - idle).max(0.0) / IDLE.as_secs_f64(),
        });
    }
    Ok(samples)
}

/// Returns the statements of processes with subscribers, while one of them commits so often.
async fn statements(processes: usize, subscribers: usize, commits: usize) -> Result<f64> {
    run(processes, subscribers, async |recorder, received| {
        let supply = Supply::default();
        for _ in 0..commits {
            recorder.insert_events(supply.events(1, STATE_SIZE)).await?;
            wait_for_all(received, processes * subscribers).await?;
        }
        Ok(())
    })
    .await
}

async fn statements_idle(processes: usize, subscribers: usize) -> Result<f64> {
    run(processes, subscribers, async |_, _| {
        tokio::time::sleep(IDLE).await;
        Ok(())
    })
    .await
}

/// Runs `work` beside subscribers. Each process is a datastore of its own, which shares nothing with others.
async fn run(
    processes: usize,
    subscribers: usize,
    work: impl AsyncFnOnce(&PostgresApplicationRecorder, &Semaphore) -> Result<()>,
) -> Result<f64> {
    let schema = Schema::create("scale_following").await?;
    schema.create_table().await?;
    let mut connection = schema.connect().await?;
    wait_for_sessions(&mut connection).await?;
    let before = transactions(&mut connection).await?;
    let received = Arc::new(Semaphore::new(0));
    let (mut datastores, mut recorders, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..processes {
        let datastore = schema.options().open().await?;
        let recorder = datastore.application_recorder("").await?;
        // The first event tells that a subscriber follows.
        for _ in 0..subscribers {
            let (mut subscription, received) = (recorder.subscribe(0, []), Arc::clone(&received));
            tasks.push(tokio::spawn(async move {
                while let Ok(Some(page)) = subscription.next_page().await {
                    received.add_permits(page.notifications.len());
                }
            }));
        }
        datastores.push(datastore);
        recorders.push(recorder);
    }
    let first = recorders.first().context("there is no process")?;
    first.insert_events(Supply::starting_at(1 << 20).events(1, STATE_SIZE)).await?;
    wait_for_all(&received, processes * subscribers).await?;
    work(first, &received).await?;
    drop(recorders);
    for datastore in datastores {
        datastore.close().await?;
    }
    for task in tasks {
        task.await?;
    }
    wait_for_sessions(&mut connection).await?;
    let counted = transactions(&mut connection).await? - before;
    schema.drop().await?;
    Ok(counted)
}

async fn wait_for_all(received: &Semaphore, count: usize) -> Result<()> {
    received.acquire_many(u32::try_from(count)?).await?.forget();
    Ok(())
}

/// Each statement outside of a transaction is a transaction.
async fn transactions(connection: &mut PgConnection) -> Result<f64> {
    const SELECT: &str = "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database \
         WHERE datname = current_database()";
    Ok(sqlx::query_scalar(SELECT).fetch_one(connection).await?)
}
