//! The command line.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use es_core::uuid::Uuid;

use crate::{
    catalog::Order,
    color::{Color, ColorOption},
    failure::EXIT_CODES,
    output::Format,
    record::{EventFormat, EventWriter},
    state::StateDecoder,
};

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

/// Print the backend, the layout, counts, the size, the head and the consumers of a database
#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Print the log: the events in their total order
///
/// The log is read up to its end at the start of the command, in bounded memory. A state that cannot be
/// decoded is printed as an error; the exit code is then 4.
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Begin after this notification id; `end` is the end of the log
    #[arg(long, value_name = "ID", default_value = "0")]
    pub(crate) after: Position,
    /// Stop after this notification id
    #[arg(long, value_name = "ID", conflicts_with = "follow")]
    pub(crate) until: Option<i64>,
    /// Print only events of this topic; can be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Print at most this number of events
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// Wait for further events
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) formatting: EventFormatting,
}

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Id(i64),
    End,
}

impl std::str::FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "end" => Ok(Self::End),
            _ => text.parse().map(Self::Id).map_err(|_| "expected a notification id, or `end`".to_owned()),
        }
    }
}

/// Print the events of an aggregate
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The id of the aggregate
    #[arg(value_name = "ORIGINATOR")]
    pub(crate) originator_id: Uuid,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Stop after this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<i64>,
    #[command(flatten)]
    pub(crate) formatting: EventFormatting,
}

/// Print the topics of the log with the numbers and the sizes of their events
#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Show the largest and the busiest aggregates, on a screen that follows the log
///
/// Keys: e, r and s sort by events, by recent events and by their size; the arrows and the page keys scroll;
/// q ends. The recent events are those of the last notification ids. While the log grows, it is read again
/// every second, or less often: a read takes at most a tenth of the time.
#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Sort by the number of events, of recent events, or by their size: events, recent or size
    #[arg(long, value_name = "ORDER", default_value = "events", hide_possible_values = true)]
    pub(crate) sort: Order,
    /// The number of notification ids at the end of the log whose events are recent
    #[arg(long, value_name = "IDS", default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) window: i64,
    /// List at most this number of aggregates
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100,
        value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub(crate) limit: i64,
    /// Print the aggregates once, one JSON object a line, and end
    #[arg(help_heading = "Output", long)]
    pub(crate) once: bool,
}

