//! Recorders on PostgreSQL.
