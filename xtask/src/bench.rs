//! `cargo xtask bench`: the raw floor and Wakebox above it, in one run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::args::Args;
use crate::{guests, process};

/// WebAssembly, beside Wasmtime: in a workspace of its own, as it takes minutes to build.
fn wasm() -> Result<ExitCode> {
    let build = |package: &[&str]| -> Result<()> {
        let mut command = process::cargo();
        command
            .args(["build", "--release", "--locked"])
            .args(package);
        process::check(&mut command)
    };
    build(&["--package", "wakebox-cli"])?;
    let workspace = [
        "--manifest-path",
        "host/wasm/Cargo.toml",
        "--target-dir",
        "target",
    ];
    let packages = [
        "--package",
        "wakebox-wasm",
        "--package",
        "wakebox-wasm-bench",
    ];
    build(&[&workspace[..], &packages].concat())?;
    let built = "target/release/wakebox-wasm-bench";
    let mut bench = std::process::Command::new(crate::workspace::root().join(built));
    Ok(process::exit_code(process::status(&mut bench)?))
}

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let json = args.option::<PathBuf>("--json")?;
    let only = args.option::<String>("--only")?;
    let against = args.option::<PathBuf>("--against")?;
    let rounds = args.option::<usize>("--rounds")?;
    args.done()?;
    if only.as_deref() == Some("wasm") {
        return wasm();
    }
    guests::build_for_bench()?;
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--release", "--package", "wakebox-tests"]);
    command.args(["--bin", "bench", "--"]);
    if let Some(file) = json {
        // The child runs in the repository's root, the user perhaps elsewhere.
        command.arg("--json").arg(std::path::absolute(file)?);
    }
    if let Some(step) = only {
        command.args(["--only", &step]);
    }
    if let Some(other) = against {
        command.arg("--against").arg(std::path::absolute(other)?);
    }
    if let Some(rounds) = rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    command.args(&args.rest);
    Ok(process::exit_code(process::status(&mut command)?))
}
