//! Names of tables.

use es_core::PersistenceError;
use uuid::Uuid;

use crate::quote::{quote_identifier, quote_literal};

/// The longest identifier in bytes; the server truncates longer ones.
const LARGEST_IDENTIFIER: usize = 63;

/// The name of a table in a schema:
/// - both parts are not empty and have no NUL character;
/// - both parts have at most 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableName {
    schema: String,
    name: String,
}

impl TableName {
    /// Returns the table of an application: `<application>_<suffix>` in lower case, or `unnamed` if the
    /// application name is empty.
    pub(crate) fn of_application(
        schema: &str,
        application_name: &str,
        suffix: &str,
        unnamed: &str,
    ) -> Result<Self, PersistenceError> {
        let name = match application_name {
            "" => unnamed.to_owned(),
            application_name => format!("{}_{suffix}", application_name.to_lowercase()),
        };
        Self::new(schema, &name)
    }

    /// Returns the table with this name.
    pub(crate) fn new(schema: &str, name: &str) -> Result<Self, PersistenceError> {
        check_identifier("schema", schema)?;
        check_identifier("table name", name)?;
        Ok(Self { schema: schema.to_owned(), name: name.to_owned() })
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name as SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    /// Returns the table's oid as an `integer` expression, the second key of an advisory lock.
    pub(crate) fn lock_key(&self) -> String {
        format!("{}::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int4", quote_literal(&self.quoted()))
    }

    /// Returns the name of the unique index on notification ids.
    ///
    /// A name that would be too long is truncated and gets a digest of the table's name. Without it, two
    /// tables whose names have the same first 42 bytes would share one index name, and the second would have
    /// no index.
    pub(crate) fn id_index(&self) -> String {
        const SUFFIX: &str = "_notification_id_idx";
        const DIGEST: usize = 8;
        if self.name.len() + SUFFIX.len() <= LARGEST_IDENTIFIER {
            return format!("{}{SUFFIX}", self.name);
        }
        let end = self.name.floor_char_boundary(LARGEST_IDENTIFIER - SUFFIX.len() - DIGEST - 1);
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, self.name.as_bytes()).simple().to_string();
        format!("{}_{}{SUFFIX}", &self.name[..end], &digest[..DIGEST])
    }
}

fn check_identifier(what: &str, name: &str) -> Result<(), PersistenceError> {
    let problem = match name {
        "" => "is empty".to_owned(),
        name if name.contains('\0') => "has a NUL character".to_owned(),
        name if name.len() > LARGEST_IDENTIFIER => {
            format!("has {} bytes, more than the {LARGEST_IDENTIFIER} of PostgreSQL", name.len())
        }
        _ => return Ok(()),
    };
    Err(PersistenceError::programming(format!("{what} {name:?} {problem}")))
}
