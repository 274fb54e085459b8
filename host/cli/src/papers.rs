//! `wakebox completions` and `wakebox man`: what shells and `man` know of this command, made of the same
//! description as its help.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap_complete::Shell;

use super::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wakebox completions bash > ~/.local/share/bash-completion/completions/wakebox
  wakebox completions fish > ~/.config/fish/completions/wakebox.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  wakebox man ~/.local/share/man/man1; man wakebox-run")]
pub(super) struct Man {
    /// The folder, which is made if it is not there
    folder: PathBuf,
}

pub(super) fn completions(args: &Completions, mut command: clap::Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "wakebox", &mut script);
    say::script(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &Man, command: clap::Command) -> Result<ExitCode> {
    let failed = || format!("cannot write manual pages to {}", args.folder.display());
    std::fs::create_dir_all(&args.folder).with_context(failed)?;
    clap_mangen::generate_to(command, &args.folder).with_context(failed)?;
    Ok(ExitCode::SUCCESS)
}
