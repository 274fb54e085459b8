//! `cargo xtask run ladder`: runs the rungs, and shows in a table what each costs.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use wakebox::trace::{Event, Sink as _, Summary, timeline};
use wakebox_tests::ladder::{RUNGS, Rung};

fn main() -> ExitCode {
    wakebox_tests::exit("ladder", climb())
}

fn climb() -> Result<()> {
    let mut args: Vec<_> = std::env::args().skip(1).collect();
    let page = match args.iter().position(|arg| arg == "--timeline") {
        Some(at) if at + 1 < args.len() => args.drain(at..at + 2).next_back(),
        Some(_) => bail!("--timeline wants a file"),
        None => None,
    };
    let rungs = match &args[..] {
        [] => RUNGS.to_vec(),
        [number] => vec![find(number)?],
        _ => bail!("one rung at a time, or all"),
    };
    ensure!(
        page.is_none() || rungs.len() == 1,
        "a timeline is of one rung: `ladder/3 --timeline`"
    );
    wakebox_tests::require_kvm();
    let mut rows = Vec::new();
    for rung in rungs {
        println!("\n{}. {}", rung.number, rung.title);
        let (ended, events) = rung.climb();
        for line in ended.success().lines() {
            println!("   {line}");
        }
        println!("   Next: {}", rung.next);
        if let Some(page) = &page {
            write(page, &events)?;
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

/// The page of a run.
fn write(page: &str, events: &[Event]) -> Result<()> {
    let mut writer = timeline::Writer::create(page).with_context(|| page.to_owned())?;
    for event in events {
        writer.event(event)?;
    }
    Ok(writer.end()?)
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
