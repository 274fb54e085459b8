//! The files and types that `docs/` names are there, and the tests that `SECURITY.md` does.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Most bytes of the README: what is longer is read by nobody.
const README_MAX: usize = 8 << 10;

/// Fails if a page names something that is not there, or the README is too long.
pub(super) fn check(root: &Path) -> Result<()> {
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for entry in root.join("docs").read_dir().context("docs")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    for page in &pages {
        if let Some(path) = missing(root, page)?.first() {
            bail!(
                "{} names {}, which is not there",
                page.display(),
                path.display()
            );
        }
    }
    let readme = read(&root.join("README.md"))?;
    if readme.len() > README_MAX {
        bail!(
            "README.md has {} bytes, more than {README_MAX}: put it into docs/",
            readme.len()
        );
    }
    let page = root.join("docs/GLOSSARY.md");
    if let Some(name) = undeclared(root, &page)?.first() {
        bail!("{} names {name}, which is not there", page.display());
    }
    let page = root.join("SECURITY.md");
    if let Some(test) = unkept(root, &read(&page)?).first() {
        bail!("{} names {test}, which is no test", page.display());
    }
    Ok(())
}

fn read(page: &Path) -> Result<String> {
    std::fs::read_to_string(page).with_context(|| page.display().to_string())
}

/// The paths that a text names in backquotes: with a folder and the ending of a source file.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|path| path.contains('/') && path.ends_with(".rs"))
}

/// Files that a page names, in backquotes or as the aim of a link, and that are not there.
fn missing(root: &Path, page: &Path) -> Result<Vec<PathBuf>> {
    let text = read(page)?;
    let beside = page.parent().unwrap_or(root);
    let sources = named(&text).map(|path| root.join(path));
    let linked = linked(&text).map(|path| beside.join(path));
    Ok(sources
        .chain(linked)
        .filter(|path| !path.exists())
        .collect())
}

/// The files that a text links to.
fn linked(text: &str) -> impl Iterator<Item = &str> {
    let aims = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files = aims.filter(|aim| !aim.contains("://") && !aim.contains(' '));
    files.filter_map(|aim| aim.split('#').next().filter(|path| !path.is_empty()))
}

/// The types of a glossary that its files do not declare.
///
/// The last cell of a row names files and behind each its types, in backquotes:
/// `` `abi/src/entry.rs`: `Token`, `Submission`; `abi/src/op.rs`: `Request` ``.
fn undeclared(root: &Path, page: &Path) -> Result<Vec<String>> {
    let text = read(page)?;
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
fn unkept(root: &Path, text: &str) -> Vec<String> {
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
    fn files_that_are_linked_to_are_found() {
        let text = "[a](b.md), ![c](d/e.png) [f](https://g.h) [i](#j) [k](l.md#m) `n[0](o p)`";
        let found: Vec<_> = linked(text).collect();
        assert_eq!(found, ["b.md", "d/e.png", "l.md"]);
    }

    #[test]
    fn every_page_names_what_is_there() {
        check(&workspace::root()).unwrap();
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
