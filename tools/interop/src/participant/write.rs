//! Writes to the same accounts as the other side, in several tasks, with optimistic retries.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use bigdecimal::BigDecimal;
use es_persistence::{Conflict, DomainEvent, EventRange, Metadata, PersistenceError, transcode::Value};
use time::{
    Date, Duration,
    macros::{date, datetime, offset},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{PAUSE, RUST};
use crate::{
    account::{ACCOUNTS, Bank, Loaded, account_id, apply},
    bank::{AccountEvent, ComplexCustomValue, SimpleCustomValue},
    findings::Written,
};

/// The maximum lead of one side in turns on one account: both write from beginning to end.
pub(crate) const LEAD: i64 = 4;
/// The number of concurrent turns, each on an account of its own or in conflict with each other.
pub(crate) const TASKS: u32 = 4;

/// Opens the accounts.
pub(crate) async fn open_accounts(bank: &Bank) -> Result<()> {
    for number in 0..ACCOUNTS {
        let opened = AccountEvent::Opened {
            originator_topic: "bank:Account".to_owned(),
            owner: format!("{RUST} Żółć 🦀\u{2028}\u{7f}\0 {number}"),
            owner_id: Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("/owners/{number}").as_bytes()),
            birthday: date!(2000 - 02 - 20) + Duration::days(number.into()),
            limit: BigDecimal::new(1.into(), -30),
        };
        bank.store.put(&[DomainEvent::new(account_id(number), 1, opened)]).await?;
    }
    Ok(())
}

/// Takes so many turns.
pub(crate) async fn write(bank: &Arc<Bank>, turns: u32) -> Result<Written> {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let bank = Arc::clone(bank);
        tasks.spawn(async move {
            let mut written = Written::default();
            for turn in (task..turns).step_by(TASKS as usize) {
                take_turn(&bank, turn, &mut written).await?;
            }
            anyhow::Ok(written)
        });
    }
    let mut written = Written::default();
    while let Some(task) = tasks.join_next().await {
        let task = task??;
        written.conflicts += task.conflicts;
        written.snapshots.extend(task.snapshots);
    }
    Ok(written)
}

/// Takes the turn after those of [`write()`].
pub(crate) async fn take_last_turn(bank: &Bank, turns: u32) -> Result<()> {
    take_turn(bank, turns, &mut Written::default()).await
}

async fn take_turn(bank: &Bank, turn: u32, written: &mut Written) -> Result<()> {
    let id = account_id(turn % ACCOUNTS);
    loop {
        let loaded = bank.load(id).await?;
        if lead(&loaded) >= LEAD {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let events = events_of_turn(&loaded, turn)?;
        match bank.store.put(&events).await {
            Ok(_) => return snapshot_of_turn(bank, turn, loaded, events, written).await,
            Err(error) => require_taken(bank, &events[0], &error).await?,
        }
        written.conflicts += 1;
    }
}

/// The lead over the other side, by the notes on this account.
fn lead(loaded: &Loaded) -> i64 {
    loaded.account.notes.iter().map(|note| if note.starts_with(RUST) { 1 } else { -1 }).sum()
}

/// One event or two, which are to be recorded as one.
fn events_of_turn(loaded: &Loaded, turn: u32) -> Result<Vec<DomainEvent<AccountEvent>>> {
    let note = format!("{RUST} {turn} 名前 🦀");
    let credited = AccountEvent::Credited {
        amount: BigDecimal::new(turn.into(), 0) / 4,
        note: note.clone(),
        tags: tags(loaded.id, turn)?,
        booked_at: booked_at(turn),
    };
    let mut events = vec![DomainEvent::new(loaded.id, loaded.version + 1, credited)];
    if turn.is_multiple_of(3) {
        let metadata = Metadata::new().with_correlation_id(loaded.id).with("turn", format!("名前 {turn}"));
        events[0].metadata = metadata;
    }
    if turn.is_multiple_of(5) {
        let verified = AccountEvent::Verified {
            proof: proof(turn),
            score: f64::from(turn) / 7.0,
            attempts: i128::from(u64::MAX) + i128::from(turn),
            passed: turn.is_multiple_of(2),
            remark: Value::Map(vec![("note".to_owned(), note.into()), ("none".to_owned(), Value::Null)]),
        };
        events.push(DomainEvent::new(loaded.id, loaded.version + 2, verified));
    }
    Ok(events)
}

fn tags(id: Uuid, turn: u32) -> Result<Vec<Value>> {
    let date = Value::Custom { name: "date_iso".to_owned(), data: Box::new("1999-12-31".into()) };
    let floats = vec![1.5.into(), "ł\0".into()];
    let decimals = vec![Value::Decimal("-0.10".parse()?), date];
    Ok(vec![
        id.into(),
        Value::Null,
        Value::List(vec![
            u64::from(turn).into(),
            Value::List(vec![Value::List(floats), Value::Map(Vec::new())]),
        ]),
        Value::Map(vec![("a".to_owned(), Value::Map(vec![("b".to_owned(), Value::List(decimals))]))]),
    ])
}

fn booked_at(turn: u32) -> Value {
    let naive = datetime!(2021-12-31 23:59:59) + Duration::microseconds(turn.into());
    match (turn % 3, turn % 2) {
        (0, _) => naive.into(),
        (_, 0) => naive.assume_offset(offset!(+5:30)).into(),
        _ => naive.assume_offset(offset!(+5:30:01)).into(),
    }
}

fn proof(turn: u32) -> ComplexCustomValue {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, turn.to_string().as_bytes());
    let date: Date = date!(2020 - 01 - 01) + Duration::days((turn % 28).into());
    ComplexCustomValue { value: SimpleCustomValue { id, date } }
}

async fn snapshot_of_turn(
    bank: &Bank,
    turn: u32,
    loaded: Loaded,
    events: Vec<DomainEvent<AccountEvent>>,
    written: &mut Written,
) -> Result<()> {
    if turn % 7 != 6 {
        return Ok(());
    }
    let mut after = loaded;
    for event in events {
        after = apply(Some(after), event)?;
    }
    bank.take_snapshot(&after).await?;
    written.snapshots.push((after.id.to_string(), after.version));
    Ok(())
}

/// A conflict is real if somebody else's event stands at the version that it names.
async fn require_taken(
    bank: &Bank,
    refused: &DomainEvent<AccountEvent>,
    error: &PersistenceError,
) -> Result<()> {
    let Some(Conflict::Version { originator_id, originator_version }) = error.conflict() else {
        bail!("writing failed: {error:?}");
    };
    ensure!(*originator_id == refused.originator_id, "another account is in conflict: {error}");
    let (id, version) = (*originator_id, *originator_version);
    let taken: Vec<DomainEvent<AccountEvent>> =
        bank.store.get(id, EventRange::all().gt(version - 1).lte(version)).await?;
    let [taken] = taken.as_slice() else { bail!("refused, and not taken: {error}") };
    ensure!(taken.payload != refused.payload, "refused for itself: {error}");
    Ok(())
}
