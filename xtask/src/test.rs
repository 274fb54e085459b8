//! `cargo xtask test`: everything that CI runs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::Args;
use crate::process::{self, cargo};
use crate::run::DEMOS;
use crate::{guests, hw, workspace};

/// One thing that must succeed.
struct Step {
    part: &'static str,
    name: &'static str,
    /// What must be here for it. Without it the step is not run, and the summary says so.
    needs: fn() -> Result<()>,
    commands: Vec<Command>,
    when: When,
}

/// How steps are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// One after another.
    InTurn,
    /// One after another too, but beside those that are listed after it, and behind them in line
    /// for a processor. What it says is kept in a file and shown at the end.
    Beside,
}

const PARTS: [&str; 7] = ["lint", "doc", "unit", "e2e", "wasm", "languages", "hw"];

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let part = args.positional();
    let install = args.flag("--install");
    args.all_done()?;
    if let Some(part) = &part
        && !PARTS.contains(&part.as_str())
    {
        bail!(
            "there is no part `{part}` of the tests; there are {}",
            PARTS.join(", ")
        );
    }
    let wanted = |step: &Step| part.as_deref().is_none_or(|part| step.part == part);
    let start = Instant::now();
    let results = run_all(steps(install)?.into_iter().filter(wanted).collect());
    // A part that was asked for by its name has to run.
    Ok(summary(&results, start.elapsed(), part.is_some()))
}

type Results = Vec<(&'static str, Attempt)>;

/// How many of the last lines of what failed beside the others are shown once more, last of all:
/// whoever reads a long output begins at its end.
const LAST_LINES: usize = 40;

/// Runs the steps. Those beside others are started when all that is listed before the first of them
/// has ended.
fn run_all(steps: Vec<Step>) -> Results {
    let first_beside = steps.iter().position(|step| step.when == When::Beside);
    let mut before = steps;
    let rest = before.split_off(first_beside.unwrap_or(before.len()));
    let (beside, after): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|step| step.when == When::Beside);
    let in_turn = |steps: Vec<Step>| -> Results {
        let results = steps
            .into_iter()
            .map(|step| (step.name, attempt(step, None)));
        results.collect()
    };
    let mut results = in_turn(before);
    if after.is_empty() {
        // There is nothing that they could be beside.
        results.extend(in_turn(beside));
        return results;
    }
    let (after, beside) = thread::scope(|scope| {
        // Their processes are tied to the life of this thread, and so to that of this program.
        let beside = scope.spawn(|| beside.into_iter().map(attempt_beside).collect::<Vec<_>>());
        (in_turn(after), beside.join())
    });
    results.extend(after);
    let beside = beside.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for (name, kept, _) in &beside {
        if let Some(kept) = kept {
            eprintln!("\n== {name}, beside the others: {}", kept.display());
            if let Err(error) = show(kept) {
                eprintln!("error: {}: {error}", kept.display());
            }
        }
    }
    for (name, kept, attempt) in beside {
        if let (Some(kept), Attempt::Run(_, Err(_))) = (kept, &attempt) {
            let said = fs::read(&kept).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            eprintln!("\n== {name} FAILED; it said last:\n{}", last_lines(&said));
        }
        results.push((name, attempt));
    }
    results
}

/// The last lines of a text, as many as are shown.
fn last_lines(text: &str) -> &str {
    let mut starts = text.rmatch_indices('\n').skip(LAST_LINES);
    starts.next().map_or(text, |(end, _)| &text[end + 1..])
}

/// Attempts a step whose output is kept: its name, where the output is, and how it went.
fn attempt_beside(step: Step) -> (&'static str, Option<PathBuf>, Attempt) {
    let name = step.name;
    match output_file(name) {
        Ok((path, file)) => (name, Some(path), attempt(step, Some(&file))),
        Err(error) => (name, None, Attempt::Run(Duration::ZERO, Err(error))),
    }
}

fn output_file(name: &str) -> Result<(PathBuf, File)> {
    let folder = workspace::root().join("target/beside");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(name).with_extension("txt");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    Ok((path, file))
}

fn show(path: &Path) -> io::Result<()> {
    io::copy(&mut File::open(path)?, &mut io::stderr())?;
    Ok(())
}

