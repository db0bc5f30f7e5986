//! A directory with databases, the tool in it, and snapshots of its output.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use es_sqlite::rusqlite::Connection;
use tempfile::TempDir;

/// A directory of a test, in which the tool runs without variables of the test's own environment.
pub(crate) struct Sandbox {
    directory: TempDir,
    variables: Vec<(String, String)>,
}

/// The outcome of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// A directory with a database of the Python library, named `bank.db`.
    pub(crate) fn with_python_database(name: &str) -> Self {
        let sandbox = Self::new();
        fs::copy(python(&format!("{name}.db")), sandbox.path("bank.db")).unwrap();
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Executes SQL on `bank.db`.
    pub(crate) fn execute(&self, sql: &str) {
        Connection::open(self.path("bank.db")).unwrap().execute_batch(sql).unwrap();
    }

    /// Sets a variable for all later runs.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_es"));
        command.args(arguments).current_dir(self.directory.path()).env_clear().stdin(Stdio::null());
        command.envs(self.variables());
        command
    }

    /// Runs the tool.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        Run {
            exit: status.code().unwrap(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs the tool on `bank.db`, whose environment names it.
    pub(crate) fn on_bank(&self, arguments: &[&str]) -> Run {
        self.run(&[arguments, &["--database", "sqlite:bank.db"]].concat())
    }

    /// Starts the tool with a pipe for its standard output.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }
}

/// A running tool, which ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    /// Returns the standard output of a run that must have succeeded.
    pub(crate) fn output(&self) -> &str {
        assert_eq!((self.exit, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        &self.stdout
    }

    /// Verifies the exit code, and that the error contains a text.
    pub(crate) fn fails_with(&self, exit: i32, message: &str) {
        assert!(
            self.exit == exit && self.stderr.contains(message),
            "expected {exit} and {message:?}: {self:?}"
        );
    }
}

/// Compares a text with the file `tests/cli/snapshots/NAME.txt`; with `UPDATE_SNAPSHOTS=1`, writes the file.
pub(crate) fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots").join(format!("{name}.txt"));
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "differs from {path:?}; if the change is intended, run the test with UPDATE_SNAPSHOTS=1:\n{text}"
    );
}

/// The path of a file that the Python library wrote.
pub(crate) fn python(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/python").join(file)
}
