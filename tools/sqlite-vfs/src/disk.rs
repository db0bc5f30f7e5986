//! A directory whose disk fails on request.

use std::{
    collections::BTreeMap,
    ffi::c_int,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use fastrand::Rng;
use parking_lot::Mutex;
use rusqlite::ffi;

use crate::{
    contents::{Contents, FileId},
    shim,
};

/// The disks in use, by directory: SQLite passes only the path of a file.
static DISKS: Mutex<BTreeMap<PathBuf, Weak<Disk>>> = Mutex::new(BTreeMap::new());

/// A directory whose files SQLite opens through this crate.
pub struct Disk {
    directory: PathBuf,
    state: Mutex<State>,
}

/// The operations of a file system that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Opening a file, which may create it.
    Open,
    /// Deleting a file.
    Delete,
    /// Checking the existence of a file.
    Access,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Changing the size of a file.
    Truncate,
    /// Flushing a file.
    Sync,
    /// Reading the size of a file.
    FileSize,
    /// Taking a lock on a file.
    Lock,
    /// Mapping a part of the index of the log, which processes share.
    ShmMap,
    /// Taking a lock on the index of the log.
    ShmLock,
}

/// The failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The call has no effect, and returns its kind of `SQLITE_IOERR`.
    Error,
    /// The disk is full for a write. Other calls as [`Error`](Self::Error).
    Full,
    /// Half of a write is done before the error. Other calls as [`Error`](Self::Error).
    Torn,
    /// A flush fails, and its data never reaches the disk although it can be read, as on Linux. Other calls
    /// as [`Error`](Self::Error).
    Lost,
    /// The call and all later ones have no effect and fail.
    PowerCut,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    is_cut: bool,
    calls: BTreeMap<Operation, u64>,
    contents: Contents,
}

struct Plan {
    fault: Fault,
    is_meant: fn(Operation) -> bool,
    first: u64,
    last: u64,
    met: u64,
}

impl Operation {
    /// Returns true if the operation can change the contents of the disk.
    pub fn changes_the_disk(self) -> bool {
        matches!(self, Self::Open | Self::Delete | Self::Write | Self::Truncate | Self::Sync)
    }

    fn error(self) -> c_int {
        match self {
            Self::Open => ffi::SQLITE_CANTOPEN,
            Self::Delete => ffi::SQLITE_IOERR_DELETE,
            Self::Access => ffi::SQLITE_IOERR_ACCESS,
            Self::Read => ffi::SQLITE_IOERR_READ,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
            Self::FileSize => ffi::SQLITE_IOERR_FSTAT,
            Self::Lock => ffi::SQLITE_IOERR_LOCK,
            Self::ShmMap => ffi::SQLITE_IOERR_SHMMAP,
            Self::ShmLock => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }
}

impl Disk {
    /// Creates the disk of a directory, without faults. The files in the directory count as flushed.
    pub fn new(directory: &Path) -> Arc<Self> {
        shim::register();
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let disk = Arc::new(Self { directory: directory.clone(), state: Mutex::default() });
        let mut disks = DISKS.lock();
        disks.retain(|_, disk| disk.strong_count() > 0);
        disks.insert(directory, Arc::downgrade(&disk));
        disk
    }

    /// Returns the URI by which SQLite opens a file of the directory on this disk.
    pub fn uri(&self, file: &str) -> String {
        format!("file:{}?vfs={}", self.directory.join(file).display(), shim::NAME)
    }

    /// Makes only the `nth` call from now on fail, among those selected by `is_meant`.
    pub fn fail(&self, fault: Fault, is_meant: fn(Operation) -> bool, nth: u64) {
        self.plan(fault, is_meant, nth, nth);
    }

    /// Makes the `nth` call from now on and all later ones fail, among those selected by `is_meant`.
    pub fn fail_from(&self, fault: Fault, is_meant: fn(Operation) -> bool, nth: u64) {
        self.plan(fault, is_meant, nth, u64::MAX);
    }

