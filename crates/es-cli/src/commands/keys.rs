//! `es keys`: the keys of a key ring, their rotation, and the erasure of data subjects.

mod erase;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use es_crypto::{AesCipher, KeyUsage, Reencryption};
use es_personal::Rewrapping;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    arguments::{Keys, KeysList, KeysReencrypt, KeysRotate, KeysUsage},
    color::Color,
    configuration::Settings,
    confirmation::confirm,
    database::Database,
    failure::{Exit, Failure},
    output::{Cell, Format, Output, table},
};

/// The table of the keys of data subjects, in the key store.
const SUBJECT_KEYS: &str = "subject_keys";

pub(crate) async fn run(command: &Keys, color: Color) -> Result<Exit, Failure> {
    match command {
        Keys::List(arguments) => list(arguments, color),
        Keys::Usage(arguments) => usage(arguments, color).await,
        Keys::Rotate(arguments) => rotate(arguments),
        Keys::Reencrypt(arguments) => reencrypt(arguments).await,
        Keys::Erase(arguments) => erase::run(arguments, color).await,
    }
}

/// A key of the ring, as JSON; `null` is the key of states without an envelope.
#[derive(Serialize)]
struct Key {
    key_id: Option<u32>,
    is_primary: bool,
}

fn list(arguments: &KeysList, color: Color) -> Result<Exit, Failure> {
    let ring = Database::of(&arguments.connection)?.key_ring()?;
    let legacy = ring.has_legacy_key().then_some(None);
    let keys = ring
        .key_ids()
        .map(Some)
        .chain(legacy)
        .map(|key_id| Key { key_id, is_primary: key_id == Some(ring.primary_key_id()) });
    let mut output = Output::new();
    match arguments.formatting.format {
        Format::Json => keys.into_iter().try_for_each(|key| output.json(&key))?,
        Format::Text => {
            let row = |Key { key_id, is_primary }: Key| {
                let purpose = match key_id {
                    Some(_) if is_primary => "encrypts",
                    Some(_) => "",
                    None => "decrypts states without an envelope",
                };
                vec![Cell::text_of(&name(key_id)), Cell::text_of(purpose)]
            };
            table(&mut output, color, &["KEY", ""], &keys.map(row).collect::<Vec<_>>())?;
        }
    }
    output.flush()?;
    Ok(Exit::Success)
}

fn name(key_id: Option<u32>) -> String {
    key_id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

/// The number of states of a table that need a key, or of wrapped keys, as JSON; `null` is for states without
/// an envelope.
#[derive(Serialize)]
struct Usage {
    table: &'static str,
    key_id: Option<u32>,
    states: u64,
}

async fn usage(arguments: &KeysUsage, color: Color) -> Result<Exit, Failure> {
    let database = Database::of(&arguments.connection)?;
    let mut rows = Vec::new();
    for (table, recorder) in database.states().await? {
        let usage = KeyUsage::of(&recorder).await?;
        rows.extend(usage.iter().map(|(key_id, states)| Usage { table, key_id, states }));
    }
    if let Some(store) = database.subject_keys()? {
        let usage = Rewrapping::usage(&store).await?;
        let row = |(key_id, states)| Usage { table: SUBJECT_KEYS, key_id, states };
        rows.extend(usage.iter().map(row));
    }
    let mut output = Output::new();
    match arguments.formatting.format {
        Format::Json => rows.iter().try_for_each(|row| output.json(row))?,
        Format::Text => {
            let row = |row: &Usage| {
                vec![Cell::text_of(row.table), Cell::text_of(&name(row.key_id)), Cell::number(row.states)]
            };
            table(
                &mut output,
                color,
                &["TABLE", "KEY", "STATES"],
                &rows.iter().map(row).collect::<Vec<_>>(),
            )?;
        }
    }
    output.flush()?;
    Ok(Exit::Success)
}

/// The result of the re-encryption of a table, as JSON.
#[derive(Serialize)]
struct Reencrypted {
    table: &'static str,
    read: usize,
    reencrypted: usize,
}

async fn reencrypt(arguments: &KeysReencrypt) -> Result<Exit, Failure> {
    let connection = &arguments.connection;
    let mut settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    settings.set("CREATE_TABLE", "no");
    let database = Database::open_for_writing(&settings)?;
    let ring = database.key_ring()?;
    confirm(&format!("encrypt every state again with key {}", ring.primary_key_id()), arguments.yes)?;
    for (table, recorder) in database.states().await? {
        let mut reencryption = Reencryption::new(&recorder, &ring);
        let mut total = Reencrypted { table, read: 0, reencrypted: 0 };
        while let Some(page) = reencryption.next_page().await? {
            total.read += page.read;
            total.reencrypted += page.replaced;
        }
        total.print(arguments.formatting.format)?;
    }
    if let Some(store) = database.subject_keys()? {
        let mut rewrapping = Rewrapping::new(&store, &ring);
        let mut total = Reencrypted { table: SUBJECT_KEYS, read: 0, reencrypted: 0 };
        while let Some(page) = rewrapping.next_page().await? {
            total.read += page.read;
            total.reencrypted += page.replaced;
        }
        total.print(arguments.formatting.format)?;
    }
    database.close().await?;
    Ok(Exit::Success)
}

impl Reencrypted {
    fn print(&self, format: Format) -> Result<(), Failure> {
        let mut output = Output::new();
        match format {
            Format::Json => output.json(self)?,
            Format::Text => {
                let Self { table, read, reencrypted } = self;
                let states = if *table == SUBJECT_KEYS { "keys" } else { "states" };
                output.line(&format!("{table}: {reencrypted} of {read} {states} were encrypted again"))?;
            }
        }
        output.flush()
    }
}

fn rotate(arguments: &KeysRotate) -> Result<Exit, Failure> {
    let connection = &arguments.connection;
    let settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    let path = settings.get("CIPHER_KEYS_FILE").map(PathBuf::from).ok_or_else(|| {
        Failure::usage("CIPHER_KEYS_FILE is not set")
            .with_hint("set it to a file of keys, or to the new file")
    })?;
    if settings.get("CIPHER_KEYS").is_some() {
        let message =
            "CIPHER_KEYS has keys beside those of the file: their ids are taken, and the first one encrypts";
        return Err(Failure::usage(message).with_hint("move its keys to the file, and remove that variable"));
    }
    if settings.get("CIPHER_PRIMARY_KEY_ID").is_some() && arguments.promote.is_some() {
        let message = "CIPHER_PRIMARY_KEY_ID names the key that encrypts, whatever the order of the file";
        return Err(Failure::usage(message).with_hint("change that variable, or remove it"));
    }
    let before = entries(&path)?;
    let mut entries = before.clone();
    let (question, done) = if let Some(id) = arguments.promote {
        let entry = entries.remove(promoted(&entries, id, &path)?);
        let id = entry.0;
        entries.insert(0, entry);
        (format!("let key {id} encrypt"), format!("key {id} encrypts; distribute the file"))
    } else {
        let id = match entries.iter().map(|(id, _)| *id).max() {
            Some(newest) => newest.checked_add(1).ok_or_else(|| Failure::new("no id is left"))?,
            None => 1,
        };
        let key = Zeroizing::new(AesCipher::create_key(32)?);
        entries.push((id, Zeroizing::new([&id.to_string(), ":", &*key].concat())));
        let done = format!("added key {id}; distribute the file, then run `es keys rotate --promote`");
        (format!("add key {id} to {}", path.display()), done)
    };
    confirm(&question, arguments.yes)?;
    write(&path, &before, &entries)?;
    let mut output = Output::new();
    output.line(&done)?;
    output.flush()?;
    Ok(Exit::Success)
}

/// Returns the index of the key that is to encrypt: the one with the id, or else the newest one. Of several
/// that do not encrypt yet, the newest one may not be distributed.
fn promoted(entries: &[Entry], id: Option<u32>, path: &Path) -> Result<usize, Failure> {
    let path = path.display();
    if let Some(id) = id {
        let index = entries.iter().position(|entry| entry.0 == id);
        return index.ok_or_else(|| Failure::usage(format!("{path} has no key {id}")));
    }
    let Some((primary, _)) = entries.first() else {
        return Err(Failure::usage(format!("{path} has no key")));
    };
    let newer: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].0 > *primary).collect();
    match newer[..] {
        [] => Ok(0),
        [newest] => Ok(newest),
        _ => Err(Failure::usage(format!("{path} has {} keys that do not encrypt yet", newer.len()))
            .with_hint("pass the id of the one that is distributed, such as --promote 2")),
    }
}

