//! Event persistence: stores and retrieves domain events in memory, SQLite and PostgreSQL.
