//! The SQL of an append.
//!
//! An append is one statement, and mostly one transaction. In the serialized ordering, writers exclude each
//! other from before the first id is allocated until after the commit is visible, by two locks:
//!
//! - `INSERT` takes `ROW EXCLUSIVE` on its table before it executes. The Python library's writers take
//!   `EXCLUSIVE`, which conflicts with it in both directions. `VACUUM` conflicts with neither.
//! - Writers of this library exclude each other by a transaction-level advisory lock of the table. The rows
//!   are inserted from the materialized CTE that takes it, so ids are allocated after it.
//!
//! The snapshot of the statement is older than the lock. A row that a rival committed in between is met by
//! the unique index: a single event is then not inserted (`ON CONFLICT DO NOTHING`), a group fails and is
//! sent once more. ARCHITECTURE.md has the argument for both orderings.
//!
//! The statements also run in transactions of the caller's, whose search path is the caller's. Therefore
//! every function, operator and type cast in this file is qualified.

use crate::{
    quote::quote_literal,
    schema::{CatalogState, EventsTable, Layout, TrackingTable},
};

/// The first key of the advisory lock of an append; the second is the oid of the events table.
const APPEND_CLASS: i32 = 0x6573_6c6b;

/// The first key of the advisory lock under which ids are allocated in the parallel ordering; the second is
/// the oid of the sequence.
const ALLOCATION_CLASS: i32 = 0x6573_6964;

/// The first key of the advisory lock of a tracking table with a row for each record; the second is the oid
/// of the table.
const TRACKING_CLASS: i32 = 0x6573_7472;

/// The SQLSTATE by which a statement fails whose rows were not all inserted; see [`GUARD`].
pub(crate) const ROWS_SKIPPED: &str = "2201G";

pub(super) const EQ: &str = "OPERATOR(pg_catalog.=)";
const NE: &str = "OPERATOR(pg_catalog.<>)";
pub(super) const LT: &str = "OPERATOR(pg_catalog.<)";
const LE: &str = "OPERATOR(pg_catalog.<=)";
pub(super) const GE: &str = "OPERATOR(pg_catalog.>=)";
const GT: &str = "OPERATOR(pg_catalog.>)";

/// The source of notification ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// The default of the column, under the lock of an append; or the table has no ids.
    Default,
    /// The sequence, inside the statement, under a session lock that the statement releases.
    Allocated,
    /// A parameter.
    Given,
}

/// Returns the statement for a single event without tracking: `$1` originator id, `$2` originator version,
/// `$3` topic, `$4` state.
///
/// It returns one row with the notification id (0 where the table has none) if the event was inserted, and no
/// row otherwise: the statement for a group then reports the reason. Arrays, which a group needs, and a
/// report of the conflict in this statement would each cost the server more than the lock does: 15 µs of 45
/// for the report (`insert, 1 task, 1 per commit`).
pub(crate) fn single(events: &EventsTable, ids: Ids) -> String {
    let table = events.name.quoted();
    let columns = "originator_id, originator_version, topic, state";
    let (ctes, columns, values) = match (ids, &events.sequence) {
        (Ids::Allocated, Some(sequence)) => {
            let key = sequence_key(sequence);
            let ctes = format!(
                "allocation AS MATERIALIZED (SELECT pg_catalog.pg_advisory_lock({ALLOCATION_CLASS}, {key})), \
                 allocated AS MATERIALIZED (SELECT pg_catalog.nextval({}) AS id FROM allocation), \
                 released AS MATERIALIZED (SELECT pg_catalog.pg_advisory_unlock({ALLOCATION_CLASS}, {key}) \
                 FROM allocated)",
                sequence_name(sequence)
            );
            let columns = format!("{columns}, notification_id");
            (ctes, columns, "SELECT $1, $2, $3, $4, d.id FROM released, allocated AS d")
        }
        _ if events.has_ids => (lock_cte(events), columns.to_owned(), "SELECT $1, $2, $3, $4 FROM lock"),
        _ => (String::new(), columns.to_owned(), "VALUES ($1, $2, $3, $4)"),
    };
    let ctes = if ctes.is_empty() { ctes } else { format!("WITH {ctes} ") };
    let returning = if events.has_ids { "notification_id" } else { "0::pg_catalog.int8" };
    format!(
        "{ctes}INSERT INTO {table} ({columns}) {values} \
         ON CONFLICT (originator_id, originator_version) DO NOTHING RETURNING {returning}"
    )
}