/// An entry of a file of keys, and its id.
type Entry = (u32, Zeroizing<String>);

/// Reads the entries of a file of keys; none if it does not exist.
fn entries(path: &Path) -> Result<Vec<Entry>, Failure> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => Zeroizing::new(text.map_err(|error| file_error("read", path, &error))?),
    };
    let entries = text.split([',', ' ', '\t', '\r', '\n']).filter(|entry| !entry.is_empty());
    let entry = |(number, entry): (usize, &str)| {
        let id = entry.split_once(':').and_then(|(id, _)| id.parse().ok());
        id.map(|id| (id, Zeroizing::new(entry.to_owned()))).ok_or_else(|| {
            Failure::usage(format!("entry {} of {} is not ID:BASE64", number + 1, path.display()))
        })
    };
    entries.enumerate().map(entry).collect()
}

/// Replaces the file as a whole, so that no program reads a part of it. A new file can be read by its owner
/// only; another one keeps its owner and its permissions, so that the same programs read it.
fn write(path: &Path, before: &[Entry], after: &[Entry]) -> Result<(), Failure> {
    // That a link points to; the link stays.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let file = create(&new).map_err(|error| {
        let failure = file_error("create", &new, &error);
        match error.kind() {
            ErrorKind::AlreadyExists => {
                failure.with_hint("another rotation is running; delete the file if none is")
            }
            _ => failure,
        }
    })?;
    let replaced = replace(path, before, &new, file, after);
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// Replaces the file, which nothing else replaces at the same time, unless it has changed since it was read.
fn replace(
    path: &Path,
    before: &[Entry],
    new: &Path,
    mut file: File,
    after: &[Entry],
) -> Result<(), Failure> {
    if entries(path)? != before {
        return Err(Failure::new(format!("{} has changed in the meantime", path.display())));
    }
    let written = after
        .iter()
        .try_for_each(|(_, entry)| writeln!(file, "{}", **entry))
        .and_then(|()| keep_access(path, &file))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(new, path))
        .and_then(|()| sync_directory(path));
    written.map_err(|error| file_error("write", path, &error))
}

/// Creates a file that does not exist: the permissions of another one may be those of a stranger.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Gives a file the owner and the permissions of the one that it replaces, if there is one.
#[cfg_attr(not(unix), expect(unused_variables, reason = "permissions are those of the directory"))]
fn keep_access(path: &Path, file: &File) -> io::Result<()> {
    #[cfg(unix)]
    if let Ok(old) = fs::metadata(path) {
        use std::os::unix::fs::{MetadataExt, fchown};
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
    }
    Ok(())
}

/// Makes the new name of a file durable.
#[cfg_attr(not(unix), expect(unused_variables, reason = "directories cannot be opened"))]
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        // A relative path may have no directory.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn file_error(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {verb} {}: {error}", path.display()))
}
