//! The state of a recorder's tables in the catalog, and checks that a recorder can work with it.

use es_core::PersistenceError;
use sqlx::{
    AssertSqlSafe, Row, SqlSafeStr,
    postgres::{PgConnection, PgRow},
};

use super::name::TableName;
use crate::{connection::session, error, options::NotificationOrdering, quote::quote_literal};

/// The tables that a recorder needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableSpec {
    pub(crate) events: Option<TableName>,
    /// The events table must have notification ids.
    pub(crate) notifications: bool,
    pub(crate) tracking: Option<TableName>,
}

/// The tables of a recorder, as found in the catalog.
#[derive(Clone, Debug)]
pub(crate) struct CatalogState {
    pub(crate) events: Option<EventsTable>,
    pub(crate) tracking: Option<TrackingTable>,
}

/// A table of events.
#[derive(Clone, Debug)]
pub(crate) struct EventsTable {
    pub(crate) name: TableName,
    /// The table has notification ids.
    pub(crate) has_ids: bool,
    /// The sequence of the ids, quoted; none if the default of the column uses no sequence.
    pub(crate) sequence: Option<String>,
}

/// A table of tracking records.
#[derive(Clone, Debug)]
pub(crate) struct TrackingTable {
    pub(crate) name: TableName,
    pub(crate) layout: Layout,
}

/// The layout of a tracking table, determined by its primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One row for each tracking record: version 9.1 of the Python library.
    RowPerRecord,
    /// One row for each application: version 9.5. This layout is created here.
    RowPerApplication,
}

/// The catalog data of each table; none if the recorder has no such table.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) events: Option<TableInfo>,
    pub(super) tracking: Option<TableInfo>,
}

/// The catalog data of one table.
#[derive(Debug)]
pub(super) struct TableInfo {
    pub(super) exists: bool,
    has_children: bool,
    /// The columns of the primary key, sorted and separated by commas.
    primary_key: Option<String>,
    /// The columns of the unique indexes that an `ON CONFLICT` can use, in the same form.
    unique_keys: Vec<String>,
    /// Key columns of another type than the library reads and writes, as text.
    unsuitable_columns: Option<String>,
    pub(super) has_ids: bool,
    /// Ids are the plain values of a sequence, by default or by identity.
    has_plain_ids: bool,
    /// The id column accepts no inserted value (`GENERATED ALWAYS`).
    ids_are_generated_always: bool,
    has_id_default: bool,
    sequence: Option<String>,
    /// The sequence allocates ids one by one, in ascending order.
    is_sequence_suitable: Option<bool>,
}

/// Reads the catalog data of the tables, of each in one message and one transaction.
pub(crate) async fn inspect(
    connection: &mut PgConnection,
    spec: &TableSpec,
) -> Result<Inspection, PersistenceError> {
    Ok(Inspection {
        events: inspect_optional(connection, spec.events.as_ref()).await?,
        tracking: inspect_optional(connection, spec.tracking.as_ref()).await?,
    })
}

async fn inspect_optional(
    connection: &mut PgConnection,
    table: Option<&TableName>,
) -> Result<Option<TableInfo>, PersistenceError> {
    let Some(table) = table else { return Ok(None) };
    let failed = |failed| error::from_statement(&format!("inspecting {}", table.quoted()), failed);
    let sql = AssertSqlSafe(query(table)).into_sql_str();
    let rows = sqlx::raw_sql(sql).fetch_all(connection).await.map_err(failed)?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
    TableInfo::read(row).map(Some).map_err(failed)
}

