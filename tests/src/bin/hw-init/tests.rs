//! Running the tests: each in a process and a process group of its own, for a bounded time.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, wait};

use crate::plan::{Plan, Program};
use crate::skipped;

/// Where a test's output is kept until it is known whether anybody wants to see it.
const OUTPUT: &str = "/tmp/output-of-test";

/// How many tests ended in which way.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

impl Tally {
    pub(crate) fn is_good(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Runs all that the plan asks for.
///
/// # Errors
///
/// If a program cannot be asked for its tests, or none is asked for.
pub(crate) fn run(plan: &Plan) -> Result<Tally> {
    let start = Instant::now();
    let mut tally = Tally::default();
    for program in &plan.programs {
        let tests = list(program)?;
        for skipped in skipped::of(tests.iter().map(|(name, _)| &**name)) {
            if !tests.iter().any(|(name, _)| skipped::is_of(skipped, name)) {
                println!("FAIL  {skipped}: is on the list of skipped tests, and does not exist");
                tally.failed.push(skipped.to_owned());
            }
        }
        for (name, own_name) in tests.iter().filter(|(name, _)| plan.wants(name)) {
            one(plan, program, (name, own_name), &mut tally)?;
        }
    }
    if tally.passed + tally.skipped + tally.failed.len() == 0 {
        bail!("no test has a name like that");
    }
    println!(
        "\n{} passed, {} failed, {} skipped, in {:.0} s",
        tally.passed,
        tally.failed.len(),
        tally.skipped,
        start.elapsed().as_secs_f64()
    );
    for name in &tally.failed {
        println!("FAIL  {name}");
    }
    Ok(tally)
}

/// A program's tests: full names, and those by which the program knows them.
fn list(program: &Program) -> Result<Vec<(String, String)>> {
    let all = ask(program, &[])?;
    let ignored = ask(program, &["--ignored"])?;
    let names = all.into_iter().filter(|own| !ignored.contains(own));
    Ok(names.map(|own| (program.full_name(&own), own)).collect())
}

fn ask(program: &Program, which: &[&str]) -> Result<Vec<String>> {
    let asking = || format!("cannot ask {} for its tests", program.path.display());
    let output = Command::new(&program.path)
        .args(["--list", "--format", "terse"])
        .args(which)
        .output()
        .with_context(asking)?;
    if !output.status.success() {
        bail!("{}: {}", asking(), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Runs a test, given its full name and its own.
fn one(
    plan: &Plan,
    program: &Program,
    (name, own_name): (&str, &str),
    tally: &mut Tally,
) -> Result<()> {
    if let Some(reason) = skipped::reason(name) {
        println!("skip  {name}: {reason}");
        tally.skipped += 1;
        return Ok(());
    }
    let start = Instant::now();
    let output = File::create(OUTPUT).context(OUTPUT)?;
    let mut child = Command::new(&program.path)
        .args([own_name, "--exact", "--nocapture"])
        .arg("--test-threads=1")
        // As cargo does.
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .env("PATH", "/bin")
        .env("RUST_BACKTRACE", "0")
        .envs(plan.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.path.display()))?;
    let complaint = complaint(wait_for(&mut child, plan.bound)?, plan.bound);
    let seconds = start.elapsed().as_secs_f64();
    match complaint {
        None => {
            println!("ok    {name} ({seconds:.1} s)");
            tally.passed += 1;
        }
        Some(complaint) => {
            println!("FAIL  {name}: {complaint} ({seconds:.1} s)");
            let output = fs::read(OUTPUT).context(OUTPUT)?;
            for line in String::from_utf8_lossy(&output).lines() {
                println!("    | {line}");
            }
            tally.failed.push(name.to_owned());
        }
    }
    Ok(())
}

/// Waits for a child, and ends its whole group if it takes too long. `None`: it did.
fn wait_for(child: &mut Child, bound: Duration) -> Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let ended = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let bound = Timespec::try_from(bound).context("the bound")?;
    let ready = loop {
        let mut fds = [PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut fds, Some(&bound)) {
            Err(Errno::INTR) => {}
            ready => break ready.context("poll")?,
        }
    };
    // Also what the test has started and left behind.
    match kill_process_group(pid, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(io::Error::from(error)).context("cannot end a test"),
    }
    let status = child.wait().context("cannot wait for a test")?;
    // Orphans become children of the first process.
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    Ok((ready != 0).then_some(status))
}

fn complaint(status: Option<ExitStatus>, bound: Duration) -> Option<String> {
    match status {
        Some(status) if status.success() => None,
        Some(status) => Some(match (status.code(), status.signal()) {
            (Some(101), _) => "failed".to_owned(),
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        }),
        None => Some(format!("did not end within {} s", bound.as_secs())),
    }
}