/// Returns the statement for a single event with the position of an application that has one, in the
/// serialized ordering: the parameters of [`single`], then `$5` application name, `$6` position, `$7` first
/// notification, `$8` expected position.
///
/// It returns one row with the notification id if the event and the position were recorded. Otherwise it
/// returns no row or fails, and the statement for a group then gives the reason. With that statement alone,
/// an append took 1.36 times the time of two bare statements in a transaction, and with this one 0.96 times
/// (`insert with tracking, 1 task`). The locks are those of [`tracking_ctes`].
pub(crate) fn single_with_tracking(events: &EventsTable, tracking: &TrackingTable) -> String {
    let (events_table, tracking_table) = (events.name.quoted(), tracking.name.quoted());
    let is_next = |recorded: &str| {
        format!("{recorded} {LT} $7 AND ($8::pg_catalog.int8 IS NULL OR {recorded} {EQ} $8::pg_catalog.int8)")
    };
    format!(
        "WITH {}, held AS MATERIALIZED (SELECT t.notification_id FROM lock, {tracking_table} AS t \
         WHERE t.application_name {EQ} $5 FOR NO KEY UPDATE OF t SKIP LOCKED), \
         tracked AS (INSERT INTO {tracking_table} AS t (application_name, notification_id) \
         SELECT $5, $6 FROM held AS h WHERE {} ON CONFLICT (application_name) DO UPDATE \
         SET notification_id = excluded.notification_id WHERE {} RETURNING 1), \
         inserted AS (INSERT INTO {events_table} (originator_id, originator_version, topic, state) \
         SELECT $1, $2, $3, $4 FROM tracked RETURNING notification_id) \
         SELECT i.notification_id, CASE WHEN i.notification_id IS NOT NULL THEN 0 \
         ELSE pg_catalog.width_bucket(0::pg_catalog.float8, 0::pg_catalog.float8, 1::pg_catalog.float8, \
         coalesce(i.notification_id, 0)::pg_catalog.int4) END FROM tracked LEFT JOIN inserted AS i ON true",
        lock_cte(events),
        is_next("h.notification_id"),
        is_next("t.notification_id"),
    )
}

/// Returns the statement for a group. Its parameters are arrays, in this order:
///
/// - with an events table: of each row its request, originator id, originator version, topic and state; of
///   each [range](super::columns) of versions its request, originator id, lowest and highest version;
/// - with tracking: of each position its request, application name, position, first notification and expected
///   position; and, not an array, whether the first position of an application is inserted;
/// - with given ids: the id of each row.
///
/// It returns one row: of each version that is taken its request (0), originator id (1) and version (2); the
/// notification ids of the inserted rows in their order (3); 0 (4); of each position its request (5),
/// [status](PositionStatus) (6), and the recorded position (7).
pub(crate) fn group(tables: &CatalogState, with_tracking: bool, ids: Ids) -> String {
    let mut parameters = Parameters(0);
    let rows = tables.events.as_ref().map(|events| (events, parameters.take::<5>(), parameters.take::<4>()));
    let positions = tables.tracking.as_ref().filter(|_| with_tracking);
    let positions = positions.map(|tracking| (tracking, parameters.take::<6>()));

    let mut ctes = Vec::new();
    if let Some((events, _, ranges)) = &rows {
        if events.has_ids && ids == Ids::Default {
            ctes.push(lock_cte(events));
        }
        ctes.push(clashes_cte(events, ranges));
        if positions.is_none() {
            ctes.push("refused AS MATERIALIZED (SELECT c.request FROM clashes AS c)".to_owned());
        }
    }
    if let Some((tracking, position)) = &positions {
        let is_serialized = rows.as_ref().is_some_and(|(events, ..)| events.has_ids && ids == Ids::Default);
        ctes.extend(tracking_ctes(tracking, position, rows.is_some(), is_serialized));
    }
    if let Some((events, row, _)) = &rows {
        let given = parameters.take::<1>();
        ctes.extend(insert_ctes(events, row, ids, &given));
    }
    let clashes = if rows.is_some() {
        "ARRAY(SELECT c.request FROM clashes AS c), ARRAY(SELECT c.originator_id FROM clashes AS c), \
         ARRAY(SELECT c.originator_version FROM clashes AS c), a.ids, "
            .to_owned()
            + GUARD
    } else {
        "'{}'::pg_catalog.int4[], '{}'::pg_catalog.uuid[], '{}'::pg_catalog.int8[], '{}'::pg_catalog.int8[], 0"
            .to_owned()
    };
    let statuses = if positions.is_some() {
        "ARRAY(SELECT s.request FROM statuses AS s), ARRAY(SELECT s.status FROM statuses AS s), \
         ARRAY(SELECT s.recorded FROM statuses AS s)"
    } else {
        "'{}'::pg_catalog.int4[], '{}'::pg_catalog.int4[], '{}'::pg_catalog.int8[]"
    };
    let from = if rows.is_some() { " FROM answer AS a" } else { "" };
    format!("WITH {} SELECT {clashes}, {statuses}{from}", ctes.join(", "))
}