fn query(table: &TableName) -> String {
    // Key columns of an index, without those that are only included.
    let key_columns = "(SELECT string_agg(ka.attname::text, ',' ORDER BY ka.attname) \
         FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place) \
         JOIN pg_attribute AS ka ON ka.attrelid = i.indrelid AND ka.attnum = k.attnum \
         WHERE k.place <= i.indnkeyatts)";
    // The sequence that the default of the column uses, and the one that an identity column owns. A sequence
    // that the default uses need not be owned by the column.
    let sequences = "SELECT sd.refobjid AS oid FROM pg_attrdef AS d JOIN pg_depend AS sd \
         ON sd.classid = 'pg_attrdef'::regclass AND sd.objid = d.oid AND sd.refclassid = 'pg_class'::regclass \
         WHERE d.adrelid = c.oid AND d.adnum = a.attnum \
         UNION SELECT sd.objid FROM pg_depend AS sd \
         WHERE sd.classid = 'pg_class'::regclass AND sd.refclassid = 'pg_class'::regclass \
         AND sd.refobjid = c.oid AND sd.refobjsubid = a.attnum AND sd.deptype = 'i'";
    let plain_default = "(SELECT pg_get_expr(d.adbin, d.adrelid) ~ '^nextval[(]''([^'']|'''')*''::regclass[)]$' \
         FROM pg_attrdef AS d WHERE d.adrelid = c.oid AND d.adnum = a.attnum)";
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {pin} SET LOCAL quote_all_identifiers = off; \
         SELECT c.oid IS NOT NULL, EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhparent = c.oid), \
         (SELECT {key_columns} FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate), \
         (SELECT string_agg({key_columns}, ';') FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique \
         AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL), \
         a.attnum IS NOT NULL, coalesce(a.attidentity = 'a', false), \
         coalesce(a.atthasdef OR a.attidentity <> '', false), s.name, s.is_suitable, \
         (SELECT string_agg(format('%s %s', ka.attname, format_type(ka.atttypid, ka.atttypmod)), ', ' \
         ORDER BY ka.attname) FROM pg_attribute AS ka WHERE ka.attrelid = c.oid AND NOT ka.attisdropped \
         AND (ka.attname = 'originator_id' AND ka.atttypid <> 'uuid'::regtype \
         OR ka.attname IN ('originator_version', 'notification_id') AND ka.atttypid <> 'bigint'::regtype)), \
         coalesce(a.attidentity <> '' OR {plain_default}, false) \
         FROM (SELECT) AS always \
         LEFT JOIN (pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = {schema}) \
         ON c.relname = {name} \
         LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'notification_id' \
         AND NOT a.attisdropped \
         LEFT JOIN LATERAL (SELECT min(format('%I.%I', sn.nspname, sc.relname)) AS name, \
         bool_and(q.seqcache = 1 AND q.seqincrement > 0 AND NOT q.seqcycle AND q.seqmin >= 1) AS is_suitable \
         FROM ({sequences}) AS used JOIN pg_class AS sc ON sc.oid = used.oid \
         JOIN pg_namespace AS sn ON sn.oid = sc.relnamespace \
         JOIN pg_sequence AS q ON q.seqrelid = sc.oid) AS s ON true; \
         COMMIT",
        pin = session::PIN_SEARCH_PATH,
        schema = quote_literal(table.schema()),
        name = quote_literal(table.name()),
    )
}

impl TableInfo {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let unique_keys: Option<String> = row.try_get(3)?;
        Ok(Self {
            exists: row.try_get(0)?,
            has_children: row.try_get(1)?,
            primary_key: row.try_get(2)?,
            unique_keys: unique_keys.iter().flat_map(|keys| keys.split(';')).map(str::to_owned).collect(),
            has_ids: row.try_get(4)?,
            ids_are_generated_always: row.try_get(5)?,
            has_id_default: row.try_get(6)?,
            sequence: row.try_get(7)?,
            is_sequence_suitable: row.try_get(8)?,
            unsuitable_columns: row.try_get(9)?,
            has_plain_ids: row.try_get(10)?,
        })
    }

    pub(super) fn has_unique_key(&self, columns: &str) -> bool {
        self.unique_keys.iter().any(|key| key == columns)
    }
}

