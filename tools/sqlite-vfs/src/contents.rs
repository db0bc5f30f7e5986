//! The contents of a disk: flushed data, and data that a power cut may lose.

use std::collections::BTreeMap;

use fastrand::Rng;

/// The unit in which a disk keeps or loses data that was not flushed.
const SECTOR: usize = 512;

/// A file, whatever its name.
pub(crate) type FileId = usize;

/// The files of a directory.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    files: Vec<File>,
    /// The directory as programs see it.
    names: BTreeMap<String, FileId>,
    flushed_names: BTreeMap<String, FileId>,
    /// Changes of names that are not flushed yet: a name and its file, or `None` if it was deleted.
    renamings: Vec<(String, Option<FileId>)>,
}

#[derive(Debug, Default)]
struct File {
    flushed: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { size: usize },
}

impl Contents {
    /// Returns the file of a name; `found` is its contents at the first access, if it is not new.
    pub(crate) fn open(&mut self, name: &str, found: Option<Vec<u8>>) -> FileId {
        if let Some(file) = self.names.get(name) {
            return *file;
        }
        let file = self.files.len();
        self.names.insert(name.to_owned(), file);
        match found {
            Some(flushed) => {
                self.files.push(File { flushed, changes: Vec::new() });
                self.flushed_names.insert(name.to_owned(), file);
            }
            None => {
                self.files.push(File::default());
                self.renamings.push((name.to_owned(), Some(file)));
            }
        }
        file
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.names.remove(name);
        self.renamings.push((name.to_owned(), None));
    }

    pub(crate) fn write(&mut self, file: FileId, offset: usize, bytes: &[u8]) {
        self.change(file, Change::Write { offset, bytes: bytes.to_owned() });
    }

    pub(crate) fn truncate(&mut self, file: FileId, size: usize) {
        self.change(file, Change::Truncate { size });
    }

    pub(crate) fn flush(&mut self, file: FileId) {
        let Some(file) = self.files.get_mut(file) else { return };
        for change in std::mem::take(&mut file.changes) {
            change.apply(&mut file.flushed, |_| true);
        }
    }

    /// Drops the data that was not flushed: programs still see it, but it is never flushed unless written
    /// again.
    pub(crate) fn forget_changes(&mut self, file: FileId) {
        if let Some(file) = self.files.get_mut(file) {
            file.changes.clear();
        }
    }

    pub(crate) fn flush_names(&mut self) {
        for (name, file) in std::mem::take(&mut self.renamings) {
            rename(&mut self.flushed_names, name, file);
        }
    }

    /// Returns the files after a power cut, by name: all flushed data, and of the rest the sectors and names
    /// that the disk happens to keep.
    pub(crate) fn after_power_cut(&self, rng: &mut Rng) -> BTreeMap<String, Vec<u8>> {
        let share = [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)];
        let mut names = self.flushed_names.clone();
        for (name, file) in &self.renamings {
            if rng.f64() < share {
                rename(&mut names, name.clone(), *file);
            }
        }
        names.into_iter().map(|(name, file)| (name, self.files[file].after_power_cut(rng, share))).collect()
    }

    fn change(&mut self, file: FileId, change: Change) {
        if let Some(file) = self.files.get_mut(file) {
            file.changes.push(change);
        }
    }
}

impl File {
    fn after_power_cut(&self, rng: &mut Rng, share: f64) -> Vec<u8> {
        let mut bytes = self.flushed.clone();
        for change in &self.changes {
            change.apply(&mut bytes, |_| rng.f64() < share);
        }
        bytes
    }
}

impl Change {
    /// Applies those parts that are kept, each of them within one sector.
    fn apply(&self, to: &mut Vec<u8>, mut is_kept: impl FnMut(usize) -> bool) {
        match self {
            Self::Truncate { size } => {
                if is_kept(0) {
                    to.resize(*size, 0);
                }
            }
            Self::Write { offset, bytes } => {
                let mut done = 0;
                while done < bytes.len() {
                    let at = offset + done;
                    let length = (SECTOR - at % SECTOR).min(bytes.len() - done);
                    if is_kept(at) {
                        to.resize(to.len().max(at + length), 0);
                        to[at..at + length].copy_from_slice(&bytes[done..done + length]);
                    }
                    done += length;
                }
            }
        }
    }
}

fn rename(names: &mut BTreeMap<String, FileId>, name: String, file: Option<FileId>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of many power cuts.
    fn remains(contents: &Contents) -> Vec<BTreeMap<String, Vec<u8>>> {
        (0..200).map(|seed| contents.after_power_cut(&mut Rng::with_seed(seed))).collect()
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_goes_by_sectors() {
        let mut contents = Contents::default();
        let file = contents.open("a", Some(Vec::new()));
        contents.write(file, 0, &[1; 2 * SECTOR]);
        contents.flush(file);
        contents.write(file, 10, &[2; SECTOR]);
        let remains: Vec<_> =
            remains(&contents).into_iter().map(|mut files| files.remove("a").unwrap()).collect();
        for bytes in &remains {
            assert_eq!(bytes.len(), 2 * SECTOR);
            assert_eq!((bytes[..10].to_vec(), &bytes[SECTOR + 10..]), (vec![1; 10], &[1; SECTOR - 10][..]));
            assert!(bytes[10..SECTOR].iter().all(|byte| *byte == bytes[10]));
        }
        for sectors in [[1, 1], [1, 2], [2, 1], [2, 2]] {
            assert!(remains.iter().any(|bytes| [bytes[10], bytes[SECTOR]] == sectors), "{sectors:?}");
        }
    }

    #[test]
    fn names_are_flushed_by_themselves() {
        let mut contents = Contents::default();
        let old = contents.open("a", Some(vec![1]));
        contents.delete("a");
        let new = contents.open("a", None);
        assert_ne!(old, new);
        contents.write(new, 0, &[2]);
        contents.flush(new);
        let before: Vec<_> = remains(&contents).into_iter().map(|files| files.get("a").cloned()).collect();
        for possible in [None, Some(vec![1]), Some(vec![2])] {
            assert!(before.contains(&possible), "{possible:?}");
        }
        contents.flush_names();
        assert!(remains(&contents).iter().all(|files| files["a"] == [2]));
    }

    #[test]
    fn what_a_failed_flush_has_lost_does_not_come_back() {
        let mut contents = Contents::default();
        let file = contents.open("a", Some(vec![1]));
        contents.write(file, 0, &[2]);
        contents.forget_changes(file);
        contents.flush(file);
        assert!(remains(&contents).iter().all(|files| files["a"] == [1]));
    }
}
