//! `cargo xtask book`: the guide as a book of HTML pages, by mdBook.
//!
//! The chapters are the documentation of the facade's module `guide`, so that rustdoc checks their links and
//! runs their snippets. A chapter of the book also has a title, and links that lead out of the book.

use std::fs;

use anyhow::{Context, Result};

use crate::{process, tools, workspace};

/// The book's own files; `src` leads to the chapters in the facade.
const BOOK: &str = "docs/book";
/// The pictures, by the address that the library's documentation uses; the book has them beside its chapters.
const PICTURES: &str =
    "https://raw.githubusercontent.com/es-persistence/es-persistence/main/docs/book/pictures/";
/// The pages of the library's documentation, which find an item by its path.
const DOCUMENTATION: &str = "https://docs.rs/es-persistence/latest/es_persistence/?search=";

/// Builds the book into `target/book/html`.
pub(crate) fn run() -> Result<()> {
    let (from, to) = (workspace::root().join(BOOK), workspace::target().join("book"));
    fs::create_dir_all(to.join("src"))?;
    for name in ["book.toml", "book.css"] {
        fs::copy(from.join(name), to.join(name)).with_context(|| name.to_owned())?;
    }
    fs::create_dir_all(to.join("src/pictures"))?;
    for picture in fs::read_dir(from.join("pictures"))? {
        let picture = picture?;
        fs::copy(picture.path(), to.join("src/pictures").join(picture.file_name()))?;
    }
    let summary = fs::read_to_string(from.join("src/SUMMARY.md"))?;
    for (title, file) in chapters(&summary) {
        let text = fs::read_to_string(from.join("src").join(file)).with_context(|| file.to_owned())?;
        fs::write(to.join("src").join(file), chapter(title, &text))?;
    }
    fs::write(to.join("src/SUMMARY.md"), &summary)?;
    process::check(tools::MDBOOK.program()?.arg("build").arg(&to).arg("--dest-dir").arg(to.join("html")))?;
    println!("{}", to.join("html/index.html").display());
    Ok(())
}

/// Returns title and file of each chapter of a summary.
pub(crate) fn chapters(summary: &str) -> impl Iterator<Item = (&str, &str)> {
    summary.lines().filter_map(|line| {
        let (title, rest) = line.trim_start_matches("- ").strip_prefix('[')?.split_once("](")?;
        Some((title, rest.strip_suffix(')')?))
    })
}

/// Returns the chapters that the facade's module includes.
pub(crate) fn included(module: &str) -> impl Iterator<Item = &str> {
    module.split("include_str!(\"guide/").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0))
}

/// The text of a chapter: its title instead of the one in the summary line, headings of the next level, and
/// links that the book has.
fn chapter(title: &str, text: &str) -> String {
    let mut chapter = format!("# {title}\n\n");
    let (summary, text) = text.split_once('\n').unwrap_or((text, ""));
    let summary = summary.split_once(": ").map_or(summary, |(_, summary)| summary);
    let (first, rest) = summary.split_at(summary.chars().next().map_or(0, char::len_utf8));
    chapter.push_str(&format!("{}{rest}\n", first.to_uppercase()));
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code && line.starts_with('#') {
            chapter.push('#');
        }
        chapter.push_str(&if is_code { line.to_owned() } else { linked(line) });
        chapter.push('\n');
    }
    chapter
}

/// Replaces links to items of the crate: to chapters by files of the book, to others by its documentation.
fn linked(line: &str) -> String {
    let mut parts = line.split("](");
    let mut linked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        linked.push_str("](");
        let (target, rest) = part.split_at(part.find(')').unwrap_or(part.len()));
        let path = target.trim_start_matches("derive@").strip_prefix("crate::");
        match path.map(|path| (path, path.strip_prefix("guide::"))) {
            Some((_, Some(chapter))) => {
                let (name, anchor) = chapter.split_at(chapter.find('#').unwrap_or(chapter.len()));
                linked.push_str(&format!("{name}.md{anchor}"));
            }
            Some((path, None)) => linked.push_str(&format!("{DOCUMENTATION}{path}")),
            None => linked.push_str(&target.replace(PICTURES, "pictures/")),
        }
        linked.push_str(rest);
    }
    linked
}

#[cfg(test)]
mod tests {
    use super::{chapter, chapters, included};

    #[test]
    fn chapters_have_titles_and_files() {
        let summary = "# Summary\n\n[Start](start.md)\n\n# Part\n\n- [Next](next.md)\n";
        assert_eq!(chapters(summary).collect::<Vec<_>>(), [("Start", "start.md"), ("Next", "next.md")]);
        let module = "#[doc = include_str!(\"guide/next.md\")]\npub mod next {}\n";
        assert_eq!(included(module).collect::<Vec<_>>(), ["next.md"]);
    }

    #[test]
    fn a_chapter_has_a_title_and_links_of_the_book() {
        let text = "Title: the intro.\n\n# Head\n```rust\n# hidden(crate::x);\n```\n[a](crate::guide::next#b) \
                    [`C`](crate::C)\n![d](https://raw.githubusercontent.com/es-persistence/es-persistence/main/docs/book/pictures/d.png)";
        let expected = "# T\n\nThe intro.\n\n## Head\n```rust\n# hidden(crate::x);\n```\n[a](next.md#b) \
                        [`C`](https://docs.rs/es-persistence/latest/es_persistence/?search=C)\n![d](pictures/d.png)\n";
        assert_eq!(chapter("T", text), expected);
    }
}
