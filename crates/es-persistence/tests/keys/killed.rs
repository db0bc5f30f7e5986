//! Re-encryption by processes that are killed at any point.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use es_persistence::{
    AggregateRecorder, ApplicationRecorder, NotificationSelection,
    crypto::{AesCipher, KeyUsage, Reencryption},
};

use crate::{
    check,
    database::{Database, Postgres, Sqlite, on_each_backend},
    encrypted, key, ring,
};

/// The variable with the name of the database of a child.
const DATABASE: &str = "ES_KEYS_TEST_DATABASE";

/// The events of the table: several pages.
const EVENTS: u128 = 1_600;

on_each_backend!(a_killed_reencryption_leaves_every_state_readable_and_is_continued,);

/// Not a test by itself: the work of the other processes, which encrypts everything again, with one key and
/// then with the other, until it is killed.
#[tokio::test]
async fn child() {
    match env::var(DATABASE) {
        Ok(name) if name.contains('/') => reencrypt_repeatedly(Sqlite::open(&name).await).await,
        Ok(name) => reencrypt_repeatedly(Postgres::open(&name).await).await,
        Err(_) => {}
    }
}

async fn reencrypt_repeatedly(database: impl Database) {
    let recorder = database.process_recorder().await;
    for primary in [2, 1].into_iter().cycle() {
        let ring = ring(primary);
        let mut reencryption = Reencryption::new(&recorder, &ring);
        while let Some(page) = reencryption.next_page().await.unwrap() {
            println!("page {}", page.replaced);
        }
    }
}

/// Kills a process at a random point of its re-encryption, `ES_KEYS_TEST_KILLS` times on each backend.
async fn a_killed_reencryption_leaves_every_state_readable_and_is_continued(database: impl Database) {
    let kills = env::var("ES_KEYS_TEST_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let recorder = database.process_recorder().await;
    let legacy = AesCipher::new(&key(9));
    recorder.insert_events((1..=EVENTS).map(|id| encrypted(&legacy, id, 1)).collect()).await.unwrap();
    for kill in 0..kills {
        let name = database.name().to_owned();
        tokio::task::spawn_blocking(move || run_and_kill(&name, kill)).await.unwrap();
        let all = recorder.select_notifications(NotificationSelection::new(10_000)).await.unwrap();
        assert_eq!(all.len(), EVENTS as usize);
        all.iter().for_each(|notification| check(&ring(1), &notification.event));
    }
    let ring = ring(2);
    let mut reencryption = Reencryption::new(&recorder, &ring);
    while reencryption.next_page().await.unwrap().is_some() {}
    let usage = KeyUsage::of(&recorder).await.unwrap();
    assert_eq!(usage.iter().collect::<Vec<_>>(), [(Some(2), EVENTS as u64)]);
}

/// Runs a child, and kills it after a number of pages and of turns of the scheduler.
fn run_and_kill(name: &str, kill: usize) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed::child", "--nocapture"])
        .env(DATABASE, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let pages = 1 + kill % 5;
    let mut line = String::new();
    for _ in 0..pages {
        line.clear();
        while !line.starts_with("page") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child ended");
        }
    }
    for _ in 0..kill * 37 % 400 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = output.read_to_string(&mut line);
}
