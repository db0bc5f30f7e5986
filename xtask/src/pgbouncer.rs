//! `cargo xtask pgbouncer`: a pgbouncer that tracks prepared statements, for the tests.
//!
//! Debian 12 has version 1.18; tracking starts with 1.21. Debian 13's program is taken from the mirror that
//! this machine uses, together with the libraries that it needs, and unpacked into `target/pgbouncer`. A
//! script starts it with those libraries. Nothing is installed into the system.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;

use crate::{process::check, workspace};

/// A pgbouncer that tracks prepared statements, for the tests.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Unpack Debian 13's into target/pgbouncer, unless the installed one is 1.21 or newer; on Debian, with
    /// apt-get
    Install,
}

/// Names the program to tests.
const PROGRAM: &str = "ES_TEST_PGBOUNCER";
/// The paths at which distributions install it.
const INSTALLED: [&str; 3] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
/// The first version that tracks prepared statements.
const WANTED: (u32, u32) = (1, 21);
const SUITE: &str = "trixie";
/// The program, and the libraries that the dynamic linker reports for it.
const PACKAGES: [&str; 13] = [
    "pgbouncer",
    "libaudit1",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcares2",
    "libevent-2.1-7t64",
    "libgcc-s1",
    "libpam0g",
    "libssl3t64",
    "libsystemd0",
    "libzstd1",
    "zlib1g",
];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Install => {
            let program = provide()?;
            let (major, minor) = version(&program).context("it does not tell its version")?;
            println!("pgbouncer {major}.{minor}: {}", program.display());
            Ok(())
        }
    }
}

/// The variable that tests read. If the program is not available: none, and a message.
pub(crate) fn variable() -> Option<(&'static str, OsString)> {
    match provide() {
        Ok(program) => Some((PROGRAM, program.into_os_string())),
        Err(error) => {
            eprintln!("xtask: no pgbouncer that tracks prepared statements, tests run without: {error:#}");
            None
        }
    }
}

/// The installed program if it is new enough, else the unpacked one.
fn provide() -> Result<PathBuf> {
    let unpacked = directory().join("pgbouncer");
    let candidates = INSTALLED.map(PathBuf::from).into_iter().chain([unpacked.clone()]);
    if let Some(program) = candidates.into_iter().find(|program| is_new_enough(program)) {
        return Ok(program);
    }
    unpack()?;
    ensure!(is_new_enough(&unpacked), "the unpacked program does not run");
    Ok(unpacked)
}

fn is_new_enough(program: &Path) -> bool {
    version(program).is_some_and(|version| version >= WANTED)
}

fn version(program: &Path) -> Option<(u32, u32)> {
    let output = process::Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Major and minor version of `PgBouncer 1.24.1` and what follows.
fn parse_version(output: &str) -> Option<(u32, u32)> {
    let mut numbers = output.strip_prefix("PgBouncer ")?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn unpack() -> Result<()> {
    let directory = directory();
    if directory.exists() {
        fs::remove_dir_all(&directory).context("cannot delete an older one")?;
    }
    for name in ["lists/partial", "cache/archives/partial", "packages", "root"] {
        fs::create_dir_all(directory.join(name)).context("cannot create a directory beneath target")?;
    }
    let mirror = mirror()?;
    let keyring =
        if Path::new(KEYRING).is_file() { format!("Signed-By: {KEYRING}\n") } else { String::new() };
    let sources = format!(
        "Types: deb\nURIs: {mirror}\nSuites: {SUITE}\nComponents: main\nTargets: Packages\n{keyring}"
    );
    fs::write(directory.join("suite.sources"), sources).context("cannot write the package source")?;
    let packages = directory.join("packages");
    check(apt_get(&directory).args(["--quiet", "--quiet", "update"]))?;
    check(
        apt_get(&directory).args(["--quiet", "--quiet", "download"]).args(PACKAGES).current_dir(&packages),
    )?;
    let root = directory.join("root");
    for package in fs::read_dir(&packages).context("cannot list the packages")? {
        check(process::Command::new("dpkg-deb").arg("--extract").arg(package?.path()).arg(&root))?;
    }
    write_script(&directory, &root)
}

/// `apt-get` with lists and a package source of its own: the system's are neither read nor changed.
fn apt_get(directory: &Path) -> process::Command {
    let mut command = process::Command::new("apt-get");
    for (option, value) in [
        ("Dir::Etc::sourcelist", directory.join("suite.sources")),
        ("Dir::Etc::sourceparts", "-".into()),
        ("Dir::State::lists", directory.join("lists")),
        ("Dir::Cache", directory.join("cache")),
        ("APT::Sandbox::User", "root".into()),
        ("Acquire::Retries", "1".into()),
        ("Acquire::http::Timeout", "20".into()),
    ] {
        command.arg("-o").arg(format!("{option}={}", value.display()));
    }
    command
}

/// The mirror from which this machine takes its own release of Debian.
fn mirror() -> Result<String> {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |name: &str| {
        let line = system.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let Some(release) = value("VERSION_CODENAME").filter(|_| value("ID").as_deref() == Some("debian")) else {
        bail!("it is unpacked on Debian alone; on other systems install pgbouncer 1.21 or newer");
    };
    let mut command = process::Command::new("apt-get");
    command.args(["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]);
    let output = command.output().context("cannot run apt-get")?;
    let targets = String::from_utf8_lossy(&output.stdout);
    let mirror = targets.lines().find_map(|line| line.strip_prefix(&format!("{release} main ")));
    Ok(mirror.context("apt-get knows no mirror of this release")?.to_owned())
}

/// Writes the script that starts the program by its own dynamic linker, with its own libraries.
fn write_script(directory: &Path, root: &Path) -> Result<()> {
    let libraries = fs::read_dir(root.join("usr/lib")).context("the packages hold no libraries")?;
    let linker = libraries.flatten().find_map(|architecture| {
        let mut files = fs::read_dir(architecture.path()).ok()?.flatten();
        files.find(|file| file.file_name().to_string_lossy().starts_with("ld-linux")).map(|file| file.path())
    });
    let linker = linker.context("the packages hold no dynamic linker")?;
    let libraries = linker.parent().unwrap_or(&linker);
    let script = format!(
        "#!/bin/sh\nexec '{}' --library-path '{}' '{}' \"$@\"\n",
        linker.display(),
        libraries.display(),
        root.join("usr/sbin/pgbouncer").display()
    );
    let path = directory.join("pgbouncer");
    fs::write(&path, script).context("cannot write the script")?;
    fs::set_permissions(&path, Permissions::from_mode(0o755)).context("cannot make the script executable")
}

fn directory() -> PathBuf {
    workspace::target().join("pgbouncer")
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_are_compared_by_number() {
        let [old, new] =
            ["PgBouncer 1.9.0\n", "PgBouncer 1.24.1\nlibevent 2.1.13-stable\n"].map(parse_version);
        assert_eq!((old, new), (Some((1, 9)), Some((1, 24))));
        assert!(old < new);
        assert_eq!(parse_version("psql (PostgreSQL) 15.18"), None);
    }
}
