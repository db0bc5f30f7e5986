//! The outcome of each batch of an append.

use es_core::{Conflict, PersistenceError, Tracking};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{request::Batch, statement::PositionStatus};

/// The outcome of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Recorded, with its notification ids.
    Recorded(Vec<i64>),
    /// It conflicts with stored data, or the recorded position is behind the expected one.
    Refused(PersistenceError),
    /// Nothing was written, because the recorded position is locked by another transaction.
    Locked,
    /// Nothing was written, because the batch has the first position of its application: to be sent again
    /// with [`Scope::FirstPosition`].
    FirstPosition,
    /// Nothing was written, because the position was not inserted although none was recorded: a rival
    /// recorded the first position of the application at the same time, or a trigger skips the row.
    NotInserted,
}

/// The server's answer to a group.
pub(super) struct GroupAnswer {
    clashes: Vec<(i32, Conflict)>,
    ids: Vec<i64>,
    statuses: Vec<(i32, PositionStatus, Option<i64>)>,
}

impl GroupAnswer {
    pub(super) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (requests, originator_ids): (Vec<i32>, Vec<Uuid>) = (row.try_get(0)?, row.try_get(1)?);
        let keys = originator_ids.into_iter().zip(row.try_get::<Vec<i64>, _>(2)?);
        let conflicts = keys.map(|(originator_id, originator_version)| Conflict::Version {
            originator_id,
            originator_version,
        });
        let (positions, codes): (Vec<i32>, Vec<i32>) = (row.try_get(5)?, row.try_get(6)?);
        let statuses = codes.into_iter().map(PositionStatus::from_code).zip(row.try_get::<Vec<_>, _>(7)?);
        Ok(Self {
            clashes: requests.into_iter().zip(conflicts).collect(),
            ids: row.try_get(3)?,
            statuses: positions
                .into_iter()
                .zip(statuses)
                .map(|(request, (status, recorded))| (request, status, recorded))
                .collect(),
        })
    }

    /// Returns the outcome of each batch; none if the answer does not match.
    pub(super) fn outcomes(self, batches: &[Batch<'_>], has_ids: bool) -> Option<Vec<Outcome>> {
        let mut refused: Vec<Option<Outcome>> = vec![None; batches.len()];
        for (request, conflict) in self.clashes {
            let refused = refused.get_mut(usize::try_from(request).ok()?)?;
            refused.get_or_insert(Outcome::Refused(conflict.into()));
        }
        for (request, status, recorded) in self.statuses {
            let request = usize::try_from(request).ok()?;
            let (tracking, refused) = (batches.get(request)?.tracking?, refused.get_mut(request)?);
            match status {
                PositionStatus::Inserted => {}
                // A lost position takes precedence over a taken version: a rival has processed the
                // notification, and there is nothing left to do.
                PositionStatus::Late => *refused = Some(Outcome::Refused(late(tracking, recorded))),
                PositionStatus::Locked => *refused = Some(Outcome::Locked),
                PositionStatus::NotInserted => _ = refused.get_or_insert(Outcome::NotInserted),
                PositionStatus::First => _ = refused.get_or_insert(Outcome::FirstPosition),
            }
        }
        let mut ids = self.ids.into_iter();
        let outcomes = batches.iter().zip(refused).map(|(batch, refused)| match refused {
            Some(refused) => Some(refused),
            None if !has_ids => Some(Outcome::Recorded(Vec::new())),
            None => {
                let own: Vec<i64> = ids.by_ref().take(batch.events.len()).collect();
                (own.len() == batch.events.len()).then_some(Outcome::Recorded(own))
            }
        });
        outcomes.collect()
    }
}

/// Returns the error for a position that does not follow the recorded one. A position that would be accepted
/// now was refused when the statement ran.
pub(super) fn late(tracking: &Tracking, recorded: Option<i64>) -> PersistenceError {
    tracking.validate(recorded).err().unwrap_or_else(|| tracking.conflict().into())
}