/// All that there is, in an order in which what fails shows early; with `install`, what can be
/// fetched for one is not missing.
#[allow(clippy::too_many_lines, reason = "a table")]
fn steps(install: bool) -> Result<Vec<Step>> {
    let nothing = || Ok(());
    let mut steps = vec![
        Step {
            part: "lint",
            name: "format",
            needs: nothing,
            commands: vec![
                with(cargo(), "fmt --all --check"),
                with(guests::cargo("fmt"), "--all --check"),
            ],
            when: When::InTurn,
        },
        Step {
            part: "lint",
            name: "clippy",
            needs: nothing,
            commands: vec![
                with(
                    cargo(),
                    "clippy --workspace --all-targets -- --deny warnings",
                ),
                // As an embedder has it, who wants nothing besides; the first has all features.
                with(cargo(), "clippy --package wakebox -- --deny warnings"),
                with(
                    cargo(),
                    "clippy --package wakebox --features metrics -- --deny warnings",
                ),
                // Together with urgent guests, those with several processors would be refused. None has
                // tests of its own: as such each dependency would be checked once more, to be unwound.
                with(
                    guests::cargo("clippy"),
                    "--workspace --exclude wakebox-spread --exclude wakebox-engines -- --deny warnings",
                ),
                with(
                    guests::cargo("clippy"),
                    "--package wakebox-spread -- --deny warnings",
                ),
            ],
            when: When::InTurn,
        },
        Step {
            part: "e2e",
            name: "guests, debug",
            needs: nothing,
            commands: vec![guests::cargo("build")],
            when: When::InTurn,
        },
        Step {
            part: "e2e",
            name: "guests, release",
            needs: nothing,
            commands: vec![with(guests::cargo("build"), "--release")],
            when: When::InTurn,
        },
        Step {
            part: "e2e",
            name: "tests and demos",
            needs: nothing,
            // All that the rest runs, built once and of the same dependencies. No test takes the time
            // of a build.
            commands: vec![
                with(cargo(), "test --no-run --workspace"),
                with(cargo(), DEMOS),
            ],
            when: When::InTurn,
        },
        Step {
            part: "hw",
            name: "AMD-V, emulated",
            needs: match install {
                true => || hw::install(hw::Kind::Amd),
                false => || hw::is_ready(hw::Kind::Amd),
            },
            commands: vec![with(
                Command::new(std::env::current_exe()?),
                "hw-test --short",
            )],
            when: When::Beside,
        },
        Step {
            part: "hw",
            name: "VT-x, emulated",
            needs: match install {
                true => || hw::install(hw::Kind::Vtx),
                false => || hw::is_ready(hw::Kind::Vtx),
            },
            commands: vec![with(
                Command::new(std::env::current_exe()?),
                "hw-test --vtx --short",
            )],
            when: When::Beside,
        },
        Step {
            part: "unit",
            name: "unit tests",
            needs: nothing,
            commands: vec![unit_tests()],
            when: When::InTurn,
        },
        Step {
            part: "e2e",
            name: "end-to-end tests",
            needs: nothing,
            commands: vec![tests(&["--package", "wakebox-tests"])],
            when: When::InTurn,
        },
        Step {
            part: "wasm",
            name: "WebAssembly",
            needs: kvm_is_not_skipped,
            // Workspaces of their own, for which nobody else waits.
            commands: vec![
                with(
                    cargo(),
                    "fmt --all --check --manifest-path host/wasm/Cargo.toml",
                ),
                with(
                    cargo(),
                    "fmt --all --check --manifest-path guest/wasm/Cargo.toml",
                ),
                with(
                    cargo(),
                    "clippy --locked --manifest-path host/wasm/Cargo.toml --target-dir target \
                     --workspace --all-targets -- --deny warnings",
                ),
                with(
                    cargo(),
                    "clippy --locked --release --manifest-path guest/wasm/Cargo.toml \
                     --target-dir target/guests-wasm -- --deny warnings",
                ),
                with(cargo(), "build --package wakebox-cli"),
                with(
                    cargo(),
                    "test --locked --manifest-path host/wasm/Cargo.toml --target-dir target",
                ),
                by_other_bounds(),
                // The specification's tests, and some generated modules, by both.
                with(
                    cargo(),
                    "test --locked --manifest-path host/wasm/Cargo.toml --target-dir target \
                     --package wakebox-wasm-conformance",
                ),
            ],
            when: When::InTurn,
        },
        Step {
            part: "doc",
            name: "documentation",
            needs: nothing,
            commands: vec![documentation()],
            when: When::InTurn,
        },
        Step {
            part: "doc",
            name: "packages",
            needs: nothing,
            // As they would go to a registry: with licences, and nothing that lies elsewhere.
            commands: vec![with(cargo(), PACKAGE)],
            when: When::InTurn,
        },
        Step {
            part: "doc",
            name: "examples in it",
            needs: nothing,
            commands: vec![with(cargo(), "test --doc --workspace")],
            when: When::InTurn,
        },
    ];
    steps.extend(languages());
    Ok(steps)
}

