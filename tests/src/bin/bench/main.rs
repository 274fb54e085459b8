//! `cargo xtask bench`: this machine's floor and Wakebox above it, in one run.
//!
//! Where a row has a floor, both are measured in turns, so that whatever else the machine
//! does slows both. Numbers are medians.

mod calls;
mod cold;
mod exchange;
mod files;
mod footprint;
mod limits;
mod net;
mod size;
mod table;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use table::Report;
use wakebox_tests::floor::Floor;
use wakebox_tests::soak;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &args[..]
        && first == soak::PEERS
    {
        return soak::peers(rest);
    }
    let json = json_file(&args)?;
    let floor = Floor::open()?;
    let runtime = wakebox_tests::runtime();
    let mut report = Report::default();
    let step = |what: &str| eprintln!("measuring {what} ...");

    step("memory");
    let memory = footprint::measure(&runtime);
    step("memory of connections");
    let connections = footprint::connections(&runtime);
    step("exits and operations");
    report.extend("exits and operations", exchange::measure(&floor, &runtime));
    step("limits");
    report.extend("limits", limits::cost(&runtime));
    step("kills");
    report.extend("kills", limits::kills());
    step("tracing");
    report.extend("tracing off", trace::off(&runtime));
    report.extend("tracing on", trace::on(&runtime));
    report.extend("traced events", trace::events(&runtime));
    step("calls");
    report.extend("calls", calls::measure(&runtime));
    step("TCP echo and HTTP");
    report.extend("TCP echo and HTTP", net::measure(&runtime));
    step("file reads");
    report.extend("file reads", files::measure(&runtime));
    step("starts and ends");
    report.extend("starts and ends", cold::measure(&floor, &runtime));
    step("the first line");
    report.extend("the first line", cold::first_line(&runtime));
    report.extend("memory", memory);
    report.extend("memory of connections", connections);
    report.extend("size", size::measure());

    println!("{report}");
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(&file, text + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// The value of `--json`, the only option.
fn json_file(args: &[String]) -> Result<Option<PathBuf>> {
    match args {
        [] => Ok(None),
        [option, file] if option == "--json" => Ok(Some(file.into())),
        _ => bail!("usage: bench [--json FILE]"),
    }
}
