//! Behind pgbouncer in transaction mode, many recorders are opened at the same time.
//!
//! Runs with each pgbouncer that is installed (`apt-get install pgbouncer`) or that `cargo xtask test`
//! provides, and reports those that are missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use common::{
    pooler::{Pooler, Program},
    prelude::*,
};

// Behind a pooler, the catalogue queries of opening did not run in a transaction. The driver sends one
// statement in two parts, and the second one met the unnamed statement of another client: of eight concurrent
// openers hardly one succeeded, and some of those that did took the table for one without notification ids
// and wrote without a lock, so that a follower missed events.

const OPENERS: usize = 8;
const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_openers_get_recorders_that_keep_the_order() {
    for program in Program::all() {
        let schema = Schema::create().await;
        let pooler = Pooler::start(&program, &schema.server, "").await;
        open_concurrently(&pooler, &schema, through(&pooler, &schema)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_openers_keep_the_order_with_statements_that_the_pooler_tracks() {
    for program in Program::all().into_iter().filter(|program| program.tracks_statements) {
        let schema = Schema::create().await;
        let pooler = Pooler::start(&program, &schema.server, "max_prepared_statements = 200").await;
        open_concurrently(&pooler, &schema, through(&pooler, &schema).transaction_pooler(false)).await;
    }
}

async fn open_concurrently(pooler: &Pooler, schema: &Schema, options: PostgresOptions) {
    schema.open().await.application_recorder("bank").await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let disturbers: Vec<_> =
        (0..2).map(|_| tokio::spawn(disturb(pooler.server(&schema.server), Arc::clone(&is_over)))).collect();
    let follower = schema.open().await.application_recorder("bank").await.unwrap();
    let following = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let mut seen: Vec<i64> = Vec::new();
            loop {
                let is_last = is_over.load(Atomic::SeqCst);
                let after = NotificationSelection::new(50).after(seen.last().copied().unwrap_or(0));
                let page = follower.select_notifications(after).await.unwrap();
                if page.is_empty() && is_last {
                    return seen;
                }
                seen.extend(page.iter().map(|notification| notification.id));
            }
        }
    });
    let openers: Vec<_> = (0..OPENERS)
        .map(|_| {
            let options = options.clone();
            tokio::spawn(async move {
                let mut written = Vec::new();
                for round in 0..ROUNDS {
                    let datastore = options.clone().open().await.unwrap();
                    let recorder = datastore.application_recorder("bank").await.unwrap();
                    let ids = recorder.insert_events(vec![first(), first()]).await.unwrap();
                    assert_eq!(ids.len(), 2, "round {round}: each event has a notification id");
                    let read = NotificationSelection::new(2).after(ids[0] - 1).stop(ids[1]);
                    assert_eq!(recorder.select_notifications(read).await.unwrap().len(), 2);
                    written.extend(ids);
                    datastore.close().await.unwrap();
                }
                written
            })
        })
        .collect();
    let mut written = Vec::new();
    for opener in openers {
        written.extend(opener.await.unwrap());
    }
    is_over.store(true, Atomic::SeqCst);
    written.sort_unstable();
    assert_eq!(written.len(), 2 * OPENERS * ROUNDS);
    assert_eq!(following.await.unwrap(), written, "the follower has seen each event once, in their order");
    for disturber in disturbers {
        disturber.await.unwrap();
    }
}

/// Another client of the pooler, which uses the unnamed statement: its answers do not matter.
async fn disturb(server: Server, is_over: Arc<AtomicBool>) {
    while !is_over.load(Atomic::SeqCst) {
        let Ok(mut connection) = server.try_connect().await else { continue };
        for _ in 0..100 {
            let query = sqlx::query("SELECT $1::pg_catalog.int4").bind(2_i32).persistent(false);
            let answer = query.fetch_optional(&mut connection).await;
            if is_over.load(Atomic::SeqCst) || answer.is_err_and(|error| error.as_database_error().is_none())
            {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn through(pooler: &Pooler, schema: &Schema) -> PostgresOptions {
    schema.options().host("127.0.0.1").port(pooler.port).transaction_pooler(true)
}
