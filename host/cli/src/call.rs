//! `wakebox call`.

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use super::run::{SandboxArgs, Stdout, conclude, run_told};
use super::say::{self, say};
use wakebox::{CallError, Caller, Input, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The guest's `main` must call `wakebox_guest::serve`. The result goes to standard output, each item of a \
stream as a line when it comes, and what the guest writes itself to standard error. Examples:
  wakebox call target/release/adder            what can be called, with its types
  wakebox call target/release/adder add '[40, 2]'")]
pub(super) struct Args {
    #[command(flatten)]
    sandbox: SandboxArgs,

    /// The function: an `async fn` with `#[wakebox_guest::export]`. Without one, all that there are are
    /// listed
    #[arg(help_heading = None)]
    function: Option<String>,

    /// Its argument in JSON; an array for several, `null` for none
    #[arg(default_value = "null", help_heading = None)]
    json: String,

    /// Arguments of the guest
    #[arg(last = true, value_name = "ARGS", help_heading = None)]
    args: Vec<String>,
}

pub(super) fn run(mut args: Args) -> Result<ExitCode> {
    args.sandbox.settle()?;
    let mut wishes = args
        .sandbox
        .wishes(Stdout::Taken("the result of the call"))?;
    let builder = args
        .sandbox
        .into_jailed_builder(&mut wishes)?
        .args(args.args)
        .stdin(Input::Inherit);
    let (sandbox, outcome, result) = run_told(builder, std::future::pending(), |sandbox| {
        let caller = sandbox.caller();
        async move {
            let result = match &args.function {
                Some(function) => call(&caller, function, &args.json).await,
                None => list(&caller).await,
            };
            // The guest ends by itself when nobody calls any more.
            caller.close();
            result
        }
    })?;
    let ended = conclude(&mut wishes, &outcome, &sandbox)?;
    match result {
        Ok(Answer::Printed) => {}
        Ok(Answer::List(functions)) => {
            for function in functions {
                say!("{function}");
            }
        }
        // How the guest ended says more than that it has.
        Err(_) if !matches!(outcome, Outcome::Exit(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(ended)
}

/// What is printed, or was.
enum Answer {
    Printed,
    List(Vec<String>),
}

async fn call(caller: &Caller, function: &str, json: &str) -> Result<Answer> {
    // A result is a stream of one item.
    let mut items = caller.stream_json(function, json).await?;
    let error = loop {
        match items.next().await {
            Some(Ok(json)) => match say::json(&json) {
                Ok(()) => {}
                // Who has seen enough need not see the rest.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Answer::Printed),
                Err(error) => return Err(anyhow!(error).context("standard output")),
            },
            None => return Ok(Answer::Printed),
            Some(Err(error @ CallError::NoSuchFunction(_))) => break error,
            Some(Err(error)) => return Err(error.into()),
        }
    };
    Err(match caller.exports().await {
        Ok(functions) if functions.is_empty() => {
            anyhow!("{error}, and no other: functions want `#[wakebox_guest::export]`")
        }
        Ok(functions) => anyhow!("{error}. It exports:\n  {}", functions.join("\n  ")),
        Err(_) => error.into(),
    })
}

async fn list(caller: &Caller) -> Result<Answer> {
    Ok(Answer::List(caller.exports().await?))
}