/// Fails the statement, and so rolls it back, if a trigger or a rule skipped rows. SQL has no expression that
/// raises an error of the user's; the one of `width_bucket` without buckets is not one that triggers raise.
/// The count depends on the answer, so that the planner does not evaluate it beforehand.
const GUARD: &str = "CASE WHEN a.inserted OPERATOR(pg_catalog.=) a.accepted THEN 0 \
     ELSE pg_catalog.width_bucket(0::pg_catalog.float8, 0::pg_catalog.float8, 1::pg_catalog.float8, \
     (a.inserted OPERATOR(pg_catalog.-) a.inserted)::pg_catalog.int4) END";

/// The result of recording a position, with the codes of [`group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PositionStatus {
    Inserted = 0,
    /// The recorded position is not before the first notification, or not the expected one.
    Late = 1,
    /// Another transaction has locked the recorded position.
    Locked = 2,
    /// Not inserted for another reason: a version of the request is taken, a rival recorded the first
    /// position of the application at the same time, or a trigger skipped the row.
    NotInserted = 3,
    /// The first position of the application, which the statement does not insert.
    First = 4,
}

impl PositionStatus {
    pub(crate) fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Inserted,
            1 => Self::Late,
            2 => Self::Locked,
            4 => Self::First,
            _ => Self::NotInserted,
        }
    }
}

/// Numbers the parameters of a statement.
struct Parameters(usize);

impl Parameters {
    fn take<const N: usize>(&mut self) -> [String; N] {
        std::array::from_fn(|_| {
            self.0 += 1;
            format!("${}", self.0)
        })
    }
}

fn lock_cte(events: &EventsTable) -> String {
    format!("lock AS MATERIALIZED (SELECT {})", append_lock(events))
}

fn append_lock(events: &EventsTable) -> String {
    format!("pg_catalog.pg_advisory_xact_lock({APPEND_CLASS}, {})", events.name.lock_key())
}

fn sequence_name(sequence: &str) -> String {
    format!("{}::pg_catalog.regclass", quote_literal(sequence))
}

fn sequence_key(sequence: &str) -> String {
    format!("{}::pg_catalog.oid::pg_catalog.int4", sequence_name(sequence))
}

/// Selects the lowest taken version of each range.
///
/// One index lookup for each range instead of each row saves the server 10,000 to 12,000 of some 45,000
/// instructions for an event (counted by callgrind, requests of 10 and 300 events). It is a subquery with a
/// limit and no join: a plan that was made when the table had just been emptied and vacuumed would execute a
/// join by reading the whole index.
fn clashes_cte(events: &EventsTable, [request, id, lowest, highest]: &[String; 4]) -> String {
    format!(
        "clashes AS MATERIALIZED (SELECT r.request, r.originator_id, c.originator_version \
         FROM unnest({request}, {id}, {lowest}, {highest}) AS r (request, originator_id, lowest, highest) \
         CROSS JOIN LATERAL (SELECT e.originator_version FROM {} AS e \
         WHERE e.originator_id {EQ} r.originator_id AND e.originator_version {GE} r.lowest \
         AND e.originator_version {LE} r.highest ORDER BY e.originator_version LIMIT 1) AS c)",
        events.name.quoted()
    )
}

