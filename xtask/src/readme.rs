//! `cargo xtask readme`: the snippets of every README, pasted into new packages, compile and run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, workspace};

/// Makes a package for each README with its own `cargo add` lines, and builds and runs its snippets.
pub(crate) fn run() -> Result<()> {
    let directory = workspace::target().join("readme");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let readmes = readmes()?;
    let members: Vec<_> = readmes.iter().map(|readme| readme.package.as_str()).collect();
    // The profile of this workspace, so that compiled dependencies are shared with it.
    let manifest = fs::read_to_string(workspace::root().join("Cargo.toml"))?;
    let profile: String = sections(&manifest).filter(|section| section.starts_with("[profile.dev")).collect();
    let manifest = format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n{profile}");
    fs::write(directory.join("Cargo.toml"), manifest)?;
    fs::copy(workspace::root().join("Cargo.lock"), directory.join("Cargo.lock"))?;
    for readme in &readmes {
        readme.write(&directory)?;
    }
    readmes.iter().try_for_each(|readme| readme.check(&directory))
}

struct Readme {
    path: PathBuf,
    package: String,
    text: String,
}

/// Returns the README of the repository, which is also the facade's, and those of the other published crates.
fn readmes() -> Result<Vec<Readme>> {
    let mut readmes = Vec::new();
    for entry in fs::read_dir(workspace::root().join("crates"))? {
        let path = entry?.path().join("README.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // A program has no snippets, and a package without targets cannot be built.
        if !text.contains("```rust") {
            continue;
        }
        let name = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        readmes.push(Readme { package: format!("readme-of-{name}"), path, text });
    }
    readmes.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(readmes)
}

/// The sections of a manifest, with their headings.
fn sections(manifest: &str) -> impl Iterator<Item = &str> {
    let starts = manifest.match_indices("\n[").map(|(at, _)| at + 1).chain([manifest.len()]);
    let starts: Vec<_> = starts.collect();
    starts.windows(2).map(|bounds| &manifest[bounds[0]..bounds[1]]).collect::<Vec<_>>().into_iter()
}

/// A fenced block of Rust.
#[derive(Debug, PartialEq)]
struct Snippet<'a> {
    text: &'a str,
    runs: bool,
}

fn snippets(text: &str) -> Result<Vec<Snippet<'_>>> {
    let mut snippets = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once("```rust") {
        let (info, block) = block.split_once('\n').context("a code fence without an end")?;
        let (text, after) = block.split_once("\n```").context("a code fence without an end")?;
        let runs = match info {
            "" => true,
            ",no_run" => false,
            _ => bail!("a snippet is `rust{info}`: all of them have to compile"),
        };
        snippets.push(Snippet { text, runs });
        rest = after;
    }
    Ok(snippets)
}

/// The arguments of the `cargo add` lines, one line for each of our own packages.
fn additions(text: &str) -> Vec<Vec<String>> {
    let mut additions = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("$ cargo add ")) {
        let (own, others): (Vec<_>, Vec<_>) =
            line.split_whitespace().partition(|word| word.starts_with("es-"));
        for package in &own {
            let path = workspace::root().join("crates").join(package);
            let mut arguments = vec!["--path".to_owned(), path.display().to_string()];
            arguments.extend(others.iter().map(ToString::to_string));
            additions.push(arguments);
        }
        if own.is_empty() {
            additions.push(others.into_iter().map(str::to_owned).collect());
        }
    }
    additions
}

impl Readme {
    fn write(&self, directory: &Path) -> Result<()> {
        let package = directory.join(&self.package);
        fs::create_dir_all(package.join("src/bin"))?;
        fs::create_dir_all(package.join("tests"))?;
        let name = &self.package;
        let manifest =
            format!("[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n");
        fs::write(package.join("Cargo.toml"), manifest)?;
        let snippets = snippets(&self.text).with_context(|| self.path.display().to_string())?;
        for (number, snippet) in (1..).zip(&snippets) {
            // A snippet that begins with the name of a file belongs into that file.
            let file = match snippet.text.strip_prefix("// tests/") {
                Some(_) => format!("tests/snippet_{number}.rs"),
                None => format!("src/bin/{}_{number}.rs", self.package),
            };
            fs::write(package.join(file), snippet.text)?;
        }
        Ok(())
    }

    fn check(&self, directory: &Path) -> Result<()> {
        let package = directory.join(&self.package);
        let snippets = snippets(&self.text)?;
        eprintln!("=== {}: {} snippets", self.path.display(), snippets.len());
        for arguments in additions(&self.text) {
            process::check(
                workspace::cargo().args(["add", "--quiet"]).args(arguments).current_dir(&package),
            )?;
        }
        let cargo = |subcommand: &str| {
            let mut command = workspace::cargo();
            command.args([subcommand, "--quiet"]).current_dir(&package);
            command.env("CARGO_TARGET_DIR", workspace::target());
            command
        };
        process::check(&mut cargo("build"))?;
        for (number, snippet) in (1..).zip(&snippets) {
            if snippet.text.starts_with("// tests/") {
                process::check(cargo("test").args(["--test", &format!("snippet_{number}")]))?;
            } else if snippet.runs {
                process::check(cargo("run").args(["--bin", &format!("{}_{number}", self.package)]))?;
            }
        }
        ensure!(!snippets.is_empty(), "{} has no snippet", self.path.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Snippet, additions, sections, snippets};

    #[test]
    fn snippets_are_the_fenced_blocks_of_rust() {
        let text =
            "# A\n```rust\nfn main() {}\n```\n```console\n$ ls\n```\n```rust,no_run\nfn main() {}\n\n```\n";
        let found = snippets(text).unwrap();
        assert_eq!(found[0], Snippet { text: "fn main() {}", runs: true });
        assert!(!found[1].runs);
        assert!(snippets("```rust,ignore\nno\n```").is_err());
        assert!(snippets("```rust\nno").is_err());
    }

    #[test]
    fn own_packages_are_added_by_path() {
        let added =
            additions("$ cargo add es-core es-popo\n$ cargo add tokio --features macros\n$ cargo run\n");
        assert_eq!(added.len(), 3);
        assert!(added[1][1].ends_with("crates/es-popo"));
        assert_eq!(added[2], ["tokio", "--features", "macros"]);
    }

    #[test]
    fn sections_begin_with_their_heading() {
        let found: Vec<_> = sections("# a\n[a]\nb = 1\n[c.d]\n").collect();
        assert_eq!(found, ["[a]\nb = 1\n", "[c.d]\n"]);
    }
}
