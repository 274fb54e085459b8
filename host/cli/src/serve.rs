//! `wakebox serve`.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::run::{self, SandboxArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It listens where --allow-listen grants it, and says where that is on standard error. Example:
  wakebox serve app.wasm --allow-listen 127.0.0.1:8080")]
pub(super) struct Args {
    #[command(flatten)]
    sandbox: SandboxArgs,

    /// How many requests an instance answers, one after another, before it makes room for a new one
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = None,
        value_parser = clap::value_parser!(u32).range(1..))]
    reuse: u32,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let addresses = args.sandbox.listens();
    if addresses.is_empty() {
        bail!("nothing says where to serve; grant it, as with --allow-listen 127.0.0.1:8080");
    }
    // The component may be a program as well.
    let told = ["--serve".into(), "--reuse".into(), args.reuse.to_string()];
    run::run_with(args.sandbox, told.into_iter().chain(addresses).collect())
}
