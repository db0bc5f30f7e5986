//! Dependencies between our crates point one way: facade, factory, parts, core.

use std::path::Path;

use anyhow::Result;

use super::{Finding, names, read};

/// The layer of each published crate. A crate depends on crates of lower layers only.
const LAYERS: [(&str, u8); 16] = [
    ("es-core", 0),
    ("es-derive", 0),
    ("es-transcode", 1),
    ("es-compress", 1),
    ("es-crypto", 1),
    ("es-popo", 1),
    ("es-sqlite", 1),
    ("es-postgres", 1),
    ("es-process", 1),
    ("es-aggregate", 1),
    ("es-blocking", 1),
    ("es-conformance", 1),
    ("es-personal", 2),
    ("es-factory", 3),
    ("es-persistence", 4),
    ("es-cli", 4),
];

pub(super) fn findings(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in names(&root.join("crates"))? {
        let path = Path::new("crates").join(&name).join("Cargo.toml");
        let manifest = read(&root.join(&path))?;
        let found = wrong_directions(&name, &manifest);
        findings.extend(found.into_iter().map(|(line, message)| Finding {
            path: path.clone(),
            line,
            message,
        }));
    }
    Ok(findings)
}

fn wrong_directions(name: &str, manifest: &str) -> Vec<(usize, String)> {
    let Some(own) = layer(name) else {
        return vec![(0, format!("{name} has no layer in xtask/src/lint/crates.rs"))];
    };
    let dependencies = dependencies(manifest).into_iter();
    let wrong = dependencies.filter(|(_, dependency)| layer(dependency).is_none_or(|layer| layer >= own));
    wrong.map(|(line, dependency)| (line, format!("{name} must not depend on {dependency}"))).collect()
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// The line and the name of each of our crates in `[dependencies]` sections; tests may depend on any crate.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_section = false;
    for (index, line) in manifest.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            is_section = section.contains("dependencies") && !section.contains("dev-dependencies");
        } else if is_section && line.starts_with("es-") {
            found.extend(line.split(['.', ' ', '=']).next().map(|name| (index + 1, name)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::wrong_directions;

    const MANIFEST: &str = "[dependencies]\nes-core.workspace = true\nes-popo = { path = \"\" }\n\
        [target.'cfg(unix)'.dependencies]\nes-factory.workspace = true\n\
        [dev-dependencies]\nes-persistence.workspace = true\n";

    fn lines(name: &str) -> Vec<usize> {
        wrong_directions(name, MANIFEST).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn dependencies_go_to_lower_layers_and_those_of_tests_are_free() {
        assert_eq!(lines("es-persistence"), Vec::<usize>::new());
        assert_eq!(lines("es-factory"), [5]);
        assert_eq!(lines("es-sqlite"), [3, 5]);
        assert_eq!(lines("es-core"), [2, 3, 5]);
    }

    #[test]
    fn a_crate_without_a_layer_is_named() {
        assert_eq!(lines("es-new"), [0]);
    }
}
