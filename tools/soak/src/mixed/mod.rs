//! A mixed soak: everything that may use one events table, at the same time, while processes are killed and
//! sessions are cut; and a check of what all of them saw.
//!
//! - `participant`: processes that write, follow and process with this library;
//! - `python/mixed.py`: processes that write and follow with the Python library, in the serialized ordering;
//! - `sessions`: SQL of earlier builds, savepoints, two-phase commit, long transactions, maintenance, plain
//!   readers;
//! - `processes` starts, kills and restarts processes; `journal` judges.

mod database;
pub mod journal;
mod participant;
mod processes;
mod sessions;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use es_core::uuid::Uuid;
use es_faults::progress;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use self::{
    database::{Address, Database, LEDGER, Pooler, ROWS, start_proxy},
    journal::{Counts, Journal, Row, check_sequence},
    participant::{Role, UPSTREAM},
    processes::Program,
    sessions::Kind,
};
use crate::writers::pause;

/// The time without progress and without faults after which a processor is stuck.
const CATCH_UP: Duration = Duration::from_secs(60);

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The duration of faults and writers.
    pub duration: Duration,
    /// The minimum of acknowledged puts, regardless of the duration.
    pub puts: usize,
    /// True for parallel ordering, false for serialized.
    pub is_parallel: bool,
    /// The Python of an environment with version 9.5 of the Python library, if it takes part.
    pub python: Option<PathBuf>,
    /// A pgbouncer between this library and the server.
    pub pooler: Option<PathBuf>,
    /// This crate's program.
    pub program: PathBuf,
    /// Defects that must be detected.
    pub defects: Vec<Defect>,
}

/// A defect that a test of the soak introduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A writer draws ids before it takes the lock of the serialized ordering.
    EarlyId,
    /// A reader skips ids.
    SkippingReader,
    /// A reader of the parallel ordering has no protection.
    PlainReader,
    /// An acknowledged event is deleted.
    LostEvent,
    /// A notification has two effects.
    DoubleEffect,
    /// A position goes back.
    LowerPosition,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    counts: Counts,
    events: usize,
    effects: usize,
    kills: usize,
    cuts: usize,
    duration: Duration,
    /// Each promise that was broken.
    pub violations: Vec<String>,
}

/// The shared state of a run.
#[derive(Debug)]
struct Shared {
    journal: Mutex<Journal>,
    stage: watch::Sender<Stage>,
    address: Address,
    program: PathBuf,
    python: Option<PathBuf>,
    killable: Mutex<Vec<Arc<Notify>>>,
    kills: AtomicUsize,
    is_over: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// All participants work.
    Write,
    /// Writers are to stop.
    Stop,
    /// This is the last id; who has read it is done.
    Read(i64),
}

/// Does a participant's job, as a mixed soak names it on the command line.
///
/// # Errors
/// When it fails in a way that faults do not explain.
pub async fn participate(job: &str) -> Result<()> {
    participant::run(serde_json::from_str(job).context("that is not a job")?).await
}

/// Runs a mixed soak.
///
/// # Errors
/// When something fails that no fault explains. Broken promises are in the report.
pub async fn run(settings: &Settings) -> Result<Report> {
    let database = Database::create(settings.is_parallel).await?;
    let ran = run_on(settings, &database).await;
    database.delete().await?;
    ran
}

async fn run_on(settings: &Settings, database: &Database) -> Result<Report> {
    let shared = Arc::new(Shared {
        journal: Mutex::default(),
        stage: watch::Sender::new(Stage::Write),
        address: database.address.clone(),
        program: settings.program.clone(),
        python: settings.python.clone().filter(|_| !settings.is_parallel),
        killable: Mutex::default(),
        kills: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    });
    // The Python library adds a type that it needs to tables of this library.
    database.create_tables().await?;
    if shared.python.is_some() {
        processes::run_python(&shared, "open").await?;
    }
    let pooler = match &settings.pooler {
        Some(program) => Some(Pooler::start(program, database).await?),
        None => None,
    };
    let address = pooler.as_ref().map_or(&database.address, |pooler| &pooler.address);
    let began = Instant::now();
    // All are aborted when an error ends this.
    let mut tasks = JoinSet::new();
    spawn(settings, &shared, database, address, &mut tasks).await?;
    tasks.spawn(sessions::watch_positions(Arc::clone(&shared)));
    let mut control = database.address.control().await?;

    let mut cuts = 0;
    tokio::select! {
        failed = failure(&mut tasks) => failed?,
        failed = cause_faults(&shared, &mut control, &mut cuts) => failed?,
        () = work(&shared, began, settings) => {}
    }
    let end = tokio::select! {
        failed = failure(&mut tasks) => { failed?; bail!("every participant ended too early") }
        ended = end(&shared, &mut control, &settings.defects) => ended?,
    };
    shared.is_over.store(true, Ordering::Relaxed);
    shared.stage.send_replace(Stage::Read(end));
    failure(&mut tasks).await?;
    introduce(&mut control, &settings.defects, &[Defect::LostEvent, Defect::DoubleEffect]).await?;
    let (log, effects) = (log(&mut control).await?, effects(&mut control).await?);
    let violations = verdict(&shared, &mut control, (&log, end), &effects).await?;
    let counts = shared.journal().counts();
    Ok(Report {
        counts,
        events: log.len(),
        effects: effects.iter().map(|(_, effects)| effects.len()).sum(),
        kills: shared.kills.load(Ordering::Relaxed),
        cuts,
        duration: began.elapsed(),
        violations,
    })
}

