//! Two hundred tenants with a schema each, on the connections of one datastore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use common::prelude::*;
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{Row, postgres::PgArguments};

const TENANTS: usize = 200;
const CONNECTIONS: usize = 8;
/// Of one tenant with a recorder and a subscription that waits. Measured: 20 to 40 KiB.
const MOST_KIB: usize = 256;
/// For a test that fails.
const TOO_LONG: Duration = Duration::from_secs(120);

/// The connections of the library to the database of the test.
const OPEN: &str = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND application_name = 'es-postgres'";

fn name(tenant: usize) -> String {
    format!("tenant_{tenant}")
}

/// The resident memory of this process in KiB; zero where the system does not tell.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tenants_share_connections() {
    let database = Database::create().await;
    let mut admin = database.server.connect().await;
    for tenant in 0..TENANTS {
        run(&mut admin, &format!("CREATE SCHEMA {}", name(tenant))).await;
    }
    let options = database.server.options().pool_size(CONNECTIONS / 2).max_overflow(CONNECTIONS / 2);
    let shared = options.open().await.unwrap();
    let before = resident_kib();

    let open = |tenant| {
        let datastore = shared.in_schema(name(tenant));
        async move { datastore.process_recorder("bank").await }
    };
    let tenants: Vec<PostgresProcessRecorder> =
        stream::iter(0..TENANTS).map(open).buffered(2 * CONNECTIONS).try_collect().await.unwrap();
    // Each waits for its tenant's events, while a task polls its table.
    let waiting: Vec<_> = tenants
        .iter()
        .map(|recorder| {
            let mut subscription = recorder.clone().subscribe(0, []);
            tokio::spawn(async move { (subscription.next_page().await.unwrap().unwrap(), subscription) })
        })
        .collect();
    let ids: Vec<Uuid> = (0..TENANTS).map(|_| Uuid::new_v4()).collect();
    let insert = |(recorder, id): (&PostgresProcessRecorder, &Uuid)| {
        let (recorder, id) = (recorder.clone(), *id);
        async move {
            let position = Tracking::new("shop", 1).unwrap();
            recorder.insert_events_with_tracking(vec![event(id, 1)], position).await
        }
    };
    let inserting = stream::iter(tenants.iter().zip(&ids)).map(insert).buffer_unordered(TENANTS);
    let inserted: Vec<Vec<i64>> = inserting.try_collect().await.unwrap();
    assert_eq!(inserted, vec![vec![1]; TENANTS], "the tenants' logs are not their own");

    let mut subscriptions = Vec::new();
    for (waited, id) in waiting.into_iter().zip(&ids) {
        let (page, subscription) = tokio::time::timeout(TOO_LONG, waited).await.unwrap().unwrap();
        let read = page.notifications.iter().map(|one| (one.id, one.event.originator_id));
        assert_eq!(read.collect::<Vec<_>>(), [(1, *id)]);
        subscriptions.push(subscription);
    }
    let open: i64 = scalar(&mut admin, OPEN).await;
    assert!(usize::try_from(open).unwrap() <= CONNECTIONS, "{open} connections");
    let used = resident_kib().saturating_sub(before) / TENANTS;
    println!("{used} KiB of memory and {open}/{TENANTS} connections for each tenant");
    assert!(used <= MOST_KIB, "{used} KiB for each tenant");
    shared.close().await.unwrap();
}

#[tokio::test]
async fn queries_of_a_tenant_read_its_schema() {
    let (first, second) = (Schema::create().await, Schema::create().await);
    let datastore = first.open().await;
    for (datastore, schema) in [(&datastore, &first), (&datastore.in_schema(&second.name), &second)] {
        let query = datastore.fetch("SELECT current_schema()::text", PgArguments::default(), |row| {
            Ok(row.get::<String, _>(0))
        });
        assert_eq!(query.await.unwrap(), [schema.name.as_str()]);
    }
    datastore.in_schema(&second.name).close().await.unwrap();
    assert_eq!(datastore.application_recorder("bank").await.unwrap_err().kind(), ErrorKind::Interface);
}
