//! The chapters of the guide: in the summary of the book, in the facade's module, and with existing anchors.
//!
//! rustdoc checks the links to chapters and items, but not their anchors.

use std::path::Path;

use anyhow::Result;

use super::{Finding, names, read};
use crate::book::{chapters, included};

const GUIDE: &str = "crates/es-persistence/src/guide";

pub(super) fn findings(root: &Path) -> Result<Vec<Finding>> {
    let guide = Path::new(GUIDE);
    let summary = read(&root.join(guide).join("SUMMARY.md"))?;
    let module = read(&root.join(guide).with_extension("rs"))?;
    let mut files = Vec::new();
    for name in names(&root.join(guide))? {
        if name != "SUMMARY.md" {
            files.push((read(&root.join(guide).join(&name))?, name));
        }
    }
    let mut findings = Vec::new();
    for (text, name) in &files {
        let mut found = |line, message| findings.push(Finding { path: guide.join(name), line, message });
        if !chapters(&summary).any(|(_, file)| file == name) {
            found(0, "is not in SUMMARY.md".to_owned());
        }
        if !included(&module).any(|file| file == name) {
            found(0, "is not in guide.rs".to_owned());
        }
        for (line, chapter, anchor) in anchors(text) {
            let target = files.iter().find(|(_, name)| name.strip_suffix(".md") == Some(chapter));
            if !target.is_some_and(|(text, _)| headings(text).any(|heading| heading == anchor)) {
                found(line, format!("chapter {chapter:?} has no heading {anchor:?}"));
            }
        }
    }
    Ok(findings)
}

/// The links to headings of chapters: line, chapter and anchor.
fn anchors(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let lines = (1..).zip(text.lines());
    lines.flat_map(|(number, line)| {
        let targets = line.split("](crate::guide::").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        targets.filter_map(move |target| {
            let (chapter, anchor) = target.split_once('#')?;
            Some((number, chapter, anchor))
        })
    })
}

/// The anchors of the headings, as rustdoc and mdBook make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let mut is_code = false;
    let lines = text.lines().filter(move |line| {
        is_code ^= line.starts_with("```");
        !is_code && line.starts_with('#')
    });
    lines.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|character| character.is_alphanumeric() || "-_".contains(*character)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::{anchors, headings};

    #[test]
    fn links_to_headings_are_found() {
        let text =
            "# A b: c\n```rust\n# hidden\n```\n[x](crate::guide::next#a-b-c), [y](crate::guide::next)\n";
        assert_eq!(anchors(text).collect::<Vec<_>>(), [(5, "next", "a-b-c")]);
        assert_eq!(headings(text).collect::<Vec<_>>(), ["a-b-c"]);
    }
}
