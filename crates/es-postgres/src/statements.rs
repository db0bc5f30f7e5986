//! The SQL of appending: one statement, and the function that runs it under the table's lock.
//!
//! The statement takes the rows of all requests of a group as arrays, and decides in one snapshot
//! which requests are refused, inserts the rows of the others in their order, and records their
//! tracking positions. Requests of one group are never at odds with each other: the writer sees
//! to that before. Under the lock, where nothing changes between two statements, the function asks for each aggregate first,
//! and mostly inserts the rows as they are.

use uuid::Uuid;

use crate::schema::{Layout, TableName};

/// The columns that the statement answers with.
const ANSWER: &str = "refused_rows, refused_tracking, notification_ids";

/// What the planner is told wherever the statement runs. Its plans are made once, often while the
/// table is empty and its statistics say that a scan is cheapest; a plan for good must use the index.
pub(crate) const PLANNING: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// The first key of the advisory lock of roles that may insert and not update; see
/// [`AppendTables::lock`].
const ADVISORY_CLASS: i32 = 0x6573_6c6b;

/// The first key of the advisory lock under which ids are drawn; see [`EventsTable::draw`].
const DRAWING_CLASS: i32 = 0x6573_6964;

/// The first key of the advisory lock of a tracking table; see [`AppendTables::tracking_lock`].
const TRACKING_CLASS: i32 = 0x6573_7472;

/// The tables that an append writes.
#[derive(Clone, Debug)]
pub(crate) struct AppendTables {
    /// The table that names the function and whose lock orders appends: events, or tracking alone.
    pub(crate) anchor: TableName,
    pub(crate) events: Option<EventsTable>,
    pub(crate) tracking: Option<(TableName, Layout)>,
}

/// A table of events.
#[derive(Clone, Debug)]
pub(crate) struct EventsTable {
    pub(crate) name: TableName,
    /// Whether it has notification ids.
    pub(crate) notifications: bool,
    /// The sequence that gives them, quoted; unknown where a table was made in another way.
    pub(crate) sequence: Option<String>,
}

/// Where notification ids come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// The column's default.
    Default,
    /// The function's variable `drawn`.
    Drawn,
}

/// How appends exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// The table's lock against every other writer.
    Exclusive,
    /// The same for a role that may insert, but lacks the right (to update) that the server demands
    /// for that lock.
    InsertOnly,
    /// None.
    None,
}

impl Lock {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exclusive => "exclusive",
            Self::InsertOnly => "insert-only",
            Self::None => "none",
        }
    }
}

impl AppendTables {
    /// The statement. Its parameters: `$1` request, `$2` originator id, `$3` originator version,
    /// `$4` topic, `$5` state of each row; with tracking, `$6` request, `$7` application, `$8`
    /// position of each tracking record, `$9` the first notification that it accounts for; all of them
    /// arrays.
    pub(crate) fn statement(&self, with_tracking: bool, ids: Ids) -> String {
        let events = self.events.as_ref();
        let events = events.map_or_else(EventsPart::default, |events| EventsPart::new(events, ids));
        let tracking = self.tracking.as_ref().filter(|_| with_tracking);
        let tracking = tracking.map_or_else(TrackingPart::default, TrackingPart::new);
        format!(
            "WITH refused_rows AS ({}), refused_tracking AS ({}), \
             refused AS (SELECT request FROM refused_rows UNION ALL SELECT request FROM refused_tracking){}{} \
             SELECT ARRAY(SELECT row FROM refused_rows) AS refused_rows, \
             ARRAY(SELECT row FROM refused_tracking) AS refused_tracking, \
             {} AS notification_ids, {} AS lost",
            events.refused, tracking.refused, events.inserted, tracking.recorded, events.ids, tracking.lost
        )
    }

    /// The function that runs the statement.
    pub(crate) fn group_function(&self) -> Function {
        let settings: String =
            PLANNING.iter().map(|(name, value)| format!("SET {name} = {value} ")).collect();
        Function::new(
            &self.anchor,
            "append",
            format!(
                "(integer[], uuid[], bigint[], text[], bytea[], integer[], text[], bigint[], bigint[], \
                 uuid[], bigint[], bigint[], lock_mode text, lock_wait text, \
                 OUT refused_rows bigint[], OUT refused_tracking bigint[], OUT notification_ids bigint[]) \
                 LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp {settings}"
            ),
            self.group_function_body(),
        )
    }

