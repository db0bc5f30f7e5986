//! Queries for wrong versions of events and snapshots.

/// Returns the query for versions that do not follow the one before them: the aggregate, the version and the
/// one before it, which is null for the first.
///
/// `columns` is a condition on the columns of an event. If versions are unique, only those aggregates are
/// read in detail whose lowest version, highest version and count are not those of a sequence: a count costs
/// a fraction of a window function.
pub(super) fn gaps(table: &str, columns: &str, first: i64, is_unique: bool) -> String {
    let suspects = if is_unique {
        format!(
            " AND originator_id IN (SELECT originator_id FROM {table} WHERE {columns} GROUP BY originator_id \
             HAVING min(originator_version) <> {first} OR max(originator_version) <> count(*) + {first} - 1)"
        )
    } else {
        String::new()
    };
    format!(
        "SELECT CAST(originator_id AS text), originator_version, previous FROM \
         (SELECT originator_id, originator_version, lag(originator_version) OVER \
         (PARTITION BY originator_id ORDER BY originator_version) AS previous \
         FROM {table} WHERE {columns}{suspects}) AS versions \
         WHERE CASE WHEN previous IS NULL THEN originator_version <> {first} \
         ELSE originator_version <> previous + 1 END"
    )
}

/// Returns the query for snapshots of versions that their aggregates do not have: the aggregate, the version
/// and the last version of an event, which is null if there is none.
pub(super) fn snapshot_faults(events: &str, snapshots: &str) -> String {
    format!(
        "SELECT CAST(s.originator_id AS text), s.originator_version, e.last FROM {snapshots} AS s LEFT JOIN \
         (SELECT originator_id, max(originator_version) AS last FROM {events} \
         WHERE originator_id IN (SELECT originator_id FROM {snapshots}) GROUP BY originator_id) AS e \
         ON e.originator_id = s.originator_id WHERE e.last IS NULL OR s.originator_version > e.last"
    )
}