/// Inserts the rows of the requests that are not refused, in their order.
fn insert_ctes(
    events: &EventsTable,
    [request, id, version, topic, state]: &[String; 5],
    ids: Ids,
    [given]: &[String; 1],
) -> Vec<String> {
    let table = events.name.quoted();
    let columns = "originator_id, originator_version, topic, state";
    let is_accepted = format!("r.request {NE} ALL (ARRAY(SELECT x.request FROM refused AS x))");
    let rows = format!(
        "unnest({request}, {id}, {version}, {topic}, {state}) WITH ORDINALITY \
         AS r (request, originator_id, originator_version, topic, state, place) WHERE {is_accepted}"
    );
    let count_accepted = format!(
        "(SELECT pg_catalog.count(*) FROM pg_catalog.unnest({request}) AS r (request) WHERE {is_accepted})"
    );
    match (ids, &events.sequence) {
        (Ids::Allocated, Some(sequence)) => {
            let key = sequence_key(sequence);
            // The lock is taken if there are rows, and released before the first of them is inserted. Keys
            // are inserted in one global order, so that two groups wait for each other and do not deadlock.
            vec![
                format!("rows AS MATERIALIZED (SELECT r.* FROM {rows} ORDER BY r.place)"),
                format!(
                    "allocation AS MATERIALIZED (SELECT pg_catalog.pg_advisory_lock({ALLOCATION_CLASS}, {key}) \
                     FROM (SELECT FROM rows LIMIT 1) AS first)"
                ),
                format!(
                    "allocated AS MATERIALIZED (SELECT r.*, pg_catalog.nextval({}) AS id \
                     FROM allocation, rows AS r)",
                    sequence_name(sequence)
                ),
                format!(
                    "released AS MATERIALIZED (SELECT pg_catalog.pg_advisory_unlock({ALLOCATION_CLASS}, {key}) \
                     FROM (SELECT pg_catalog.count(*) AS count FROM allocated) AS all_allocated \
                     WHERE all_allocated.count {GT} 0)"
                ),
                format!(
                    "inserted AS (INSERT INTO {table} ({columns}, notification_id) \
                     SELECT d.originator_id, d.originator_version, d.topic, d.state, d.id \
                     FROM released, allocated AS d ORDER BY d.originator_id, d.originator_version RETURNING 1)"
                ),
                "answer AS MATERIALIZED (SELECT \
                 ARRAY(SELECT d.id FROM allocated AS d ORDER BY d.place) AS ids, \
                 (SELECT pg_catalog.count(*) FROM inserted) AS inserted, \
                 (SELECT pg_catalog.count(*) FROM allocated) AS accepted)"
                    .to_owned(),
            ]
        }
        (Ids::Given, _) => vec![
            format!(
                "inserted AS (INSERT INTO {table} ({columns}, notification_id) \
                 SELECT r.originator_id, r.originator_version, r.topic, r.state, r.id \
                 FROM unnest({request}, {id}, {version}, {topic}, {state}, {given}) \
                 AS r (request, originator_id, originator_version, topic, state, id) WHERE {is_accepted} \
                 ORDER BY r.originator_id, r.originator_version RETURNING notification_id)"
            ),
            format!(
                "answer AS MATERIALIZED (SELECT ARRAY(SELECT i.notification_id FROM inserted AS i \
                 ORDER BY i.notification_id) AS ids, (SELECT pg_catalog.count(*) FROM inserted) AS inserted, \
                 {count_accepted} AS accepted)"
            ),
        ],
        _ => {
            // Without ids there is no lock either: in one global order of keys, groups wait for each other
            // and do not deadlock.
            let (lock, returning, order) = if events.has_ids {
                ("lock, ", "notification_id", "r.place")
            } else {
                ("", "originator_version", "r.originator_id, r.originator_version")
            };
            vec![
                format!(
                    "inserted AS (INSERT INTO {table} ({columns}) \
                     SELECT r.originator_id, r.originator_version, r.topic, r.state FROM {lock}{rows} \
                     ORDER BY {order} RETURNING {returning} AS id)"
                ),
                format!(
                    "answer AS MATERIALIZED (SELECT ARRAY(SELECT i.id FROM inserted AS i) AS ids, \
                     (SELECT pg_catalog.count(*) FROM inserted) AS inserted, {count_accepted} AS accepted)"
                ),
            ]
        }
    }
}