    /// Calls the function: the parameters of [`statement`](Self::statement) with tracking; `$10`
    /// originator id, `$11` lowest and `$12` highest originator version of runs that cover all rows;
    /// `$13` the name of the lock, `$14` how long to wait for it.
    pub(crate) fn call_for_group(&self) -> String {
        let function = self.group_function().name.quoted();
        let parameters = (1..=14).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
        format!("SELECT {ANSWER} FROM {function}({parameters})")
    }

    /// The function for a single event without tracking, which waits alone: arrays cost the server
    /// 40 µs, a fifth of what a plain insert takes with its commit (`insert, 1 task, 1 per commit`).
    /// It returns the notification id (or 0 where there are none), and null when it refuses.
    pub(crate) fn single_function(&self) -> Option<Function> {
        let body = self.single_function_body()?;
        Some(Function::new(
            &self.anchor,
            "append_one",
            "(uuid, bigint, text, bytea, lock_mode text, lock_wait text) RETURNS bigint \
             LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp \
             SET plan_cache_mode = force_generic_plan SET enable_seqscan = off"
                .to_owned(),
            body,
        ))
    }

    /// Calls the function: `$1` originator id, `$2` originator version, `$3` topic, `$4` state, `$5`
    /// the name of the lock, `$6` how long to wait for it.
    pub(crate) fn call_for_single(&self) -> Option<String> {
        let function = self.single_function()?.name.quoted();
        Some(format!("SELECT {function}($1, $2, $3, $4, $5, $6)"))
    }

    fn group_function_body(&self) -> String {
        let append = self.append_in_function(Ids::Default);
        let append_unlocked = match self.events.as_ref().and_then(EventsTable::draw_ids) {
            None => append.clone(),
            Some(draw) => format!("{draw} {}", self.append_in_function(Ids::Drawn)),
        };
        let lock_tracking = match self.tracking_lock("PERFORM") {
            None => String::new(),
            Some(lock) => format!("IF cardinality($6) > 0 THEN {lock} END IF;"),
        };
        let locked = self.lock_in_function(&self.lock_positions());
        let append = self.append_unless_refused(&append);
        format!(
            "DECLARE lost bigint; drawn bigint[]; usual_wait text := current_setting('lock_timeout'); \
             BEGIN \
             IF lock_mode = 'none' THEN {lock_tracking} {append_unlocked} ELSE {locked} {append} END IF; \
             IF lost > 0 THEN RAISE unique_violation USING MESSAGE = \
             'a tracking position was recorded at the same time'; END IF; \
             END"
        )
    }

    fn single_function_body(&self) -> Option<String> {
        let events = self.events.as_ref()?;
        let table = events.name.quoted();
        let columns = "originator_id, originator_version, topic, state";
        let insert = if events.notifications {
            format!(
                "INSERT INTO {table} ({columns}) VALUES ($1, $2, $3, $4) RETURNING notification_id INTO recorded;"
            )
        } else {
            format!("INSERT INTO {table} ({columns}) VALUES ($1, $2, $3, $4); recorded := 0;")
        };
        let insert_unlocked = match events.draw_id() {
            None => insert.clone(),
            Some(draw) => format!(
                "{draw} INSERT INTO {table} ({columns}, notification_id) VALUES ($1, $2, $3, $4, recorded);"
            ),
        };
        let refuse = format!(
            "IF EXISTS (SELECT FROM {table} AS e WHERE e.originator_id = $1 AND e.originator_version = $2) \
             THEN RETURN NULL; END IF;"
        );
        let locked = self.lock_in_function("");
        Some(format!(
            "DECLARE recorded bigint; usual_wait text := current_setting('lock_timeout'); \
             BEGIN \
             IF lock_mode = 'none' THEN {refuse} {insert_unlocked} \
             ELSE {locked} {refuse} {insert} END IF; \
             RETURN recorded; \
             END"
        ))
    }

