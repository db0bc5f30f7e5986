//! No import cycle between the modules of a crate.
//!
//! The graph has a node for each file, and an edge from the file that uses a name to the file that defines
//! it. A re-export (`pub use`) is followed to the definition and makes no edge of its own: it names an item
//! and needs nothing of it. Code under `#[cfg(test)]` is not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{Finding, files, names, read};

/// The segments of a module's path in its crate; empty for lib.rs.
type Module = Vec<String>;

pub(super) fn findings(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in names(&root.join("crates"))? {
        let source = Path::new("crates").join(&name).join("src");
        let mut sources = Vec::new();
        for path in files(root, &source)? {
            if path.extension().is_some_and(|extension| extension == "rs") {
                let text = read(&root.join(&path))?;
                sources.push((module(path.strip_prefix(&source)?), text));
            }
        }
        for cycle in cycles(&sources).map_err(|error| anyhow!("{name}: {error}"))? {
            findings.push(Finding { path: source.clone(), line: 0, message: cycle });
        }
    }
    Ok(findings)
}

/// `write/queue.rs` and `write/queue/mod.rs` are `write::queue`.
fn module(path: &Path) -> Module {
    let mut path = PathBuf::from(path).with_extension("");
    if path.file_name().is_some_and(|name| name == "mod" || name == "lib") {
        path.pop();
    }
    path.iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Describes each strongly connected component of more than one file.
fn cycles(sources: &[(Module, String)]) -> Result<Vec<String>, proc_macro2::LexError> {
    let mut files = BTreeMap::new();
    for (module, text) in sources {
        files.insert(module.clone(), File::parse(module, text.parse()?));
    }
    let graph: BTreeMap<_, _> = files.iter().map(|(module, file)| (module, file.targets(&files))).collect();
    let reachable: BTreeMap<_, _> = graph.keys().map(|&module| (module, reachable(&graph, module))).collect();

    let mut described = BTreeSet::new();
    let mut cycles = Vec::new();
    for (&module, reached) in &reachable {
        if !reached.contains(module) || !described.insert(module) {
            continue;
        }
        let members: Vec<_> = reached
            .iter()
            .filter(|other| reachable.get(other).is_some_and(|back| back.contains(module)))
            .collect();
        described.extend(members.iter().copied());
        let edges = members.iter().map(|&from| {
            let to = graph.get(from).into_iter().flatten().filter(|to| members.contains(to));
            format!("{} -> {}", name(from), to.map(name).collect::<Vec<_>>().join(", "))
        });
        cycles.push(format!("import cycle of {}: {}", members.len(), edges.collect::<Vec<_>>().join("; ")));
    }
    Ok(cycles)
}

fn name(module: &Module) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("::") }
}

