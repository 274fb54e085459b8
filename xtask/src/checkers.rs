//! `cargo xtask model`, `kani`, `miri`, `valgrind` and `sanitize`: the same tests under other eyes.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, bail};

use crate::args::Args;
use crate::process::{self, cargo};
use crate::workspace;

/// End-to-end tests that take minutes under valgrind, not hours.
const END_TO_END: [&str; 4] = ["ops::", "cancel::", "unix::", "calls::"];

/// Unit tests that only repeat, thousands of times, what others do; and those that need openat2(2),
/// which valgrind 3.19 does not know.
const NOT_UNDER_VALGRIND: [&str; 3] = ["every_turn", "cut_off_anywhere", "tree::"];

/// The models of the host's rings and of its driver, also at the sizes that want an optimized
/// build.
pub(crate) fn model(args: Args) -> Result<ExitCode> {
    args.all_done()?;
    let mut counts = [("combinations", 0), ("states", 0), ("steps", 0)];
    for (package, tests) in [("wakebox-proofs", ""), ("wakebox", "proof::model")] {
        let mut command = cargo();
        command
            .args(["test", "--profile", "fuzz", "--package", package, "--lib"])
            .args(["--", "--include-ignored", "--nocapture", tests]);
        process::check_lines(&mut command, |line| {
            for (what, count) in &mut counts {
                *count += counted(line, what).unwrap_or(0);
            }
        })?;
    }
    let [(_, combinations), (_, states), (_, steps)] = counts;
    println!(
        "models: {combinations} combinations of values for single checks; {states} states of \
         rings and driver, and all {steps} turns from them; nothing that must not happen"
    );
    Ok(ExitCode::SUCCESS)
}

/// The number that stands before a word, if a line has both.
fn counted(line: &str, what: &str) -> Option<u64> {
    let words: Vec<_> = line.split([' ', ',']).collect();
    let at = words.iter().position(|word| *word == what)?;
    words[..at].last()?.parse().ok()
}

/// The checks of `tests/proofs`, for every value there is.
pub(crate) fn kani(args: Args) -> Result<ExitCode> {
    args.all_done()?;
    if !process::has_cargo_command("kani") {
        bail!(
            "Kani is not installed; `cargo install --locked kani-verifier && cargo kani setup` gets \
             it (https://model-checking.github.io/kani). What it proves for all values, `cargo \
             xtask test` tries with all that are known to make a difference"
        );
    }
    process::check(cargo().args(["kani", "--package", "wakebox-proofs"]))?;
    Ok(ExitCode::SUCCESS)
}

/// The unit tests of what both sides share and of the guest, in an interpreter that sees
/// undefined behaviour.
pub(crate) fn miri(args: Args) -> Result<ExitCode> {
    args.all_done()?;
    if !succeeds(&mut nightly(&["miri", "--version"])) {
        bail!(
            "Miri is not installed; `rustup toolchain install nightly --component miri,rust-src` \
             gets it"
        );
    }
    process::check(
        nightly(&[
            "miri",
            "test",
            "--package",
            "wakebox-abi",
            "--package",
            "wakebox-guest",
        ])
        .arg("--lib")
        .env("PROPTEST_CASES", "4")
        .env("MIRIFLAGS", "-Zmiri-disable-isolation"),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The host's unit tests, and guests in micro-VMs, with each of the host's loads and stores
/// watched. KVM runs under valgrind as anywhere else.
pub(crate) fn valgrind(args: Args) -> Result<ExitCode> {
    args.all_done()?;
    if !succeeds(Command::new("valgrind").arg("--version")) {
        bail!("valgrind is not installed; on Debian, `apt-get install valgrind` gets it");
    }
    let mut unit = under_valgrind(&["--package", "wakebox", "--package", "wakebox-vmm", "--lib"]);
    unit.arg("--");
    for test in NOT_UNDER_VALGRIND {
        unit.args(["--skip", test]);
    }
    process::check(&mut unit)?;
    let mut end_to_end = under_valgrind(&["--package", "wakebox-tests", "--test", "e2e", "--"]);
    end_to_end.args(END_TO_END);
    process::check(&mut end_to_end)?;
    Ok(ExitCode::SUCCESS)
}

fn under_valgrind(what: &[&str]) -> Command {
    let mut command = cargo();
    command
        .arg("test")
        .args(what)
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER",
            "valgrind --quiet --error-exitcode=99 --leak-check=full \
             --errors-for-leak-kinds=definite --show-leak-kinds=definite --num-callers=30",
        )
        // Each backtrace would be looked up in 70 MB of debug information.
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_CASES", "8");
    command
}

/// The host's unit tests with a sanitizer in every crate but the standard library.
///
/// Stable toolchains come with the sanitizers' runtimes, and with flags for them that are not stable:
/// `RUSTC_BOOTSTRAP` has them taken. What is built so stays in a folder of its own.
pub(crate) fn sanitize(mut args: Args) -> Result<ExitCode> {
    let Some(kind) = args.positional() else {
        bail!("which one? `cargo xtask sanitize address` or `cargo xtask sanitize thread`");
    };
    args.all_done()?;
    let suppressions = workspace::root().join("tests/tsan.supp");
    let (flags, packages, options) = match kind.as_str() {
        "address" => (
            "-Zsanitizer=address",
            ["wakebox", "wakebox-vmm", "wakebox-abi", "wakebox-fuzz"].as_slice(),
            // It would move variables to the heap, where `calls::message` does not find the end of
            // the stack.
            ("ASAN_OPTIONS", "detect_stack_use_after_return=0".to_owned()),
        ),
        "thread" => (
            "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
            ["wakebox", "wakebox-vmm", "wakebox-abi"].as_slice(),
            (
                "TSAN_OPTIONS",
                format!("suppressions={}", suppressions.display()),
            ),
        ),
        _ => bail!("there is no sanitizer `{kind}` here; there are address and thread"),
    };
    let mut command = cargo();
    command.args(["test", "--target", "x86_64-unknown-linux-gnu", "--lib"]);
    for package in packages {
        command.args(["--package", package]);
    }
    process::check(
        command
            // The harness's own threads are not instrumented either: one test at a time.
            .args(["--", "--test-threads=1"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", flags)
            .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
            // Instrumented objects do not go with others.
            .env(
                "CARGO_TARGET_DIR",
                workspace::root().join("target/sanitize").join(&kind),
            )
            .env(options.0, options.1),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// `cargo` of the nightly toolchain.
fn nightly(words: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "cargo"])
        .args(words)
        .current_dir(workspace::root())
        // What rustup set for this program names another toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    command
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_belongs_to_the_word_behind_it() {
        let line = "rings, 2 and 1 slots from 0: 6 states, 112 steps";
        assert_eq!(counted(line, "states"), Some(6));
        assert_eq!(counted(line, "steps"), Some(112));
        assert_eq!(counted(line, "combinations"), None);
        assert_eq!(counted("states of rings", "states"), None);
    }
}
