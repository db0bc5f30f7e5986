//! Tells everything that is recorded.

use anyhow::{Result, ensure};
use es_persistence::{DomainEvent, EventRange, Snapshot};
use uuid::Uuid;

use super::everything;
use crate::{
    account::{ACCOUNTS, Bank, account_id, replayed},
    bank::{Account, AccountEvent},
    findings::{AccountReport, Report, SnapshotReport},
    ledger::{Booked, Ledger},
    plain,
};

pub(crate) async fn report(bank: &Bank, ledger: &Ledger) -> Result<Report> {
    require_refusals(bank, ledger).await?;
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        accounts.push(account_report(bank, account_id(number)).await?);
    }
    Ok(Report {
        log: everything(&bank.store, plain::attributes).await?,
        accounts,
        ledger: everything(&ledger.store, |event: &DomainEvent<Booked>| event.payload.attributes()).await?,
        position: ledger.position().await?,
    })
}

/// Records a snapshot unless either side has recorded it.
async fn require_refusals(bank: &Bank, ledger: &Ledger) -> Result<()> {
    let late = DomainEvent::new(account_id(0), 2, AccountEvent::Closed);
    let refused = bank.store.put(&[late]).await;
    ensure!(refused.is_err_and(|error| error.is_conflict()), "a version that is taken was not refused");
    let is_booked = ledger.book(ledger.position().await?).await?;
    ensure!(!is_booked, "a position that is recorded was not refused");
    Ok(())
}

async fn account_report(bank: &Bank, id: Uuid) -> Result<AccountReport> {
    let events = bank.store.get(id, EventRange::all()).await?;
    let loaded = bank.load(id).await?;
    let mut snapshots = Vec::new();
    for snapshot in bank.snapshots.get::<Snapshot<Account>>(id, EventRange::all()).await? {
        let version = snapshot.originator_version;
        snapshots.push(SnapshotReport {
            version,
            kept: plain::account(&snapshot.payload.state),
            replayed: plain::account(&replayed(&events, version)?.account),
        });
    }
    Ok(AccountReport {
        id: id.to_string(),
        version: loaded.version,
        loaded: plain::account(&loaded.account),
        replayed: plain::account(&replayed(&events, loaded.version)?.account),
        snapshots,
    })
}
