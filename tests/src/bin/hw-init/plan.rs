//! What xtask asks for, in the file [`PATH`]: a word and its value on each line.
//!
//! ```text
//! program /path/of/boot-0123456789abcdef   a test program
//! filter boot::                            run what has this in its name; all, if there is none
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

const PATH: &str = "/plan";

/// What to run.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) programs: Vec<Program>,
    filters: Vec<String>,
}

/// A test program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Plan {
    pub(crate) fn read() -> Result<Self> {
        let text = std::fs::read_to_string(PATH).with_context(|| PATH.to_owned())?;
        let mut plan = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("program", path)) => plan.programs.push(Program::at(path.into())?),
                Some(("filter", part)) => plan.filters.push(part.to_owned()),
                _ => bail!("{PATH}: `{line}` is not understood"),
            }
        }
        Ok(plan)
    }

    /// Whether a test is asked for, by its full name, `program::module::test`.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| name.contains(&**part))
    }
}

impl Program {
    /// Cargo names it after the test, a dash, and a hash.
    fn at(path: PathBuf) -> Result<Self> {
        let file = path.file_name().and_then(|name| name.to_str());
        let name = file.and_then(|file| file.rsplit_once('-'));
        let name = name.with_context(|| format!("{} has no hash", path.display()))?;
        Ok(Self {
            name: name.0.to_owned(),
            path,
        })
    }
}
