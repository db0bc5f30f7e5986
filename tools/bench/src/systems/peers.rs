//! Rust libraries that a user would choose instead, built from the package registry in a separate workspace
//! (`peers`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::program::{Program, Programs};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// A library, and the package of its adapter in the workspace.
struct Peer {
    library: &'static str,
    package: &'static str,
}

const SQLITE: [Peer; 3] = [
    Peer { library: "sqlite-es", package: "peer-cqrs-es" },
    Peer { library: "evento", package: "peer-evento" },
    // Stores in a file, too, through its own server.
    Peer { library: "umadb-server", package: "peer-umadb" },
];
const POSTGRES: [Peer; 3] = [
    Peer { library: "postgres-es", package: "peer-cqrs-es" },
    Peer { library: "evento", package: "peer-evento" },
    Peer { library: "disintegrate-postgres", package: "peer-disintegrate" },
];

/// Adds each peer, or the reason why it is not available. The directory keeps the builds.
pub(crate) fn join(programs: &mut Programs, directory: &Path) -> Result<()> {
    let lock =
        fs::read_to_string(Path::new(WORKSPACE).join("Cargo.lock")).context("peers have no lock file")?;
    let target = directory.join("peers");
    let program = |Peer { library, package }: Peer| {
        let name = format!("{library} {}", version(&lock, library).unwrap_or_default());
        Program::new(name, build(package, &target).map(|executable| vec![executable]))
    };
    programs.sqlite = SQLITE.map(program).to_vec();
    programs.postgres = POSTGRES.map(program).to_vec();
    Ok(())
}

fn build(package: &str, target: &Path) -> Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet", "--package", package])
        .current_dir(WORKSPACE)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .context("cannot run cargo")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the build failed: {}", first_error(&errors));
    Ok(target.join("release").join(package))
}

/// Returns the line with the reason from the output of cargo.
fn first_error(errors: &str) -> &str {
    let mut lines = errors.lines().map(str::trim);
    lines.find(|line| line.starts_with("error") || line.starts_with("Error")).unwrap_or("no error message")
}

/// Returns the version of a package in a lock file.
fn version<'a>(lock: &'a str, package: &str) -> Result<&'a str> {
    let entry = lock.split_once(&format!("name = \"{package}\"\nversion = \""));
    let rest = entry.ok_or_else(|| anyhow!("{package} is not locked"))?.1;
    Ok(rest.split('"').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{POSTGRES, SQLITE, WORKSPACE, first_error, version};

    #[test]
    fn every_peer_is_locked() {
        let lock = std::fs::read_to_string(format!("{WORKSPACE}/Cargo.lock")).unwrap();
        for peer in SQLITE.into_iter().chain(POSTGRES) {
            assert!(!version(&lock, peer.library).unwrap().is_empty());
            assert!(version(&lock, peer.package).is_ok());
        }
        assert!(version(&lock, "an unknown package").is_err());
    }

    #[test]
    fn the_error_is_found_in_the_output_of_cargo() {
        let output =
            "   Compiling one\nerror: failed to run custom build command\n  Error: Could not find `protoc`";
        assert_eq!(first_error(output), "error: failed to run custom build command");
        assert_eq!(first_error("killed"), "no error message");
    }
}
