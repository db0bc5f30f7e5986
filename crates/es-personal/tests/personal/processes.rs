//! Several processes with one key store: they read, write and erase at the same time.

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use es_core::{EventRange, Expected, uuid::Uuid};
use es_factory::InfrastructureFactory;
use es_personal::{KeyStore, Personal};
use tempfile::TempDir;

use crate::{OrderEvent, name, placed, stores::PostgresDatabase, subject};

const IS_CHILD: &str = "ES_TEST_PERSONAL_PROCESS";
const RING: &str = "1:5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=";
/// The rounds in which two processes do something at the same time.
const ROUNDS: u128 = 10;

/// A log on SQLite, and a key store.
struct Place {
    directory: TempDir,
    database: Option<PostgresDatabase>,
}

impl Place {
    fn sqlite() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), database: None }
    }

    async fn postgres() -> Option<Self> {
        let database = PostgresDatabase::create().await?;
        Some(Self { directory: tempfile::tempdir().unwrap(), database: Some(database) })
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let keys = match &self.database {
            Some(database) => database.url(),
            None => format!("sqlite:{}", path("keys.db")),
        };
        vec![
            ("PERSISTENCE_MODULE", "sqlite".to_owned()),
            ("SQLITE_DBNAME", path("events.db")),
            ("CIPHER_KEYS", RING.to_owned()),
            ("PERSONAL_KEYS_URL", keys),
        ]
    }

    fn factory(&self) -> InfrastructureFactory {
        let builder = InfrastructureFactory::builder("").environment(self.variables());
        builder.personal::<String>().personal::<crate::Address>().build().unwrap()
    }

    /// Starts a process whose keys expire after some seconds.
    fn start(&self, max_age: &str) -> Process {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "processes::child", "--nocapture"]).env(IS_CHILD, "yes");
        command.envs(self.variables()).env("PERSONAL_KEYS_MAX_AGE", max_age);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Process { child, input, output };
        assert_eq!(process.answer(), "ready");
        process
    }
}

/// A process that executes one command after the other.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn send(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    fn answer(&mut self) -> String {
        loop {
            let line = self.output.next().unwrap().unwrap();
            if let Some(answer) = line.strip_prefix("answer ") {
                return answer.to_owned();
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.answer()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child process; without its variable, nothing.
#[tokio::test]
async fn child() {
    if env::var_os(IS_CHILD).is_none() {
        return;
    }
    let builder = InfrastructureFactory::builder("").personal::<String>().personal::<crate::Address>();
    let factory = builder.build().unwrap();
    let store = factory.event_store().await.unwrap();
    // Opens the key store.
    factory.key_store().unwrap().unwrap().select(&[]).await.unwrap();
    let keys = factory.subject_keys().unwrap().unwrap();
    // The first line continues one of the test harness.
    println!("\nanswer ready");
    for command in std::io::stdin().lines() {
        let command = command.unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        let number = |index: usize| words[index].parse::<u128>().unwrap();
        let answer = match words[0] {
            "read" => {
                let events = store.get::<OrderEvent>(Uuid::from_u128(number(1)), EventRange::all()).await;
                match &events.unwrap()[0].payload {
                    OrderEvent::Placed { buyer: Personal::Value { value, .. }, .. } => value.clone(),
                    _ => "erased".to_owned(),
                }
            }
            "write" => {
                let event = placed(name(number(2), "Alice"));
                match store.append(Uuid::from_u128(number(1)), Expected::New, [event]).await {
                    Ok(_) => "written".to_owned(),
                    Err(error) => error.to_string(),
                }
            }
            _ => keys.erase(subject(number(1)), "test").await.unwrap().erased_by,
        };
        println!("answer {answer}");
    }
}

fn readers_read_until_their_keys_expire(place: &Place) {
    let mut writer = place.start("60");
    assert_eq!(writer.ask("write 1 1"), "written");
    let mut readers = [place.start("0.3"), place.start("0.3")];
    let mut lasting = place.start("3600");
    assert_eq!(lasting.ask("read 1"), "Alice");
    for reader in &mut readers {
        assert_eq!(reader.ask("read 1"), "Alice");
    }
    let mut eraser = place.start("60");
    eraser.send("erase 1");
    // Meanwhile, both get the value or nothing.
    for reader in &mut readers {
        while reader.ask("read 1") != "erased" {}
    }
    assert_eq!(eraser.answer(), "test");
    // It is the time that ends the reading, and not something else.
    assert_eq!(lasting.ask("read 1"), "Alice");
    assert_eq!(place.start("60").ask("read 1"), "erased");
}

async fn two_first_uses_at_the_same_time_create_one_key(place: &Place) {
    let mut writers = [place.start("60"), place.start("60")];
    for round in 1..=ROUNDS {
        for (writer, id) in writers.iter_mut().zip([0, 1]) {
            writer.send(&format!("write {} {round}", 2 * round + id));
        }
        for writer in &mut writers {
            assert_eq!(writer.answer(), "written");
        }
    }
    let mut reader = place.start("60");
    for id in 2..=2 * ROUNDS + 1 {
        assert_eq!(reader.ask(&format!("read {id}")), "Alice");
    }
    let keys = place.factory().key_store().unwrap().unwrap();
    assert_eq!(keys.select_keys(None, 100).await.unwrap().len(), 10);
}

async fn an_erasure_during_the_first_use_wins(place: &Place) {
    let (mut writer, mut eraser) = (place.start("0.3"), place.start("60"));
    for round in 1..=ROUNDS {
        writer.send(&format!("write {round} {round}"));
        eraser.send(&format!("erase {round}"));
        assert_eq!(eraser.answer(), "test");
        let answer = writer.answer();
        let is_refused = answer.contains("is erased: no personal value can be stored");
        assert!(is_refused || answer == "written", "{answer}");
        if answer == "written" {
            assert_eq!(eraser.ask(&format!("read {round}")), "erased");
        }
    }
    let keys = place.factory().key_store().unwrap().unwrap();
    assert_eq!(keys.select_keys(None, 100).await.unwrap(), []);
    assert_eq!(keys.select_erasures(None, 100).await.unwrap().len(), 10);
}

#[tokio::test]
async fn two_processes_read_while_a_third_erases_on_sqlite() {
    readers_read_until_their_keys_expire(&Place::sqlite());
}

#[tokio::test]
async fn two_processes_read_while_a_third_erases_on_postgresql() {
    let Some(place) = Place::postgres().await else { return };
    readers_read_until_their_keys_expire(&place);
}

#[tokio::test]
async fn two_processes_use_a_subject_first_on_sqlite() {
    two_first_uses_at_the_same_time_create_one_key(&Place::sqlite()).await;
}

#[tokio::test]
async fn two_processes_use_a_subject_first_on_postgresql() {
    let Some(place) = Place::postgres().await else { return };
    two_first_uses_at_the_same_time_create_one_key(&place).await;
}

#[tokio::test]
async fn a_process_erases_a_subject_that_another_uses_first_on_sqlite() {
    an_erasure_during_the_first_use_wins(&Place::sqlite()).await;
}

#[tokio::test]
async fn a_process_erases_a_subject_that_another_uses_first_on_postgresql() {
    let Some(place) = Place::postgres().await else { return };
    an_erasure_during_the_first_use_wins(&place).await;
}
