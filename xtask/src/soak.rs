//! `cargo xtask soak`: ten thousand connections, for a minute and more than once; or ten thousand
//! sandboxes; or a hundred thousand tenants of a pool; or calls at random, and whether anything stands
//! still.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::args::Args;
use crate::process;

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    match args.positional().as_deref() {
        Some("sandboxes") => sandboxes(args),
        Some("takes") => takes(args),
        Some("calls") => calls(args),
        Some(other) => {
            bail!(
                "there is no soak `{other}`; there are `sandboxes`, `takes`, `calls`, and none for \
                 connections"
            )
        }
        None => connections(args),
    }
}

fn sandboxes(mut args: Args) -> Result<ExitCode> {
    let count = args.positional();
    args.all_done()?;
    start("leaks", count)
}

fn takes(mut args: Args) -> Result<ExitCode> {
    let seed = args.option::<u64>("--seed")?;
    let seed = seed.map(|seed| ["--seed".to_owned(), seed.to_string()]);
    let count = args.positional();
    args.all_done()?;
    start("takes", count.into_iter().chain(seed.into_iter().flatten()))
}

fn calls(mut args: Args) -> Result<ExitCode> {
    let mut options = Vec::new();
    for name in ["--seconds", "--busy", "--seed"] {
        if let Some(number) = args.option::<u64>(name)? {
            options.extend([name.to_owned(), number.to_string()]);
        }
    }
    if let Some(mode) = args.option::<String>("--wake")? {
        options.extend(["--wake".to_owned(), mode]);
    }
    args.all_done()?;
    start("stall", options)
}

fn connections(mut args: Args) -> Result<ExitCode> {
    let mut options = Vec::new();
    for name in ["--connections", "--cycles", "--seconds", "--rounds"] {
        if let Some(number) = args.option::<u32>(name)? {
            options.extend([name.to_owned(), number.to_string()]);
        }
    }
    if let Some(mode) = args.option::<String>("--wake")? {
        options.extend(["--wake".to_owned(), mode]);
    }
    args.all_done()?;
    start("soak", options)
}

fn start(program: &str, options: impl IntoIterator<Item = String>) -> Result<ExitCode> {
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--release", "--package", "wakebox-tests"]);
    command.args(["--bin", program, "--"]).args(options);
    Ok(process::exit_code(process::status(&mut command)?))
}
