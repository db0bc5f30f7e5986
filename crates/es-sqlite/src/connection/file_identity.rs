//! Noticing that a database no longer stands under its name.
//!
//! SQLite goes on with a file that was deleted, or that another was renamed over: what it commits then is gone with the
//! process. So it is with the write-ahead log, which nobody else deletes as long as a connection is open.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ffi};

/// The files of a database as they were when it was opened.
#[derive(Debug)]
pub(crate) struct Place(Vec<(PathBuf, FileId)>);

/// The device and the number of a file.
type FileId = (u64, u64);

impl Place {
    /// The files of a connection that has looked into its database; none for a database in memory.
    pub(crate) fn of(connection: &Connection) -> Self {
        let path = connection.path().filter(|path| !path.is_empty());
        let files = path.into_iter().flat_map(|path| [PathBuf::from(path), format!("{path}-wal").into()]);
        Self(files.filter_map(|path| file_id(&path).ok().map(|id| (path, id))).collect())
    }

    /// Fails when a file was moved, deleted or replaced, or may not be looked for. Costs two calls of the
    /// system, some 2 µs each.
    pub(crate) fn require_unmoved(&self) -> rusqlite::Result<()> {
        for (path, id) in &self.0 {
            let cause = match file_id(path) {
                Ok(found) if found == *id => continue,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => ffi::SQLITE_PERM,
                _ => ffi::SQLITE_READONLY_DBMOVED,
            };
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(cause), None));
        }
        Ok(())
    }
}

/// Asks for nothing but the number. Linux from 6.13 on gives a file whose times were asked for new, fine ones with the next
/// write, and a flush then has to write its inode, too: with `fs::metadata`, a commit took a third longer.
#[cfg(target_os = "linux")]
fn file_id(path: &Path) -> io::Result<FileId> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

    let Ok(file) = statx(CWD, path, AtFlags::empty(), StatxFlags::INO) else {
        // Older systems, and some sandboxes, have no such call; if the file is to blame, this says so.
        return file_id_of_metadata(path);
    };
    Ok((makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino))
}

#[cfg(not(target_os = "linux"))]
use file_id_of_metadata as file_id;

#[cfg(unix)]
fn file_id_of_metadata(path: &Path) -> io::Result<FileId> {
    use std::os::unix::fs::MetadataExt;

    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Elsewhere a file that is open can be neither deleted nor replaced.
#[cfg(not(unix))]
fn file_id_of_metadata(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|_| (0, 0))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_same_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(file_id(file.path()).unwrap(), file_id_of_metadata(file.path()).unwrap());
        assert_eq!(file_id(&file.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
