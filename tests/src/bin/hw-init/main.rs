//! The first process of the hardware lane's machine (`cargo xtask hw-test`): it makes the
//! little that tests need of a system, loads KVM, and runs the tests one after another, each in
//! a process of its own.
//!
//! Its file system is what xtask packed for it: the test programs and guests at the paths
//! at which they were built, the kernel's modules, and the [`plan`]. Its output is the serial
//! line. Its last act is to write a [`Verdict`] to a port that makes the emulator exit with it.

mod plan;
mod setup;
mod skipped;
mod tests;

use std::process;

use plan::Plan;
use setup::Verdict;
use tests::Tally;

fn main() {
    if process::id() != 1 {
        eprintln!("error: this is the first process of a machine that `cargo xtask hw-test` makes");
        process::exit(1);
    }
    let verdict = match run() {
        Ok(tally) if tally.is_good() => Verdict::Passed,
        Ok(_) => Verdict::Failed,
        Err(error) => {
            println!("hw-test: {error:#}");
            Verdict::Broken
        }
    };
    setup::end(verdict);
}

fn run() -> anyhow::Result<Tally> {
    setup::file_systems()?;
    setup::network()?;
    setup::limits()?;
    setup::kvm()?;
    tests::run(&Plan::read()?)
}
