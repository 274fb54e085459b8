//! `cargo xtask bench`: this machine's floor and Wakebox above it, in one run.
//!
//! Where a row has a floor, both are measured in turns, so that whatever else the machine
//! does slows both. Numbers are medians.

mod against;
mod bulk;
mod calls;
mod cold;
mod drivers;
mod exchange;
mod executors;
mod files;
mod footprint;
mod limits;
mod net;
mod page;
mod pairs;
mod processors;
mod run;
mod size;
mod table;
mod templates;
mod trace;
mod types;
mod urgent;
mod worst;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use table::{Report, Row};
use wakebox_tests::floor::Floor;
use wakebox_tests::soak;

fn main() -> ExitCode {
    wakebox_tests::exit("bench", run())
}

fn run() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &args[..]
        && first == soak::PEERS
    {
        return soak::peers(rest);
    }
    let Options {
        json,
        only,
        against,
        before,
        rounds,
    } = options(&args)?;
    let floor = Floor::open()?;
    let runtime = wakebox_tests::runtime();
    let mut report = Report::default();
    let steps: [Step<'_>; 23] = [
        // First, while the process has not used any.
        ("memory", &|| footprint::measure(&runtime)),
        ("memory of connections", &|| {
            footprint::connections(&runtime)
        }),
        ("exits and operations", &|| {
            exchange::measure(&floor, &runtime)
        }),
        ("executors", &|| executors::measure(&runtime)),
        ("limits", &|| limits::cost(&runtime)),
        ("kills", &limits::kills),
        ("upcalls", &urgent::measure),
        ("processors", &|| processors::measure(&runtime)),
        ("drivers", &|| drivers::measure(&runtime)),
        ("worst turns", &worst::measure),
        ("tracing off", &|| trace::off(&runtime)),
        ("tracing on", &|| trace::on(&runtime)),
        ("traced events", &|| trace::events(&runtime)),
        ("pages", &|| page::measure(&runtime)),
        ("calls", &|| calls::measure(&runtime)),
        ("types", &types::measure),
        ("TCP echo and HTTP", &|| net::measure(&runtime)),
        ("bulk transfers", &bulk::measure),
        ("file reads", &|| files::measure(&runtime)),
        ("starts and ends", &|| cold::measure(&floor, &runtime)),
        ("templates", &|| templates::measure(&floor, &runtime)),
        ("the first line", &|| cold::first_line(&runtime)),
        ("size", &size::measure),
    ];
    let names = steps.map(|(what, _)| what);
    if let Some(only) = &only
        && !names.contains(&only.as_str())
    {
        bail!("`--only {only}`: there are {}", names.join(", "));
    }
    let wanted = |name: &&str| only.as_ref().is_none_or(|only| only == name);
    let wanted: Vec<_> = names.into_iter().filter(wanted).collect();
    if let Some(other) = against {
        return against::compare(&other, &wanted, rounds);
    }
    if !before.is_empty() {
        return against::compare_with_files(&before, &wanted, rounds);
    }
    for (what, measure) in steps {
        if only.as_ref().is_none_or(|only| only == what) {
            eprintln!("measuring {what} ...");
            report.extend(what, measure());
        }
    }

    println!("{report}");
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(&file, text + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// What is measured, and how.
type Step<'a> = (&'a str, &'a dyn Fn() -> Result<Vec<Row>>);

struct Options {
    /// Where the numbers go as well.
    json: Option<PathBuf>,
    /// The one step that is wanted.
    only: Option<String>,
    /// Another build of this program, to be compared with.
    against: Option<PathBuf>,
    /// What earlier runs have written, to be compared with.
    before: Vec<PathBuf>,
    /// How often a step is run for that.
    rounds: usize,
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options {
        json: None,
        only: None,
        against: None,
        before: Vec::new(),
        rounds: against::ROUNDS,
    };
    for option in args.chunks(2) {
        match option {
            [name, file] if name == "--json" => options.json = Some(file.into()),
            [name, what] if name == "--only" => options.only = Some(what.clone()),
            [name, other] if name == "--against" => options.against = Some(other.into()),
            [name, file] if name == "--compare" => options.before.push(file.into()),
            [name, rounds] if name == "--rounds" => {
                options.rounds = rounds.parse().context("--rounds")?;
            }
            _ => bail!(
                "usage: bench [--json FILE] [--only STEP] [--against BENCH | --compare FILE [--rounds N]]"
            ),
        }
    }
    Ok(options)
}
