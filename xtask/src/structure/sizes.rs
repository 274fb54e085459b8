//! No file of product code is so long that it wants a table of contents.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Most lines of a file.
pub(super) const MOST: usize = 600;

/// Where product code lies. Tests, whether in `tests.rs` or in a module that is there for them
/// alone, may be as long as a list of cases is.
const FOLDERS: [&str; 9] = [
    "abi/src",
    "abi/typed/src",
    "guest/src",
    "guest/macros/src",
    "host/src",
    "host/cli/src",
    "host/trace/src",
    "host/vmm/src",
    "xtask/src",
];

/// Fails if there is a file that is too long.
pub(super) fn check(root: &Path) -> Result<()> {
    for folder in FOLDERS {
        if let Some((path, lines)) = too_long(&root.join(folder))?.first() {
            bail!(
                "{} has {lines} lines, more than {MOST}: make two files of it",
                path.display()
            );
        }
    }
    Ok(())
}

/// Files below a folder that are too long, and their lengths in lines.
fn too_long(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let mut found = Vec::new();
    let mut sources = Vec::new();
    let entries = folder
        .read_dir()
        .with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(too_long(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            sources.push((path, text));
        }
    }
    // The module of a folder is `mod.rs` in it or a file beside it.
    let beside = std::fs::read_to_string(folder.with_extension("rs")).unwrap_or_default();
    let parents: Vec<&str> = sources
        .iter()
        .map(|(_, text)| &**text)
        .chain([&*beside])
        .collect();
    for (path, text) in &sources {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let for_tests = |parent: &&str| parent.contains(&format!("#[cfg(test)]\nmod {name};"));
        let lines = text.lines().count();
        if lines > MOST && !parents.iter().any(for_tests) {
            found.push((path.clone(), lines));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn no_file_of_product_code_is_too_long() {
        check(&workspace::root()).unwrap();
    }

    #[test]
    fn a_long_file_is_found_unless_it_is_there_for_tests_alone() {
        let folder = std::env::temp_dir().join(format!("wakebox-sizes-{}", std::process::id()));
        let inner = folder.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let long = "\n".repeat(MOST + 1);
        std::fs::write(
            folder.join("inner.rs"),
            "#[cfg(test)]\nmod cases;\nmod code;\n",
        )
        .unwrap();
        std::fs::write(inner.join("cases.rs"), &long).unwrap();
        std::fs::write(inner.join("code.rs"), &long).unwrap();
        std::fs::write(inner.join("short.rs"), "\n".repeat(MOST)).unwrap();
        let found = too_long(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, [(inner.join("code.rs"), MOST + 1)]);
    }
}
