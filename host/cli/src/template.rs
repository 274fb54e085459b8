//! Guests that are template files, and `--key`.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wakebox::template::FileOptions;
use wakebox::{Guest, LimitKind, Limits, Template};

use super::streams::{bounded, start_of};

/// Longest key that is read, in bytes.
const LONGEST_KEY: u64 = 4096;

/// How a template file is known to be one's own.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    /// Believe a template file only if it was made with the key in FILE: 16 bytes or more, best 32
    /// random ones
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyOf {
    /// The guest, which is a template.
    Guest,
    /// The template that is written, and the guest if that is one, too.
    Output,
}

impl KeyArgs {
    /// The key's file.
    pub(super) fn file(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    /// How template files are read and written with these limits. Reads the key: to be called before the
    /// jail.
    ///
    /// # Errors
    ///
    /// The key cannot be read, or is too short or too long for one.
    pub(super) fn options(&self, limits: &Limits) -> Result<FileOptions> {
        let mut options = FileOptions::new();
        if let Some(most) = limits.get(LimitKind::Memory) {
            options = options.most_memory(most);
        }
        let Some(path) = &self.key else {
            return Ok(options);
        };
        let unread = || format!("cannot read the key {}", path.display());
        let file = File::open(path).with_context(unread)?;
        let key = bounded(file, LONGEST_KEY).with_context(unread)?;
        options.key(key).with_context(unread)
    }

    /// The guest in a file, which may be a template.
    ///
    /// # Errors
    ///
    /// It is a template and cannot be used, or is none and there is a key to check it by.
    pub(super) fn guest(
        &self,
        path: PathBuf,
        options: &FileOptions,
        key_of: KeyOf,
    ) -> Result<Guest> {
        if is_template(&path) {
            return Ok(Template::from_file(path, options)?.into());
        }
        if let (Some(key), KeyOf::Guest) = (&self.key, key_of) {
            bail!(
                "{} is not a template file, so that the key {} cannot tell who made it: leave `--key` out",
                path.display(),
                key.display()
            );
        }
        Ok(path.into())
    }
}

/// Whether a file is a template. What is no regular file is read but once, as a guest.
pub(super) fn is_template(path: &Path) -> bool {
    start_of(path).is_some_and(|start| Template::is_file(&start))
}