/// Records the positions of the requests that are not refused.
///
/// With a row for each application, the recorded positions are locked and read in their latest version. A
/// position that another transaction has locked is skipped, and its request sent again: the statement holds
/// locks of the events table, other requests of the group would wait with it, and the Python library's
/// version 9.5 locks the position before that table, so waiting could deadlock. For the same reasons the
/// first position of an application, whose insertion would wait for a rival's, is inserted only where the
/// parameter allows it.
fn tracking_ctes(
    tracking: &TrackingTable,
    [request, application, position, first, expected, inserts_first]: &[String; 6],
    has_events: bool,
    is_serialized: bool,
) -> Vec<String> {
    let table = tracking.name.quoted();
    let unclashed = if has_events {
        format!(" AND p.request {NE} ALL (ARRAY(SELECT c.request FROM clashes AS c))")
    } else {
        String::new()
    };
    let records = format!(
        "unnest({request}, {application}, {position}, {first}, {expected}) \
         AS p (request, application_name, position, first, expected)"
    );
    let is_late = |recorded: &str| {
        format!(
            "coalesce({recorded} {GE} p.first, false) OR (p.expected IS NOT NULL \
             AND coalesce({recorded}, 0) {NE} p.expected)"
        )
    };
    let accepted = format!("positions AS p WHERE NOT (p.is_locked OR p.is_late OR p.is_first){unclashed}");
    let mut ctes = match tracking.layout {
        Layout::RowPerApplication => {
            let lock = if is_serialized { "lock, " } else { "" };
            vec![
                format!(
                    "held AS MATERIALIZED (SELECT t.application_name, t.notification_id FROM {lock}{table} AS t \
                     WHERE t.application_name {EQ} ANY ({application}) ORDER BY t.application_name \
                     FOR NO KEY UPDATE OF t SKIP LOCKED)"
                ),
                format!(
                    "positions AS MATERIALIZED (SELECT p.*, h.notification_id AS recorded, \
                     {late} AS is_late, \
                     h.application_name IS NULL AND EXISTS (SELECT FROM {table} AS t \
                     WHERE t.application_name {EQ} p.application_name) AS is_locked, \
                     h.application_name IS NULL AND NOT {inserts_first} AS is_first \
                     FROM (SELECT pg_catalog.count(*) FROM held) AS gate, {records} \
                     LEFT JOIN held AS h ON h.application_name {EQ} p.application_name)",
                    late = is_late("h.notification_id")
                ),
                format!(
                    "tracked AS (INSERT INTO {table} AS t (application_name, notification_id) \
                     SELECT p.application_name, p.position FROM {accepted} ORDER BY p.application_name \
                     ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id \
                     WHERE (SELECT t.notification_id {LT} p.first \
                     AND (p.expected IS NULL OR t.notification_id {EQ} p.expected) FROM positions AS p \
                     WHERE p.application_name {EQ} t.application_name) RETURNING t.application_name)"
                ),
            ]
        }
        // The maximum is that of the snapshot, which is later than the locks; see `lock_statements`.
        Layout::RowPerRecord => vec![
            format!(
                "positions AS MATERIALIZED (SELECT p.*, l.notification_id AS recorded, {late} AS is_late, \
                 false AS is_locked, false AS is_first FROM {records} LEFT JOIN LATERAL \
                 (SELECT t.notification_id FROM {table} AS t WHERE t.application_name {EQ} p.application_name \
                 ORDER BY t.notification_id DESC LIMIT 1) AS l \
                 ON true)",
                late = is_late("l.notification_id")
            ),
            format!(
                "tracked AS (INSERT INTO {table} AS t (application_name, notification_id) \
                 SELECT p.application_name, p.position FROM {accepted} ORDER BY p.application_name \
                 RETURNING t.application_name)"
            ),
        ],
    };
    ctes.push(format!(
        "statuses AS MATERIALIZED (SELECT p.request, p.recorded, CASE WHEN t.application_name IS NOT NULL THEN {} \
         WHEN p.is_locked THEN {} WHEN p.is_late THEN {} WHEN p.is_first THEN {} ELSE {} END AS status \
         FROM positions AS p LEFT JOIN tracked AS t ON t.application_name {EQ} p.application_name)",
        PositionStatus::Inserted as i32,
        PositionStatus::Locked as i32,
        PositionStatus::Late as i32,
        PositionStatus::First as i32,
        PositionStatus::NotInserted as i32,
    ));
    if has_events {
        ctes.push(format!(
            "refused AS MATERIALIZED (SELECT c.request FROM clashes AS c \
             UNION ALL SELECT s.request FROM statuses AS s WHERE s.status {NE} {})",
            PositionStatus::Inserted as i32
        ));
    }
    ctes
}