    /// Takes the lock that `lock_mode` names, after what is to be locked `first`. The wait is put back as
    /// it was: the caller's transaction may go on.
    fn lock_in_function(&self, first: &str) -> String {
        let insert_only = self.lock(Lock::InsertOnly, "PERFORM");
        let exclusive = self.lock(Lock::Exclusive, "PERFORM");
        format!(
            "IF usual_wait <> lock_wait THEN PERFORM set_config('lock_timeout', lock_wait, true); END IF; {first} \
             IF lock_mode = 'exclusive' THEN {exclusive} ELSE {insert_only} END IF; \
             IF usual_wait <> lock_wait THEN PERFORM set_config('lock_timeout', usual_wait, true); END IF;"
        )
    }

    /// Excludes others who record positions, as a statement with its semicolon, where there is no lock
    /// of the anchor that does it, and no row of the application's that writers would wait for each
    /// other at: two could find their positions greater than all that is recorded, and record both.
    pub(crate) fn tracking_lock(&self, evaluate: &str) -> Option<String> {
        let (table, Layout::RowPerRecord) = self.tracking.as_ref()? else { return None };
        let table = quote_literal(&table.quoted());
        Some(format!(
            "{evaluate} pg_catalog.pg_advisory_xact_lock({TRACKING_CLASS}, {table}::pg_catalog.regclass::oid::integer);"
        ))
    }

    /// Locks the positions that are about to change.
    ///
    /// Before the table of events, as version 9.5 of the Python library does: when both record positions
    /// of one upstream at the same time, each would otherwise wait for what the other has locked, until
    /// the server ends one of them.
    fn lock_positions(&self) -> String {
        let (Some((table, Layout::RowPerApplication)), Some(_)) = (&self.tracking, &self.events) else {
            return String::new();
        };
        format!(
            "IF cardinality($6) > 0 THEN PERFORM FROM {} WHERE application_name = ANY ($7) \
             ORDER BY application_name FOR NO KEY UPDATE; END IF;",
            table.quoted()
        )
    }

    /// Inserts the rows as they are if nobody has a version between the lowest and the highest of each run,
    /// and does what `append` says otherwise, which looks at each row. For whoever holds the lock: under it
    /// nothing comes in between.
    ///
    /// Mostly there is one run for each request, and to look at that instead of each row saves 10,000 to 12,000 of
    /// some 45,000 instructions that the server spends on an event (counted by callgrind, requests of 10 and 300
    /// events). Each run is a subquery and no join, which a plan that was made when the table had just been
    /// emptied and vacuumed would do by reading all of the index.
    fn append_unless_refused(&self, append: &str) -> String {
        let Some(events) = &self.events else { return append.to_owned() };
        let table = events.name.quoted();
        let insert = format!(
            "INSERT INTO {table} (originator_id, originator_version, topic, state) \
             SELECT r.originator_id, r.originator_version, r.topic, r.state \
             FROM unnest($2, $3, $4, $5) WITH ORDINALITY \
             AS r (originator_id, originator_version, topic, state, row) ORDER BY r.row"
        );
        let insert = if events.notifications {
            format!(
                "WITH inserted AS ({insert} RETURNING notification_id) \
                 SELECT ARRAY(SELECT notification_id FROM inserted) INTO notification_ids;"
            )
        } else {
            format!("{insert}; notification_ids := '{{}}';")
        };
        format!(
            "IF cardinality($6) > 0 OR EXISTS (SELECT FROM unnest($10, $11, $12) \
             AS r (originator_id, lowest, highest) WHERE (SELECT true FROM {table} AS e \
             WHERE e.originator_id = r.originator_id \
             AND e.originator_version >= r.lowest AND e.originator_version <= r.highest LIMIT 1)) \
             THEN {append} ELSE {insert} refused_rows := '{{}}'; refused_tracking := '{{}}'; END IF;"
        )
    }

    fn append_in_function(&self, ids: Ids) -> String {
        let into = "INTO refused_rows, refused_tracking, notification_ids, lost";
        let with_tracking = self.statement(true, ids);
        if self.tracking.is_none() || self.events.is_none() {
            return format!("{with_tracking} {into};");
        }
        let without_tracking = self.statement(false, ids);
        format!("IF cardinality($6) = 0 THEN {without_tracking} {into}; ELSE {with_tracking} {into}; END IF;")
    }

