//! The command line, with a module for each group of commands.

mod copying;
mod inspecting;
mod keys;
mod options;
mod projections;
mod schema;
mod segments;
mod track;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

#[cfg(feature = "ui")]
pub(crate) use self::inspecting::Ui;
pub(crate) use self::{
    copying::{Copy, Export, Import},
    inspecting::{Info, Log, Position, Show, Top, Topics, Trackers, Verify},
    keys::{Keys, KeysErase, KeysList, KeysReencrypt, KeysRotate, KeysUsage},
    options::{Change, Connection, Sources},
    projections::{Projections, ProjectionsList, ProjectionsSwitch},
    schema::{Schema, SchemaCheck, SchemaPrint},
    segments::{Segments, SegmentsChange, SegmentsList},
    track::{Track, TrackReset, TrackSet},
};
use crate::{color::ColorOption, failure::EXIT_CODES};

/// Inspects, verifies, copies and repairs event stores
#[derive(Debug, Parser)]
#[command(name = "es", bin_name = "es", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Use colors: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Output"
    )]
    pub(crate) color: ColorOption,
    /// Print more than warnings to standard error; -vv and -vvv print yet more
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Info(Info),
    Log(Log),
    Show(Show),
    Topics(Topics),
    Top(Top),
    Trackers(Trackers),
    #[cfg(feature = "ui")]
    Ui(Ui),
    Verify(Verify),
    Copy(Copy),
    Export(Export),
    Import(Import),
    #[command(subcommand)]
    Track(Track),
    #[command(subcommand)]
    Projections(Projections),
    #[command(subcommand)]
    Segments(Segments),
    #[command(subcommand)]
    Schema(Schema),
    #[command(subcommand)]
    Keys(Keys),
    Completions(Completions),
    Man(Man),
}

/// Print the completions for a shell
#[derive(Debug, Args)]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Write the manual pages, es.1 and one for each command
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// An existing directory
    #[arg(value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
}
