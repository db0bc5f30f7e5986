//! Recorders on plain old objects in memory.
