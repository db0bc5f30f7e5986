//! The tool `es` as a process: copies, verification, and a followed log.

use std::{
    fs,
    hint::black_box,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use es_core::StoredEvent;
use tokio::sync::mpsc;

use super::{bare_postgres::Connections, bare_sqlite::Driver, postgres_schema::Schema};
use crate::{
    system::{BoxFuture, Latency, Sample, System},
    workload::Store,
};

/// The events of a commit, by the tool's default, and of a page of a bare read.
const BATCH: usize = 5_000;

/// The program, and the directory of its databases and its configuration.
#[derive(Clone)]
pub(crate) struct Tool {
    pub(crate) program: PathBuf,
    pub(crate) directory: PathBuf,
}

/// A database of the tool.
#[derive(Clone)]
pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgres(Schema),
}

/// The kind of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

impl Tool {
    /// Returns a database without tables, in place of an earlier one.
    async fn empty(&self, backend: Backend, name: &str) -> Result<Database> {
        match backend {
            Backend::Postgres => Ok(Database::Postgres(Schema::create(name).await?)),
            Backend::Sqlite => {
                let database = Database::Sqlite(self.directory.join(format!("{name}.db")));
                database.remove().await?;
                Ok(database)
            }
        }
    }

    /// Returns a database with these events.
    pub(crate) async fn filled(
        &self,
        backend: Backend,
        name: &str,
        events: &[StoredEvent],
    ) -> Result<Database> {
        let database = self.empty(backend, name).await?;
        append_all(&database, events.chunks(BATCH).map(<[_]>::to_vec).collect()).await?;
        Ok(database)
    }

    /// Returns the command with these contexts.
    fn command(&self, contexts: &[(&str, &Database)], arguments: &[&str]) -> Result<Command> {
        let configuration = self.directory.join("es.toml");
        let mut text = String::new();
        for (name, database) in contexts {
            text.push_str(&format!("[contexts.{name}.settings]\n"));
            for (setting, value) in database.settings()? {
                text.push_str(&format!("{setting} = {value:?}\n"));
            }
        }
        fs::write(&configuration, text)?;
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(configuration).env_clear().stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the tool to its end; returns the duration.
    async fn run(&self, contexts: &[(&str, &Database)], arguments: &[&str]) -> Result<Duration> {
        let mut command = self.command(contexts, arguments)?;
        let start = Instant::now();
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let elapsed = start.elapsed();
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "es {arguments:?} failed: {message}");
        Ok(elapsed)
    }
}

