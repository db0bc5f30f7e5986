//! The file system that SQLite calls: it consults the disk, then forwards to SQLite's default one.
//!
//! The unsafe blocks rely on the rules of SQLite's `sqlite3_vfs` and `sqlite3_io_methods`: SQLite calls a
//! method with the file system or the open file that it belongs to, and with pointers that are valid during
//! the call as the method documents; it provides `szOsFile` bytes for a file to be opened, aligned for any
//! type, and does not move them until it is closed.
#![allow(unsafe_code, reason = "SQLite calls a file system through pointers")]

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    mem,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr, slice,
    sync::{Arc, Once},
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use crate::{Disk, Operation, contents::FileId};

/// The name of the file system.
pub(crate) const NAME: &str = "es-faults";
const C_NAME: &CStr = c"es-faults";

/// A file in SQLite's memory. The default file system's own file follows behind it.
#[repr(C)]
struct ShimFile {
    /// The part that SQLite reads.
    public: sqlite3_file,
    /// Owned; null for a file that is on no disk of this crate, such as one without a name.
    place: Option<Box<Place>>,
}

/// The location of a file.
struct Place {
    disk: Arc<Disk>,
    file: FileId,
    /// True if the next flush also flushes the directory, as the first one of a log or a journal does after
    /// each opening that may have created it.
    may_be_new: bool,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // No memory maps of files.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Registers the file system with SQLite, once.
pub(crate) fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let own_bytes = c_int::try_from(mem::size_of::<ShimFile>()).unwrap_or(c_int::MAX);
        // SAFETY: plain calls; SQLite is initialized; its default file system exists forever
        // and may be copied; the copy is never freed, as a registered one must not be.
        unsafe {
            ffi::sqlite3_initialize();
            let mut shim = *ffi::sqlite3_vfs_find(ptr::null());
            shim.szOsFile += own_bytes;
            shim.pNext = ptr::null_mut();
            shim.zName = C_NAME.as_ptr();
            shim.xOpen = Some(open);
            shim.xDelete = Some(delete);
            shim.xAccess = Some(access);
            ffi::sqlite3_vfs_register(Box::into_raw(Box::new(shim)), 0);
        }
    });
}

/// Calls a method of the default file system, or of one of its files.
macro_rules! pass_on {
    ($methods:expr, $method:ident($($argument:expr),*)) => {
        match $methods.$method {
            // SAFETY: the arguments are those of SQLite for the same method, except for the file, which is
            // the one that the default file system has opened behind ours.
            Some(method) => unsafe { method($($argument),*) },
            None => ffi::SQLITE_MISUSE,
        }
    };
}

macro_rules! pass_on_file {
    ($file:expr, $method:ident($($argument:expr),*)) => {{
        let real = real($file);
        // SAFETY: an open file has methods, which exist forever.
        let methods = unsafe { &*(*real).pMethods };
        pass_on!(methods, $method(real $(, $argument)*))
    }};
}

/// Returns the error code of a failed operation.
macro_rules! succeed_or_return {
    ($result:expr) => {
        if let Err(code) = $result {
            return code;
        }
    };
}

fn default_vfs() -> &'static sqlite3_vfs {
    // SAFETY: the default file system exists forever and does not change.
    unsafe { &*ffi::sqlite3_vfs_find(ptr::null()) }
}

fn default_vfs_pointer() -> *mut sqlite3_vfs {
    // SAFETY: a plain call, with the null name of the default.
    unsafe { ffi::sqlite3_vfs_find(ptr::null()) }
}

/// Returns the default file system's file behind ours.
fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    file.cast::<u8>().wrapping_add(mem::size_of::<ShimFile>()).cast()
}

fn place<'f>(file: *mut sqlite3_file) -> Option<&'f mut Place> {
    // SAFETY: every file that comes here was written by `open`, and SQLite uses a file in one thread at a
    // time.
    unsafe { (*file.cast::<ShimFile>()).place.as_deref_mut() }
}

/// Consults the disk of a file, if it is on one.
fn enter(file: *mut sqlite3_file, operation: Operation) -> Result<(), c_int> {
    place(file).map_or(Ok(()), |place| place.disk.enter(operation))
}

