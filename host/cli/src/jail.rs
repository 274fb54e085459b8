//! `--no-jail`, and what the command itself keeps when it enters its jail.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::say::note;
use wakebox::Policy;
use wakebox::jail::Jail;

/// What this process gives up before the guest runs.
#[derive(Debug, clap::Args)]
pub(super) struct JailArgs {
    /// Leave this process all that its user may do. Otherwise it keeps the files, ports and system
    /// calls that the grants need, in case that the guest breaks out of its machine
    #[arg(long)]
    no_jail: bool,

    /// Say on standard error what of this process is held in, and what this kernel lacks for that
    #[arg(long, short)]
    verbose: bool,

    /// Whether the command sets the modes of its terminal later, and asks for its size.
    #[arg(skip)]
    pub(super) terminal: bool,
}

impl JailArgs {
    /// Enters the jail, unless it is not wanted. To be called before there is another thread; from
    /// here on, this process can open nothing but what is named here.
    ///
    /// This is the one place that settles what the command needs for itself:
    ///
    /// * A file that it **reads** later is named here (`may_read`), as the guest is. Besides, if the
    ///   guest lies in a cargo project, the project may be read: if the guest fails, the line of its
    ///   source is shown.
    /// * A file that it **writes** (a trace, a report, a crash dump) is opened *before* this call, as
    ///   an [`OutputFile`](super::output::OutputFile): what is open stays open. So a path that cannot
    ///   be written is told before the guest runs, too.
    /// * A system call that it does not make already is named in `jail/filter.rs`.
    ///
    /// # Errors
    ///
    /// The kernel refused a part that it has.
    pub(super) fn enter(
        &self,
        policy: &Policy,
        guest: &Path,
        symbols: Option<&Path>,
    ) -> Result<()> {
        if self.no_jail {
            if self.verbose {
                note!("jail: none");
            }
            return Ok(());
        }
        let reads = [
            Some(guest.to_owned()),
            symbols.map(Path::to_owned),
            project_of(guest),
        ];
        let mut jail = Jail::for_policy(policy);
        if self.terminal {
            jail = jail.may_use_terminal();
        }
        let held = reads
            .into_iter()
            .flatten()
            .fold(jail, Jail::may_read)
            .enter()
            .context("`--no-jail` runs the guest without one")?;
        if self.verbose {
            note!("{held}");
        }
        Ok(())
    }
}

/// The cargo project in which a file lies.
fn project_of(file: &Path) -> Option<PathBuf> {
    let file = fs::canonicalize(file).ok()?;
    let mut folders = file.ancestors().skip(1);
    folders
        .find(|folder| folder.join("Cargo.toml").is_file())
        .map(Path::to_owned)
}
