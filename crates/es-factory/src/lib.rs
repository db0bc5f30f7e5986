//! Builds recorders, mappers and event stores from environment variables.
