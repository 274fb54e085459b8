//! `cargo xtask soak calls`: calls, timers, web requests and kills at random beside a busy machine, and
//! whether anything ever stands still.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wakebox::WakeMode;
use wakebox_tests::stall::Stall;

const USAGE: &str = "usage: stall [--wake MODE] [--seconds N] [--busy THREADS] [--seed N]";

fn main() -> ExitCode {
    wakebox_tests::exit("soak", run())
}

fn run() -> Result<()> {
    let mut stall = Stall {
        time: Duration::from_secs(60),
        mode: WakeMode::default(),
        busy: 2,
        seed: 1,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().context(USAGE)?;
        match name.as_str() {
            "--wake" => stall.mode = value.parse()?,
            "--seconds" => stall.time = Duration::from_secs(value.parse()?),
            "--busy" => stall.busy = value.parse()?,
            "--seed" => stall.seed = value.parse()?,
            _ => bail!(USAGE),
        }
    }
    println!("mode {}, seed {}", stall.mode, stall.seed);
    // As an embedder's web server runs: on the threads of a runtime.
    let runtime = wakebox_tests::runtime_of(2);
    let report = runtime.block_on(async {
        let run = async move { stall.run(|line| println!("{line}")).await };
        tokio::spawn(run).await
    })??;
    println!("{report}");
    Ok(())
}
