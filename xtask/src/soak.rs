//! `cargo xtask soak`: ten thousand connections, for a minute and more than once.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Args;
use crate::process;

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
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
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--release", "--package", "wakebox-tests"]);
    command.args(["--bin", "soak", "--"]).args(options);
    Ok(process::exit_code(process::status(&mut command)?))
}
