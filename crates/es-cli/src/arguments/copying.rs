//! `es copy`, `export` and `import`.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::Args;

use super::options::{Connection, Formatting, Sources};

/// Copy events, snapshots and positions to another database
///
/// Each commit of events also records the position in the source, as the consumer `es-copy` of the target. A
/// copy that was interrupted continues there without a duplicate, and a later run copies the events since.
/// Ids are kept, unless --renumber is given. States are encrypted and compressed anew if the settings of the
/// target differ.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// The source: a URL or a context
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// The target: a URL or a context
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// The name of the application in the target; by default that of the source
    #[arg(help_heading = "Database", long, value_name = "NAME")]
    pub(crate) to_application: Option<String>,
    /// Read the variables of the target from this file, such as its CIPHER_KEY
    #[arg(help_heading = "Database", long, value_name = "FILE")]
    pub(crate) to_env_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// The options of commands that write events.
#[derive(Debug, Args)]
pub(crate) struct Writing {
    /// Number the events anew, after those of the target; positions of consumers are not copied then
    #[arg(long)]
    pub(crate) renumber: bool,
    /// The number of events of one commit
    #[arg(long, value_name = "EVENTS", default_value = "5000")]
    pub(crate) batch: NonZeroUsize,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Write the log to standard output: JSON lines, compressed by zstd, with a checksum of each record
///
/// The exported states are decrypted and decompressed. Redirect the output to a file.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Begin after this notification id
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub(crate) after: i64,
}

/// Read an exported log from standard input and record its events
///
/// Checks each record before it is written. An import that was interrupted continues without a duplicate. Ids
/// are kept, unless --renumber is given. States are encrypted and compressed by the settings of the
/// database.
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}
