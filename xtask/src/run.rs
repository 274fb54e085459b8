//! `cargo xtask run`: a demo in a micro-VM.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::demos::{self, Demo, Granted, Host};
use crate::guests::{self, Profile};
use crate::{echo, grep, process, workspace};

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    if args.flag("--list") {
        args.all_done()?;
        print!("{}", demos::list());
        return Ok(ExitCode::SUCCESS);
    }
    let wake = args.option::<String>("--wake")?;
    let is_debug = args.flag("--debug");
    let is_timeline = args.flag("--timeline");
    let host = match args.flag("--dev") {
        true => Built::Dev,
        false => Built::Demo,
    };
    let name = args.positional();
    args.done()?;
    if let Some(rung) = name.as_deref().and_then(rung) {
        return ladder(rung, is_timeline);
    }
    let demo = demos::find(name.as_deref().unwrap_or(demos::DEFAULT))?;

    let selftest = args.rest.iter().any(|arg| arg == "--selftest");
    if selftest && !["echo", "grep"].contains(&demo.name) {
        bail!("only `echo` and `grep` have a self-test");
    }
    if is_timeline && !matches!(demo.host, Host::Command(_)) {
        bail!(
            "`{}` is run by a program of its own, which draws no timeline",
            demo.name
        );
    }
    let wake = wake.as_deref().unwrap_or(demo.wake());
    let grant = match demo.host {
        Host::Component(component) => return component.run(&host.wakebox()?, wake, &args.rest),
        Host::Example | Host::ExampleOf(_) => {
            let guest = host.guest(&demo, is_debug)?;
            let mut command = host.example(demo.name)?;
            command.arg(guest).arg(wake).args(&args.rest);
            return Ok(process::exit_code(process::status(&mut command)?));
        }
        Host::Command(grant) => grant,
    };
    let guest = host.guest(&demo, is_debug)?;
    let command = host.wakebox_run(&guest, wake)?;
    match (selftest, demo.name) {
        (true, "echo") => echo::selftest(command),
        (true, _) => grep::selftest(command, grant, args.rest),
        (false, _) => watch(command, &demo, grant(&args.rest), is_timeline),
    }
}

/// Runs a demo whose command has its options yet to come.
fn watch(
    mut command: Command,
    demo: &Demo,
    granted: Granted,
    is_timeline: bool,
) -> Result<ExitCode> {
    command.args(granted.options);
    if demo.stats {
        command.arg("--stats");
    }
    let page = workspace::target()?.join(format!("{}.html", demo.name));
    if is_timeline {
        command.arg("--timeline").arg(&page);
    }
    command.arg("--").args(granted.args);
    let status = process::status(&mut command)?;
    if is_timeline {
        tell_of(&page);
    }
    Ok(process::exit_code(status))
}

fn tell_of(page: &Path) {
    eprintln!("The timeline is {}: open it in a browser.", page.display());
}

/// The rung of `ladder/3`; empty for the whole `ladder`.
fn rung(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("ladder")?;
    rest.strip_prefix('/').or(rest.is_empty().then_some(rest))
}

/// Runs one rung or all, which chooses its wake mode and grants itself.
fn ladder(rung: &str, is_timeline: bool) -> Result<ExitCode> {
    if is_timeline && rung.is_empty() {
        bail!("a timeline is of one rung: `cargo xtask run ladder/3 --timeline`");
    }
    guests::build(Profile::Release)?;
    let mut command = process::cargo();
    command.args(["run", "--release", "--package", "wakebox-tests"]);
    command.args(["--bin", "ladder", "--"]);
    command.args((!rung.is_empty()).then_some(rung));
    let page = workspace::target()?.join(format!("ladder-{rung}.html"));
    if is_timeline {
        command.arg("--timeline").arg(&page);
    }
    let status = process::status(&mut command)?;
    if is_timeline && status.success() {
        tell_of(&page);
    }
    Ok(process::exit_code(status))
}

/// How a demo is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Built {
    /// So that it is soon there, with nothing that it does not need.
    Demo,
    /// As the tests have it: the guest as released, the host without optimization, and everything
    /// together, of the same dependencies.
    Dev,
}

/// `cargo DEMOS` builds what runs the demos, in [`Built::Dev`].
///
/// That there are examples has dependencies be chosen as for tests.
pub(crate) const DEMOS: &str = "build --workspace --bin wakebox --examples";

impl Built {
    /// Builds the guest of a demo, and returns where it is.
    fn guest(self, demo: &Demo, is_debug: bool) -> Result<PathBuf> {
        let profile = match (is_debug, self) {
            (true, _) => Profile::Debug,
            (false, Self::Demo) => Profile::Demo,
            (false, Self::Dev) => Profile::Release,
        };
        match self {
            Self::Demo => {
                eprintln!("Building the guest `{}` ...", demo.guest());
                guests::build_one(profile, demo.package, demo.guest())?;
            }
            Self::Dev => guests::build_as_tested(profile, demo.package, demo.guest())?,
        }
        guests::path(profile, demo.guest())
    }

    /// The command `wakebox`.
    fn wakebox(self) -> Result<PathBuf> {
        self.host(
            &["--package", "wakebox-cli"],
            "wakebox",
            "the command `wakebox`",
        )
    }

    /// `wakebox run GUEST --wake MODE`, to which options may be added.
    fn wakebox_run(self, guest: &Path, wake: &str) -> Result<Command> {
        let mut command = Command::new(self.wakebox()?);
        command.arg("run").arg(guest).args(["--wake", wake]);
        Ok(command)
    }

    /// A program of `host/examples`.
    fn example(self, name: &str) -> Result<Command> {
        let what = ["--package", "wakebox", "--example", name];
        let file = format!("examples/{name}");
        let says = format!("the program that runs it, host/examples/{name}.rs");
        Ok(Command::new(self.host(&what, &file, &says)?))
    }

    /// Builds a program of the host, and returns where it is.
    fn host(self, what: &[&str], name: &str, says: &str) -> Result<PathBuf> {
        let mut command = process::cargo();
        match self {
            Self::Demo => {
                eprintln!("Building {says} ...");
                command.args(["build", "--profile", "demo"]).args(what);
            }
            Self::Dev => {
                command.args(DEMOS.split_whitespace()).arg("--quiet");
            }
        }
        process::check(&mut command)?;
        match self {
            Self::Demo => workspace::demo_binary(name),
            Self::Dev => workspace::debug_binary(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_stands_behind_a_slash() {
        assert_eq!(rung("ladder"), Some(""));
        assert_eq!(rung("ladder/3"), Some("3"));
        assert_eq!(rung("ladders"), None);
    }
}
