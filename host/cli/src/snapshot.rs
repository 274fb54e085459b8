//! `wakebox snapshot`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;

use super::guest::GuestArgs;
use super::outcome::{Frames, Memory, explain};
use super::output::{OutputFile, Outputs, Readers};
use super::run::run_beside;
use super::say::remark;
use super::signals;
use super::style::Style;
use super::template::KeyOf;
use super::wasm;
use wakebox::template::{FileOptions, Open, Position, SnapshotError, When};
use wakebox::{Caller, Error, Handle, Input, Outcome, Sandbox, Template, units};

/// Above the options that are about the file.
const TEMPLATE: &str = "Template";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file holds the guest's program and memory, and so whatever secrets are in that; only you may read \
it. What the guest may do is not in it: give grants and limits again when it is run. Examples:
  wakebox snapshot target/release/server -o server.template --at call:ready -- serve
  wakebox call server.template answer '[40, 2]'")]
pub(super) struct Args {
    #[command(flatten)]
    guest: GuestArgs,

    /// Where the template goes
    #[arg(long, short, value_name = "FILE", help_heading = TEMPLATE)]
    output: PathBuf,

    /// When it is taken: as soon as the guest has nothing to do; when the guest asks for it, with
    /// `wakebox_guest::snapshot()`, which a WebAssembly component does when it has been instantiated; or after a
    /// call of one of its functions, whose argument is JSON [default: parked, and guest for WebAssembly]
    #[arg(
        long,
        help_heading = TEMPLATE,
        value_name = "parked|guest|call:NAME[=JSON]"
    )]
    at: Option<At>,

    /// What becomes of sockets, files and calls that are open then: there is no template while any is,
    /// or they end in those who start from it
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = WhatIsOpen::Refuse, help_heading = TEMPLATE)]
    open: WhatIsOpen,

    /// Compress the file
    #[arg(long, help_heading = TEMPLATE)]
    zstd: bool,

    /// Arguments of the guest: the first one that is no option, and all behind it or behind `--`
    #[arg(
        trailing_var_arg = true,
        value_name = "ARGS",
        help_heading = None
    )]
    args: Vec<String>,
}

/// When a template is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Parked,
    Guest,
    /// After a call of this function with this argument.
    Call(String, String),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("call:")) {
            ("parked", _) => Ok(Self::Parked),
            ("guest", _) => Ok(Self::Guest),
            (_, Some(call)) if !call.is_empty() => {
                let (name, json) = call.split_once('=').unwrap_or((call, "null"));
                Ok(Self::Call(name.to_owned(), json.to_owned()))
            }
            _ => Err("write parked, guest, or call: and the name of a function".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhatIsOpen {
    Refuse,
    End,
}

pub(super) fn run(mut args: Args) -> Result<ExitCode> {
    args.guest.settle()?;
    signals::catch()?;
    let file = output(&args)?;
    let at = args.at.unwrap_or(match wasm::is_wasm(args.guest.path()) {
        true => At::Guest,
        false => At::Parked,
    });
    let (builder, mut options) = args.guest.into_jailed_builder(KeyOf::Output, None)?;
    if args.zstd {
        options = options.compressed();
    }
    let builder = builder.args(args.args).stdin(Input::Inherit);
    let open = match args.open {
        WhatIsOpen::Refuse => Open::Refuse,
        WhatIsOpen::End => Open::End,
    };
    let (sandbox, outcome, taken) = run_beside(builder, std::future::pending(), |sandbox| {
        let (caller, handle) = (sandbox.caller(), sandbox.handle());
        let taken = take(caller, &handle, &at, open);
        async move {
            let taken = taken.await;
            handle.kill();
            taken
        }
    })?;
    match taken {
        Ok(Ok(template)) => write(file, &template, &options),
        Ok(Err(SnapshotError::Ended)) => ended(&sandbox, &outcome),
        Ok(Err(SnapshotError::Open(open))) => bail!(
            "there is no template while this is open: {open}; have the guest close it before, or end it \
             in those who start from the template with `--open end`"
        ),
        Ok(Err(error)) => Err(error.into()),
        // How the guest ended says more than that a call did.
        Err(_) if !matches!(outcome, Outcome::Exit(_) | Outcome::Cancelled) => {
            ended(&sandbox, &outcome)
        }
        Err(error) => Err(error),
    }
}

/// Takes the template. What the guest is to ask for is there when this returns, before the guest begins.
/// As long as there is a caller, a guest that serves calls waits for one.
fn take(
    caller: Caller,
    handle: &Handle,
    at: &At,
    open: Open,
) -> impl Future<Output = Result<Result<Template, SnapshotError>>> + use<> {
    let asked = (*at == At::Guest).then(|| handle.snapshot(When::GuestAsks, open));
    let (handle, at) = (handle.clone(), at.clone());
    async move {
        if let At::Call(name, json) = &at {
            let called = caller.call_json(name, json).await;
            called.with_context(|| format!("`--at call:{name}`"))?;
        }
        Ok(match asked {
            Some(asked) => asked.await,
            None => handle.snapshot(When::Parked, open).await,
        })
    }
}

/// Opens what is written.
fn output(args: &Args) -> Result<OutputFile> {
    let mut outputs = Outputs::besides(args.guest.inputs());
    let file = outputs.open(&args.output, Readers::Owner, "the template")?;
    outputs.seal()?;
    Ok(file)
}

fn write(file: OutputFile, template: &Template, options: &FileOptions) -> Result<ExitCode> {
    let path = file.path().to_owned();
    file.write(|file| {
        let saved = template.save_with(file, options);
        saved.map_err(|error| match error {
            Error::Save { source } => source,
            other => io::Error::other(anyhow!(other)),
        })
    })?;
    if let Position::Parked { held, ram, .. } = template.info().at {
        remark!(
            "{}: a template with {} of {}; `wakebox run` and `wakebox call` go on from it",
            path.display(),
            units::bytes(held),
            units::bytes(ram)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Says how a guest ended of which there is no template.
fn ended(sandbox: &Sandbox, outcome: &Outcome) -> Result<ExitCode> {
    if let (Outcome::Cancelled, Some(status)) = (outcome, signals::caught()) {
        return Ok(ExitCode::from(status));
    }
    if !matches!(outcome, Outcome::Exit(_)) {
        let stopped_at = match outcome {
            Outcome::Limit(_) | Outcome::Violation(_) => Some(sandbox.backtrace()?),
            _ => None,
        };
        explain(
            outcome,
            stopped_at.as_ref(),
            Some(Memory::of(sandbox)),
            Frames::Short,
            Style::of_stderr(),
        );
    }
    bail!(
        "the guest ended before a template of it could be taken ({outcome}): it has to wait for \
         something, a call for instance, and with `--at guest` to ask"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_template_is_taken_is_told_in_words() {
        let call = |name: &str, json: &str| Ok(At::Call(name.into(), json.into()));
        assert_eq!("parked".parse(), Ok(At::Parked));
        assert_eq!("guest".parse(), Ok(At::Guest));
        assert_eq!("call:ready".parse(), call("ready", "null"));
        assert_eq!("call:sum=[1,2]".parse(), call("sum", "[1,2]"));
        for wrong in ["", "call:", "later", "call"] {
            wrong.parse::<At>().unwrap_err();
        }
    }
}
