//! A file system for SQLite, for tests, that fails and loses data that was not flushed.
//!
//! A [`Disk`] is a directory whose files SQLite opens through the file system (VFS) of this crate, which
//! counts all calls and forwards them to SQLite's default one. A [fault](Fault) can be injected at the n-th
//! call of a kind. The data that would survive a power cut is recorded beside the files: see
//! [`Disk::salvage`].
//!
#![doc = include_str!("../README.md")]

mod contents;
mod disk;
mod shim;

pub use disk::{Disk, Fault, Operation};