/// The modules that are reached from one by at least one edge.
fn reachable(graph: &BTreeMap<&Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from.clone()];
    while let Some(module) = open.pop() {
        for next in graph.get(&module).into_iter().flatten() {
            if reached.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    reached
}

/// The uses and re-exports of a source file, by absolute paths.
#[derive(Debug, Default)]
struct File {
    module: Module,
    /// Names that paths may start with: declared modules and imports.
    scope: BTreeMap<String, Vec<String>>,
    uses: Vec<Vec<String>>,
    /// First words of paths, to find uses of re-exported types.
    words: BTreeSet<String>,
    /// `pub use` by the name it gives.
    exports: BTreeMap<String, Vec<String>>,
    /// `pub use module::*`.
    globs: Vec<Vec<String>>,
}

impl File {
    fn parse(module: &Module, tokens: TokenStream) -> Self {
        let mut file = Self { module: module.clone(), ..Self::default() };
        let tokens: Vec<_> = tokens.into_iter().collect();
        file.declarations(&tokens);
        file.items(&tokens, module);
        file
    }

    /// `mod name;` at the top level, which may stand below its uses.
    fn declarations(&mut self, tokens: &[TokenTree]) {
        for window in tokens.windows(3) {
            if let [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end)] = window
                && word == "mod"
                && end.as_char() == ';'
            {
                let path = self.module.iter().cloned().chain([name.to_string()]).collect();
                self.scope.insert(name.to_string(), path);
            }
        }
    }

    /// Collects the paths of a sequence of tokens, in an inline module or not.
    fn items(&mut self, tokens: &[TokenTree], module: &Module) {
        let mut rest = tokens;
        let mut is_public = false;
        while let Some((token, after)) = rest.split_first() {
            rest = after;
            match token {
                TokenTree::Punct(hash) if hash.as_char() == '#' => {
                    if let Some((TokenTree::Group(attribute), after)) = after.split_first() {
                        rest = after;
                        if attribute.stream().to_string().replace(' ', "").starts_with("cfg(test)") {
                            rest = skip_item(after);
                        }
                    }
                }
                TokenTree::Ident(word) if word == "pub" => {
                    is_public = true;
                    if let Some((TokenTree::Group(scope), after)) = after.split_first()
                        && scope.delimiter() == Delimiter::Parenthesis
                    {
                        rest = after;
                    }
                    continue;
                }
                TokenTree::Ident(word) if word == "use" => {
                    let end = after.iter().position(|token| is_punct(token, ';')).unwrap_or(after.len());
                    let (tree, after) = after.split_at(end);
                    self.import(tree, &[], module, is_public);
                    rest = after;
                }
                TokenTree::Ident(word) if word == "mod" => {
                    if let [TokenTree::Ident(name), TokenTree::Group(body), ..] = after {
                        let inner = module.iter().cloned().chain([name.to_string()]).collect();
                        let body: Vec<_> = body.stream().into_iter().collect();
                        self.items(&body, &inner);
                        rest = after.get(2..).unwrap_or_default();
                    }
                }
                TokenTree::Ident(word) => {
                    let (segments, after) = path(word.to_string(), after);
                    self.words.insert(word.to_string());
                    if segments.len() > 1 {
                        let absolute = self.absolute(&segments, module);
                        self.uses.extend(absolute);
                    }
                    rest = after;
                }
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.items(&inner, module);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            is_public = false;
        }
    }

    /// Collects a tree of imports behind a prefix.
    fn import(&mut self, tree: &[TokenTree], prefix: &[String], module: &Module, is_public: bool) {
        let mut segments = prefix.to_vec();
        let mut rest = tree;
        while let Some((token, after)) = rest.split_first() {
            rest = after;
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    if let Some(TokenTree::Ident(alias)) = after.first() {
                        self.imported(&segments, alias.to_string(), module, is_public);
                    }
                    return;
                }
                TokenTree::Ident(word) => segments.push(word.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    for tree in inner.split(|token| is_punct(token, ',')) {
                        self.import(tree, &segments, module, is_public);
                    }
                    return;
                }
                TokenTree::Punct(star) if star.as_char() == '*' => segments.push("*".to_owned()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if segments.last().is_some_and(|last| last == "self") && segments.len() > 1 {
            segments.pop();
        }
        if segments.len() > prefix.len() || !tree.is_empty() {
            let name = segments.last().cloned().unwrap_or_default();
            self.imported(&segments, name, module, is_public);
        }
    }

    fn imported(&mut self, segments: &[String], name: String, module: &Module, is_public: bool) {
        let Some(mut absolute) = self.absolute(segments, module) else { return };
        let is_glob = name == "*";
        if is_glob {
            absolute.pop();
        }
        match (is_public, is_glob) {
            (true, true) => self.globs.push(absolute),
            (true, false) => {
                self.exports.insert(name, absolute);
            }
            (false, true) => self.uses.push(absolute.into_iter().chain(["*".to_owned()]).collect()),
            (false, false) => {
                self.scope.insert(name, absolute.clone());
                self.uses.push(absolute);
            }
        }
    }

    /// A path from the root of the crate, or none if it leads out of the crate.
    fn absolute(&self, segments: &[String], module: &Module) -> Option<Vec<String>> {
        let (first, mut rest) = segments.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => parent(module),
            name => self.scope.get(name)?.clone(),
        };
        while let Some((first, after)) = rest.split_first()
            && first == "super"
        {
            base = parent(&base);
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The files that define what this one uses.
    fn targets(&self, files: &BTreeMap<Module, File>) -> BTreeSet<Module> {
        let is_used = |name: &str| self.words.contains(name) && name.starts_with(char::is_uppercase);
        let re_exported = self.exports.iter().filter(|(name, _)| is_used(name)).map(|(_, path)| path);
        let targets = self.uses.iter().chain(re_exported).filter_map(|path| definition(path, files, 0));
        targets.filter(|target| *target != self.module).collect()
    }
}

fn parent(module: &[String]) -> Module {
    module.split_last().map_or_else(Vec::new, |(_, parent)| parent.to_vec())
}

/// The file that defines an item. A module by itself defines nothing: what is used of it makes the edge.
fn definition(path: &[String], files: &BTreeMap<Module, File>, depth: usize) -> Option<Module> {
    let (module, rest) =
        (0..=path.len()).rev().map(|at| path.split_at(at)).find(|(module, _)| files.contains_key(*module))?;
    let file = files.get(module)?;
    let (name, rest) = rest.split_first()?;
    if depth < 8 {
        if let Some(exported) = file.exports.get(name) {
            let path: Vec<_> = exported.iter().chain(rest).cloned().collect();
            return definition(&path, files, depth + 1);
        }
        if let [only] = file.globs.as_slice()
            && name != "*"
        {
            let path: Vec<_> =
                only.iter().cloned().chain([name.clone()]).chain(rest.iter().cloned()).collect();
            return definition(&path, files, depth + 1);
        }
    }
    Some(module.to_vec())
}

/// A path that starts with a word, and the tokens after it.
fn path(first: String, mut rest: &[TokenTree]) -> (Vec<String>, &[TokenTree]) {
    let mut segments = vec![first];
    while let [colon, other, TokenTree::Ident(next), after @ ..] = rest
        && is_punct(colon, ':')
        && is_punct(other, ':')
    {
        segments.push(next.to_string());
        rest = after;
    }
    (segments, rest)
}

/// The tokens after an item: behind its block or its semicolon.
fn skip_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| {
        is_punct(token, ';')
            || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    let end = tokens.iter().position(is_end).map_or(tokens.len(), |at| at + 1);
    tokens.get(end..).unwrap_or_default()
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{cycles, module};

    fn found(sources: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> =
            sources.iter().map(|(path, text)| (module(Path::new(path)), (*text).to_owned())).collect();
        cycles(&sources).unwrap()
    }

    #[test]
    fn a_cycle_is_found_and_described() {
        let sources = [
            ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { super::c::run() }"),
            ("c/mod.rs", "use super::{a::{A}, b}; fn g() {}"),
        ];
        assert_eq!(found(&sources), ["import cycle of 3: a -> b; b -> c; c -> a"]);
    }

    #[test]
    fn a_chain_is_no_cycle() {
        let sources = [
            ("lib.rs", "mod a; mod b; use a::A;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use std::fmt; use other::a::A;"),
        ];
        assert_eq!(found(&sources), Vec::<String>::new());
    }

    #[test]
    fn a_re_export_is_followed_to_the_definition() {
        let sources = [
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a.rs", "pub struct A;"),
            ("b.rs", "use crate::A; pub struct B;"),
        ];
        assert_eq!(found(&sources), Vec::<String>::new());
        let sources =
            [("lib.rs", "mod a; pub use a::A; pub struct B;"), ("a.rs", "use crate::B; pub struct A;")];
        assert_eq!(found(&sources), Vec::<String>::new(), "lib.rs only re-exports");
        let sources =
            [("lib.rs", "mod a; pub use a::A; pub struct B(A);"), ("a.rs", "use crate::B; pub struct A;")];
        assert_eq!(found(&sources), ["import cycle of 2: lib -> a; a -> lib"]);
        let sources = [("lib.rs", "mod a; use a::A; pub struct B;"), ("a.rs", "use crate::B; pub struct A;")];
        assert_eq!(found(&sources), ["import cycle of 2: lib -> a; a -> lib"]);
    }

    #[test]
    fn an_imported_module_counts_by_what_is_used_of_it() {
        let sources = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b; fn f() { b::g() }"),
            ("b.rs", "fn g() { crate::a::f() }"),
        ];
        assert_eq!(found(&sources), ["import cycle of 2: a -> b; b -> a"]);
    }

    #[test]
    fn tests_are_not_looked_at() {
        let sources = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; #[cfg(test)] mod tests { use crate::b::C; }"),
            ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; } #[cfg(test)] use crate::a::A;"),
        ];
        assert_eq!(found(&sources), Vec::<String>::new());
    }
}
