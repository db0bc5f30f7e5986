//! The tool leaves no core dump, which would contain its keys.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::support::{Running, Sandbox};

/// Starts a program that may leave core dumps of any size.
fn start(sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -c unlimited; exec "$0" "$@""#, program]).args(arguments);
    command.current_dir(sandbox.path("")).stdout(Stdio::piped()).spawn().unwrap()
}

fn aborted(child: &mut Child) -> ExitStatus {
    let kill = Command::new("kill").args(["-ABRT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    child.wait().unwrap()
}

#[test]
fn an_aborted_command_leaves_no_core_dump() {
    let sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    let mut other = Running(start(&sandbox, "cat", &["/dev/zero"]));
    // Otherwise the program may not have begun.
    let mut zeros = BufReader::new(other.0.stdout.take().unwrap());
    zeros.fill_buf().unwrap();
    if !aborted(&mut other.0).core_dumped() {
        return eprintln!("left out: no program leaves a core dump here");
    }
    let log = ["log", "-d", "sqlite:bank.db", "--follow", "--format", "{id}"];
    let mut tool = Running(start(&sandbox, env!("CARGO_BIN_EXE_es"), &log));
    let mut lines = BufReader::new(tool.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    let status = aborted(&mut tool.0);
    assert!(!status.core_dumped(), "{status}");
}
