//! What the end-to-end tests and the benchmarks share.
//!
//! A test that needs `/dev/kvm` is a [`kvm_test`]: with `WAKEBOX_SKIP_KVM=1` it is counted as
//! ignored, and without it a missing or forbidden `/dev/kvm` is a failure that says so.

pub mod browser;
pub mod elf;
pub mod floor;
pub mod hostile;
pub mod ladder;
pub mod leaks;
pub mod limits;
pub mod made_up;
pub mod memory;
pub mod programs;
pub mod soak;
pub mod stall;
pub mod takes;
pub mod terminal;

use std::arch::x86_64::__cpuid;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use wakebox::{Builder, Captured, Outcome, Output, Sandbox, Stats, Task};
pub use wakebox_tests_macros::kvm_test;

/// A sandbox that has not ended by then never will. Far beyond what any takes.
fn never() -> Duration {
    patient(Duration::from_secs(150))
}

/// For how long to wait, on this machine, for something that takes far less than `usual` on any that
/// is not emulated. A machine that is says in `WAKEBOX_PATIENCE` how many times longer that is.
///
/// # Panics
///
/// If the variable is no number.
pub fn patient(usual: Duration) -> Duration {
    let times = std::env::var("WAKEBOX_PATIENCE");
    usual * times.map_or(1, |times| times.parse().expect("WAKEBOX_PATIENCE"))
}

/// A limit of time that a guest reaches in the end, and not before it has done the little that a test
/// wants of it first, on any machine. Where nothing is wanted first, a limit may be as short as it likes.
pub fn ample() -> Duration {
    patient(Duration::from_secs(1))
}

/// The path of a guest program, built with optimizations.
///
/// # Panics
///
/// If it is not there.
pub fn guest(name: &str) -> PathBuf {
    built("release", name)
}

/// The path of a guest program, built without optimizations.
///
/// # Panics
///
/// If it is not there.
pub fn guest_debug(name: &str) -> PathBuf {
    built("debug", name)
}

fn built(profile: &str, name: &str) -> PathBuf {
    let path = root().join("target/guests").join(profile).join(name);
    assert!(
        path.is_file(),
        "{} is not there: `cargo xtask guests` builds it",
        path.display()
    );
    path
}

/// The repository's root.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Fails the test that calls it if `/dev/kvm` cannot be used.
///
/// # Panics
///
/// As said.
pub fn require_kvm() {
    if let Err(error) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        panic!(
            "/dev/kvm: {error}. This test runs a real micro-VM; set WAKEBOX_SKIP_KVM=1 to skip \
             all tests that do"
        );
    }
}

/// Whether this runs in QEMU's emulation of a processor, as `cargo xtask hw-test` does.
///
/// There, ring 3 may use any port: a port that is not a doorbell ends the guest with a
/// violation, where every other processor raises an exception.
pub fn is_qemu() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    let leaf = __cpuid(0x4000_0000);
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    __cpuid(1).ecx & HYPERVISOR != 0 && name.as_flattened() == b"TCGTCGTCGTCG"
}

/// How a sandbox ended, and what it left.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// What it did, in numbers.
    pub stats: Stats,
    /// What there was of tasks when it was stopped.
    pub tasks: Vec<Task>,
}

impl Ended {
    /// Expects that it ended by itself with code zero.
    ///
    /// # Panics
    ///
    /// If it did not; the message has all that it wrote.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "often asked for the check alone")]
    pub fn success(self) -> Self {
        assert!(
            self.outcome.is_success(),
            "{}\n--- stdout\n{}--- stderr\n{}",
            self.outcome,
            self.stdout,
            self.stderr
        );
        self
    }

