//! A statement and its values.

use std::{borrow::Cow, fmt};

use crate::SqlValue;

/// A SQL statement, in one text for SQLite and PostgreSQL or in one for each, and the values of its
/// parameters.
///
/// Parameters are numbered from 1, in the order of [`bind`](Self::bind): `$1`, `$2`. Both databases accept
/// that. A statement whose highest parameter is not that of the last value is an error.
///
/// The text is SQL and not data: never make it from values.
///
/// ```
/// use es_factory::Sql;
///
/// let ship = Sql::new("UPDATE orders SET shipped_at = now() WHERE id = $1")
///     .sqlite("UPDATE orders SET shipped_at = datetime('now') WHERE id = $1")
///     .bind("A-17");
/// # let _ = ship;
/// ```
///
/// | value | on PostgreSQL | on SQLite |
/// |---|---|---|
/// | `bool` | `boolean` | integer 0 or 1 |
/// | integers | `bigint` | integer |
/// | `f32`, `f64` | `double precision` | real |
/// | `&str`, `String` | `text` | text |
/// | `Vec<u8>`, `Bytes` | `bytea` | blob |
/// | `Uuid` | `uuid` | text in lower case, with hyphens |
/// | `OffsetDateTime` | `timestamptz` | text in UTC, RFC 3339 with microseconds, which sorts by time |
/// | `None` | null of that type | null |
///
/// For another type of PostgreSQL, bind text and cast it in a [text of its own](Self::postgres): `$1::jsonb`.
///
/// `Debug` does not show the values.
#[derive(Clone, PartialEq)]
#[must_use = "a statement is run by a projector, or by a query"]
pub struct Sql {
    text: Cow<'static, str>,
    sqlite: Option<Cow<'static, str>>,
    postgres: Option<Cow<'static, str>>,
    values: Vec<SqlValue>,
    requires_row: bool,
}

impl Sql {
    /// A statement in one text for both databases.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), sqlite: None, postgres: None, values: Vec::new(), requires_row: false }
    }

    /// Sets the text for SQLite, if it differs.
    pub fn sqlite(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.sqlite = Some(text.into());
        self
    }

    /// Sets the text for PostgreSQL, if it differs.
    pub fn postgres(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.postgres = Some(text.into());
        self
    }

    /// Adds the value of the next parameter.
    pub fn bind(mut self, value: impl Into<SqlValue>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Makes it an error if the statement returns no row: a `SELECT`, or one with `RETURNING`. A projection
    /// cannot read, and verifies in this way what it depends on.
    ///
    /// ```
    /// # use es_factory::Sql;
    /// let order = Sql::new("UPDATE orders SET is_paid = $1 WHERE id = $2 RETURNING id");
    /// assert!(order.bind(true).bind("A-17").require_row().requires_row());
    /// ```
    pub fn require_row(mut self) -> Self {
        self.requires_row = true;
        self
    }

    /// Returns whether it is an error if the statement returns no row.
    pub fn requires_row(&self) -> bool {
        self.requires_row
    }

    /// Returns the text for SQLite.
    pub fn sqlite_text(&self) -> &str {
        self.sqlite.as_ref().unwrap_or(&self.text)
    }

    /// Returns the text for PostgreSQL.
    pub fn postgres_text(&self) -> &str {
        self.postgres.as_ref().unwrap_or(&self.text)
    }

    /// Returns the values of the parameters.
    pub fn values(&self) -> &[SqlValue] {
        &self.values
    }
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sql")
            .field("text", &self.text)
            .field("sqlite", &self.sqlite)
            .field("postgres", &self.postgres)
            .field("values", &self.values)
            .field("requires_row", &self.requires_row)
            .finish()
    }
}

/// Returns the number of the highest parameter in a text for PostgreSQL. The server would ignore further
/// values, and report missing ones as an error of the connection.
#[cfg(feature = "postgres")]
pub(crate) fn highest_parameter(text: &str) -> usize {
    // Every second part is within quotes; a doubled quote is an empty part outside of them.
    let unquoted = text.split('\'').step_by(2).flat_map(|part| part.split('"').step_by(2));
    let parameters = unquoted.flat_map(|part| part.split('$').skip(1));
    let number = |part: &str| {
        let end = part.find(|next: char| !next.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    };
    parameters.filter_map(number).max().unwrap_or(0)
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::highest_parameter;

    #[test]
    fn parameters_are_found_outside_of_quotes() {
        assert_eq!(highest_parameter("SELECT 1"), 0);
        assert_eq!(highest_parameter("UPDATE t SET n = n + $2 WHERE id = $1"), 2);
        assert_eq!(highest_parameter("SELECT '$3', 'it''s $4', \"$5\", $12::text"), 12);
    }
}

/// The error of a statement that must return a row.
#[derive(Debug, thiserror::Error)]
#[error("it returned no row")]
pub(crate) struct NoRow;
