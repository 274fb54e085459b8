//! The files that `docs/` names are there.

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
    fn the_architecture_names_files_that_are_there() {
        let root = workspace::root();
        let page = root.join("docs/ARCHITECTURE.md");
        assert!(named(&std::fs::read_to_string(&page).unwrap()).count() > 20);
        assert_eq!(missing(&root, &page).unwrap(), [] as [PathBuf; 0]);
    }
}
