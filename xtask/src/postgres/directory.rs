//! The directory of a cluster, `target/postgres/<name>/`: `log`, `lock`, and `home/` with all that the server
//! owns.
//!
//! A throw-away directory is locked as long as the run that made it lives. One that is found unlocked was
//! left by a run that was killed: its server is stopped and its data deleted by the next run.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};

use super::{account::Account, cluster, connection::random_hex, locate, patroni, versions};
use crate::workspace;

const THROW_AWAY: &str = "run-";
const DEV_SERVER: &str = "people";

#[derive(Debug)]
pub(crate) struct ClusterDirectory {
    path: PathBuf,
    home: PathBuf,
    account: Account,
    /// Held, never read.
    _lock: Option<File>,
}

impl ClusterDirectory {
    /// A new directory for this run, after those that killed runs left are deleted. A run may have several,
    /// with different suffixes.
    pub(crate) fn throw_away(suffix: &str) -> Result<Self> {
        let parent = Self::parent()?;
        // Until it is locked, no other process may take the new directory for an abandoned one.
        let _guard = lock(&parent.join("lock"))?;
        delete_abandoned(&parent);
        let path = parent.join(format!("{THROW_AWAY}{}{suffix}", process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let lock = lock(&path.join("lock"))?;
        Self::open(path, Some(lock))
    }

    /// The directory of the development server's cluster, created if it is not there.
    pub(crate) fn dev_server() -> Result<Self> {
        Self::at(&Self::parent()?.join(DEV_SERVER))
    }

    /// A directory that is kept, created if it is not there.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        Self::open(path.to_owned(), None)
    }

    /// The parent of all directories, created if it is not there.
    pub(crate) fn parent() -> Result<PathBuf> {
        let parent = workspace::target().join("postgres");
        fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
        Ok(parent)
    }

    /// The same, if it is there.
    pub(crate) fn existing_dev_server() -> Result<Option<Self>> {
        let path = Self::parent()?.join(DEV_SERVER);
        if path.is_dir() { Self::open(path, None).map(Some) } else { Ok(None) }
    }

    fn open(path: PathBuf, lock: Option<File>) -> Result<Self> {
        let account = Account::for_server()?;
        let home = existing_home(&path).map_or_else(|| create_home(&path, account), Ok)?;
        Ok(Self { path, home, account, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a directory of the account's own beneath the home.
    pub(crate) fn create_own(&self, path: &Path) -> Result<()> {
        create_private(path, self.account)
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// The server's own directory.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The connection settings of the development server, its password included.
    pub(crate) fn environment(&self) -> PathBuf {
        self.path.join("environment")
    }

    /// Deletes the data, but not the log: it may tell why a test failed. The next run deletes it.
    pub(crate) fn delete_home(&self) {
        if let Err(error) = fs::remove_dir_all(&self.home) {
            eprintln!("xtask: cannot delete {}: {error}", self.home.display());
        }
    }

    pub(crate) fn delete(&self) {
        self.delete_home();
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("xtask: cannot delete {}: {error}", self.path.display());
        }
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(secret.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn existing_home(directory: &Path) -> Option<PathBuf> {
    fs::canonicalize(directory.join("home")).ok()
}

/// Beneath `directory` if the account gets there, else beneath the system's directory for temporary files
/// (root's own checkout is closed to others); a link then says where.
fn create_home(directory: &Path, account: Account) -> Result<PathBuf> {
    let home = directory.join("home");
    create_reachable(&home, account)
}

/// Creates a directory of the account's own at `path`, or a link there to one in another place.
pub(crate) fn create_reachable(path: &Path, account: Account) -> Result<PathBuf> {
    // A dangling link: temporary files do not outlive the machine's restart.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).context("cannot delete an old link");
        }
        _ => create_private(path, account)?,
    }
    if account.can_enter(path) {
        return fs::canonicalize(path).context("cannot resolve the new directory");
    }
    fs::remove_dir(path).context("cannot delete an empty directory")?;
    let elsewhere = env::temp_dir().join(format!("es-persistence-postgres-{}", random_hex()?));
    create_private(&elsewhere, account)?;
    symlink(&elsewhere, path).context("cannot create a link")?;
    eprintln!(
        "xtask: the server's account cannot enter {}; its files are in {}",
        path.display(),
        elsewhere.display()
    );
    Ok(elsewhere)
}

fn create_private(directory: &Path, account: Account) -> Result<()> {
    let created = DirBuilder::new().mode(0o700).create(directory);
    created.with_context(|| format!("cannot create {}", directory.display()))?;
    account.own(directory)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn delete_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_throw_away = entry.file_name().to_str().is_some_and(|name| name.starts_with(THROW_AWAY));
        if is_throw_away && is_unlocked(&entry.path()) {
            delete_one_abandoned(entry.path());
        }
    }
}

fn is_unlocked(directory: &Path) -> bool {
    // Without a lock file its maker died before it could start anything.
    File::open(directory.join("lock")).map_or(true, |file| file.try_lock().is_ok())
}

fn delete_one_abandoned(path: PathBuf) {
    if existing_home(&path).is_none() {
        let _ = fs::remove_dir_all(path);
        return;
    }
    let Ok(directory) = ClusterDirectory::open(path, None) else { return };
    // Data beneath a server that runs on must stay.
    if let Err(error) = patroni::stop(&directory) {
        eprintln!("xtask: {}: {error:#}", directory.path.display());
        return;
    }
    match locate::binaries()
        .or_else(versions::any_installed)
        .map(|binaries| cluster::stop(&binaries, &directory))
    {
        Some(Err(error)) => eprintln!("xtask: {}: {error:#}", directory.path.display()),
        _ => directory.delete(),
    }
}
