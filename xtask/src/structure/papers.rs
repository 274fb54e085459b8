//! The files and types that `docs/` names are there, and the tests that `SECURITY.md` does.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The paths that a text names in backquotes: with a folder and the ending of a source file.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|path| path.contains('/') && path.ends_with(".rs"))
}

/// Files that a page names and that are not there.
pub(super) fn missing(root: &Path, page: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let paths = named(&text).map(|path| root.join(path));
    Ok(paths.filter(|path| !path.is_file()).collect())
}

/// The types of a glossary that its files do not declare.
///
/// The last cell of a row names files and behind each its types, in backquotes:
/// `` `abi/src/entry.rs`: `Token`, `Submission`; `abi/src/op.rs`: `Request` ``.
pub(super) fn undeclared(root: &Path, page: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let mut missing = Vec::new();
    let rows = text.lines().filter_map(|row| row.strip_suffix(" |"));
    for cell in rows.filter_map(|row| Some(row.rsplit_once(" | ")?.1)) {
        let mut source = String::new();
        for name in cell.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                source = std::fs::read_to_string(root.join(name)).unwrap_or_default();
            }
            if source.is_empty() || !name.contains('/') && !declares(&source, name) {
                missing.push(name.to_owned());
            }
        }
    }
    Ok(missing)
}

/// Whether a source declares a type.
fn declares(source: &str, name: &str) -> bool {
    ["struct", "enum", "trait", "type"].iter().any(|kind| {
        source
            .split(&format!("{kind} {name}"))
            .skip(1)
            .any(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
    })
}

/// The tests that a page's promises name and that are not there.
///
/// `module::test` is a function of `tests/tests/e2e/module.rs` or `tests/tests/module.rs`,
/// `hostile::group` a group of hostile guests as well, and a source file has to have unit tests.
pub(super) fn unkept(root: &Path, text: &str) -> Vec<String> {
    let tests = root.join("tests/tests");
    let mut missing = Vec::new();
    for name in promised(text) {
        let (files, words) = match name.split_once("::") {
            Some((module, test)) => {
                let file = format!("{module}.rs");
                let mut words = vec![format!("fn {test}()"), format!("fn {test}(mode: ")];
                if module == "hostile" {
                    // The groups stand in a list.
                    words.extend([format!(" {test} "), format!(" {test}\n")]);
                }
                (
                    vec![tests.join("e2e").join(&file), tests.join(&file)],
                    words,
                )
            }
            None => (vec![root.join(name)], vec!["#[test]".into()]),
        };
        let source: String = files
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .collect();
        if !words.iter().any(|word| source.contains(word)) {
            missing.push(name.to_owned());
        }
    }
    missing
}

/// What a page names in backquotes in the rows of its table of promises.
fn promised(text: &str) -> impl Iterator<Item = &str> {
    let table = text.split_once("| promise |").map_or("", |(_, rest)| rest);
    let table = table.split_once("\n\n").map_or(table, |(table, _)| table);
    let cells = table.lines().filter_map(|row| row.split_once(" | "));
    let quoted = cells.flat_map(|(_, checks)| checks.split('`').skip(1).step_by(2));
    quoted.filter(|name| {
        let is_file = name.contains('/') && name.ends_with(".rs");
        (is_file || name.contains("::")) && !name.contains(' ')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn paths_of_sources_are_found_between_backquotes() {
        let text = "`a/b.rs` and `word`, `Type::new`, `c/d/` and `e/f.rs`";
        assert_eq!(named(text).collect::<Vec<_>>(), ["a/b.rs", "e/f.rs"]);
    }

    #[test]
    fn the_glossary_names_types_that_are_there() {
        let root = workspace::root();
        let page = root.join("docs/GLOSSARY.md");
        assert_eq!(undeclared(&root, &page).unwrap(), [] as [String; 0]);
        assert!(named(&std::fs::read_to_string(&page).unwrap()).count() > 20);
    }

    #[test]
    fn a_type_that_is_not_there_is_named() {
        let root = workspace::root();
        let page = std::env::temp_dir().join(format!("wakebox-glossary-{}", std::process::id()));
        let rows = "| a | b | `abi/src/entry.rs`: `Token`, `Tok`; `none/here.rs`: `Token` |\n";
        std::fs::write(&page, rows).unwrap();
        let missing = undeclared(&root, &page).unwrap();
        std::fs::remove_file(&page).unwrap();
        assert_eq!(missing, ["Tok", "none/here.rs", "Token"]);
    }

    #[test]
    fn the_promises_name_tests_that_are_there() {
        let root = workspace::root();
        let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
        assert!(promised(&text).count() > 50);
        assert_eq!(unkept(&root, &text), [] as [String; 0]);
    }

    #[test]
    fn a_test_that_is_not_there_is_named() {
        let rows = "| promise | how it is checked |\n|---|---|\n\
                    | `a::b` is | `limits::none`, `hostile::kept`, `hostile::none`, `xtask/src/main.rs` |\n\n`c::d`";
        let missing = unkept(&workspace::root(), rows);
        assert_eq!(
            missing,
            ["limits::none", "hostile::none", "xtask/src/main.rs"]
        );
    }

    #[test]
    fn the_architecture_names_files_that_are_there() {
        let root = workspace::root();
        let page = root.join("docs/ARCHITECTURE.md");
        assert!(named(&std::fs::read_to_string(&page).unwrap()).count() > 20);
        assert_eq!(missing(&root, &page).unwrap(), [] as [PathBuf; 0]);
    }
}
