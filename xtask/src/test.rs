//! `cargo xtask test`: everything that CI runs.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::process::{self, cargo};
use crate::{guests, hw};

/// One thing that must succeed.
struct Step {
    part: &'static str,
    name: &'static str,
    /// What must be here for it. Without it the step is not run, and the summary says so.
    needs: fn() -> Result<()>,
    commands: Vec<Command>,
}

const PARTS: [&str; 5] = ["lint", "doc", "unit", "e2e", "hw"];

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let part = args.positional();
    let install = args.flag("--install");
    args.all_done()?;
    if let Some(part) = &part
        && !PARTS.contains(&part.as_str())
    {
        bail!(
            "there is no part `{part}` of the tests; there are {}",
            PARTS.join(", ")
        );
    }
    let wanted = |step: &Step| part.as_deref().is_none_or(|part| step.part == part);
    let results: Vec<_> = steps(install)?
        .into_iter()
        .filter(wanted)
        .map(|step| (step.name, attempt(step)))
        .collect();
    // A part that was asked for by its name has to run.
    Ok(summary(&results, part.is_some()))
}

/// All that there is; with `install`, what can be fetched for one is not missing.
fn steps(install: bool) -> Result<Vec<Step>> {
    let nothing = || Ok(());
    Ok(vec![
        Step {
            part: "lint",
            name: "format",
            needs: nothing,
            commands: vec![
                with(cargo(), "fmt --all --check"),
                with(guests::cargo("fmt"), "--all --check"),
            ],
        },
        Step {
            part: "lint",
            name: "clippy",
            needs: nothing,
            commands: vec![
                with(
                    cargo(),
                    "clippy --workspace --all-targets -- --deny warnings",
                ),
                with(
                    cargo(),
                    "clippy --package wakebox --features metrics -- --deny warnings",
                ),
                with(
                    guests::cargo("clippy"),
                    "--workspace --all-targets -- --deny warnings",
                ),
            ],
        },
        Step {
            part: "doc",
            name: "documentation",
            needs: nothing,
            commands: vec![documentation()],
        },
        Step {
            part: "doc",
            name: "examples in it",
            needs: nothing,
            commands: vec![with(cargo(), "test --doc --workspace")],
        },
        Step {
            part: "e2e",
            name: "guests, debug",
            needs: nothing,
            commands: vec![guests::cargo("build")],
        },
        Step {
            part: "e2e",
            name: "guests, release",
            needs: nothing,
            commands: vec![with(guests::cargo("build"), "--release")],
        },
        Step {
            part: "e2e",
            name: "what runs demos",
            needs: nothing,
            // As `cargo xtask run` builds them, so that no test takes the time of a build.
            commands: vec![
                with(cargo(), "build --release --package wakebox-cli"),
                with(cargo(), "build --release --package wakebox --examples"),
            ],
        },
        Step {
            part: "unit",
            name: "unit tests",
            needs: nothing,
            commands: vec![tests("--workspace --exclude wakebox-tests")],
        },
        Step {
            part: "e2e",
            name: "end-to-end tests",
            needs: nothing,
            commands: vec![tests("--package wakebox-tests")],
        },
        Step {
            part: "e2e",
            name: "with counters",
            needs: nothing,
            commands: vec![with(
                cargo(),
                "test --package wakebox-tests --features metrics --test telemetry",
            )],
        },
        Step {
            part: "hw",
            name: "AMD-V, emulated",
            needs: match install {
                true => || hw::install(hw::Kind::Amd),
                false => || hw::is_ready(hw::Kind::Amd),
            },
            commands: vec![with(
                Command::new(std::env::current_exe()?),
                "hw-test --short",
            )],
        },
        Step {
            part: "hw",
            name: "VT-x, emulated",
            needs: match install {
                true => || hw::install(hw::Kind::Vtx),
                false => || hw::is_ready(hw::Kind::Vtx),
            },
            commands: vec![with(
                Command::new(std::env::current_exe()?),
                "hw-test --vtx --short",
            )],
        },
    ])
}

fn documentation() -> Command {
    let mut command = with(cargo(), "doc --workspace --no-deps");
    command.env("RUSTDOCFLAGS", "--deny warnings");
    command
}

/// With cargo-nextest if there is one: a process for each test, and a better summary.
fn tests(packages: &str) -> Command {
    let runner = if process::has_cargo_command("nextest") {
        "nextest run --no-fail-fast --no-tests pass"
    } else {
        "test --no-fail-fast --lib --bins --tests"
    };
    with(with(cargo(), runner), packages)
}

fn with(mut command: Command, words: &str) -> Command {
    command.args(words.split_whitespace());
    command
}

/// How a step went.
enum Attempt {
    /// Why it could not be tried.
    NotRun(anyhow::Error),
    Run(Duration, Result<()>),
}

/// Runs a step's commands until one fails.
fn attempt(step: Step) -> Attempt {
    if let Err(missing) = (step.needs)() {
        eprintln!("\n== {}: NOT RUN: {missing:#}", step.name);
        return Attempt::NotRun(missing);
    }
    let start = Instant::now();
    let result = step.commands.into_iter().try_for_each(|mut command| {
        eprintln!("\n== {}: {}", step.name, process::line(&command));
        process::check(&mut command)
    });
    Attempt::Run(start.elapsed(), result)
}

fn summary(results: &[(&str, Attempt)], all_must_run: bool) -> ExitCode {
    eprintln!("\n== summary");
    let mut good = true;
    for (name, attempt) in results {
        match attempt {
            Attempt::Run(time, Ok(())) => {
                eprintln!("{name:<18} ok      {:6.1} s", time.as_secs_f64());
            }
            Attempt::Run(time, Err(error)) => {
                good = false;
                eprintln!("{name:<18} FAILED  {:6.1} s  {error:#}", time.as_secs_f64());
            }
            Attempt::NotRun(missing) => {
                good &= !all_must_run;
                eprintln!("{name:<18} NOT RUN           {missing:#}");
            }
        }
    }
    if std::env::var_os("WAKEBOX_SKIP_KVM").is_some_and(|value| value == "1") {
        eprintln!("WAKEBOX_SKIP_KVM=1: the tests that need /dev/kvm were skipped");
    }
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
