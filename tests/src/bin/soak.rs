//! `cargo xtask soak`: ten thousand connections to one guest, and whether all that they took comes
//! back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use wakebox::WakeMode;
use wakebox_tests::limits::raise_descriptors;
use wakebox_tests::soak::{self, Hold, OTHER_DESCRIPTORS, Soak};

const USAGE: &str =
    "usage: soak [--connections N] [--cycles N] [--seconds N | --rounds N] [--wake MODE]";

/// Bytes of host memory that a connection may take.
const BAR: u64 = 2048;

fn main() -> ExitCode {
    wakebox_tests::exit("soak", run())
}

fn run() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &args[..]
        && first == soak::PEERS
    {
        return soak::peers(rest);
    }
    let soak = parse(&args)?;
    let report = wakebox_tests::runtime().block_on(soak.run(|line| println!("{line}")))?;

    let each = |bytes: u64| bytes / soak.connections as u64;
    let (open, stats) = (report.open, &report.stats);
    println!(
        "a connection takes {} bytes of host memory beyond the kernel's, of which {} are in use \
         on the heap, and {} bytes of guest memory",
        each(open.host),
        each(open.heap),
        each(open.guest)
    );
    println!(
        "{} messages, none lost, {:.3} exits each",
        report.messages,
        stats.exits.total() as f64 / report.messages as f64
    );
    ensure!(
        each(open.host) <= BAR,
        "a connection may take {BAR} bytes of host memory"
    );
    Ok(())
}

fn parse(args: &[String]) -> Result<Soak> {
    let most = raise_descriptors()?.saturating_sub(OTHER_DESCRIPTORS);
    let mut soak = Soak {
        connections: 10_000,
        cycles: 3,
        hold: Hold::For(Duration::from_secs(60)),
        mode: WakeMode::Auto,
    };
    let mut asked = false;
    for pair in args.chunks(2) {
        let [option, value] = pair else { bail!(USAGE) };
        let number = || {
            value
                .parse::<u32>()
                .with_context(|| format!("{option} {value}"))
        };
        match option.as_str() {
            "--connections" => {
                (soak.connections, asked) = (number()? as usize, true);
            }
            "--cycles" => soak.cycles = number()? as usize,
            "--seconds" => soak.hold = Hold::For(Duration::from_secs(number()?.into())),
            "--rounds" => soak.hold = Hold::Rounds(number()?),
            "--wake" => soak.mode = value.parse()?,
            _ => bail!(USAGE),
        }
    }
    if !asked && most < soak.connections as u64 {
        println!("a process may have few descriptors (ulimit -Hn): {most} connections");
        soak.connections = most as usize;
    }
    Ok(soak)
}
