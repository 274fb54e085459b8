//! `cargo xtask run`: a demo in a micro-VM.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::demos::{self, Demo};
use crate::guests::{self, Profile};
use crate::{echo, process, workspace};

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
    let name = args.positional();
    args.done()?;
    let demo = demos::find(name.as_deref().unwrap_or(demos::DEFAULT))?;

    let selftest = args.rest.iter().any(|arg| arg == "--selftest");
    if selftest && demo.name != "echo" {
        bail!("only `echo` has a self-test");
    }
    let mut command = prepare(demo, profile, wake.as_deref())?;
    if selftest {
        return echo::selftest(command);
    }
    command.args(demo.options);
    if demo.stats {
        command.arg("--stats");
    }
    command.arg("--").args(&args.rest);
    Ok(process::exit_code(process::status(&mut command)?))
}

/// Builds what is needed and returns the command, to which options may be added.
fn prepare(demo: Demo, profile: Profile, wake: Option<&str>) -> Result<Command> {
    guests::build(profile, Some(demo.name))?;
    process::check(process::cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "wakebox",
        "--bin",
        "wakebox",
    ]))?;
    let mut command = Command::new(workspace::release_binary("wakebox")?);
    command.arg("run").arg(guests::path(profile, demo.name)?);
    if let Some(mode) = wake {
        command.args(["--wake", mode]);
    }
    Ok(command)
}