/// Returns the disk of a path, and the name of the file there.
fn locate(path: *const c_char) -> Option<(Arc<Disk>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: SQLite's paths end with a zero byte.
    let path = unsafe { CStr::from_ptr(path) };
    Disk::of(Path::new(OsStr::from_bytes(path.to_bytes())))
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let own = ShimFile { public: sqlite3_file { pMethods: ptr::null() }, place: None };
    // SAFETY: the file is memory for a `ShimFile` and more. Without methods, SQLite does not close it.
    unsafe { ptr::write(file.cast(), own) };
    let located = locate(path);
    if let Some((disk, _)) = &located {
        succeed_or_return!(disk.enter(Operation::Open));
    }
    let found = located.as_ref().and_then(|(disk, name)| disk.found(name));
    let code = pass_on!(default_vfs(), xOpen(default_vfs_pointer(), path, real(file), flags, out_flags));
    if code != ffi::SQLITE_OK {
        return code;
    }
    let is_log = flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0;
    let may_be_new = is_log && flags & ffi::SQLITE_OPEN_CREATE != 0;
    let place = located.map(|(disk, name)| {
        let file = disk.opened(&name, found);
        Box::new(Place { disk, file, may_be_new })
    });
    // SAFETY: as above; there is nothing in it to drop so far.
    unsafe { ptr::write(file.cast(), ShimFile { public: sqlite3_file { pMethods: &METHODS }, place }) };
    code
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, path: *const c_char, sync_directory: c_int) -> c_int {
    let located = locate(path);
    if let Some((disk, _)) = &located {
        succeed_or_return!(disk.enter(Operation::Delete));
    }
    let code = pass_on!(default_vfs(), xDelete(default_vfs_pointer(), path, 0));
    if let Some((disk, name)) = located
        && code == ffi::SQLITE_OK
    {
        disk.deleted(&name, sync_directory != 0);
    }
    code
}

unsafe extern "C" fn access(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    if let Some((disk, _)) = locate(path) {
        succeed_or_return!(disk.enter(Operation::Access));
    }
    pass_on!(default_vfs(), xAccess(default_vfs_pointer(), path, flags, out))
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let code = pass_on_file!(file, xClose());
    // SAFETY: `open` wrote it, and SQLite does not use the file any more.
    drop(unsafe { (*file.cast::<ShimFile>()).place.take() });
    code
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    to: *mut c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    succeed_or_return!(enter(file, Operation::Read));
    pass_on_file!(file, xRead(to, length, offset))
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let Some(place) = place(file) else { return pass_on_file!(file, xWrite(from, length, offset)) };
    let (Ok(count), Ok(start)) = (usize::try_from(length), usize::try_from(offset)) else {
        return ffi::SQLITE_MISUSE;
    };
    // SAFETY: SQLite gives that many bytes to be written.
    let bytes = unsafe { slice::from_raw_parts(from.cast::<u8>(), count) };
    let (written, result) = place.disk.write(place.file, start, bytes);
    let code = match c_int::try_from(written) {
        Ok(0) | Err(_) => ffi::SQLITE_OK,
        Ok(written) => pass_on_file!(file, xWrite(from, written, offset)),
    };
    result.err().unwrap_or(code)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    if let Some(place) = place(file) {
        let Ok(size) = usize::try_from(size) else { return ffi::SQLITE_MISUSE };
        succeed_or_return!(place.disk.truncate(place.file, size));
    }
    pass_on_file!(file, xTruncate(size))
}

/// Not forwarded for files of this crate: the disk defines the flushed data, and a real flush is slow.
unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let Some(place) = place(file) else { return pass_on_file!(file, xSync(flags)) };
    succeed_or_return!(place.disk.sync(place.file, place.may_be_new));
    place.may_be_new = false;
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    succeed_or_return!(enter(file, Operation::FileSize));
    pass_on_file!(file, xFileSize(size))
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    succeed_or_return!(enter(file, Operation::Lock));
    pass_on_file!(file, xLock(level))
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_on_file!(file, xUnlock(level))
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    pass_on_file!(file, xCheckReservedLock(out))
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    pass_on_file!(file, xFileControl(operation, argument))
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass_on_file!(file, xSectorSize())
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass_on_file!(file, xDeviceCharacteristics())
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    succeed_or_return!(enter(file, Operation::ShmMap));
    pass_on_file!(file, xShmMap(region, size, extend, out))
}

/// Never fails: SQLite does not expect an error of an unlock, and would keep the lock.
unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    if flags & ffi::SQLITE_SHM_LOCK != 0 {
        succeed_or_return!(enter(file, Operation::ShmLock));
    }
    pass_on_file!(file, xShmLock(offset, count, flags))
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    let real = real(file);
    // SAFETY: as in `pass_on_file`; only this method returns nothing.
    unsafe {
        if let Some(barrier) = (*(*real).pMethods).xShmBarrier {
            barrier(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, is_deleted: c_int) -> c_int {
    pass_on_file!(file, xShmUnmap(is_deleted))
}
