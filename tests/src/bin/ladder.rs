//! `cargo xtask run ladder`: runs the rungs, and shows in a table what each costs.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use wakebox::trace::Summary;
use wakebox_tests::ladder::{RUNGS, Rung};

fn main() -> ExitCode {
    wakebox_tests::exit("ladder", climb())
}

fn climb() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rungs = match args.next() {
        None => RUNGS.to_vec(),
        Some(number) => vec![find(&number)?],
    };
    ensure!(args.next().is_none(), "one rung at a time, or all");
    wakebox_tests::require_kvm();
    let mut rows = Vec::new();
    for rung in rungs {
        println!("\n{}. {}", rung.number, rung.title);
        let (ended, events) = rung.climb();
        for line in ended.success().lines() {
            println!("   {line}");
        }
        println!("   Next: {}", rung.next);
        if rung.processors > 1 {
            println!("   (two processors: there is no trace, and no line in the table)");
            continue;
        }
        let mut summary = Summary::new();
        events.iter().for_each(|event| summary.count(event));
        rows.push((rung, summary));
    }
    if !rows.is_empty() {
        table(&rows);
    }
    Ok(())
}

fn find(number: &str) -> Result<Rung> {
    let found = number.parse().ok().and_then(|number: usize| {
        let mut rungs = RUNGS.into_iter();
        rungs.find(|rung| rung.number == number)
    });
    found.with_context(|| {
        format!(
            "there is no rung `{number}`; they go from 1 to {}",
            RUNGS.len()
        )
    })
}

fn table(rows: &[(Rung, Summary)]) {
    println!(
        "\n{:>4}  {:<22}{:>7}{:>9}{:>7}{:>7}{:>12}{:>12}",
        "rung", "what", "polls", "in vain", "wakes", "exits", "in polls", "whole"
    );
    for (rung, summary) in rows {
        println!(
            "{:>4}  {:<22}{:>7}{:>9}{:>7}{:>7}{:>9} us{:>9} us",
            rung.number,
            rung.title,
            summary.polls,
            summary.spurious,
            summary.wakes,
            summary.exits(),
            summary.time.polls / 1000,
            summary.duration() / 1000
        );
    }
}