/// Programs in other languages, each where its compiler is: nobody has to have one.
fn languages() -> [Step; 5] {
    // What is compiled without optimizations takes minutes for what these compilers make, but that of C.
    let release = "test --locked --release --manifest-path host/wasm/Cargo.toml --target-dir target \
                   --test languages --test size -- --include-ignored runtime_guest";
    let step = |name, only, needs| Step {
        part: "languages",
        name,
        needs,
        commands: vec![with(with(cargo(), release), only)],
        when: When::InTurn,
    };
    [
        Step {
            part: "languages",
            name: "WebAssembly of C",
            needs: || compiles("clang", "--version").and(compiles("wasm-ld", "--version")),
            commands: vec![with(
                cargo(),
                "test --locked --manifest-path host/wasm/Cargo.toml --target-dir target \
                 --test languages -- --include-ignored c::",
            )],
            when: When::InTurn,
        },
        step("WebAssembly of Rust", "rust::", rust_compiles),
        step("WebAssembly of Go", "go::", || compiles("go", "version")),
        step("WebAssembly of Python", "python::", || {
            compiles("componentize-py", "--version")
        }),
        step("WebAssembly of JavaScript", "javascript::", || {
            compiles("componentize-js", "--version")
        }),
    ]
}

/// What touches memory most, with the bounds that are not usual.
fn by_other_bounds() -> Command {
    let mut command = with(
        cargo(),
        "test --locked --manifest-path host/wasm/Cargo.toml --target-dir target --test hostile --test components \
         --test preview1 --test templates --test called --test http",
    );
    command.env("WAKEBOX_BOUNDS", "code");
    command
}

fn skips_kvm() -> bool {
    std::env::var_os("WAKEBOX_SKIP_KVM").is_some_and(|value| value == "1")
}

/// Whether there is one of the compilers that `tests/guests/wasm` names.
fn compiles(compiler: &str, version: &str) -> Result<()> {
    kvm_is_not_skipped()?;
    let found = Command::new(compiler).arg(version).output();
    found.with_context(|| format!("there is no {compiler}; see tests/guests/wasm"))?;
    Ok(())
}

fn rust_compiles() -> Result<()> {
    compiles("wasm-ld", "--version")?;
    let rustc = std::env::var("WAKEBOX_WASM_RUSTC").unwrap_or_else(|_| "rustc".into());
    let target = "--print target-libdir --target wasm32-unknown-unknown";
    let output = with(Command::new(&rustc), target).output();
    let folder = output
        .with_context(|| format!("there is no {rustc}"))?
        .stdout;
    let folder = String::from_utf8_lossy(&folder);
    if !Path::new(folder.trim()).is_dir() {
        bail!("{rustc} has no target wasm32-unknown-unknown; see tests/guests/wasm");
    }
    Ok(())
}

fn kvm_is_not_skipped() -> Result<()> {
    match skips_kvm() {
        true => bail!("it needs /dev/kvm, and WAKEBOX_SKIP_KVM=1"),
        false => Ok(()),
    }
}

/// Packs all that is for others. Whether it builds from there is seen where it lies.
const PACKAGE: &str = "package --quiet --no-verify --allow-dirty --package wakebox --package wakebox-cli \
    --package wakebox-trace --package wakebox-vmm --package wakebox-abi --package wakebox-typed \
    --package wakebox-guest --package wakebox-guest-macros";

fn documentation() -> Command {
    let mut command = with(cargo(), "doc --workspace --no-deps");
    // What it reads of dependencies has been compiled for clippy.
    command.args(["--features", hw::UNIFIED]);
    command.env("RUSTDOCFLAGS", "--deny warnings");
    command
}

/// All tests but those of the package `wakebox-tests`. nextest builds that one too: without it others
/// would be built of dependencies of their own.
fn unit_tests() -> Command {
    match process::has_cargo_command("nextest") {
        true => tests(&["--workspace", "-E", "not package(wakebox-tests)"]),
        false => tests(&["--workspace", "--exclude", "wakebox-tests"]),
    }
}

/// With cargo-nextest if there is one: a process for each test, and a better summary.
fn tests(packages: &[&str]) -> Command {
    let runner = if process::has_cargo_command("nextest") {
        "nextest run --no-fail-fast --no-tests pass"
    } else {
        "test --no-fail-fast --lib --bins --tests"
    };
    let mut command = with(cargo(), runner);
    command.args(packages);
    command
}

fn with(mut command: Command, words: &str) -> Command {
    command.args(words.split_whitespace());
    command
}