    /// Removes all faults except for a power cut.
    pub fn heal(&self) {
        self.state.lock().plan = None;
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.state.lock().is_cut = true;
    }

    /// Returns true if the power is cut.
    pub fn is_cut(&self) -> bool {
        self.state.lock().is_cut
    }

    /// Returns the number of SQLite's calls of each operation.
    pub fn calls(&self) -> BTreeMap<Operation, u64> {
        self.state.lock().calls.clone()
    }

    /// Writes the contents after a power cut to another directory: all flushed data, and of the rest the
    /// sectors of 512 bytes and the names of files that the seed chooses.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn salvage(&self, seed: u64, directory: &Path) -> io::Result<()> {
        let files = self.state.lock().contents.after_power_cut(&mut Rng::with_seed(seed));
        files.into_iter().try_for_each(|(name, bytes)| fs::write(directory.join(name), bytes))
    }

    /// Returns the disk of a file, and the name of the file there.
    pub(crate) fn of(path: &Path) -> Option<(Arc<Self>, String)> {
        let disk = DISKS.lock().get(path.parent()?)?.upgrade()?;
        Some((disk, path.file_name()?.to_str()?.to_owned()))
    }

    /// Counts a call, and returns SQLite's error code if it fails.
    pub(crate) fn enter(&self, operation: Operation) -> Result<(), c_int> {
        self.state.lock().enter(operation).map_or(Ok(()), |_| Err(operation.error()))
    }

    /// Reads the existing contents of a file that is about to be opened.
    pub(crate) fn found(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.join(name)).ok()
    }

    pub(crate) fn opened(&self, name: &str, found: Option<Vec<u8>>) -> FileId {
        self.state.lock().contents.open(name, found)
    }

    pub(crate) fn deleted(&self, name: &str, is_flushed: bool) {
        let contents = &mut self.state.lock().contents;
        contents.delete(name);
        if is_flushed {
            contents.flush_names();
        }
    }

    /// Returns the number of bytes to write, and the error after them.
    pub(crate) fn write(&self, file: FileId, offset: usize, bytes: &[u8]) -> (usize, Result<(), c_int>) {
        let mut state = self.state.lock();
        let (length, result) = match state.enter(Operation::Write) {
            None => (bytes.len(), Ok(())),
            Some(Fault::Torn) => (bytes.len() / 2, Err(Operation::Write.error())),
            Some(Fault::Full) => (0, Err(ffi::SQLITE_FULL)),
            Some(_) => (0, Err(Operation::Write.error())),
        };
        state.contents.write(file, offset, &bytes[..length]);
        (length, result)
    }

    pub(crate) fn truncate(&self, file: FileId, size: usize) -> Result<(), c_int> {
        self.enter(Operation::Truncate)?;
        self.state.lock().contents.truncate(file, size);
        Ok(())
    }

    pub(crate) fn sync(&self, file: FileId, may_be_new: bool) -> Result<(), c_int> {
        let mut state = self.state.lock();
        if let Some(fault) = state.enter(Operation::Sync) {
            if fault == Fault::Lost {
                state.contents.forget_changes(file);
            }
            return Err(Operation::Sync.error());
        }
        state.contents.flush(file);
        if may_be_new {
            state.contents.flush_names();
        }
        Ok(())
    }

    fn plan(&self, fault: Fault, is_meant: fn(Operation) -> bool, first: u64, last: u64) {
        self.state.lock().plan = Some(Plan { fault, is_meant, first, last, met: 0 });
    }
}

impl State {
    fn enter(&mut self, operation: Operation) -> Option<Fault> {
        *self.calls.entry(operation).or_default() += 1;
        if self.is_cut {
            return Some(Fault::PowerCut);
        }
        let plan = self.plan.as_mut().filter(|plan| (plan.is_meant)(operation))?;
        plan.met += 1;
        if !(plan.first..=plan.last).contains(&plan.met) {
            return None;
        }
        self.is_cut = plan.fault == Fault::PowerCut;
        Some(plan.fault)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("directory", &self.directory).finish_non_exhaustive()
    }
}
