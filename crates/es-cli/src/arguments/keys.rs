//! `es keys`.

use clap::{Args, Subcommand};

use super::options::{Change, Connection, Formatting};

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
///
/// If several rotations have added keys that do not encrypt yet, name the one that is distributed.
#[derive(Debug, Args)]
pub(crate) struct KeysRotate {
    /// Let the newest key encrypt, or the one with this id
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    pub(crate) promote: Option<Option<u32>>,
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
