//! Recorders on SQLite.
