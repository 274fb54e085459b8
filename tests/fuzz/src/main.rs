//! Runs a target on inputs from this crate's own generator: `cargo xtask fuzz`.
//!
//! `wakebox-fuzz TARGET [--runs N] [--seed S]`, or `wakebox-fuzz TARGET FILE` for one input. An input
//! that makes the target panic is written to a file whose name is printed.

use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use wakebox_fuzz::{TARGETS, Target, corpus, target};
use wakebox_proofs::Random;

thread_local! {
    /// What is being read, for the hook that sees a panic.
    static INPUT: RefCell<Option<(&'static str, Vec<u8>)>> = const { RefCell::new(None) };
}

fn main() -> ExitCode {
    match arguments() {
        Ok((target, Inputs::File(path))) => match std::fs::read(&path) {
            Ok(input) => {
                let reached = (target.run)(&input);
                println!("{}, no panic", target.tally(1, reached));
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("{}: {error}", path.display())),
        },
        Ok((target, Inputs::Made { runs, seed })) => {
            fuzz(target, runs, seed);
            ExitCode::SUCCESS
        }
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("wakebox-fuzz: {message}");
    ExitCode::FAILURE
}

enum Inputs {
    File(PathBuf),
    Made { runs: u64, seed: u64 },
}

fn arguments() -> Result<(&'static Target, Inputs), String> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let Some(target) = target(&name) else {
        let names = TARGETS.map(|target| target.name).join(", ");
        return Err(format!("there is no target `{name}`; there are {names}"));
    };
    let (mut runs, mut seed) = (target.runs, 0);
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--runs" => &mut runs,
            "--seed" => &mut seed,
            _ => return Ok((target, Inputs::File(word.into()))),
        };
        let value = words.next().and_then(|value| value.parse().ok());
        *place = value.ok_or_else(|| format!("{word} wants a number"))?;
    }
    Ok((target, Inputs::Made { runs, seed }))
}

fn fuzz(target: &'static Target, runs: u64, seed: u64) {
    let corpus = corpus(target.name);
    keep_what_panics();
    let mut random = Random::new(seed);
    let start = Instant::now();
    let mut told = start;
    let mut reached = 0;
    for run in 0..runs {
        let input = (target.make)(&mut random, &corpus);
        INPUT.set(Some((target.name, input.clone())));
        reached += (target.run)(&input);
        if run % 1024 == 0 && told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            eprintln!("{}: {run} of {runs}", target.name);
        }
    }
    let time = start.elapsed().as_secs_f64();
    println!(
        "{}, no panic; seed {seed}, {time:.0} s",
        target.tally(runs, reached)
    );
}

/// Has any panic, also one that is caught, write down what was being read, and end the process.
fn keep_what_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        if let Some((name, input)) = INPUT.with(|input| input.borrow_mut().take()) {
            let path = std::env::temp_dir().join(format!("wakebox-{name}-{}", std::process::id()));
            let _ = std::fs::write(&path, input);
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "the input is in {0}; again: cargo xtask fuzz {name} {0}",
                path.display()
            );
        }
        std::process::exit(101);
    }));
}
