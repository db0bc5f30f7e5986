//! A subscription continues at its position after a restart of the server: no event is missed or repeated.
//!
//! Runs where PostgreSQL's programs are installed, and says so where they are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod common;

use common::{
    cluster::{Cluster, Stop},
    prelude::*,
};

/// Longer than the test takes: a test that waits for it fails.
const NEVER: Duration = Duration::from_secs(3_600);

/// Sends the ids that a subscription delivers.
fn ids(mut subscription: Subscription<PostgresApplicationRecorder>) -> mpsc::UnboundedReceiver<i64> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(page) = subscription.next_page().await.expect("failures that pass are its own matter")
        {
            for notification in page.notifications {
                let _ = sender.send(notification.id);
            }
        }
    });
    receiver
}

async fn expect(delivered: &mut mpsc::UnboundedReceiver<i64>, expected: &[i64]) {
    for id in expected {
        let next = tokio::time::timeout(Duration::from_secs(60), delivered.recv());
        assert_eq!(next.await.expect("it takes too long"), Some(*id));
    }
}

async fn recorder(options: PostgresOptions) -> PostgresApplicationRecorder {
    options.open().await.unwrap().application_recorder("bank").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_survive_restarts_of_the_server() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let options = cluster.server.options();
    let writer = recorder(options.clone().notify(true)).await;
    // Its failures are the subscription's to bear: it gives up at once.
    let impatient = options.clone().connect_timeout(Duration::from_millis(200));
    let busy = recorder(impatient.clone()).await.subscribe(0, []).poll_interval(Duration::from_millis(1));
    let polling = recorder(options.clone().poll_interval(Duration::from_millis(20))).await;
    let topics = [first().topic];
    let polling = polling.subscribe(0, topics).poll_interval(NEVER);
    let listening = recorder(options.notify(true).poll_interval(NEVER)).await;
    let listening = listening.subscribe(0, []).poll_interval(NEVER);
    let mut followers = [busy, polling, listening].map(ids);
    let reader = recorder(impatient).await;
    for stop in [Stop::Fast, Stop::Immediate, Stop::Crash] {
        let before = writer.insert_events(vec![first(), first()]).await.unwrap();
        for follower in &mut followers {
            expect(follower, &before).await;
        }
        cluster.stop(stop);
        let failed = reader.select_notifications(NotificationSelection::new(10)).await.unwrap_err();
        assert!(failed.is_transient(), "{failed:?}");
        cluster.launch();
        let after = writer.insert_events(vec![first()]).await.unwrap();
        for follower in &mut followers {
            expect(follower, &after).await;
        }
    }
}