impl Inspection {
    /// Checks that a recorder can work with the tables.
    pub(crate) fn check(
        self,
        spec: &TableSpec,
        ordering: NotificationOrdering,
    ) -> Result<CatalogState, PersistenceError> {
        let events = spec.events.as_ref().zip(self.events);
        let tracking = spec.tracking.as_ref().zip(self.tracking);
        Ok(CatalogState {
            events: events
                .map(|(name, info)| check_events(name, info, spec.notifications, ordering))
                .transpose()?,
            tracking: tracking.map(|(name, info)| check_tracking(name, &info)).transpose()?,
        })
    }
}

fn check_events(
    name: &TableName,
    info: TableInfo,
    notifications: bool,
    ordering: NotificationOrdering,
) -> Result<EventsTable, PersistenceError> {
    let table = name.quoted();
    let invalid = |problem: &str| Err(PersistenceError::programming(format!("table {table} {problem}")));
    if !info.exists {
        return invalid("does not exist");
    }
    if notifications && !info.has_ids {
        return invalid("has no column notification_id, which the events table of an application needs");
    }
    if !info.has_unique_key("originator_id,originator_version") {
        return invalid("has no primary key on originator_id and originator_version");
    }
    if let Some(columns) = &info.unsuitable_columns {
        return Err(PersistenceError::not_supported(format!(
            "table {table} has columns of other types than expected: {columns} (expected originator_id uuid, \
             originator_version bigint, notification_id bigint)"
        )));
    }
    if info.has_children {
        tracing::warn!(
            table,
            "reads of this table include its child tables: each needs the same indexes, or reads are slow"
        );
    }
    if notifications && !info.has_unique_key("notification_id") {
        return invalid("has no unique index on notification_id");
    }
    if info.has_ids {
        check_ids(&table, &info, ordering)?;
    }
    Ok(EventsTable { name: name.clone(), has_ids: info.has_ids, sequence: info.sequence })
}

/// Checks that ids are allocated one by one, in ascending order: a sequence cache in a session breaks the
/// total order under any lock.
fn check_ids(table: &str, info: &TableInfo, ordering: NotificationOrdering) -> Result<(), PersistenceError> {
    let is_parallel = ordering == NotificationOrdering::Parallel;
    let problem = if !info.has_id_default {
        "has no default that gives out ids"
    } else if is_parallel && info.ids_are_generated_always {
        "is GENERATED ALWAYS: parallel ordering inserts ids, and needs GENERATED BY DEFAULT"
    } else if is_parallel && !info.has_plain_ids {
        "has another default than nextval of a sequence: parallel ordering allocates ids from the sequence \
         itself"
    } else if info.is_sequence_suitable.unwrap_or(!is_parallel) {
        // Without a known sequence, the serialized ordering relies on the default of the column.
        return Ok(());
    } else {
        return Err(PersistenceError::not_supported(format!(
            "notification ids of {table} must come from a sequence that ascends from 1 or more, with CACHE 1 \
             and NO CYCLE, and parallel ordering needs a column whose default uses that sequence"
        )));
    };
    Err(PersistenceError::not_supported(format!("column notification_id of table {table} {problem}")))
}

fn check_tracking(name: &TableName, info: &TableInfo) -> Result<TrackingTable, PersistenceError> {
    let name = name.clone();
    let problem = match info.primary_key.as_deref() {
        _ if !info.exists => "does not exist".to_owned(),
        Some("application_name") => return Ok(TrackingTable { name, layout: Layout::RowPerApplication }),
        Some("application_name,notification_id") => {
            return Ok(TrackingTable { name, layout: Layout::RowPerRecord });
        }
        Some(key) => format!("has the primary key ({key}), which no known tracking table has"),
        None => "has no primary key, which every tracking table has".to_owned(),
    };
    Err(PersistenceError::programming(format!("table {} {problem}", name.quoted())))
}