/// How a step went.
enum Attempt {
    /// Why it could not be tried.
    NotRun(anyhow::Error),
    Run(Duration, Result<()>),
}

/// Runs a step's commands until one fails; with a file, what they say goes there.
fn attempt(step: Step, output: Option<&File>) -> Attempt {
    if let Err(missing) = (step.needs)() {
        eprintln!("\n== {}: NOT RUN: {missing:#}", step.name);
        return Attempt::NotRun(missing);
    }
    let start = Instant::now();
    let result = step
        .commands
        .into_iter()
        .try_for_each(|mut command| match output {
            None => {
                eprintln!("\n== {}: {}", step.name, process::line(&command));
                process::check(&mut command)
            }
            Some(file) => {
                let line = process::line(&command);
                eprintln!("\n== {}: begins beside the others: {line}", step.name);
                command.stdout(file.try_clone()?).stderr(file.try_clone()?);
                process::check(process::behind(process::tie(&mut command)))
            }
        });
    Attempt::Run(start.elapsed(), result)
}

fn all_good(results: &[(&str, Attempt)], all_must_run: bool) -> bool {
    results.iter().all(|(_, attempt)| match attempt {
        Attempt::Run(_, result) => result.is_ok(),
        Attempt::NotRun(_) => !all_must_run,
    })
}

fn summary(results: &[(&str, Attempt)], total: Duration, all_must_run: bool) -> ExitCode {
    eprintln!("\n== summary");
    for (name, attempt) in results {
        match attempt {
            Attempt::Run(time, Ok(())) => {
                eprintln!("{name:<18} ok      {:6.1} s", time.as_secs_f64());
            }
            Attempt::Run(time, Err(error)) => {
                eprintln!("{name:<18} FAILED  {:6.1} s  {error:#}", time.as_secs_f64());
            }
            Attempt::NotRun(missing) => {
                eprintln!("{name:<18} NOT RUN           {missing:#}");
            }
        }
    }
    eprintln!("{:<18}         {:6.1} s", "in all", total.as_secs_f64());
    if skips_kvm() {
        eprintln!("WAKEBOX_SKIP_KVM=1: the tests that need /dev/kvm were skipped");
    }
    match all_good(results, all_must_run) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, when: When, script: &str) -> Step {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Step {
            part: "unit",
            name,
            needs: || Ok(()),
            commands: vec![command],
            when,
        }
    }

    fn good(results: &Results) -> Vec<(&'static str, bool)> {
        let is_good = |attempt: &Attempt| matches!(attempt, Attempt::Run(_, Ok(())));
        let results = results.iter();
        results
            .map(|(name, attempt)| (*name, is_good(attempt)))
            .collect()
    }

    #[test]
    fn of_a_long_output_the_last_lines_are_shown_and_of_a_short_one_all() {
        assert_eq!(last_lines("one\ntwo\n"), "one\ntwo\n");
        let lines: Vec<String> = (0..100).map(|line| format!("{line}\n")).collect();
        assert_eq!(
            last_lines(&lines.concat()),
            lines[100 - LAST_LINES..].concat()
        );
    }

    /// Neither end of a fifo is opened before the other one is.
    #[test]
    fn a_step_beside_others_runs_while_they_do_and_its_end_counts() {
        let folder = std::env::temp_dir().join(format!("xtask-beside-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo").display().to_string();
        let steps = vec![
            step("test first", When::InTurn, &format!("mkfifo {fifo}")),
            step(
                "test beside",
                When::Beside,
                &format!("echo told; echo here >{fifo}; exit 3"),
            ),
            step(
                "test after",
                When::InTurn,
                &format!("test \"$(cat {fifo})\" = here"),
            ),
        ];
        let results = run_all(steps);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            good(&results),
            [
                ("test first", true),
                ("test after", true),
                ("test beside", false)
            ]
        );
        let kept = workspace::root().join("target/beside/test beside.txt");
        let said = fs::read_to_string(kept).unwrap();
        assert_eq!(said, "told\n");
        assert!(!all_good(&results, false));
    }

    #[test]
    fn each_part_has_a_step_and_what_is_emulated_is_beside_the_end_to_end_tests() {
        let steps = steps(false).unwrap();
        for part in PARTS {
            assert!(steps.iter().any(|step| step.part == part), "{part}");
        }
        let at = |name: &str| steps.iter().position(|step| step.name == name).unwrap();
        let first_beside = steps.iter().position(|step| step.when == When::Beside);
        assert!(first_beside.unwrap() < at("end-to-end tests"));
        for step in steps.iter().filter(|step| step.part == "hw") {
            assert_eq!(step.when, When::Beside);
        }
    }
}
