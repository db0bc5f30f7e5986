//! The Python library, in the virtual environments that `cargo xtask` makes.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};

use super::program::Program;

pub(crate) const PYTHON_9_1: &str = "Python 9.1.9";
pub(crate) const PYTHON_9_5: &str = "Python 9.5.6";

const ADAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/adapter.py");

/// Each version and its environment.
const VERSIONS: [(&str, &str); 2] = [(PYTHON_9_1, "python-9.1"), (PYTHON_9_5, "python-9.5")];

/// Returns each version, or the reason why it is not available.
pub(crate) fn programs(environments: Option<&Path>) -> Vec<Program> {
    let program = |(name, environment): (&str, &str)| {
        let python = environments
            .ok_or_else(|| anyhow!("left out"))
            .and_then(|environments| interpreter(&environments.join(environment)));
        Program::new(name, python.map(|python| vec![python, ADAPTER.into()]))
    };
    VERSIONS.into_iter().map(program).collect()
}

/// Returns the interpreter of a complete environment, recognized by the file that is written last.
fn interpreter(environment: &Path) -> Result<PathBuf> {
    let is_complete = environment.join("installed.txt").is_file();
    ensure!(is_complete, "{} is not a complete virtual environment", environment.display());
    Ok(environment.join("bin").join("python"))
}

#[cfg(test)]
mod tests {
    use super::interpreter;

    #[test]
    fn an_environment_is_used_once_it_has_everything() {
        let directory = tempfile::tempdir().unwrap();
        let error = interpreter(directory.path()).unwrap_err().to_string();
        assert!(error.ends_with("is not a complete virtual environment"), "{error}");
        std::fs::write(directory.path().join("installed.txt"), "").unwrap();
        assert!(interpreter(directory.path()).unwrap().ends_with("bin/python"));
    }
}
