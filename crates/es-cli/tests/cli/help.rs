//! Help, manual pages and completions.

use std::fs;

use crate::support::{Sandbox, assert_snapshot};

#[test]
fn help_of_every_command() {
    let sandbox = Sandbox::new();
    assert_snapshot("help", sandbox.run(&["--help"]).output());
    let commands = [
        "info",
        "log",
        "show",
        "topics",
        "top",
        "trackers",
        "ui",
        "verify",
        "copy",
        "export",
        "import",
        "track set",
        "track reset",
        "projections list",
        "projections switch",
        "projections rollback",
        "projections pause",
        "projections resume",
        "projections reset",
        "projections rebuild",
        "projections drop",
        "segments list",
        "segments split",
        "segments merge",
        "schema print",
        "schema check",
        "keys list",
        "keys usage",
        "keys rotate",
        "keys reencrypt",
        "keys erase",
        "completions",
        "man",
    ];
    for command in commands {
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        assert_snapshot(&format!("help-{}", command.replace(' ', "-")), sandbox.run(&words).output());
    }
}

#[test]
fn manual_pages_and_completions_are_generated() {
    let sandbox = Sandbox::new();
    sandbox.run(&["man", "."]).output();
    let page = fs::read_to_string(sandbox.path("es-log.1")).unwrap();
    assert!(page.contains(".SH NAME") && page.contains("\\-\\-follow"), "{page}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(sandbox.run(&["completions", shell]).output().contains("trackers"), "{shell}");
    }
}
