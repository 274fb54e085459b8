//! `cargo xtask run`: a demo in a micro-VM.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::demos::{self, Granted, Host};
use crate::guests::{self, Profile};
use crate::{echo, grep, process, workspace};

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    if args.flag("--list") {
        args.all_done()?;
        print!("{}", demos::list());
        return Ok(ExitCode::SUCCESS);
    }
    let wake = args.option::<String>("--wake")?;
    let profile = if args.flag("--debug") {
        Profile::Debug
    } else {
        Profile::Release
    };
    let host = match args.flag("--dev") {
        true => Built::Dev,
        false => Built::Release,
    };
    let name = args.positional();
    args.done()?;
    if let Some(rung) = name.as_deref().and_then(rung) {
        return ladder(rung);
    }
    let demo = demos::find(name.as_deref().unwrap_or(demos::DEFAULT))?;

    let selftest = args.rest.iter().any(|arg| arg == "--selftest");
    if selftest && !["echo", "grep"].contains(&demo.name) {
        bail!("only `echo` and `grep` have a self-test");
    }
    guests::build(profile, Some(demo.name))?;
    let guest = guests::path(profile, demo.name)?;
    let wake = wake.as_deref().unwrap_or("auto");
    let grant = match demo.host {
        Host::Example => {
            let mut command = example(host, demo.name)?;
            command.arg(guest).arg(wake).args(&args.rest);
            return Ok(process::exit_code(process::status(&mut command)?));
        }
        Host::Command(grant) => grant,
    };
    let mut command = wakebox_run(host, &guest, wake)?;
    if selftest {
        return match demo.name {
            "echo" => echo::selftest(command),
            _ => grep::selftest(command, grant, args.rest),
        };
    }
    let Granted {
        options,
        args: guest_args,
    } = grant(&args.rest);
    command.args(options);
    if demo.stats {
        command.arg("--stats");
    }
    command.arg("--").args(guest_args);
    Ok(process::exit_code(process::status(&mut command)?))
}

/// The rung of `ladder/3`; empty for the whole `ladder`.
fn rung(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("ladder")?;
    rest.strip_prefix('/').or(rest.is_empty().then_some(rest))
}

/// Runs one rung or all, which chooses its wake mode and grants itself.
fn ladder(rung: &str) -> Result<ExitCode> {
    guests::build(Profile::Release, None)?;
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--release", "--package", "wakebox-tests"]);
    command.args(["--bin", "ladder", "--"]);
    command.args((!rung.is_empty()).then_some(rung));
    Ok(process::exit_code(process::status(&mut command)?))
}

/// How the host's part of a demo is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Built {
    Release,
    /// Without optimization, together with all tests, and of the same dependencies.
    Dev,
}

/// `cargo DEMOS` builds what runs the demos, in [`Built::Dev`].
///
/// That there are examples has dependencies be chosen as for tests.
pub(crate) const DEMOS: &str = "build --workspace --bin wakebox --examples";

/// `wakebox run GUEST --wake MODE`, to which options may be added.
fn wakebox_run(host: Built, guest: &Path, wake: &str) -> Result<Command> {
    let built = host.build(&["--package", "wakebox-cli"], "wakebox")?;
    let mut command = Command::new(built);
    command.arg("run").arg(guest).args(["--wake", wake]);
    Ok(command)
}

/// A program of `host/examples`.
fn example(host: Built, name: &str) -> Result<Command> {
    let what = ["--package", "wakebox", "--example", name];
    let built = host.build(&what, &format!("examples/{name}"))?;
    Ok(Command::new(built))
}

impl Built {
    /// Builds a program of the host, and returns where it is.
    fn build(self, what: &[&str], name: &str) -> Result<PathBuf> {
        let mut command = process::cargo();
        match self {
            Self::Release => command.args(["build", "--quiet", "--release"]).args(what),
            Self::Dev => command.args(DEMOS.split_whitespace()).arg("--quiet"),
        };
        process::check(&mut command)?;
        match self {
            Self::Release => workspace::release_binary(name),
            Self::Dev => workspace::debug_binary(name),
        }
    }
}
