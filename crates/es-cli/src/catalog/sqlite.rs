//! The catalog of a file of SQLite.

use es_core::Tracking;
#[cfg(feature = "ui")]
use es_sqlite::rusqlite::ToSql;
use es_sqlite::rusqlite::{self, Connection, OpenFlags, OptionalExtension, Params, Row, Transaction, params};

#[cfg(feature = "ui")]
use super::facts::IdSelection;
use super::{
    facts::{EventCounts, Gap, Integrity, Layout, Overview, SnapshotFault, TopicCount, Tracker},
    ranking::{Aggregate, Names, Ranking, Selection},
    versions,
};
use crate::failure::Failure;

const EVENTS: &str = "stored_events";
const SNAPSHOTS: &str = "stored_snapshots";
const TRACKING: &str = "tracking";
/// The cache while a database is checked, in KiB, as SQLite expects it: negative.
const CHECK_CACHE: i64 = -16_384;
const LAST_ID: &str = "SELECT coalesce(max(rowid), 0) FROM stored_events";

/// The tables of a file of SQLite.
pub(crate) struct SqliteCatalog {
    name: String,
    connection: Connection,
    /// True if [`integrity`](Self::integrity) has found damage.
    is_damaged: bool,
}

impl SqliteCatalog {
    pub(super) fn open(name: &str) -> Result<Self, Failure> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |error: rusqlite::Error| {
            Failure::unavailable(format!("database {name:?}: {error}")).with_hint("check the path")
        };
        let connection = Connection::open_with_flags(name, flags).map_err(failed)?;
        Ok(Self { name: name.to_owned(), connection, is_damaged: false })
    }

    pub(super) fn location(&self) -> &str {
        let name = self.name.strip_suffix("?mode=ro").and_then(|name| name.strip_prefix("file:"));
        name.unwrap_or(&self.name)
    }

    pub(super) fn overview(&mut self) -> Result<Overview, Failure> {
        let journal_mode = self.pragma("journal_mode")?;
        let location = self.location().to_owned();
        self.read(|transaction| {
            let integer = |sql: &str| transaction.query_row(sql, (), |row| row.get::<_, i64>(0));
            let tracking_layout = match exists(transaction, TRACKING)? {
                true => Some(integer("SELECT count(*) FROM pragma_table_info('tracking') WHERE pk > 0")?),
                false => None,
            };
            let snapshots = match exists(transaction, SNAPSHOTS)? {
                true => Some(integer("SELECT count(*) FROM stored_snapshots")?),
                false => None,
            };
            Ok(Overview {
                backend: "sqlite",
                version: rusqlite::version().to_owned(),
                location: location.clone(),
                bytes: integer("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
                journal_mode: Some(journal_mode.clone()),
                events: event_counts(transaction)?,
                snapshots,
                tracking_layout: tracking_layout.map(Layout::of_key_columns),
                trackers: trackers(transaction)?,
            })
        })
    }

    pub(super) fn topics(&mut self, first: i64) -> Result<Vec<TopicCount>, Failure> {
        self.read(|transaction| {
            let mut select = transaction.prepare(
                "SELECT topic, count(*), min(rowid), max(rowid), sum(length(CAST(state AS BLOB))) \
                 FROM stored_events WHERE rowid >= ?1 GROUP BY topic ORDER BY topic",
            )?;
            let topic = |row: &Row<'_>| {
                Ok(TopicCount {
                    topic: row.get::<_, Option<String>>(0)?.unwrap_or_default(),
                    count: row.get(1)?,
                    first_id: row.get(2)?,
                    last_id: row.get(3)?,
                    bytes: row.get::<_, Option<i64>>(4)?.unwrap_or(0),
                })
            };
            select.query_map([first], topic)?.collect()
        })
    }

    #[cfg(feature = "ui")]
    pub(super) fn ids(&mut self, selection: &IdSelection) -> Result<Vec<i64>, Failure> {
        let IdSelection { originator_id, topic, first, last, is_descending, limit } = selection;
        // The unary plus has the events of an aggregate found by the primary key, and sorted then.
        let id = if originator_id.is_some() { "+rowid" } else { "rowid" };
        let mut sql = format!("SELECT rowid FROM stored_events WHERE {id} BETWEEN :first AND :last");
        let originator_id = originator_id.map(|originator_id| originator_id.simple().to_string());
        let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
        let mut parameters: Vec<(&str, &dyn ToSql)> =
            vec![(":first", first), (":last", last), (":limit", &limit)];
        if let Some(originator_id) = &originator_id {
            sql.push_str(" AND originator_id = :originator_id");
            parameters.push((":originator_id", originator_id));
        }
        if let Some(topic) = topic {
            sql.push_str(" AND topic = :topic");
            parameters.push((":topic", topic));
        }
        let order = if *is_descending { "DESC" } else { "ASC" };
        sql.push_str(&format!(" ORDER BY {id} {order} LIMIT :limit"));
        self.read(|transaction| {
            transaction.prepare_cached(&sql)?.query_map(&*parameters, |row| row.get(0))?.collect()
        })
    }

    pub(super) fn trackers(&mut self) -> Result<Vec<Tracker>, Failure> {
        self.read(trackers)
    }

    pub(super) fn partitioned(&mut self) -> Result<Vec<String>, Failure> {
        self.read(|transaction| {
            if !exists(transaction, "tracking_segments")? {
                return Ok(Vec::new());
            }
            let mut select = transaction.prepare("SELECT DISTINCT consumer_name FROM tracking_segments")?;
            select.query_map((), |row| row.get(0))?.collect()
        })
    }

    pub(super) fn last_id(&mut self) -> Result<i64, Failure> {
        self.read(|transaction| transaction.query_row(LAST_ID, (), |row| row.get(0)))
    }

    pub(super) fn ranking(&mut self, selection: Selection) -> Result<Ranking, Failure> {
        const NAMES: Names<'_> = Names { table: EVENTS, id: "rowid", bytes: "length(CAST(state AS BLOB))" };
        self.read(|transaction| {
            let last_id = transaction.query_row(LAST_ID, (), |row| row.get(0))?;
            let mut select = transaction.prepare_cached(&selection.sql(&NAMES, last_id))?;
            let aggregate = |row: &Row<'_>| {
                Ok(Aggregate {
                    originator_id: row.get(0)?,
                    events: row.get(1)?,
                    recent_events: row.get(2)?,
                    recent_bytes: row.get(3)?,
                })
            };
            let aggregates = select.query_map((), aggregate)?.collect::<Result<_, _>>()?;
            Ok(Ranking { order: selection.order, last_id, aggregates })
        })
    }

    pub(super) fn integrity(&mut self) -> Integrity {
        let mut damage = Vec::new();
        let mut check = || {
            // Each row is looked for in the indexes, whose pages are in another order.
            self.connection.pragma_update(None, "cache_size", CHECK_CACHE)?;
            let mut check = self.connection.prepare("PRAGMA integrity_check(1000)")?;
            let mut rows = check.query(())?;
            while let Some(row) = rows.next()? {
                damage.push(row.get(0)?);
            }
            Ok(())
        };
        let checked: rusqlite::Result<()> = check();
        damage.retain(|line: &String| line != "ok");
        if let Err(error) = checked {
            damage.push(format!("the check of the database failed: {error}"));
        }
        self.is_damaged = !damage.is_empty();
        Integrity { damage, not_checked: None }
    }

    pub(super) fn gaps(
        &mut self,
        first: i64,
        mut report: impl FnMut(Gap) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let gap = |row: &Row<'_>| {
            Ok(Gap { originator_id: row.get(0)?, version: row.get(1)?, previous: row.get(2)? })
        };
        let key = ["originator_id", "originator_version"];
        let is_unique =
            self.read(|transaction| Ok(problem(transaction, EVENTS, &key, &[&key])?.is_none()))?;
        let columns = "typeof(originator_version) = 'integer'";
        let sql = versions::gaps(self.trusted_events(), columns, first, is_unique && !self.is_damaged);
        self.each(&sql, (), gap, &mut report)
    }

    pub(super) fn has_snapshots(&mut self) -> Result<bool, Failure> {
        self.read(|transaction| exists(transaction, SNAPSHOTS))
    }

    pub(super) fn snapshot_faults(
        &mut self,
        mut report: impl FnMut(SnapshotFault) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let fault = |row: &Row<'_>| {
            Ok(SnapshotFault { originator_id: row.get(0)?, version: row.get(1)?, last: row.get(2)? })
        };
        let sql = versions::snapshot_faults(self.trusted_events(), SNAPSHOTS);
        self.each(&sql, (), fault, &mut report)
    }

    /// Returns the table of events, without its index if that is damaged: it does not have every version.
    fn trusted_events(&self) -> &'static str {
        if self.is_damaged { "stored_events NOT INDEXED" } else { EVENTS }
    }

    pub(super) fn snapshot_originators(&mut self, after: &str, limit: usize) -> Result<Vec<String>, Failure> {
        self.read(|transaction| {
            let mut select = transaction.prepare_cached(
                "SELECT DISTINCT CAST(originator_id AS TEXT) FROM stored_snapshots WHERE originator_id > ?1 \
                 ORDER BY originator_id LIMIT ?2",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            select.query_map(params![after, limit], |row| row.get(0))?.collect()
        })
    }

    pub(super) fn tables(&mut self) -> Result<[(String, bool); 3], Failure> {
        self.read(|transaction| {
            let table = |name: &str| exists(transaction, name).map(|exists| (name.to_owned(), exists));
            Ok([table(EVENTS)?, table(TRACKING)?, table(SNAPSHOTS)?])
        })
    }

    /// Returns the columns and keys that the tables lack, which the recorders of SQLite do not check.
    pub(super) fn problems(&mut self) -> Result<[Option<String>; 3], Failure> {
        const EVENT: &[&str] = &["originator_id", "originator_version", "topic", "state"];
        const POSITION: &[&str] = &["application_name", "notification_id"];
        self.read(|transaction| {
            let events = problem(transaction, EVENTS, EVENT, &[&EVENT[..2]])?;
            let events = events.or_else(|| {
                let has_ids = transaction.prepare("SELECT rowid FROM stored_events").is_ok();
                (!has_ids).then(|| "has no notification ids: it was created WITHOUT ROWID".to_owned())
            });
            let tracking = problem(transaction, TRACKING, POSITION, &[&POSITION[..1], POSITION])?;
            Ok([events, tracking, problem(transaction, SNAPSHOTS, EVENT, &[&EVENT[..2]])?])
        })
    }

    /// Calls `report` for each row of a query.
    fn each<T>(
        &mut self,
        sql: &str,
        parameters: impl Params,
        parse: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        report: &mut impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failure = |error| failed(&self.name, error);
        let mut select = self.connection.prepare(sql).map_err(failure)?;
        let mut rows = select.query(parameters).map_err(failure)?;
        while let Some(row) = rows.next().map_err(failure)? {
            report(parse(row).map_err(failure)?)?;
        }
        Ok(())
    }

    fn pragma(&self, name: &str) -> Result<String, Failure> {
        let value = self.connection.pragma_query_value(None, name, |row| row.get(0));
        value.map_err(|error| failed(&self.name, error))
    }

    /// Reads in one transaction.
    fn read<T>(&mut self, read: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let outcome = self.connection.transaction().and_then(|transaction| read(&transaction));
        outcome.map_err(|error| failed(&self.name, error))
    }
}

