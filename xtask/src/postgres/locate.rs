//! Locates the programs of an installed PostgreSQL server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const DEBIAN: &str = "/usr/lib/postgresql";

/// A directory that holds all programs of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// `directory` may hold links to the programs: a server finds its other files beside where it really is.
    pub(crate) fn in_directory(directory: &Path) -> Option<Self> {
        let initdb = fs::canonicalize(directory.join("initdb")).ok()?;
        let directory = initdb.parent()?;
        let is_complete = ["postgres", "pg_ctl"].iter().all(|program| directory.join(program).is_file());
        is_complete.then(|| Self(directory.to_owned()))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }

    /// Clients can be packaged apart from the server.
    pub(crate) fn psql(&self) -> PathBuf {
        Some(self.path("psql")).filter(|path| path.is_file()).unwrap_or_else(|| "psql".into())
    }
}

/// The first that is found: on PATH, where Debian installs (newest first), where `pg_config` points.
pub(crate) fn binaries() -> Option<Binaries> {
    let path = env::var_os("PATH").unwrap_or_default();
    first(env::split_paths(&path), Path::new(DEBIAN), pg_config)
}

/// The path of a program on PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

fn first(
    on_path: impl Iterator<Item = PathBuf>,
    debian: &Path,
    pg_config: impl FnOnce() -> Option<PathBuf>,
) -> Option<Binaries> {
    on_path
        .chain(debian_directories(debian))
        .find_map(|directory| Binaries::in_directory(&directory))
        .or_else(|| Binaries::in_directory(&pg_config()?))
}

/// `<debian>/<major version>/bin`, newest first: by number, for 9 is older than 17.
fn debian_directories(debian: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(debian).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.into_iter().map(|(_, directory)| directory)
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    Some(directory.trim_end().into())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    use tempfile::TempDir;

    use super::{Binaries, first};

    /// A made-up machine: directories in which `install` puts (empty) programs.
    struct Machine(TempDir);

    impl Machine {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, directory: &str) -> PathBuf {
            // The system's directory for temporary files can be a link itself.
            fs::canonicalize(self.0.path()).unwrap().join(directory)
        }

        fn install(&self, directory: &str, programs: &[&str]) -> PathBuf {
            let directory = self.path(directory);
            fs::create_dir_all(&directory).unwrap();
            for program in programs {
                fs::write(directory.join(program), "").unwrap();
            }
            directory
        }

        fn first(&self, pg_config: Option<&str>) -> Option<Binaries> {
            let on_path = ["empty", "bin"].map(|directory| self.path(directory));
            first(on_path.into_iter(), &self.path("debian"), || Some(self.path(pg_config?)))
        }
    }

    const SERVER: [&str; 3] = ["initdb", "postgres", "pg_ctl"];

    fn found(path: &Path) -> Option<Binaries> {
        Some(Binaries(path.to_owned()))
    }

    #[test]
    fn a_bare_machine_has_none() {
        assert_eq!(Machine::new().first(Some("nowhere")), None);
    }

    #[test]
    fn path_comes_before_debian_before_pg_config() {
        let machine = Machine::new();
        let pg_config = machine.install("pg_config", &SERVER);
        assert_eq!(machine.first(Some("pg_config")), found(&pg_config));
        let debian = machine.install("debian/15/bin", &SERVER);
        assert_eq!(machine.first(Some("pg_config")), found(&debian));
        let path = machine.install("bin", &SERVER);
        assert_eq!(machine.first(Some("pg_config")), found(&path));
    }

    #[test]
    fn of_debians_versions_the_newest_is_taken() {
        let machine = Machine::new();
        machine.install("debian/9/bin", &SERVER);
        machine.install("debian/15/bin", &SERVER);
        let newest = machine.install("debian/17/bin", &SERVER);
        machine.install("debian/18/bin", &["psql"]);
        machine.install("debian/common/bin", &SERVER);
        assert_eq!(machine.first(None), found(&newest));
    }

    #[test]
    fn links_lead_to_the_real_directory() {
        let machine = Machine::new();
        let real = machine.install("opt/postgresql/bin", &SERVER);
        let links = machine.install("bin", &[]);
        symlink(real.join("initdb"), links.join("initdb")).unwrap();
        assert_eq!(machine.first(None), found(&real));
    }

    #[test]
    fn clients_without_a_server_are_not_enough() {
        let machine = Machine::new();
        machine.install("bin", &["initdb", "pg_ctl", "psql"]);
        assert_eq!(machine.first(None), None);
    }
}
