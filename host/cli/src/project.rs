//! `wakebox.toml`: the guest of a folder, and what it is granted.
//!
//! It is read where somebody names the folder as the guest, which is the current one if nothing is named.
//! It is never looked for in the folders above, and never when another guest is named: a file that grants
//! something is to be one that somebody meant.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::say::remark;
use super::streams::{bounded_text, regular};
use super::style::Style;

/// Its name.
pub(super) const FILE: &str = "wakebox.toml";

/// Longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A guest and its policy files; paths are relative to the folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    guest: PathBuf,
    #[serde(default)]
    policy: Vec<PathBuf>,
}

/// What stands in a folder's file.
#[derive(Debug)]
pub(super) struct Project {
    /// The file.
    pub(super) file: PathBuf,
    pub(super) guest: PathBuf,
    pub(super) policy: Vec<PathBuf>,
}

impl Project {
    /// The one in this folder, and says so.
    ///
    /// # Errors
    ///
    /// There is none, it cannot be read, others can write it, or it says something else.
    pub(super) fn in_folder(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        let said = || file.display().to_string();
        let open = match regular(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "{} is a directory without a `{FILE}`: name a GUEST, which is a file that cargo has built",
                folder.display()
            ),
            open => open.with_context(said)?,
        };
        let is_own = trusted(&open).with_context(said)?;
        if !is_own {
            bail!(
                "{} grants nothing: everybody can write it, or it belongs to another user; `chmod o-w` and \
                 `chown` change that",
                file.display()
            );
        }
        let text = bounded_text(open, LONGEST).with_context(said)?;
        let lines: Lines = toml::from_str(&text).with_context(said)?;
        let project = Self {
            guest: folder.join(lines.guest),
            policy: lines.policy.iter().map(|path| folder.join(path)).collect(),
            file,
        };
        project.tell();
        Ok(project)
    }

    fn tell(&self) {
        let grants = match &self.policy[..] {
            [] => "nothing is granted by it".to_owned(),
            policies => {
                let policies = policies.iter().map(|path| path.display().to_string());
                let policies: Vec<_> = policies.collect();
                format!("with --policy {}", policies.join(" --policy "))
            }
        };
        remark!(
            "{}: {} has the guest {}, {grants}",
            Style::of_stderr().strong("note"),
            self.file.display(),
            self.guest.display()
        );
    }
}

/// Whether a regular file is this user's or root's, and not everybody's to write.
fn trusted(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let is_own = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    Ok(metadata.is_file() && is_own && metadata.mode() & 0o002 == 0)
}
