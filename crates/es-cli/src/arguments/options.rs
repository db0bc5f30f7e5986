//! The options that commands share.

use std::path::PathBuf;

use clap::Args;

use crate::{
    color::Color,
    output::Format,
    record::{EventFormat, EventWriter},
    state::StateDecoder,
};

/// The database of a command.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The database: a URL (sqlite:bank.db, postgres://user@host/bank) or a context of the configuration file
    ///
    /// Without it, the environment and the `.env` file name the database, by the variables of the library. A
    /// URL has no password: set POSTGRES_PASSWORD instead.
    #[arg(help_heading = "Database", long, short, value_name = "DATABASE")]
    pub(crate) database: Option<String>,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

/// The sources of settings.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sources {
    /// The name of the application, which is the prefix of its variables and of its PostgreSQL tables
    #[arg(help_heading = "Database", long, short, value_name = "NAME")]
    pub(crate) application: Option<String>,
    /// Read variables from this file; by default from `.env`, if it exists
    #[arg(help_heading = "Database", long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// The configuration file with named contexts; by default $ES_CONFIG, else es/config.toml in the
    /// directory of the user's configuration
    #[arg(help_heading = "Database", long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The format of results that are few lines.
#[derive(Debug, Args)]
pub(crate) struct Formatting {
    /// The format of the output: text, or json (one object a line)
    #[arg(
        help_heading = "Output",
        long,
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    pub(crate) format: Format,
}

/// The format of events.
#[derive(Debug, Args)]
pub(crate) struct EventFormatting {
    /// The format of events: text, json (one object a line), or a template
    ///
    /// A template is text with placeholders: {id}, {originator_id}, {originator_version}, {topic},
    /// {timestamp}, {state}, and attributes of the state such as {state.owner} or {state.lines.0.price}. `{{`
    /// and `}}` stand for braces, \n and \t for a line break and a tab.
    #[arg(help_heading = "Output", long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: EventFormat,
    /// Print the stored bytes in base64, neither decrypted nor decompressed
    #[arg(help_heading = "Output", long)]
    pub(crate) raw: bool,
}

impl EventFormatting {
    /// Makes a writer of events of this format.
    pub(crate) fn writer(&self, decoder: StateDecoder, color: Color) -> EventWriter {
        EventWriter::new(self.format.clone(), (!self.raw).then_some(decoder), color)
    }
}

/// The options of a change.
#[derive(Debug, Args)]
pub(crate) struct Change {
    /// Print the difference and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}
