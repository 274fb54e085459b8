//! `cargo xtask fuzz`: bytes of all kinds for everything in the host that reads some.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::args::Args;
use crate::process::{self, cargo};
use crate::workspace;

/// As in `wakebox_fuzz::TARGETS`.
const TARGETS: [&str; 8] = [
    "ring",
    "elf",
    "debug",
    "operations",
    "paths",
    "policy",
    "template",
    "trace",
];

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let coverage = args.flag("--coverage");
    let runs: Option<u64> = args.option("--runs")?;
    let seed: Option<u64> = args.option("--seed")?;
    let target = args.positional();
    let file = args.positional();
    args.all_done()?;
    if target.as_deref() == Some("wasm") {
        return beside_wasmtime(runs, seed);
    }
    let targets = match &target {
        None => TARGETS.to_vec(),
        Some(name) if TARGETS.contains(&name.as_str()) => vec![name.as_str()],
        Some(name) => bail!(
            "there is no fuzz target `{name}`; there are {}, wasm",
            TARGETS.join(", ")
        ),
    };
    for target in targets {
        if coverage {
            by_coverage(target, runs, seed)?;
        } else {
            by_generator(target, runs, seed, file.as_deref())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Generated modules in a guest and natively: in a workspace of its own, whose compiler takes minutes to build.
fn beside_wasmtime(runs: Option<u64>, seed: Option<u64>) -> Result<ExitCode> {
    let mut command = cargo();
    command
        .args("test --quiet --manifest-path host/wasm/Cargo.toml --target-dir target".split(' '))
        .args("--package wakebox-wasm-conformance --test natively -- --nocapture".split(' '))
        .env("WAKEBOX_MODULES", runs.unwrap_or(5_000).to_string())
        .env("WAKEBOX_SEED", seed.unwrap_or(0).to_string());
    process::check(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

/// With the targets' own generator: any stable toolchain will do.
fn by_generator(
    target: &str,
    runs: Option<u64>,
    seed: Option<u64>,
    file: Option<&str>,
) -> Result<()> {
    let mut command = cargo();
    command
        .args([
            "run",
            "--quiet",
            "--profile",
            "fuzz",
            "--package",
            "wakebox-fuzz",
        ])
        .args(["--bin", "wakebox-fuzz", "--", target])
        .args(file);
    for (name, value) in [("--runs", runs), ("--seed", seed)] {
        if let Some(value) = value {
            command.arg(name).arg(value.to_string());
        }
    }
    process::check(&mut command)
}

/// With libFuzzer, which keeps what reaches new code.
fn by_coverage(target: &str, runs: Option<u64>, seed: Option<u64>) -> Result<()> {
    if !process::has_cargo_command("fuzz") {
        bail!(
            "cargo-fuzz is not installed; `cargo install --locked cargo-fuzz` gets it (besides, a \
             C++ compiler is needed). Without --coverage, none of this is"
        );
    }
    // What is found goes to a folder that git does not look at.
    let found = workspace::root().join("target/fuzz-corpus").join(target);
    std::fs::create_dir_all(&found)?;
    let mut command = cargo();
    command
        // No sanitizer: they want a nightly toolchain (`cargo xtask sanitize`).
        .args(["fuzz", "run", "--sanitizer", "none", "--debug-assertions"])
        .args([
            "--fuzz-dir",
            "tests/fuzz",
            "--target-dir",
            "target/coverage",
        ])
        .args(["--features", "libfuzzer", target])
        .arg(found)
        .arg(workspace::root().join("tests/fuzz/corpus").join(target))
        .arg("--")
        .arg(format!("-runs={}", runs.unwrap_or(1_000_000)));
    if let Some(seed) = seed {
        command.arg(format!("-seed={seed}"));
    }
    process::check(&mut command)
}
