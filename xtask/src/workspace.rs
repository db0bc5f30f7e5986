//! The directories of the workspace, and `cargo` in it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The directory of the root manifest.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Returns Cargo's target directory, which holds everything that can be deleted.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |directory| root().join(directory))
}

/// `cargo`, in the root of the workspace.
///
/// `cargo run` describes xtask's own package in the environment. Build scripts that watch those variables
/// (ring's does) would run again on each change between a plain `cargo build` and one beneath xtask, so they
/// are removed.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(describes_a_package) {
            command.env_remove(name);
        }
    }
    command
}

/// `cargo fmt` with one import style: one block of the standard library, one of other crates, one of this
/// crate, each crate once.
///
/// These options are unstable, though they have not changed since 2020. They are set here and not in
/// rustfmt.toml, where a plain `cargo fmt` would warn about them.
pub(crate) fn format(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.env("RUSTC_BOOTSTRAP", "1").args(["fmt", "--all", "--"]).args(arguments);
    command.args(["--config", "imports_granularity=Crate,group_imports=StdExternalCrate"]);
    command
}

fn describes_a_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
}