    /// Takes the lock, as statements with their semicolons. `evaluate` is `SELECT`, or `PERFORM` in
    /// PL/pgSQL.
    ///
    /// A role that may only insert excludes other such roles by an advisory lock, and everybody else
    /// by the lock that an insert takes anyway: it waits for `EXCLUSIVE`, and `EXCLUSIVE` waits for it.
    pub(crate) fn lock(&self, lock: Lock, evaluate: &str) -> String {
        let table = self.anchor.quoted();
        match lock {
            Lock::None => String::new(),
            Lock::Exclusive => format!("LOCK TABLE {table} IN EXCLUSIVE MODE;"),
            Lock::InsertOnly => format!(
                "{evaluate} pg_catalog.pg_advisory_xact_lock({ADVISORY_CLASS}, \
                 {}::pg_catalog.regclass::oid::integer); LOCK TABLE {table} IN ROW EXCLUSIVE MODE;",
                quote_literal(&table)
            ),
        }
    }
}

impl EventsTable {
    /// Draws the ids of a group into `drawn`.
    fn draw_ids(&self) -> Option<String> {
        let refused = refused_rows(&self.name.quoted());
        self.draw(|nextval| {
            format!(
                "SELECT array_agg({nextval}) INTO drawn FROM unnest($1) AS r (request) \
                 WHERE r.request NOT IN (SELECT request FROM ({refused}) AS refused);"
            )
        })
    }

    /// Draws one id into `recorded`.
    fn draw_id(&self) -> Option<String> {
        self.draw(|nextval| format!("recorded := {nextval};"))
    }

    /// Draws ids in one run, so that the ids of a batch stay together although others draw too.
    ///
    /// The lock for that is given back as soon as they are drawn, and whatever happens: it is taken in a
    /// subtransaction, which is rolled back. What was drawn stays drawn. The table's own lock comes
    /// first: readers look for its holders.
    fn draw(&self, assign: impl FnOnce(&str) -> String) -> Option<String> {
        let sequence = format!("{}::regclass", quote_literal(self.sequence.as_ref()?));
        let assign = assign(&format!("nextval({sequence})"));
        Some(format!(
            "LOCK TABLE {} IN ROW EXCLUSIVE MODE; \
             BEGIN \
             IF usual_wait <> lock_wait THEN PERFORM set_config('lock_timeout', lock_wait, true); END IF; \
             PERFORM pg_advisory_xact_lock({DRAWING_CLASS}, {sequence}::oid::integer); {assign} \
             RAISE SQLSTATE '{DRAWN}'; \
             EXCEPTION WHEN SQLSTATE '{DRAWN}' THEN NULL; \
             END;",
            self.name.quoted()
        ))
    }
}

/// By what the subtransaction ends in which ids are drawn. Nobody ever sees it.
const DRAWN: &str = "ESIDS";

/// A function that stands beside a table.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: TableName,
    /// Parameters, language and settings.
    head: String,
    pub(crate) body: String,
}

impl Function {
    /// Its name is that of no other table's and no other version's function: it is derived from the
    /// table's name and from what the function does.
    fn new(table: &TableName, purpose: &str, head: String, body: String) -> Self {
        const LONGEST: usize = 63;
        let version = digest(&format!("{head} {body}"));
        let version = version.get(..8).unwrap_or(&version);
        let named = format!("{}_{purpose}_{version}", table.name());
        let name = if named.len() <= LONGEST {
            named
        } else {
            format!("{purpose}_{}_{version}", digest(table.name()))
        };
        Self { name: table.sibling(name), head, body }
    }

    /// Creates it.
    pub(crate) fn create(&self) -> String {
        format!("CREATE FUNCTION {} {} AS {}", self.name.quoted(), self.head, quote_literal(&self.body))
    }
}

/// Selects no refused request.
const NONE_REFUSED: &str = "SELECT NULL::integer AS request, NULL::bigint AS row WHERE false";

