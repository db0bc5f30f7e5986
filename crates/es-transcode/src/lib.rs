//! JSON transcoder whose bytes are those of the Python eventsourcing library.
