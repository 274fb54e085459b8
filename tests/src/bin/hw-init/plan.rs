//! What xtask asks for, in the file [`PATH`]: a word and its value on each line.
//!
//! ```text
//! seconds 900                              a test that has not ended by then hangs
//! program /path/of/e2e-0123456789abcdef    a test program
//! filter boot::                            run what has this in its name; all, if there is none
//! variable NAME=VALUE                      set this for the tests
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATH: &str = "/plan";

/// The test program whose modules stand for what other test programs are.
const MODULES: &str = "e2e";

/// What to run.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) bound: Duration,
    pub(crate) programs: Vec<Program>,
    pub(crate) variables: Vec<(String, String)>,
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
            let understood = match line.split_once(' ') {
                Some(("seconds", text)) => text
                    .parse()
                    .map(|seconds| plan.bound = Duration::from_secs(seconds))
                    .is_ok(),
                Some(("program", path)) => {
                    plan.programs.push(Program::at(path.into())?);
                    true
                }
                Some(("filter", part)) => {
                    plan.filters.push(part.to_owned());
                    true
                }
                Some(("variable", text)) => text
                    .split_once('=')
                    .map(|(name, value)| plan.variables.push((name.to_owned(), value.to_owned())))
                    .is_some(),
                _ => false,
            };
            if !understood {
                bail!("{PATH}: `{line}` is not understood");
            }
        }
        Ok(plan)
    }

    /// Whether a test is asked for, by its [full name](Program::full_name).
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

    /// What a test is called here: `group::test`, where a group is a module of [`MODULES`], or a
    /// program.
    pub(crate) fn full_name(&self, own: &str) -> String {
        match &*self.name {
            MODULES => own.to_owned(),
            name => format!("{name}::{own}"),
        }
    }
}
