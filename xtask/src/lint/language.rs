//! Plain technical English in comments, names of functions and Markdown, and comment lines within the
//! formatter's width.

use std::path::Path;

use super::Check;

/// `max_width` of rustfmt.toml, which wraps code but not comments.
const WIDTH: usize = 110;

/// Phrases with the reason to avoid each. A phrase is a sequence of words, which may span lines.
const PHRASES: [(&str, &str); 23] = [
    ("nobody", "name the absent thing: \"no reader\", \"no caller\""),
    ("everybody", "name the actors: \"all readers\", \"all waiting tasks\""),
    ("whoever", "name the actor: \"the thread that\", \"a caller that\""),
    ("whom", "name the actor"),
    ("is told", "say \"receives\", \"returns\" or \"is configured\""),
    ("are told", "say \"receive\" or \"are configured\""),
    ("be told", "say \"receive\" or \"be configured\""),
    ("is asked", "say \"is called\" or \"is queried\""),
    ("at odds", "say \"conflicts with\""),
    ("comes to pass", "say \"happens\", or \"timed out\" for its opposite"),
    ("come to pass", "say \"happen\", or \"timed out\" for its opposite"),
    ("gives way", "say \"yields\" or \"is replaced\""),
    ("give way", "say \"yield\" or \"are replaced\""),
    ("does no harm", "say \"is safe\" or \"Cancel safe.\""),
    ("does no further harm", "say \"is safe\""),
    ("what was accepted", "say \"accepted writes\""),
    ("what stands", "say \"the current\" or \"the stored\""),
    ("none of its business", "say \"is ignored\""),
    ("has its say", "say \"runs\" or \"applies\""),
    ("have their say", "say \"run\" or \"apply\""),
    ("as it pleases", "say \"at any time\" or \"any value\""),
    ("for ever", "say \"without limit\" or \"permanently\""),
    ("twin", "say \"object-safe version\" or \"counterpart\""),
];

/// First words of a summary that make it a clause instead of a statement.
const CLAUSES: [&str; 7] = ["What", "Who", "Whoever", "Whether", "How", "Nobody", "None"];

/// The line and the message of each violation in a file.
pub(super) fn findings(path: &Path, text: &str, checks: &[Check]) -> Vec<(usize, String)> {
    let is_markdown = path.extension().is_some_and(|extension| extension == "md");
    let mut findings = Vec::new();
    if checks.contains(&Check::Width) && !is_markdown {
        findings.extend(long_comments(text));
    }
    if checks.contains(&Check::Language) {
        let lines: Vec<_> = if is_markdown { text.lines().enumerate().collect() } else { comments(text) };
        findings.extend(phrases(&lines));
        if !is_markdown {
            findings.extend(clauses(text));
            findings.extend(names(text));
        }
    }
    findings.sort();
    findings
}

/// Comment lines beyond the width, unless one word alone is that long (a link).
fn long_comments(text: &str) -> impl Iterator<Item = (usize, String)> {
    let too_long = |line: &str| {
        line.trim_start().starts_with("//")
            && line.chars().count() > WIDTH
            && line.split_whitespace().all(|word| word.chars().count() < WIDTH / 2)
    };
    let lines = text.lines().enumerate().filter(move |(_, line)| too_long(line));
    lines.map(|(index, line)| (index + 1, format!("comment of {} columns, of {WIDTH}", line.chars().count())))
}

/// The comments that have a line to themselves, without their markers.
fn comments(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(index, line)| Some((index, line.trim_start().strip_prefix("//")?))).collect()
}

fn phrases(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for &(index, line) in lines {
        let split = line.split(|character: char| !character.is_alphanumeric() && character != '_');
        words.extend(split.filter(|word| !word.is_empty()).map(|word| (index, word.to_lowercase())));
    }
    let mut findings = Vec::new();
    for (phrase, advice) in PHRASES {
        let phrase_words: Vec<_> = phrase.split(' ').collect();
        for window in words.windows(phrase_words.len()) {
            if window.iter().map(|(_, word)| word).eq(&phrase_words) {
                findings.extend(window.first().map(|(at, _)| (at + 1, format!("\"{phrase}\": {advice}"))));
            }
        }
    }
    findings
}

/// Functions, tests included, whose names contain a phrase.
fn names(text: &str) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((qualifiers, rest)) = line.split_once("fn ") else { continue };
        if !qualifiers.chars().all(|character| character.is_alphanumeric() || " ()".contains(character)) {
            continue;
        }
        let name = rest.split(|character: char| !character.is_alphanumeric() && character != '_').next();
        let name = format!("_{}_", name.unwrap_or_default());
        for (phrase, advice) in PHRASES {
            if name.contains(&format!("_{}_", phrase.replace(' ', "_"))) {
                findings.push((index + 1, format!("name with \"{phrase}\": {advice}")));
            }
        }
    }
    findings
}

/// Summaries of doc comments that are no statement: "Returns…" and "The highest…" are, "What…" is not.
fn clauses(text: &str) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    let mut was_documentation = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let summary = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if let Some(word) =
            summary.filter(|_| !was_documentation).and_then(|line| line.split_whitespace().next())
            && CLAUSES.contains(&word)
        {
            let advice = "start with a verb in the third person or a noun phrase";
            findings.push((index + 1, format!("summary starts with \"{word}\": {advice}")));
        }
        was_documentation = summary.is_some();
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Check, findings};

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let checks = [Check::Language, Check::Width];
        findings(Path::new(path), text, &checks).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn phrases_are_found_in_comments_and_across_lines() {
        assert_eq!(
            lines("a.rs", "// Whoever writes\n    /// This comes\n    /// to pass.\nfn f() {}"),
            [1, 2]
        );
        assert_eq!(lines("a.md", "It is told\nby nobody."), [1, 2]);
    }

    #[test]
    fn code_and_parts_of_words_are_not_comments() {
        assert_eq!(lines("a.rs", "let nobody = \"whoever\";\n// twinkle"), Vec::<usize>::new());
    }

    #[test]
    fn phrases_are_found_in_names_of_functions() {
        assert_eq!(lines("a.rs", "async fn an_error_is_told() {}\n// fn nobody\nfn twinkle() {}"), [1, 2]);
    }

    #[test]
    fn a_summary_is_no_clause() {
        assert_eq!(lines("a.rs", "/// What it is.\nfn f() {}\n/// Returns\n/// What it is.\n"), [1]);
        assert_eq!(lines("a.rs", "//! How it works.\n\n//! Is not the\n/// Whether"), [1]);
    }

    #[test]
    fn comments_keep_the_width_unless_one_word_exceeds_it() {
        let words = "word ".repeat(30);
        assert_eq!(lines("a.rs", &format!("// {words}\nlet a; // {words}\n{words}")), [1]);
        assert_eq!(lines("a.rs", &format!("// https://{}", "a".repeat(120))), Vec::<usize>::new());
        assert_eq!(lines("a.md", &words), Vec::<usize>::new());
    }
}
