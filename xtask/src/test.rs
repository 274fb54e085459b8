//! `cargo xtask test`: everything that CI runs.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::guests;
use crate::process::{self, cargo};

/// One thing that must succeed.
struct Step {
    part: &'static str,
    name: &'static str,
    commands: Vec<Command>,
}

const PARTS: [&str; 4] = ["lint", "doc", "unit", "e2e"];

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let part = args.positional();
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
    let results: Vec<_> = steps()
        .into_iter()
        .filter(wanted)
        .map(|step| (step.name, attempt(step)))
        .collect();
    Ok(summary(&results))
}

fn steps() -> Vec<Step> {
    vec![
        Step {
            part: "lint",
            name: "format",
            commands: vec![
                with(cargo(), "fmt --all --check"),
                with(guests::cargo("fmt"), "--all --check"),
            ],
        },
        Step {
            part: "lint",
            name: "clippy",
            commands: vec![
                with(
                    cargo(),
                    "clippy --workspace --all-targets -- --deny warnings",
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
            commands: vec![documentation()],
        },
        Step {
            part: "doc",
            name: "examples in it",
            commands: vec![with(cargo(), "test --doc --workspace")],
        },
        Step {
            part: "e2e",
            name: "guests, debug",
            commands: vec![with(guests::cargo("build"), "--workspace")],
        },
        Step {
            part: "e2e",
            name: "guests, release",
            commands: vec![with(guests::cargo("build"), "--workspace --release")],
        },
        Step {
            part: "e2e",
            name: "what runs demos",
            // As `cargo xtask run` builds them, so that no test takes the time of a build.
            commands: vec![
                with(cargo(), "build --release --package wakebox --bin wakebox"),
                with(cargo(), "build --release --package wakebox --examples"),
            ],
        },
        Step {
            part: "unit",
            name: "unit tests",
            commands: vec![tests("--workspace --exclude wakebox-tests")],
        },
        Step {
            part: "e2e",
            name: "end-to-end tests",
            commands: vec![tests("--package wakebox-tests")],
        },
    ]
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

type Attempt = (Duration, Result<()>);

/// Runs a step's commands until one fails.
fn attempt(step: Step) -> Attempt {
    let start = Instant::now();
    let result = step.commands.into_iter().try_for_each(|mut command| {
        eprintln!("\n== {}: {}", step.name, process::line(&command));
        process::check(&mut command)
    });
    (start.elapsed(), result)
}

fn summary(results: &[(&str, Attempt)]) -> ExitCode {
    eprintln!("\n== summary");
    for (name, (time, result)) in results {
        let seconds = time.as_secs_f64();
        match result {
            Ok(()) => eprintln!("{name:<18} ok      {seconds:6.1} s"),
            Err(error) => eprintln!("{name:<18} FAILED  {seconds:6.1} s  {error:#}"),
        }
    }
    if std::env::var_os("WAKEBOX_SKIP_KVM").is_some_and(|value| value == "1") {
        eprintln!("WAKEBOX_SKIP_KVM=1: the tests that need /dev/kvm were skipped");
    }
    match results.iter().all(|(_, (_, result))| result.is_ok()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
