//! The `use` lines of a source file.

use std::path::Path;

use anyhow::{Context, Result};

/// Something that a file imports from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// The package, if it is another one than the file's own.
    pub(super) package: Option<String>,
    /// The path behind the package's root.
    pub(super) path: Vec<String>,
}

/// What a file imports from packages of the host, outside of its tests. `module` is the file's own
/// path behind its crate.
pub(super) fn of_file(path: &Path, module: &[String]) -> Result<Vec<Import>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(of_text(&text, module))
}

fn of_text(text: &str, module: &[String]) -> Vec<Import> {
    let product = text.split("#[cfg(test)]\nmod tests {").next();
    let mut imports = Vec::new();
    let mut statement: Option<String> = None;
    let mut is_test = false;
    for line in product.unwrap_or_default().lines().map(str::trim) {
        let begun = match statement.take() {
            Some(begun) => begun + line,
            None => match use_of(line) {
                Some(rest) => rest.to_owned(),
                None => {
                    is_test = line == "#[cfg(test)]";
                    continue;
                }
            },
        };
        match begun.strip_suffix(';') {
            None => statement = Some(begun),
            Some(tree) => {
                let paths = expand(tree).into_iter().filter(|_| !is_test);
                imports.extend(paths.filter_map(|path| resolve(path, module)));
                is_test = false;
            }
        }
    }
    imports
}

/// What follows `use` in a line that begins an import of any visibility.
fn use_of(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) => match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?.1,
            None => rest,
        },
        None => line,
    };
    line.trim_start().strip_prefix("use ")
}

/// The paths of a use tree: `a::{b, c::{d, e}}` has three.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((before, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        let segments = path.split("::").map(|segment| segment.trim().to_owned());
        return vec![segments.filter(|segment| !segment.is_empty()).collect()];
    };
    let prefix: Vec<String> = expand(before).concat();
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    branches(inner)
        .into_iter()
        .flat_map(expand)
        .map(|path| [prefix.clone(), path].concat())
        .collect()
}

/// The parts between the commas that stand in no braces.
fn branches(inner: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn resolve(path: Vec<String>, module: &[String]) -> Option<Import> {
    let mut segments = path.into_iter().peekable();
    let first = segments.next()?;
    let mut base: Vec<String> = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().saturating_sub(1)].to_vec(),
        _ => {
            if super::PACKAGES.iter().any(|(name, _)| *name == first) {
                return Some(Import {
                    package: Some(first),
                    path: segments.collect(),
                });
            }
            if !module.is_empty() {
                return None;
            }
            // In a root, `use room::Name`; another crate's name is no room and leads nowhere.
            vec![first]
        }
    };
    while segments.next_if(|segment| segment == "super").is_some() {
        base.pop();
    }
    base.extend(segments);
    Some(Import {
        package: None,
        path: base,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<_> = module.iter().map(|name| (*name).to_owned()).collect();
        let shown = |import: &Import| {
            let package = import.package.as_deref().unwrap_or("crate");
            format!("{package}::{}", import.path.join("::"))
        };
        of_text(text, &module).iter().map(shown).collect()
    }

    #[test]
    fn trees_are_expanded_and_relative_paths_followed() {
        let text = "\
use std::fmt;
pub(crate) use super::handles::{self, Handles};
use crate::ops::{
    End,
    blocking::{BlockingPool as L, Reach},
};
pub use wakebox::Policy;
#[cfg(test)]
use crate::only_in_tests::X;
";
        assert_eq!(
            paths(text, &["driver", "thread"]),
            [
                "crate::driver::handles::self",
                "crate::driver::handles::Handles",
                "crate::ops::End",
                "crate::ops::blocking::BlockingPool",
                "crate::ops::blocking::Reach",
                "wakebox::Policy",
            ]
        );
    }

    #[test]
    fn what_stands_in_a_file_s_tests_does_not_count() {
        let text = "use crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n";
        assert_eq!(paths(text, &["c"]), ["crate::a::A"]);
    }
}
