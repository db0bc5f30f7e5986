//! For tests: a disk that fails, and loses what was not flushed, under SQLite.
//!
//! A [`Disk`] is a directory whose files SQLite opens through the file system (VFS) of this crate, which passes
//! everything on to SQLite's default one and counts it. At the n-th call of a kind, [a fault](Fault) can be had. What
//! would survive a power cut is kept beside the files, as [`Disk::salvage`] tells.
//!
#![doc = include_str!("../README.md")]

mod contents;
mod disk;
mod shim;

pub use disk::{Disk, Fault, Operation};
