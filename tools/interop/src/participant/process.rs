//! Books the bank's notifications in the ledger, each together with its position.

use anyhow::Result;
use es_persistence::{ApplicationRecorder, Notification, NotificationSelection, transcode::Value};

use super::{IsWritten, PAUSE, PYTHON};
use crate::{account::Bank, bank::AccountEvent, findings::Processed, ledger::Ledger};

/// Both sides race for the notifications whose ids are multiples of this; each of the others is for the side
/// that did not write it.
pub(crate) const CONTESTED: i64 = 5;

/// Processes what is for us, until the log ends.
pub(crate) async fn process(bank: &Bank, ledger: &Ledger, is_written: &IsWritten) -> Result<Processed> {
    let mut done = Processed::default();
    loop {
        let is_last_look = is_written.is_set();
        let next = NotificationSelection::new(1).after(ledger.position().await?);
        let next = bank.store.recorder().select_notifications(next).await?.pop();
        match next {
            None if is_last_look => return Ok(done),
            Some(next) if is_for_us(bank, &next)? => match ledger.book(next.id).await? {
                true => done.processed += 1,
                false => done.conflicts += 1,
            },
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn is_for_us(bank: &Bank, notification: &Notification) -> Result<bool> {
    let event = bank.store.mapper().to_domain_event(&notification.event)?;
    Ok(notification.id % CONTESTED == 0 || text(&event.payload).starts_with(PYTHON))
}

/// The text whose first word says who has written the event.
fn text(event: &AccountEvent) -> &str {
    match event {
        AccountEvent::Opened { owner, .. } => owner,
        AccountEvent::Credited { note, .. } => note,
        AccountEvent::Verified { remark, .. } => match remark.get("note") {
            Some(Value::Str(note)) => note,
            _ => "",
        },
        AccountEvent::Closed => "",
    }
}