    /// The lines of its standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// Builds a sandbox whose output is kept, runs it to its end on a runtime of this thread
/// alone, and returns what became of it.
///
/// # Panics
///
/// If it cannot be built, or the host fails, or it never ends.
pub fn run(builder: Builder) -> Ended {
    runtime().block_on(run_here(builder))
}

/// As [`run`], on the runtime that polls it.
///
/// # Panics
///
/// As [`run`].
pub async fn run_here(builder: Builder) -> Ended {
    Watched::build(builder).run().await
}

/// Runs as [`run`] does, while another thread takes turns, numbered from zero, from when the
/// sandbox has been built until it has ended. It takes its turns to their end.
///
/// # Panics
///
/// As [`run`], if a turn does, or if there were so few that nothing was raced.
pub fn run_beside(builder: Builder, mut turn: impl FnMut(u64) + Send) -> Ended {
    /// Ends the other thread, also where this one panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let watched = Watched::build(builder);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let turns = scope.spawn(|| {
            let mut turns = 0;
            while !over.load(Ordering::Relaxed) {
                turn(turns);
                turns += 1;
            }
            turns
        });
        let stop = Stop(&over);
        let ended = runtime().block_on(watched.run());
        drop(stop);
        let turns = turns.join().expect("a turn panicked");
        assert!(turns > 100, "there was no race: {turns} turns");
        ended
    })
}

/// A sandbox that was built, whose output is kept.
struct Watched {
    sandbox: Sandbox,
    stdout: Captured,
    stderr: Captured,
}

impl Watched {
    fn build(builder: Builder) -> Self {
        require_kvm();
        let (stdout, stderr) = (Captured::new(), Captured::new());
        let sandbox = builder
            .stdout(Output::Capture(stdout.clone()))
            .stderr(Output::Capture(stderr.clone()))
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        Self {
            sandbox,
            stdout,
            stderr,
        }
    }

    async fn run(mut self) -> Ended {
        let outcome = ends(&mut self.sandbox).await;
        Ended {
            outcome,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            stats: self.sandbox.stats(),
            tasks: self.sandbox.tasks().to_vec(),
        }
    }
}

/// Runs a test's body in a process in which nothing else goes on, whatever the test
/// runner does: `alone!("the_tests_own_name", || ...)`, in the module of the test.
///
/// # Panics
///
/// If the body does.
#[macro_export]
macro_rules! alone {
    ($name:expr, $body:expr $(,)?) => {
        $crate::start_alone(module_path!(), $name, $body)
    };
}

/// What [`alone!`] does; `module` is that of the test.
///
/// # Panics
///
/// If the body does.
pub fn start_alone(module: &str, name: &str, body: impl FnOnce()) {
    const MARK: &str = "WAKEBOX_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let own = std::env::current_exe().expect("the test's own file");
    let name = harness_name(module, name);
    let output = std::process::Command::new(own)
        .args([&*name, "--exact", "--test-threads=1", "--nocapture"])
        .env(MARK, "1")
        .output()
        .expect("the test starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "`{name}`, alone:\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What the harness calls a test: its path without that of the crate.
fn harness_name(module: &str, name: &str) -> String {
    match module.split_once("::") {
        Some((_crate, module)) => format!("{module}::{name}"),
        None => name.to_owned(),
    }
}

/// Runs a sandbox to its end.
///
/// # Panics
///
/// If the host fails, or it never ends.
pub async fn ends(sandbox: &mut Sandbox) -> Outcome {
    match tokio::time::timeout(never(), sandbox.run()).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => panic!("the host failed: {error}"),
        Err(_) => panic!("the guest never ended:\n{}", sandbox.stats()),
    }
}

/// A Tokio runtime of the calling thread.
///
/// # Panics
///
/// If it cannot be made.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// How a program ends that is called so: with what it says, and a status.
pub fn exit(name: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A Tokio runtime of this many threads besides the calling one.
///
/// # Panics
///
/// If it cannot be made.
pub fn runtime_of(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("a runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_names_a_test_by_its_path_in_the_crate() {
        assert_eq!(harness_name("hostile", "ports"), "ports");
        assert_eq!(harness_name("e2e::boot", "starts"), "boot::starts");
        assert_eq!(harness_name("e2e::a::b", "c"), "a::b::c");
    }

    #[test]
    fn a_test_starts_itself_again_wherever_it_is() {
        let here = std::process::id();
        // What the other process asserts, this one sees in how that ends.
        alone!("a_test_starts_itself_again_wherever_it_is", || {
            assert!(std::env::var_os("WAKEBOX_TEST_ALONE").is_some());
        });
        assert_eq!(here, std::process::id());
    }
}
