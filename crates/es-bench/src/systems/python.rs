//! The Python library, from the package index, in virtual environments that are made when they are missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::program::Program;

pub(crate) const PYTHON_9_1: &str = "Python 9.1.9";
pub(crate) const PYTHON_9_5: &str = "Python 9.5.6";

const ADAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/adapter.py");
/// Says what was installed once all of it was.
const INSTALLED: &str = "installed";

/// Versions of the library, with the drivers and ciphers that its users take.
const VERSIONS: [(&str, &[&str]); 2] = [
    (PYTHON_9_1, &["eventsourcing==9.1.9", "psycopg2-binary", "pycryptodome"]),
    (PYTHON_9_5, &["eventsourcing==9.5.6", "psycopg[binary,pool]", "pycryptodome", "cryptography"]),
];

/// Each version, or why it cannot be had; the environments are made in the directory.
pub(crate) fn programs(directory: &Path) -> Vec<Program> {
    let program = |(name, packages)| {
        let python = environment(&directory.join(name), packages);
        Program::new(name, python.map(|python| vec![python, ADAPTER.into()]))
    };
    VERSIONS.into_iter().map(program).collect()
}

/// The same, left out.
pub(crate) fn left_out() -> Vec<Program> {
    let program = |(name, _)| Program::new(name, Err(anyhow!("left out by --without-python")));
    VERSIONS.into_iter().map(program).collect()
}

/// The interpreter of an environment with these packages.
fn environment(directory: &Path, packages: &[&str]) -> Result<PathBuf> {
    let python = directory.join("bin").join("python");
    let (installed, wanted) = (directory.join(INSTALLED), packages.join("\n"));
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(python)
}

/// An error tells the last line that the command complained with.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!("{program}: {}", complaint.lines().last().unwrap_or("it failed without a word"))
}

#[cfg(test)]
mod tests {
    use super::{environment, run};

    #[test]
    fn the_last_word_of_a_failed_command_is_the_reason() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo first >&2; echo 'no such package' >&2; exit 1"]);
        assert_eq!(run(&mut command).unwrap_err().to_string(), "sh: no such package");
    }

    #[test]
    fn an_environment_that_has_everything_is_used_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("installed"), "one\ntwo").unwrap();
        let python = environment(directory.path(), &["one", "two"]).unwrap();
        assert!(python.ends_with("bin/python"));
    }
}
