//! Connections to standbys, and the times in which none is used.

use std::time::Duration;

use es_core::PersistenceError;
use parking_lot::Mutex;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, timeout};

use super::{
    connector::ServerRole,
    pool::{Connections, LeaseError, LeaseKind},
    query::{self, FetchError, Fetched, Query},
};
use crate::{error, options::PostgresOptions};

/// The time after which a standby is tried again.
const RETRY_TIME: Duration = Duration::from_secs(5);

/// The standbys of a datastore.
#[derive(Debug)]
pub(crate) struct Standbys {
    pub(crate) connections: Connections,
    /// No standby could be used.
    pub(crate) unusable: Outage,
    /// A standby did not replay in time what this process knew to be recorded.
    pub(crate) lagging: Outage,
    options: PostgresOptions,
}

/// The reason why a standby has not answered.
#[derive(Debug)]
pub(crate) enum StandbyError {
    /// No connection to a standby can be opened.
    Unreachable(PersistenceError),
    /// Another attempt, or another server, may succeed.
    Failed(PersistenceError),
    /// The primary would not answer otherwise.
    Final(PersistenceError),
}

impl Standbys {
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, PersistenceError> {
        Ok(Self {
            connections: Connections::new(options, ServerRole::Standby)?,
            unusable: Outage::default(),
            lagging: Outage::default(),
            options: options.clone(),
        })
    }

    /// Fetches rows from a standby, once.
    ///
    /// A standby that does not answer within the response timeout is given up, whether it is working or not:
    /// the primary can answer in its place.
    pub(crate) async fn fetch<T: Send>(
        &self,
        query: &Query,
        mut decode: impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send,
    ) -> Result<Vec<T>, StandbyError> {
        let mut lease = match self.connections.lease(LeaseKind::Read).await {
            Ok(lease) => lease,
            Err(LeaseError::NotConnected(error)) => return Err(StandbyError::Unreachable(error)),
            Err(LeaseError::Exhausted(error)) => return Err(StandbyError::Final(error)),
        };
        let fetching = query::fetch_on(&self.options, &mut lease, query, &mut decode);
        let fetched = match self.options.response_timeout {
            Duration::ZERO => fetching.await,
            response_timeout => timeout(response_timeout, fetching).await.unwrap_or_else(|_| {
                Err(FetchError::Statement(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
            }),
        };
        match fetched {
            Ok(Fetched { decoded, has_rest }) => {
                if !has_rest {
                    lease.finish();
                }
                Ok(decoded)
            }
            Err(FetchError::Row(error)) => Err(StandbyError::Final(error)),
            Err(FetchError::Statement(failed)) => {
                if error::is_lost(&failed) {
                    self.connections.purge();
                }
                Err(StandbyError::Failed(error::from_statement(query.operation, failed)))
            }
        }
    }
}

/// A failure that lasts, and the time of the next attempt.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Option<Instant>>);

impl Outage {
    /// Returns whether an attempt is due: there is no failure, or it was long ago. The caller then makes it,
    /// and no other one for a while.
    pub(crate) fn is_attempt_due(&self) -> bool {
        let mut next = self.0.lock();
        let now = Instant::now();
        let is_due = next.is_none_or(|next| now >= next);
        if is_due && next.is_some() {
            *next = Some(now + RETRY_TIME);
        }
        is_due
    }

    /// Records a failure. Returns whether it is the first one.
    pub(crate) fn begin(&self) -> bool {
        self.0.lock().replace(Instant::now() + RETRY_TIME).is_none()
    }

    /// Records a success.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }
}
