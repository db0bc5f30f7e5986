//! Tests of the tool `es` as a process: its output, its errors and its exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test unwraps the values that it expects"
)]

#[cfg(all(feature = "ui", unix))]
mod browsing;
#[cfg(all(feature = "ui", unix))]
mod chromium;
mod connecting;
mod copying;
#[cfg(target_os = "linux")]
mod core_dump;
mod erasing;
mod help;
mod inspecting;
mod keys;
mod postgres;
mod projections;
mod repairing;
#[cfg(unix)]
mod screens;
mod segments;
mod support;
#[cfg(unix)]
mod terminal;
#[cfg(all(feature = "ui", unix))]
mod ui;
mod verifying;
