//! Virtual environments with versions of the Python library, made in `target/python`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Each has its `python/requirements-<version>.txt`.
const VERSIONS: [&str; 2] = ["9.1", "9.5"];

/// The directory of the environments, `python-9.1` and `python-9.5`.
pub(crate) fn directory() -> PathBuf {
    workspace::target().join("python")
}

/// The Python of a version's environment.
pub(crate) fn program(version: &str) -> PathBuf {
    directory().join(format!("python-{version}")).join("bin").join("python")
}

/// Makes the environments that are missing.
pub(crate) fn make_environments() -> Result<()> {
    for version in VERSIONS {
        let requirements = workspace::root().join(format!("tools/interop/python/requirements-{version}.txt"));
        provide(&directory().join(format!("python-{version}")), &requirements)?;
    }
    Ok(())
}

/// Makes the environment, unless it has been made from the same requirements.
fn provide(environment: &Path, requirements: &Path) -> Result<()> {
    let required =
        fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let installed = environment.join("installed.txt");
    if fs::read(&installed).is_ok_and(|installed| installed == required) {
        return Ok(());
    }
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(environment);
    process::check(&mut create)
        .context("Python 3 with venv is needed; on Debian and Ubuntu: apt-get install python3-venv")?;
    let mut install = Command::new(environment.join("bin").join("python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    process::check(install.arg(requirements)).context("the Python library cannot be installed")?;
    fs::write(&installed, required).with_context(|| format!("cannot write {}", installed.display()))
}
