//! The rules that every recorder keeps, as tests for any recorder.
