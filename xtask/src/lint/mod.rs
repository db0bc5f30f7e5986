//! `cargo xtask lint`: the rules of this repository that neither rustfmt nor clippy knows.

mod book;
mod crates;
mod language;
mod modules;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::workspace;

/// Check language, comment width, module cycles, the direction between crates, and the guide
///
/// Without arguments, every check runs.
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Run only this check; can be repeated
    #[arg(long = "only", value_name = "CHECK")]
    checks: Vec<Check>,
    /// Report only files whose path starts with this
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
}

/// One rule of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Words of comments, names of functions and Markdown; summary lines
    Language,
    /// Comment lines within the width of the formatter
    Width,
    /// No import cycle between the modules of a crate
    Modules,
    /// Dependencies between crates point one way
    Crates,
    /// The guide's chapters are in its summary and module, and its anchors exist
    Book,
}

/// A violation of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Relative to the root of the workspace.
    path: PathBuf,
    /// From 1; 0 if the finding concerns the whole file.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if self.line > 0 {
            write!(formatter, ":{}", self.line)?;
        }
        write!(formatter, ": {}", self.message)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let checks =
        if arguments.checks.is_empty() { Check::value_variants() } else { arguments.checks.as_slice() };
    let under = arguments.path.as_deref().unwrap_or(Path::new(""));
    let root = workspace::root();
    let mut findings = Vec::new();
    if checks.contains(&Check::Language) || checks.contains(&Check::Width) {
        for path in files(root, Path::new(""))? {
            let text = read(&root.join(&path))?;
            let found = language::findings(&path, &text, checks);
            findings.extend(found.into_iter().map(|(line, message)| Finding {
                path: path.clone(),
                line,
                message,
            }));
        }
    }
    if checks.contains(&Check::Modules) {
        findings.extend(modules::findings(root)?);
    }
    if checks.contains(&Check::Crates) {
        findings.extend(crates::findings(root)?);
    }
    if checks.contains(&Check::Book) {
        findings.extend(book::findings(root)?);
    }
    findings.retain(|finding| finding.path.starts_with(under));
    for finding in &findings {
        eprintln!("{finding}");
    }
    ensure!(findings.is_empty(), "{} findings", findings.len());
    Ok(())
}

/// The Rust and Markdown files beneath a directory, in order; without links, hidden and build directories.
fn files(root: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in names(&root.join(directory))? {
        let path = directory.join(&name);
        if name.starts_with('.') || name == "target" || root.join(&path).is_symlink() {
            continue;
        } else if root.join(&path).is_dir() {
            found.extend(files(root, &path)?);
        } else if matches!(path.extension().and_then(|extension| extension.to_str()), Some("rs" | "md")) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The names of a directory's entries, in order.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
