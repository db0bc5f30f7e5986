//! The registration of versions.

use es_core::{PersistenceError, Tracking};

use super::{
    ProjectionVersion, Projections, VersionState,
    projections::unusable,
    statements::{self, version_table},
};
use crate::Sql;

impl Projections {
    /// Registers a version, and creates its tables by the statements of `set_up`, and its views if it is
    /// active, in one transaction. If the first version is that of a projection without versions,
    /// renames the tables.
    pub(super) async fn register(
        &self,
        name: &str,
        version: u32,
        tables: &[&str],
        set_up: &[Sql],
    ) -> Result<(), PersistenceError> {
        check_names(name, version, tables)?;
        let mut retries = 0;
        loop {
            let registration = match self.registration(name, version, tables, set_up).await {
                // Versions and relations are read one after the other: another instance may have registered.
                Err(_) if retries == 0 => {
                    retries += 1;
                    continue;
                }
                registration => registration?,
            };
            if self.try_execute(name, registration, &mut retries).await? {
                return Ok(());
            }
        }
    }

    /// Returns the statements that register a version, for the present state of the database.
    async fn registration(
        &self,
        name: &str,
        version: u32,
        tables: &[&str],
        set_up: &[Sql],
    ) -> Result<Vec<Sql>, PersistenceError> {
        let origin = statements::origin(&self.backend.tracking_table()?);
        let (versions, others): (Vec<_>, Vec<_>) =
            self.of_database().await?.into_iter().partition(|version| version.name == name);
        check_others(name, &origin, tables, versions.iter().chain(&others))?;
        let registered = versions.iter().find(|registered| registered.version == version);
        let active = versions.iter().find(|version| version.state == VersionState::Active);
        let is_active = active.is_none_or(|active| active.version == version);

        let (mut renames, mut views) = (Vec::new(), Vec::new());
        for table in tables {
            let is_viewed = active.is_some_and(|active| active.tables.iter().any(|viewed| viewed == table));
            match self.kind_of_relation(table).await?.as_deref() {
                Some("view") if is_viewed => continue,
                None => {}
                Some("table") if active.is_none() && version == 1 => {
                    let renamed = version_table(table, version);
                    renames.push(Sql::new(format!("ALTER TABLE {table} RENAME TO {renamed}")));
                }
                Some(kind) => return Err(occupied(name, table, kind)),
            }
            views.extend(statements::replace_view(table, version));
        }
        let mut registration = match registered {
            Some(registered) => {
                check_registered(registered, tables)?;
                vec![statements::guard(name, version, registered.epoch)]
            }
            None => vec![
                statements::create_table(),
                statements::register((name, version), tables, &origin, is_active, &versions),
            ],
        };
        registration.extend(renames);
        registration.extend_from_slice(set_up);
        if is_active {
            registration.extend(views);
        }
        Ok(registration)
    }
}

/// Verifies names, which become a part of statements.
fn check_names(name: &str, version: u32, tables: &[&str]) -> Result<(), PersistenceError> {
    Tracking::new(statements::consumer_name(name, version), 0)?;
    if has_number_after(name, "@") {
        return Err(PersistenceError::programming(format!(
            "the name {name:?} of a projection is like that of a consumer of a version: it must not end with '@' and \
             a number"
        )));
    }
    let is_name = |table: &&&str| {
        let is_letter = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        // PostgreSQL truncates names after 63 bytes.
        (1..=48).contains(&table.len())
            && table.starts_with(is_letter)
            && table.chars().all(|letter| is_letter(letter) || letter.is_ascii_digit())
    };
    if let Some(table) = tables.iter().find(|table| !is_name(table)) {
        return Err(PersistenceError::programming(format!(
            "table {table:?} of projection {name:?} must have lower-case letters, digits and '_' only, and at most 48"
        )));
    }
    let is_reserved = |table: &&&str| **table == statements::TABLE || has_number_after(table, "_v");
    match tables.iter().find(is_reserved) {
        None => Ok(()),
        Some(table) => Err(PersistenceError::programming(format!(
            "table {table:?} of projection {name:?} has a name of the library's: it must not be {:?}, and not end \
             with '_v' and a number",
            statements::TABLE
        ))),
    }
}

/// Returns whether a name ends with a separator and a number.
fn has_number_after(name: &str, separator: &str) -> bool {
    let is_number = |end: &str| !end.is_empty() && end.bytes().all(|digit| digit.is_ascii_digit());
    name.rsplit_once(separator).is_some_and(|(_, end)| is_number(end))
}

/// Verifies that a projection shares neither its name with one of another application, nor its tables with
/// another projection.
fn check_others<'v>(
    name: &str,
    origin: &str,
    tables: &[&str],
    mut versions: impl Iterator<Item = &'v ProjectionVersion>,
) -> Result<(), PersistenceError> {
    versions.try_for_each(|other| {
        let is_shared = |table: &&String| tables.contains(&table.as_str());
        let message = match other.tables.iter().find(is_shared) {
            _ if other.name == name && other.origin == origin => return Ok(()),
            _ if other.name == name => {
                format!("another application, with positions in {}, has a projection {name:?}", other.origin)
            }
            Some(table) if other.state != VersionState::Dropped => {
                format!("table {table:?} of projection {name:?} is one of projection {:?}", other.name)
            }
            _ => return Ok(()),
        };
        Err(PersistenceError::programming(message))
    })
}

/// Verifies that a version is registered with these tables, and not dropped.
fn check_registered(version: &ProjectionVersion, tables: &[&str]) -> Result<(), PersistenceError> {
    if version.state == VersionState::Dropped {
        return Err(unusable(version));
    }
    if version.tables == tables {
        return Ok(());
    }
    Err(PersistenceError::programming(format!(
        "{} was registered with the tables {:?}: give a projection with other tables a new version",
        version.title(),
        version.tables
    )))
}

/// Returns the error of a relation that stands where a view is to be.
fn occupied(name: &str, table: &str, kind: &str) -> PersistenceError {
    let advice = match kind {
        "table" => format!("register version 1 of projection {name:?}, which takes it over, or rename it"),
        _ => "rename it".to_owned(),
    };
    PersistenceError::programming(format!("a {kind} {table:?} exists, where a view is to be: {advice}"))
}