/// Print the positions of consumers and their distances to the end of the log
///
/// The exit code is 4 if a consumer is further behind than --max-lag, or ahead of the log.
#[derive(Debug, Args)]
pub(crate) struct Trackers {
    /// Only these consumers; the exit code is 5 if one of them has no position
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumers: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The database whose log the consumers follow: a URL or a context; by default the same database
    #[arg(long, value_name = "DATABASE", help_heading = "Database")]
    pub(crate) upstream: Option<String>,
    /// The largest distance, in notification ids, that is not a finding
    #[arg(long, value_name = "IDS")]
    pub(crate) max_lag: Option<i64>,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Serve a local web page to look at a database
///
/// Prints the URL of the page, which has a random token, and serves it until Ctrl-C. The page changes
/// nothing, and only programs of this machine that know the token can read it.
#[cfg(feature = "ui")]
#[derive(Debug, Args)]
pub(crate) struct Ui {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The database whose log the consumers follow: a URL or a context; by default the same database
    #[arg(long, value_name = "DATABASE", help_heading = "Database")]
    pub(crate) upstream: Option<String>,
    /// Listen on this port of 127.0.0.1; by default on a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// Open the page in the browser
    #[arg(long)]
    pub(crate) open: bool,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Check a database: rows, versions, ids, positions, snapshots and the database itself
///
/// Prints each finding, and at the end the digests of the log, by which copies are compared. The exit code is
/// 4 if there are findings.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The database whose log the consumers follow: a URL or a context; by default the same database
    #[arg(long, value_name = "DATABASE", help_heading = "Database")]
    pub(crate) upstream: Option<String>,
    /// Do not check the positions of consumers
    #[arg(long, conflicts_with = "upstream")]
    pub(crate) no_trackers: bool,
    /// Do not decode states; the digests are then those of the stored bytes
    #[arg(long)]
    pub(crate) raw: bool,
    /// The version with which each aggregate begins
    #[arg(long, value_name = "VERSION", default_value_t = 1)]
    pub(crate) first_version: i64,
    /// A digest of an earlier run, or of a copy; another digest is a finding
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expect_digest: Option<String>,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

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

/// Change the positions of consumers
///
/// Stop the consumer first: a running one keeps its position in memory. A consumer whose position is moved
/// back processes the notifications in between again.
#[derive(Debug, Subcommand)]
pub(crate) enum Track {
    Set(TrackSet),
    Reset(TrackReset),
}

/// Set the position of a consumer, forward or back
#[derive(Debug, Args)]
pub(crate) struct TrackSet {
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The id up to which notifications count as processed
    #[arg(value_name = "POSITION")]
    pub(crate) position: i64,
    /// Also for a consumer that has no position
    #[arg(long)]
    pub(crate) create: bool,
    /// The database whose log the consumer follows: a URL or a context; by default the same database
    #[arg(help_heading = "Database", long, value_name = "DATABASE")]
    pub(crate) upstream: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// Delete the positions of consumers, which then begin before the first notification
#[derive(Debug, Args)]
pub(crate) struct TrackReset {
    #[arg(value_name = "CONSUMER", required = true)]
    pub(crate) consumers: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// List the versions of projections, and switch between them
///
/// Processors may run meanwhile: those of a version that is replaced or paused commit nothing.
#[derive(Debug, Subcommand)]
pub(crate) enum Projections {
    List(ProjectionsList),
    Switch(ProjectionsSwitch),
    Rollback(ProjectionsRollback),
    /// Stop the commits of a version until it is resumed
    Pause(ProjectionVersion),
    /// Let a version commit again
    Resume(ProjectionVersion),
    /// Delete the rows and the position of a version, which then processes all notifications again
    Reset(ProjectionVersion),
    /// Drop the tables and the position of a version; its number is not used again
    Drop(ProjectionVersion),
}

/// List the versions of projections, with their states and positions
#[derive(Debug, Args)]
pub(crate) struct ProjectionsList {
    /// Only these projections; the exit code is 5 if one of them does not exist
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Make a version the one that is read and has side effects, in one commit
#[derive(Debug, Args)]
pub(crate) struct ProjectionsSwitch {
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[arg(value_name = "VERSION")]
    pub(crate) version: u32,
    /// The largest distance to the active version, in notification ids, by which readers may go back
    #[arg(long, value_name = "IDS", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) max_lag: i64,
    /// Pause the active version, and wait so many seconds until the other one has caught up
    #[arg(long, value_name = "SECONDS", conflicts_with = "max_lag")]
    pub(crate) wait: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// Switch back to the version that the active one has replaced
#[derive(Debug, Args)]
pub(crate) struct ProjectionsRollback {
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// A version of a projection.
#[derive(Debug, Args)]
pub(crate) struct ProjectionVersion {
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[arg(value_name = "VERSION")]
    pub(crate) version: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// List, split or merge the segments of a partitioned consumer
///
/// Workers may run meanwhile: they lose a segment that is changed, and claim what it becomes.
#[derive(Debug, Subcommand)]
pub(crate) enum Segments {
    List(SegmentsList),
    /// Split a segment into two of equal ranges, at its position
    Split(SegmentsChange),
    /// Merge a segment with the next one, when both are at one position, as at the end of the log
    Merge(SegmentsChange),
}

/// List the segments of a consumer, with their positions and workers
#[derive(Debug, Args)]
pub(crate) struct SegmentsList {
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The database whose log the consumer follows, if it is another one
    #[arg(long, value_name = "DATABASE")]
    pub(crate) upstream: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// A segment of a consumer.
#[derive(Debug, Args)]
pub(crate) struct SegmentsChange {
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The segment: its lowest hash, as `es segments list` prints it
    #[arg(value_name = "SEGMENT")]
    pub(crate) segment: String,
    /// Wait so many seconds until no worker records the position, and those of segments to merge are equal
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
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

/// List, count, rotate and replace the keys of a key ring, and erase data subjects
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    List(KeysList),
    Usage(KeysUsage),
    Rotate(KeysRotate),
    Reencrypt(KeysReencrypt),
    Erase(KeysErase),
}

/// Print the ids of the keys, and which one encrypts
#[derive(Debug, Args)]
pub(crate) struct KeysList {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Count the states that need each key, in the log and the snapshots, and the keys of data subjects
///
/// The keys of data subjects are counted as `subject_keys` if PERSONAL_KEYS_URL is set: each is wrapped by a
/// key of the ring.
///
/// A key can be removed from all rings when no database, and no backup that may be restored, needs it.
#[derive(Debug, Args)]
pub(crate) struct KeysUsage {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Add a new key to the file of CIPHER_KEYS_FILE, or let the newest key encrypt
///
/// A rotation takes two steps. `es keys rotate` adds a key that does not encrypt yet: distribute the file,
/// and restart the programs. `es keys rotate --promote` moves it to the first place of the file, the key that
/// encrypts: distribute the file again. Keys are not printed.
#[derive(Debug, Args)]
pub(crate) struct KeysRotate {
    /// Let the key with the highest id encrypt
    #[arg(long)]
    pub(crate) promote: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Encrypt the log and the snapshots again with the key that encrypts, while they are in use
///
/// If PERSONAL_KEYS_URL is set, the keys of data subjects are wrapped again with that key, too.
///
/// All programs must have that key. It can be interrupted and repeated: every state has one of the keys.
#[derive(Debug, Args)]
pub(crate) struct KeysReencrypt {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Erase a data subject: destroy the key of its personal values, permanently
///
/// Searches the log and the snapshots for values of the subject, and prints where they are. Then records the
/// event `es_personal:SubjectErased` in the log, for projections, and replaces the key by the erasure with
/// its time, in the key store of PERSONAL_KEYS_URL. If it is interrupted, repeat it. Copies of the key store,
/// and plain text in projections, are not erased.
#[derive(Debug, Args)]
pub(crate) struct KeysErase {
    #[arg(value_name = "SUBJECT")]
    pub(crate) subject: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The person or program that orders the erasure, for the record; by default $USER
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// The reason, for the record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Do not record the event, for a log that programs follow which do not know it
    #[arg(long)]
    pub(crate) no_event: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}