pub(crate) fn failed(name: &str, error: rusqlite::Error) -> Failure {
    let message = format!("database {name:?}: {error}");
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::CannotOpen) => Failure::unavailable(message)
            .with_hint("check the path; on a read-only file system, add `?immutable=1` to the URL"),
        _ if message.contains("no such table") => {
            Failure::usage(message).with_hint("is this the database of an event store?")
        }
        _ => Failure::new(message),
    }
}

fn exists(transaction: &Transaction<'_>, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    Ok(transaction.query_row(sql, [table], |_| Ok(())).optional()?.is_some())
}

/// Returns the reason why a table with other columns, or none of the keys, is unsuitable.
fn problem(
    transaction: &Transaction<'_>,
    table: &str,
    columns: &[&str],
    keys: &[&[&str]],
) -> rusqlite::Result<Option<String>> {
    let mut select = transaction.prepare("SELECT name, pk FROM pragma_table_info(?1)")?;
    let found = select.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(String, i64)> = found.collect::<Result<_, _>>()?;
    let missing = columns.iter().find(|column| found.iter().all(|(name, _)| name != *column));
    if let Some(column) = missing {
        return Ok(Some(format!("has no column {column}")));
    }
    let mut key: Vec<_> = found.iter().filter(|(_, place)| *place > 0).collect();
    key.sort_by_key(|(_, place)| *place);
    let key: Vec<_> = key.into_iter().map(|(name, _)| name.as_str()).collect();
    let is_suitable = keys.contains(&key.as_slice());
    Ok((!is_suitable).then(|| format!("has the primary key ({})", key.join(", "))))
}

fn event_counts(transaction: &Transaction<'_>) -> rusqlite::Result<EventCounts> {
    let sql = "SELECT count(*), min(rowid), max(rowid), count(DISTINCT originator_id), count(DISTINCT topic) \
         FROM stored_events";
    transaction.query_row(sql, (), |row| {
        Ok(EventCounts {
            table: EVENTS.to_owned(),
            count: row.get(0)?,
            first_id: row.get(1)?,
            last_id: row.get(2)?,
            aggregates: row.get(3)?,
            topics: row.get(4)?,
        })
    })
}

fn trackers(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Tracker>> {
    if !exists(transaction, TRACKING)? {
        return Ok(Vec::new());
    }
    let mut select = transaction.prepare(
        "SELECT application_name, max(notification_id) FROM tracking WHERE application_name <> ?1 \
         GROUP BY application_name ORDER BY application_name",
    )?;
    let tracker = |row: &Row<'_>| Ok(Tracker { name: row.get(0)?, position: row.get(1)? });
    select.query_map(params![Tracking::RESERVED_NAME], tracker)?.collect()
}
