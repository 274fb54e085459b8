//! The embedder's process is not the library's: its signals and what they do, its limits, its children.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use wakebox::{Builder, Limit, Outcome, Policy, Sandbox, WakeMode};
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{alone, ends, guest, kvm_test, run, runtime, runtime_of};

/// How long a guest may compute that would do so for ever.
const WALL_CLOCK: Duration = Duration::from_millis(50);

/// A guest that computes for ever, with a limit.
fn computes(mode: WakeMode) -> Builder {
    let guest = Elf::guest(&code::spin()).to_bytes();
    Sandbox::builder()
        .guest(guest)
        .memory(4 << 20)
        .wake(mode)
        .timeout(WALL_CLOCK)
}

/// A computing guest ends at its limit, and at a kill.
fn is_ended() {
    for mode in WakeMode::ALL {
        let outcome = run(computes(mode)).outcome;
        assert_eq!(
            outcome,
            Outcome::Limit(Limit::WallClock(WALL_CLOCK)),
            "{mode}"
        );
        runtime_of(2).block_on(async {
            let mut sandbox = computes(mode).timeout(Duration::MAX).build().unwrap();
            let kill = sandbox.handle();
            let run = tokio::spawn(async move { ends(&mut sandbox).await });
            kill.kill();
            assert_eq!(run.await.unwrap(), Outcome::Cancelled, "{mode}");
        });
    }
}

/// Blocks all signals in this thread, and so in those that it starts.
fn block_signals() {
    // SAFETY: a set is filled in and given to this thread's mask.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

/// Sets what all signals do that can be set.
fn handle_all_signals(how: libc::sighandler_t) {
    // Those that a test or its threads bring upon themselves, and those of the C library, keep theirs.
    let kept = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGABRT,
        libc::SIGCHLD,
        32,
        33,
    ];
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| !kept.contains(signal)) {
        // SAFETY: neither default nor ignoring runs any code.
        unsafe { libc::signal(signal, how) };
    }
}

/// Sets a limit of this process.
fn limit(resource: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: a value that lives through the call.
    let set = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[kvm_test]
fn a_computing_guest_is_ended_whatever_signals_are_blocked() {
    alone!(
        "a_computing_guest_is_ended_whatever_signals_are_blocked",
        || {
            block_signals();
            is_ended();
        },
    );
}

#[kvm_test]
fn a_computing_guest_is_ended_where_no_signal_may_be_queued() {
    alone!(
        "a_computing_guest_is_ended_where_no_signal_may_be_queued",
        || {
            limit(libc::RLIMIT_SIGPENDING, 0);
            is_ended();
            block_signals();
            is_ended();
        },
    );
}

#[kvm_test]
fn a_computing_guest_is_ended_whatever_signals_are_to_do() {
    alone!(
        "a_computing_guest_is_ended_whatever_signals_are_to_do",
        || {
            for how in [libc::SIG_IGN, libc::SIG_DFL] {
                handle_all_signals(how);
                is_ended();
                // Also those that were set after the library has set its own.
                handle_all_signals(how);
                is_ended();
            }
        },
    );
}

/// The command, with a guest that computes for ever and a limit; this is done before it begins.
fn command_ends_it(prepare: impl Fn() + Send + Sync + 'static) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command
        .arg("run")
        .arg(guest("spin"))
        .args(["--timeout", "50ms"])
        .stdin(Stdio::null());
    // SAFETY: between `fork` and `exec` it makes system calls with values of its own.
    unsafe {
        command.pre_exec(move || {
            prepare();
            Ok(())
        });
    }
    let output = command.output().expect("the command");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("longer than 50") && output.status.code().is_some(),
        "{said}"
    );
}

#[kvm_test]
fn the_command_ends_a_computing_guest_whoever_has_started_it() {
    command_ends_it(|| ());
    command_ends_it(block_signals);
    command_ends_it(|| limit(libc::RLIMIT_SIGPENDING, 0));
    command_ends_it(|| {
        limit(libc::RLIMIT_SIGPENDING, 0);
        block_signals();
    });
}

/// Runs a body in a child made by `fork`, and expects that it returns.
fn in_a_child(body: impl FnOnce()) {
    // SAFETY: the body uses nothing that another thread of this process may have held.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: ends the child, without running what the parent has registered.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    let mut status = -1;
    // SAFETY: it writes a status that lives through the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");
}

#[kvm_test]
fn a_computing_guest_is_ended_in_a_child_that_has_no_threads_of_its_parent() {
    alone!(
        "a_computing_guest_is_ended_in_a_child_that_has_no_threads_of_its_parent",
        || {
            // The parent's threads are there.
            is_ended();
            in_a_child(|| {
                is_ended();
                // And in a child of the child.
                in_a_child(is_ended);
            });
            is_ended();
        },
    );
}

#[kvm_test]
fn a_sandbox_of_the_parent_is_refused_in_a_child_and_goes_on_in_the_parent() {
    alone!(
        "a_sandbox_of_the_parent_is_refused_in_a_child_and_goes_on_in_the_parent",
        || {
            for mode in WakeMode::ALL {
                let mut sandbox = computes(mode).build().unwrap();
                in_a_child(|| {
                    let result = runtime().block_on(sandbox.run());
                    assert!(
                        matches!(result, Err(wakebox::Error::Forked)),
                        "{mode}: {result:?}"
                    );
                });
                let outcome = runtime().block_on(ends(&mut sandbox));
                assert_eq!(
                    outcome,
                    Outcome::Limit(Limit::WallClock(WALL_CLOCK)),
                    "{mode}"
                );
            }
        },
    );
}

#[kvm_test]
fn a_file_that_grows_beyond_what_the_process_may_write_ends_no_embedder() {
    alone!(
        "a_file_that_grows_beyond_what_the_process_may_write_ends_no_embedder",
        || {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("large"), vec![7; 3 << 20]).unwrap();
            limit(libc::RLIMIT_FSIZE, 1 << 20);
            for mode in WakeMode::ALL {
                let grant = format!("{}:/d", folder.path().display());
                let builder = Sandbox::builder()
                    .guest(guest("files"))
                    .wake(mode)
                    .policy(Policy::new().allow_dir(grant.parse().unwrap()))
                    .args(["copy /d/large /d/copy", "write /d/small x"]);
                let ended = run(builder).success();
                assert_eq!(ended.stdout, "FileTooLarge\nok\n", "mode {mode}");
            }
            // What the signal does is as it was.
            let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: without a new action it writes the old one.
            let action = unsafe {
                libc::sigaction(libc::SIGXFSZ, std::ptr::null(), action.as_mut_ptr());
                action.assume_init()
            };
            assert_eq!(action.sa_sigaction, libc::SIG_DFL);
        },
    );
}
