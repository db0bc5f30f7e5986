//! Detects that the files of an open database were moved, deleted or replaced.
//!
//! SQLite continues with a file that was deleted, or that another file was renamed over: what it commits then
//! is lost when the process ends. The same holds for the write-ahead log, which SQLite itself never deletes
//! while a connection is open.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ffi};

/// The files of a database, as found when it was opened.
#[derive(Debug)]
pub(crate) struct FileIdentity(Vec<(PathBuf, FileId)>);

/// The device and the inode number of a file.
type FileId = (u64, u64);

impl FileIdentity {
    /// Returns the files of a connection that has read its database; none for a database in memory.
    pub(crate) fn of(connection: &Connection) -> Self {
        let path = connection.path().filter(|path| !path.is_empty());
        let files = path.into_iter().flat_map(|path| [PathBuf::from(path), format!("{path}-wal").into()]);
        Self(files.filter_map(|path| file_id(&path).ok().map(|id| (path, id))).collect())
    }

    /// Fails if a file was moved, deleted or replaced, or if access to it is denied. Costs two system calls
    /// of some 2 µs each.
    pub(crate) fn verify_unchanged(&self) -> rusqlite::Result<()> {
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

/// Requests the inode number alone. If the times of a file were requested, Linux 6.13 and later give it new,
/// fine-grained times with the next write, and a flush then has to write its inode, too: with `fs::metadata`,
/// a commit took a third longer.
#[cfg(target_os = "linux")]
fn file_id(path: &Path) -> io::Result<FileId> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

    let Ok(file) = statx(CWD, path, AtFlags::empty(), StatxFlags::INO) else {
        // Older systems and some sandboxes lack `statx`. If the file is the cause, this call reports it.
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

/// On other systems an open file can be neither deleted nor replaced.
#[cfg(not(unix))]
fn file_id_of_metadata(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|_| (0, 0))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn statx_and_metadata_agree() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(file_id(file.path()).unwrap(), file_id_of_metadata(file.path()).unwrap());
        assert_eq!(file_id(&file.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
