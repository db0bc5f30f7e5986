//! The Rust half of a scenario: a process that plays one role. `python/participant.py` is the Python half.
//!
//! A participant opens what the environment names, says `ready`, begins at the first line of its input, and
//! prints its findings as one line of JSON. The end of its input ends a role that runs until everything is
//! written.

mod process;
mod report;
mod write;

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use es_persistence::{
    ApplicationRecorder, DomainEvent, Event, EventStore, Mapper, Notification, NotificationSelection,
    Transcoder,
};
pub(crate) use process::CONTESTED;
use serde::Serialize;
use serde_json::{Map, Value as Json};
pub(crate) use write::{LEAD, TASKS};

use crate::{
    account::Bank,
    findings::{Followed, Logged},
    ledger::Ledger,
    plain,
    role::Role,
};

/// The name of this side in its events.
pub(crate) const RUST: &str = "rust";
/// The name of the other side.
pub(crate) const PYTHON: &str = "python";
/// The message of a participant that has opened its databases.
pub(crate) const READY: &str = "ready";

/// Between two looks at what the other side does.
const PAUSE: Duration = Duration::from_millis(1);
/// Small, so that readers turn many pages while they race with writers.
const PAGE: usize = 10;

/// Plays the role and prints the findings.
pub(crate) async fn play(role: Role, turns: u32) -> Result<()> {
    match role {
        Role::OpenLedger => {
            let ledger = Ledger::open().await?;
            begin()?;
            ledger.close().await?;
            tell(&())
        }
        Role::OpenBank => {
            let bank = Bank::open().await?;
            begin()?;
            write::open_accounts(&bank).await?;
            bank.close().await?;
            tell(&())
        }
        Role::Write => {
            let bank = Arc::new(Bank::open().await?);
            begin()?;
            let written = write::write(&bank, turns).await?;
            bank.close().await?;
            tell(&written)
        }
        Role::LastTurn => {
            let bank = Bank::open().await?;
            begin()?;
            write::take_last_turn(&bank, turns).await?;
            bank.close().await?;
            tell(&())
        }
        Role::Follow => {
            let bank = Bank::open().await?;
            let log = follow(&bank, &begin()?).await?;
            bank.close().await?;
            tell(&Followed { log })
        }
        Role::Process => {
            let (bank, ledger) = (Bank::open().await?, Ledger::open().await?);
            let processed = process::process(&bank, &ledger, &begin()?).await?;
            bank.close().await?;
            ledger.close().await?;
            tell(&processed)
        }
        Role::Report => {
            let (bank, ledger) = (Bank::open().await?, Ledger::open().await?);
            begin()?;
            let report = report::report(&bank, &ledger).await?;
            bank.close().await?;
            ledger.close().await?;
            tell(&report)
        }
    }
}

/// Returns whether everything is written.
#[derive(Debug)]
struct IsWritten(Arc<AtomicBool>);

impl IsWritten {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Waits for the word to begin, then for the end of the input in a thread of its own.
fn begin() -> Result<IsWritten> {
    println!("{READY}");
    io::stdin().lock().read_line(&mut String::new())?;
    let is_written = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_written);
    thread::spawn(move || {
        // An input that breaks has ended, too.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Release);
    });
    Ok(IsWritten(is_written))
}

fn tell(findings: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(findings)?);
    Ok(())
}

async fn follow(bank: &Bank, is_written: &IsWritten) -> Result<Vec<Logged>> {
    let mut log: Vec<Logged> = Vec::new();
    loop {
        let is_last_look = is_written.is_set();
        let position = log.last().map_or(0, |last| last.id);
        let page = NotificationSelection::new(PAGE).after(position);
        let page = bank.store.recorder().select_notifications(page).await?;
        if page.is_empty() && is_last_look {
            return Ok(log);
        }
        if page.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
        for notification in page {
            log.push(logged(bank.store.mapper(), notification, plain::attributes)?);
        }
    }
}

/// Everything that is recorded.
async fn everything<R: ApplicationRecorder, T: Transcoder, E: Event>(
    store: &EventStore<R, T>,
    attributes: impl Fn(&DomainEvent<E>) -> Map<String, Json>,
) -> Result<Vec<Logged>> {
    let all = store.recorder().select_notifications(NotificationSelection::new(usize::MAX)).await?;
    all.into_iter().map(|notification| logged(store.mapper(), notification, &attributes)).collect()
}

fn logged<T: Transcoder, E: Event>(
    mapper: &Mapper<T>,
    Notification { id, event: stored }: Notification,
    attributes: impl Fn(&DomainEvent<E>) -> Map<String, Json>,
) -> Result<Logged> {
    let event = mapper.to_domain_event(&stored)?;
    let mut attributes = attributes(&event);
    if !event.metadata.is_empty() {
        attributes.insert("_metadata_".to_owned(), plain::metadata(&event.metadata));
    }
    Ok(Logged {
        id,
        originator_id: event.originator_id.to_string(),
        version: event.originator_version,
        topic: stored.topic.to_string(),
        timestamp: plain::datetime(event.timestamp),
        attributes,
    })
}
