//! A disk that is soon full.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::cluster::is_root;

/// A file system of a few MB, until it is dropped.
#[derive(Debug)]
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// Mounts one; none where this user may not.
    pub fn mount(directory: &Path, megabytes: usize) -> Option<Self> {
        if is_root() && is_mounted(&format!("size={megabytes}m"), directory) {
            return Some(Self(directory.to_owned()));
        }
        println!("skipped: a small file system cannot be mounted by this user");
        None
    }

    /// Makes room.
    pub fn resize(&self, megabytes: usize) {
        assert!(is_mounted(&format!("remount,size={megabytes}m"), &self.0), "{self:?} cannot be resized");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn is_mounted(options: &str, directory: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory);
    mount.output().is_ok_and(|output| output.status.success())
}
