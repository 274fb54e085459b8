//! `wakebox call`.

use std::process::ExitCode;

use anyhow::Result;

use super::run::{SandboxArgs, conclude, run_beside};
use super::say;
use wakebox::Outcome;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The guest's `main` must call `wakebox_guest::serve`. Example:
  wakebox call target/release/adder add '[40, 2]'")]
pub(super) struct Args {
    #[command(flatten)]
    sandbox: SandboxArgs,

    /// The function: an `async fn` with `#[wakebox_guest::export]`
    function: String,

    /// Its argument in JSON; an array for several, `null` for none
    #[arg(default_value = "null")]
    json: String,

    /// Arguments of the guest
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let mut wishes = args.sandbox.wishes()?;
    let builder = args
        .sandbox
        .into_jailed_builder(&mut wishes)?
        .args(args.args);
    let (sandbox, outcome, result) = run_beside(builder, std::future::pending(), |sandbox| {
        let caller = sandbox.caller();
        async move {
            let result = caller.call_json(&args.function, &args.json).await;
            // The guest ends by itself when nobody calls any more.
            caller.close();
            result
        }
    })?;
    let ended = conclude(&mut wishes, &outcome, &sandbox)?;
    match result {
        Ok(json) => {
            say::json(&json);
            Ok(ended)
        }
        // How the guest ended says more than that it has.
        Err(_) if !matches!(outcome, Outcome::Exit(_)) => Ok(ended),
        Err(error) => Err(error.into()),
    }
}
