//! `es schema`.

use clap::{Args, Subcommand};

use super::options::{Connection, Formatting};

/// Print or check the tables
#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    Print(SchemaPrint),
    Check(SchemaCheck),
}

/// Print the statements that create the tables, for a migration tool; without connecting
#[derive(Debug, Args)]
pub(crate) struct SchemaPrint {
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Check that the tables have the columns and keys that the library needs
///
/// The exit code is 4 if they have not, or if the table of events is missing.
#[derive(Debug, Args)]
pub(crate) struct SchemaCheck {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}
