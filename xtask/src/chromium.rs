//! The browser in which the page of `es ui` is tested.

use std::{env, ffi::OsString, path::PathBuf};

/// The package whose tests use a browser.
const PACKAGE: &str = "es-cli";
/// The variable with the program, for tests.
const PROGRAM: &str = "CHROMIUM";
/// The variable by which tests do not look for a browser.
const WITHOUT: &str = "ES_TEST_WITHOUT_CHROMIUM";
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Returns the variable that tests read: the program, or that there is none.
pub(crate) fn variable() -> (&'static str, OsString) {
    match find() {
        Some(program) => (PROGRAM, program.into_os_string()),
        None => (WITHOUT, "1".into()),
    }
}

/// Returns whether tests of these packages, or of all if empty, go without a browser that they need.
pub(crate) fn is_left_out(packages: &[String], exclude: &[String]) -> bool {
    let is_tested = packages.is_empty() || packages.iter().any(|package| package == PACKAGE);
    is_tested && !exclude.iter().any(|package| package == PACKAGE) && find().is_none()
}

/// Returns the program of the variable, else the first that is installed.
fn find() -> Option<PathBuf> {
    if let Some(program) = env::var_os(PROGRAM) {
        return Some(program.into());
    }
    let path = env::var_os("PATH")?;
    let directories: Vec<_> = env::split_paths(&path).collect();
    let mut candidates =
        NAMES.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    candidates.find(|program| program.is_file())
}