/// Lets writers work for as long, and as much, as is wanted.
async fn work(shared: &Shared, began: Instant, settings: &Settings) {
    while began.elapsed() < settings.duration {
        let minutes = |duration: Duration| duration.as_secs_f64() / 60.0;
        progress::show(format_args!(
            "{:.1} of {:.1} minutes",
            minutes(began.elapsed()),
            minutes(settings.duration)
        ));
        sleep_until((began + settings.duration).min(Instant::now() + Duration::from_secs(1))).await;
    }
    progress::show(format_args!(""));
    while shared.journal().counts().acknowledged < settings.puts {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Starts all participants.
async fn spawn(
    settings: &Settings,
    shared: &Arc<Shared>,
    database: &Database,
    address: &Address,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let proxied = start_proxy(address).await?;
    let mut process = |name: &str, program: Program| {
        tasks.spawn(processes::supervise(Arc::clone(shared), name.to_owned(), program));
    };
    process("writer1", Program::Rust(Role::Write, address.clone()));
    process("writer2", Program::Rust(Role::Write, proxied.clone()));
    process("inserter", Program::Rust(Role::InsertOnly, database.inserting(address)));
    process("follower1", Program::Rust(Role::Follow, address.clone()));
    process("follower2", Program::Rust(Role::Follow, proxied.clone()));
    process("processor1", Program::Rust(Role::Process, address.clone()));
    process("processor2", Program::Rust(Role::Process, proxied));
    if shared.python.is_some() {
        process("python1", Program::Python { follows: false });
        process("python2", Program::Python { follows: false });
        process("pythonfollower", Program::Python { follows: true });
    }
    let kinds: &[Kind] = if settings.is_parallel {
        &[Kind::Unlocked, Kind::Unlocked, Kind::Prepared, Kind::Prepared]
    } else {
        &[Kind::TableLock, Kind::AdvisoryLock, Kind::LongLock]
    };
    let early = [Kind::EarlyId; 3];
    let early = early.into_iter().filter(|_| settings.defects.contains(&Defect::EarlyId));
    for (number, kind) in kinds.iter().copied().chain(early).enumerate() {
        tasks.spawn(sessions::write(Arc::clone(shared), format!("session{number}"), kind));
    }
    if !settings.is_parallel || settings.defects.contains(&Defect::PlainReader) {
        tasks.spawn(sessions::read(Arc::clone(shared), "reader".to_owned(), false));
    }
    if settings.defects.contains(&Defect::SkippingReader) {
        tasks.spawn(sessions::read(Arc::clone(shared), "skipping".to_owned(), true));
    }
    tasks.spawn(sessions::maintain(Arc::clone(shared)));
    Ok(())
}

/// The first failure of a participant; those that end in order are not waited for again.
async fn failure(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Kills processes, terminates sessions and cancels statements at random.
async fn cause_faults(shared: &Shared, control: &mut PgConnection, cuts: &mut usize) -> Result<()> {
    loop {
        pause(Duration::from_millis(500)).await;
        if fastrand::bool() {
            let killable = shared.killable.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(process) = fastrand::choice(killable.iter()) {
                process.notify_one();
            }
        } else if database::cut_one(control).await? {
            *cuts += 1;
        }
    }
}

/// Waits until writers have stopped and processors have reached the last id, which is returned.
async fn end(shared: &Shared, control: &mut PgConnection, defects: &[Defect]) -> Result<i64> {
    shared.stage.send_replace(Stage::Stop);
    let end = last_id(control).await?;
    let mut last_progress = (Instant::now(), Vec::new());
    loop {
        let positions = sessions::positions(control).await?;
        let is_behind = |name: &str| {
            let name = format!("{name}/{UPSTREAM}");
            !positions.iter().any(|(known, position)| *known == name && *position >= end)
        };
        if !is_behind(ROWS) && !is_behind(LEDGER) {
            break;
        }
        if positions != last_progress.1 {
            last_progress = (Instant::now(), positions);
        } else if last_progress.0.elapsed() > CATCH_UP {
            let activity = activity(control).await?;
            let violation =
                format!("processors do not reach id {end}: {positions:?}; sessions: {activity:?}");
            shared.journal().violation(violation);
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    introduce(control, defects, &[Defect::LowerPosition]).await?;
    Ok(end)
}

/// Describes the activity of sessions, for a violation about waiting.
async fn activity(control: &mut PgConnection) -> Result<Vec<String>> {
    let select = "SELECT format('%s %s %s %s since %s, transaction %s: %s', pid, state, wait_event_type, \
                  wait_event, now() - state_change, now() - xact_start, left(query, 200)) FROM pg_stat_activity \
                  WHERE datname = current_database()";
    Ok(sqlx::query_scalar(select).fetch_all(control).await?)
}

/// The last id, once no session writes any more.
async fn last_id(control: &mut PgConnection) -> Result<i64> {
    let writing = "SELECT count(*) FROM pg_locks WHERE relation = 'mixed_events'::regclass \
                   AND mode IN ('RowExclusiveLock', 'ExclusiveLock') AND pid IS NOT NULL";
    // Writers stop, and the server notices that those which were killed are gone.
    let mut quiet = 0;
    while quiet < 20 {
        let writing: i64 = sqlx::query_scalar(writing).fetch_one(&mut *control).await?;
        quiet = if writing == 0 { quiet + 1 } else { 0 };
        sleep(Duration::from_millis(50)).await;
    }
    let left = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    let left: Vec<String> = sqlx::query_scalar(left).fetch_all(&mut *control).await?;
    for gid in left {
        // Its session may end it at the same time.
        let _ =
            sqlx::raw_sql(AssertSqlSafe(format!("ROLLBACK PREPARED '{gid}'"))).execute(&mut *control).await;
    }
    let last = sqlx::query_scalar("SELECT coalesce(max(notification_id), 0) FROM mixed_events");
    Ok(last.fetch_one(control).await?)
}

/// Introduces those of the defects that are due now.
async fn introduce(control: &mut PgConnection, defects: &[Defect], due: &[Defect]) -> Result<()> {
    for defect in defects.iter().filter(|defect| due.contains(defect)) {
        let statement = match defect {
            Defect::LostEvent => {
                "DELETE FROM mixed_events \
                 WHERE notification_id > (SELECT max(notification_id) - 10 FROM mixed_events)"
            }
            Defect::DoubleEffect => {
                "INSERT INTO effects (number, notification) SELECT 0, min(notification) FROM effects"
            }
            _ => {
                // The watcher may have missed the last positions, and has read some.
                "UPDATE rows_tracking SET notification_id = 0 WHERE application_name = 'mixed'"
            }
        };
        sqlx::raw_sql(statement).execute(&mut *control).await?;
        // The watcher of positions reads them in between.
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// The notifications that had effects, in the order in which they had them, of each processor.
async fn effects(control: &mut PgConnection) -> Result<[(&'static str, Vec<i64>); 2]> {
    let rows = "SELECT notification FROM effects ORDER BY number";
    let ledger = "SELECT convert_from(state, 'UTF8')::bigint FROM ledger_events ORDER BY notification_id";
    Ok([
        (ROWS, sqlx::query_scalar(rows).fetch_all(&mut *control).await?),
        (LEDGER, sqlx::query_scalar(ledger).fetch_all(&mut *control).await?),
    ])
}

async fn log(control: &mut PgConnection) -> Result<Vec<Row>> {
    let select = "SELECT notification_id, originator_id, originator_version, topic, \
                  convert_from(state, 'UTF8') FROM mixed_events ORDER BY notification_id";
    let rows: Vec<(i64, Uuid, i64, String, String)> = sqlx::query_as(select).fetch_all(control).await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|(id, originator_id, version, topic, state)| Row { id, originator_id, version, topic, state })
        .collect())
}

async fn verdict(
    shared: &Shared,
    control: &mut PgConnection,
    (log, end): (&[Row], i64),
    effects: &[(&str, Vec<i64>)],
) -> Result<Vec<String>> {
    let positions: HashMap<String, i64> = sessions::positions(control).await?.into_iter().collect();
    let mut violations = shared.journal().check(log, end, &positions);
    for (name, effects) in effects {
        let position = positions.get(&format!("{name}/{UPSTREAM}")).copied().unwrap_or(0);
        let processed: Vec<i64> = log.iter().map(|row| row.id).take_while(|id| *id <= position).collect();
        violations.extend(check_sequence(&format!("processor of {name}"), effects, &processed));
    }
    Ok(violations)
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// A process that may be killed.
    fn killable(&self) -> Arc<Notify> {
        let kill = Arc::new(Notify::new());
        self.killable.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&kill));
        kill
    }

    fn count_kill(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
    }
}

impl Settings {
    /// A run of this crate's program, without Python and without a pooler.
    pub fn new(program: &Path, is_parallel: bool, duration: Duration) -> Self {
        let program = program.to_owned();
        Self { duration, puts: 0, is_parallel, python: None, pooler: None, program, defects: Vec::new() }
    }
}

impl Report {
    /// Counts the operations.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acknowledged, refused, unknown, seen, followers } = self.counts;
        for violation in &self.violations {
            writeln!(f, "violation: {violation}")?;
        }
        write!(
            f,
            "{:.1} minutes: {} events; {acknowledged} puts acknowledged, {refused} refused, \
             {unknown} of unknown outcome; {seen} notifications seen by {followers} followers, {} effects; \
             {} processes killed, {} sessions terminated or cancelled; {} violations",
            self.duration.as_secs_f64() / 60.0,
            self.events,
            self.effects,
            self.kills,
            self.cuts,
            self.violations.len()
        )
    }
}