/// What the statement does with events.
struct EventsPart {
    refused: String,
    inserted: String,
    ids: &'static str,
}

impl Default for EventsPart {
    fn default() -> Self {
        Self { refused: NONE_REFUSED.to_owned(), inserted: String::new(), ids: "'{}'::bigint[]" }
    }
}

impl EventsPart {
    fn new(events: &EventsTable, source: Ids) -> Self {
        let table = events.name.quoted();
        let (returning, ids) = if events.notifications {
            ("notification_id", "ARRAY(SELECT notification_id FROM inserted)")
        } else {
            ("1", "'{}'::bigint[]")
        };
        let (column, value) = match source {
            Ids::Default => ("", ""),
            Ids::Drawn => (", notification_id", ", drawn[row_number() OVER (ORDER BY r.row)]"),
        };
        Self {
            refused: refused_rows(&table),
            inserted: format!(
                ", inserted AS (INSERT INTO {table} (originator_id, originator_version, topic, state{column}) \
                 SELECT r.originator_id, r.originator_version, r.topic, r.state{value} \
                 FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY \
                 AS r (request, originator_id, originator_version, topic, state, row) \
                 WHERE r.request NOT IN (SELECT request FROM refused) ORDER BY r.row RETURNING {returning})"
            ),
            ids,
        }
    }
}

/// Selects the requests that want versions which are taken, and the first such row of each.
fn refused_rows(table: &str) -> String {
    format!(
        "SELECT r.request, min(r.row) AS row \
         FROM unnest($1, $2, $3) WITH ORDINALITY AS r (request, originator_id, originator_version, row) \
         WHERE EXISTS (SELECT FROM {table} AS e WHERE e.originator_id = r.originator_id \
         AND e.originator_version = r.originator_version) GROUP BY r.request"
    )
}

/// What the statement does with tracking records.
struct TrackingPart {
    refused: String,
    recorded: String,
    /// How many positions were not recorded although they were not refused: somebody who takes no
    /// lock recorded a later one in between.
    lost: &'static str,
}

impl Default for TrackingPart {
    fn default() -> Self {
        Self { refused: NONE_REFUSED.to_owned(), recorded: String::new(), lost: "0::bigint" }
    }
}

impl TrackingPart {
    fn new((table, layout): &(TableName, Layout)) -> Self {
        let table = table.quoted();
        let accepted = "FROM unnest($6, $7, $8, $9) AS r (request, application_name, notification_id, first) \
                        WHERE r.request NOT IN (SELECT request FROM refused)";
        let recorded = match layout {
            Layout::RowPerRecord => format!(
                ", positions AS (SELECT r.application_name, r.notification_id {accepted}), \
                 tracked AS (INSERT INTO {table} (application_name, notification_id) \
                 SELECT application_name, notification_id FROM positions \
                 ORDER BY application_name, notification_id RETURNING 1)"
            ),
            // In the order of names, so that two groups at once never wait for each other in a circle.
            Layout::RowPerApplication => format!(
                ", positions AS (SELECT r.application_name, max(r.notification_id) AS notification_id, \
                 min(r.first) AS first {accepted} GROUP BY r.application_name), \
                 tracked AS (INSERT INTO {table} AS t (application_name, notification_id) \
                 SELECT application_name, notification_id FROM positions ORDER BY application_name \
                 ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id \
                 WHERE t.notification_id < \
                 (SELECT first FROM positions AS p WHERE p.application_name = t.application_name) RETURNING 1)"
            ),
        };
        Self {
            refused: format!(
                "SELECT r.request, r.row \
                 FROM unnest($6, $7, $8, $9) WITH ORDINALITY \
                 AS r (request, application_name, notification_id, first, row) \
                 WHERE EXISTS (SELECT FROM {table} AS t WHERE t.application_name = r.application_name \
                 AND t.notification_id >= r.first)"
            ),
            recorded,
            lost: "(SELECT count(*) FROM positions) - (SELECT count(*) FROM tracked)",
        }
    }
}

/// A literal that stands for exactly this text, however the server treats backslashes.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// 32 hexadecimal digits that stand for a text.
fn digest(text: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string()
}