impl Database {
    fn settings(&self) -> Result<Vec<(String, String)>> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match self {
            Self::Sqlite(path) => {
                let path = path.to_str().context("the path is not UTF-8")?;
                Ok(vec![pair("PERSISTENCE_MODULE", "sqlite"), pair("SQLITE_DBNAME", path)])
            }
            Self::Postgres(schema) => {
                let mut settings =
                    vec![pair("PERSISTENCE_MODULE", "postgres"), pair("POSTGRES_SCHEMA", schema.name())];
                for name in ["HOST", "PORT", "DBNAME", "USER", "PASSWORD"] {
                    let name = format!("POSTGRES_{name}");
                    let value = std::env::var(&name).with_context(|| format!("{name} is not set"))?;
                    settings.push((name, value));
                }
                Ok(settings)
            }
        }
    }

    async fn remove(&self) -> Result<()> {
        match self {
            Self::Postgres(schema) => schema.drop().await,
            Self::Sqlite(path) => {
                for suffix in ["", "-wal", "-shm"] {
                    let path = format!("{}{suffix}", path.display());
                    if Path::new(&path).exists() {
                        fs::remove_file(path)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Appends batches with a bare driver, each in one commit.
async fn append_all(database: &Database, batches: Vec<Vec<StoredEvent>>) -> Result<Duration> {
    async fn append(store: impl Store, batches: Vec<Vec<StoredEvent>>) -> Result<Duration> {
        let start = Instant::now();
        for batch in batches {
            store.append(batch).await?;
        }
        Ok(start.elapsed())
    }
    match database {
        Database::Sqlite(path) => append(Driver::direct(path)?, batches).await,
        Database::Postgres(schema) => {
            schema.create_table().await?;
            append(Connections::open(schema, 1).await?, batches).await
        }
    }
}

/// Reads all events with a bare driver, in pages.
async fn read_all(database: &Database) -> Result<Duration> {
    async fn read(store: impl Store) -> Result<Duration> {
        let (start, mut after) = (Instant::now(), 0);
        loop {
            let page = black_box(store.page(after, BATCH).await?);
            if page.count == 0 {
                return Ok(start.elapsed());
            }
            after = page.last;
        }
    }
    match database {
        Database::Sqlite(path) => read(Driver::direct(path)?).await,
        Database::Postgres(schema) => read(Connections::open(schema, 1).await?).await,
    }
}

/// `es copy` to an empty database.
pub(crate) struct Copy {
    pub(crate) tool: Tool,
    pub(crate) from: Database,
    pub(crate) to: Backend,
    pub(crate) events: usize,
}

impl System for Copy {
    fn name(&self) -> &str {
        "es copy"
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async {
            let to = self.tool.empty(self.to, "copy").await?;
            let contexts = [("from", &self.from), ("to", &to)];
            let elapsed = self.tool.run(&contexts, &["copy", "from", "to", "--yes"]).await?;
            to.remove().await?;
            Ok(Sample { events: self.events, elapsed, latency: None, mebibytes: None })
        })
    }
}

/// A bare read of all events, and then a bare insert of them in batches.
pub(crate) struct BareCopy {
    pub(crate) tool: Tool,
    pub(crate) from: Database,
    pub(crate) to: Backend,
    pub(crate) events: Vec<StoredEvent>,
}

impl BareCopy {
    pub(crate) const NAME: &'static str = "bare read and bulk insert";
}

impl System for BareCopy {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async {
            let to = self.tool.empty(self.to, "bare copy").await?;
            let batches = self.events.chunks(BATCH).map(<[_]>::to_vec).collect();
            let elapsed = read_all(&self.from).await? + append_all(&to, batches).await?;
            to.remove().await?;
            Ok(Sample { events: self.events.len(), elapsed, latency: None, mebibytes: None })
        })
    }
}

/// `es verify`.
pub(crate) struct Verify {
    pub(crate) tool: Tool,
    pub(crate) database: Database,
    pub(crate) events: usize,
}

impl System for Verify {
    fn name(&self) -> &str {
        "es verify"
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async {
            let elapsed = self.tool.run(&[("db", &self.database)], &["verify", "--database", "db"]).await?;
            Ok(Sample { events: self.events, elapsed, latency: None, mebibytes: None })
        })
    }
}

/// The time from a commit of this process to the line of `es log --follow`.
pub(crate) struct FollowLatency {
    pub(crate) tool: Tool,
    pub(crate) backend: Backend,
    /// The events; one was appended before.
    pub(crate) events: Vec<StoredEvent>,
}

/// A process that ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl System for FollowLatency {
    fn name(&self) -> &str {
        "es log --follow"
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(async {
            let database = self.tool.empty(self.backend, "followed").await?;
            let seconds = match &database {
                Database::Sqlite(path) => {
                    let store = Driver::direct(path)?;
                    follow(&self.tool, &database, &store, &self.events).await?
                }
                Database::Postgres(schema) => {
                    schema.create_table().await?;
                    let store = Connections::open(schema, 1).await?;
                    follow(&self.tool, &database, &store, &self.events).await?
                }
            };
            database.remove().await?;
            let elapsed = Duration::from_secs_f64(seconds.iter().sum());
            let events = seconds.len();
            let max = seconds.iter().copied().fold(0.0, f64::max);
            println!("{} es log --follow, slowest of {events}: {:.1} ms", self.backend.name(), max * 1e3);
            Ok(Sample { events, elapsed, latency: Latency::of(seconds), mebibytes: None })
        })
    }
}

/// Appends one event at a time while the tool follows the log; returns the seconds from each commit to its
/// line.
async fn follow(
    tool: &Tool,
    database: &Database,
    store: &impl Store,
    events: &[StoredEvent],
) -> Result<Vec<f64>> {
    let [first, events @ ..] = events else { return Ok(Vec::new()) };
    store.append(vec![first.clone()]).await?;
    let arguments = ["log", "--database", "db", "--follow", "--format", "{id}"];
    let mut command = tool.command(&[("db", database)], &arguments)?;
    let mut running = Running(command.stdout(Stdio::piped()).spawn().context("cannot start es")?);
    let stdout = running.0.stdout.take().context("es has no standard output")?;
    let (sender, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if line.is_err() || sender.send(Instant::now()).is_err() {
                break;
            }
        }
    });
    let ended = "es has ended";
    lines.recv().await.context(ended)?;
    let mut seconds = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        // Commits fall into all phases of the reader's interval.
        tokio::time::sleep(Duration::from_millis(index as u64 * 7 % 60)).await;
        store.append(vec![event.clone()]).await?;
        let committed = Instant::now();
        let printed = lines.recv().await.context(ended)?;
        seconds.push(printed.saturating_duration_since(committed).as_secs_f64());
    }
    Ok(seconds)
}
