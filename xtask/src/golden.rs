//! `cargo xtask golden`: the template files that tests keep, one of each version of their format.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::guests::{self, Profile};
use crate::process::{self, cargo};
use crate::workspace;

/// The latest version of the format, in which a guest with windows is written.
const VERSION: u32 = 3;

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    args.all_done()?;
    let to = workspace::root().join(format!("tests/golden/template-{VERSION}"));
    if to.exists() {
        bail!(
            "{} is there: it shows that what an older release has written can be read, and is not \
             written again",
            to.display()
        );
    }
    guests::build_as_tested(Profile::Release, "wakebox-probes", "windows")?;
    let folder = workspace::target()?.join("golden");
    std::fs::create_dir_all(&folder)?;
    let (guest, taken) = (folder.join("guest"), folder.join("taken"));
    let built = guests::path(Profile::Release, "windows")?;
    process::check(
        Command::new("strip")
            .arg("--strip-all")
            .arg("-o")
            .arg(&guest)
            .arg(built),
    )?;
    let run = |package: &str, bin: &str| {
        let mut command = cargo();
        command.args(["run", "--quiet", "--package", package, "--bin", bin, "--"]);
        command
    };
    process::check(
        run("wakebox-cli", "wakebox")
            .args([
                "snapshot",
                "--at",
                "call:check",
                "--mem",
                "8M",
                "--wake",
                "out",
                "-o",
            ])
            .args([&taken, &guest])
            .args(["--", "serve"]),
    )?;
    process::check(run("wakebox-fuzz", "golden").args([&taken, &to]))?;
    Ok(ExitCode::SUCCESS)
}