/// Returns statements that take the locks of an append before it: for an append that must see what rivals
/// committed before the locks were granted. `applications` are the names of those whose positions are
/// recorded; in the caller's transaction (`waits_for_positions`) their rows are waited for.
pub(crate) fn lock_statements(
    tables: &CatalogState,
    is_serialized: bool,
    applications: &[&str],
    waits_for_positions: bool,
) -> String {
    let mut locks = String::new();
    if let Some(tracking) = tables.tracking.as_ref().filter(|_| !applications.is_empty()) {
        locks.push_str(&match tracking.layout {
            // Before the events table, in the order of the Python library's version 9.5.
            Layout::RowPerApplication if !waits_for_positions => String::new(),
            Layout::RowPerApplication => format!(
                "SELECT FROM {} AS t WHERE t.application_name {EQ} ANY (ARRAY[{}]) \
                 ORDER BY t.application_name FOR NO KEY UPDATE; ",
                tracking.name.quoted(),
                applications.iter().map(|name| quote_literal(name)).collect::<Vec<_>>().join(", ")
            ),
            // Two writers could both find their positions greater than the maximum, and record both.
            Layout::RowPerRecord => format!(
                "SELECT pg_catalog.pg_advisory_xact_lock({TRACKING_CLASS}, {}); ",
                tracking.name.lock_key()
            ),
        });
    }
    if let Some(events) = tables.events.as_ref().filter(|events| events.has_ids) {
        // The table lock comes before the first id: readers in the parallel ordering look for its holders.
        locks.push_str(&format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE; ", events.name.quoted()));
        if is_serialized {
            locks.push_str(&format!("SELECT {}; ", append_lock(events)));
        }
    }
    locks
}

/// Inserts the first position of an application: `$1` application name, `$2` position.
pub(crate) fn insert_first_position(tracking: &TrackingTable) -> String {
    format!(
        "INSERT INTO {} (application_name, notification_id) VALUES ($1, $2) \
         ON CONFLICT (application_name) DO NOTHING",
        tracking.name.quoted()
    )
}

/// Allocates `$1` consecutive ids, under a transaction-level lock. The caller runs it in a savepoint and
/// rolls back to it, which releases the lock and keeps the ids allocated.
pub(crate) fn allocate_ids(sequence: &str) -> String {
    format!(
        "WITH allocation AS MATERIALIZED (SELECT pg_catalog.pg_advisory_xact_lock({ALLOCATION_CLASS}, {})) \
         SELECT ARRAY(SELECT pg_catalog.nextval({}) FROM allocation, pg_catalog.generate_series(1, $1))",
        sequence_key(sequence),
        sequence_name(sequence)
    )
}
