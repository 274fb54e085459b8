//! What the host cannot do: an error with a cause that a person can act upon, and neighbours that go
//! on. What a guest is told of such a host is in `scarcity.rs`.
//!
//! Limits of the process are the real ones of the kernel, each in a process of its own. Answers of KVM
//! that cannot be had for the asking come from this file's own `ioctl`, which stands before the C
//! library's and passes on everything that it does not answer itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{c_int, c_ulong, c_void};
use std::fs;
use std::sync::Arc;
use std::thread::JoinHandle;

use kvm_bindings::{KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, kvm_run};
use rustix::thread::CapabilitySet;
use tokio::sync::Semaphore;
use wakebox::{Builder, Error, Handle, Outcome, Policy, Sandbox, WakeMode};
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{alone, guest, kvm_test, leaks, run, runtime};

/// `KVM_CREATE_VM` (KVM API, 4.2).
const CREATE_VM: c_ulong = 0xAE01;
/// `KVM_CREATE_VCPU` (KVM API, 4.7).
const CREATE_VCPU: c_ulong = 0xAE41;
/// `KVM_RUN` (KVM API, 4.10).
const RUN: c_ulong = 0xAE80;

/// What a call is answered instead of being made.
#[derive(Clone, Copy)]
enum Answer {
    /// It fails.
    Errno(i32),
    /// The guest was left for this reason.
    Exit(u32),
}

thread_local! {
    /// Answers to calls of this thread, first come first served. The last one is given for ever.
    static ANSWERS: RefCell<(c_ulong, VecDeque<Answer>, bool)> =
        const { RefCell::new((0, VecDeque::new(), false)) };
}

/// Answers this thread's next calls of a kind with these, and what follows with the last of them if
/// it is to go on for ever.
fn answer(request: c_ulong, answers: &[Answer], for_ever: bool) {
    ANSWERS.set((request, answers.iter().copied().collect(), for_ever));
}

fn next_answer(request: c_ulong) -> Option<Answer> {
    ANSWERS.with_borrow_mut(|(kind, answers, for_ever)| {
        if *kind != request {
            return None;
        }
        match (answers.len(), *for_ever) {
            (1, true) => answers.front().copied(),
            _ => answers.pop_front(),
        }
    })
}

/// Stands before the C library's function of this name, in this program.
///
/// # Safety
///
/// As for the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    match next_answer(request) {
        // SAFETY: the caller's promise.
        None => unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int },
        Some(Answer::Errno(errno)) => {
            // SAFETY: the place of this thread's error number.
            unsafe { *libc::__errno_location() = errno };
            -1
        }
        Some(Answer::Exit(reason)) => {
            const LEN: usize = 4096;
            // SAFETY: a new mapping of the page that this processor shares with its user; it is
            // written before anybody else looks at it again, and given back.
            unsafe {
                let rights = libc::PROT_READ | libc::PROT_WRITE;
                let page = libc::mmap(std::ptr::null_mut(), LEN, rights, libc::MAP_SHARED, fd, 0);
                assert_ne!(page, libc::MAP_FAILED);
                let run = page.cast::<kvm_run>();
                (*run).exit_reason = reason;
                (*run).__bindgen_anon_1.internal.suberror = 1;
                libc::munmap(page, LEN);
            }
            0
        }
    }
}

/// A guest that tells the host again and again that it is there, on a thread of its own.
struct Neighbour {
    ticks: Arc<Semaphore>,
    kill: Handle,
    run: Option<JoinHandle<Outcome>>,
}

impl Neighbour {
    fn start() -> Self {
        let ticks = Arc::new(Semaphore::new(0));
        let there = ticks.clone();
        let mut sandbox = Sandbox::builder()
            .guest(guest("killme"))
            .args(["tick"])
            .wake(WakeMode::Out)
            .memory(4 << 20)
            .host_fn("here", move |_, (): ()| {
                there.add_permits(1);
                std::future::ready(())
            })
            .build()
            .unwrap();
        let kill = sandbox.handle();
        let run = std::thread::spawn(move || sandbox.run_blocking().unwrap());
        let neighbour = Self {
            ticks,
            kill,
            run: Some(run),
        };
        neighbour.goes_on();
        neighbour
    }

    /// Waits until it has done something more.
    fn goes_on(&self) {
        self.ticks.forget_permits(usize::MAX);
        while self.ticks.available_permits() < 2 {
            let run = self.run.as_ref().expect("it is taken at the end");
            assert!(!run.is_finished(), "the neighbour has ended");
            std::thread::yield_now();
        }
    }

    fn ends(mut self) {
        self.goes_on();
        self.kill.kill();
        let run = self.run.take().expect("it is taken here");
        assert_eq!(run.join().unwrap(), Outcome::Cancelled);
    }
}

fn small(mode: WakeMode) -> Builder {
    let guest = Elf::guest(&code::exit(7)).to_bytes();
    Sandbox::builder().guest(guest).memory(4 << 20).wake(mode)
}

/// The error and its causes, as a person sees them.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[track_caller]
fn says(error: &Error, words: &[&str]) {
    let text = chain(error);
    for word in words {
        assert!(text.contains(word), "expected `{word}` in: {text}");
    }
}

/// Sets a limit of this process, `None` for as much as it may have.
fn limit(resource: libc::__rlimit_resource_t, most: Option<u64>) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it writes to a structure that lives here.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    limit.rlim_cur = most.unwrap_or(limit.rlim_max).min(limit.rlim_max);
    // SAFETY: it reads a structure that lives here.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

#[kvm_test]
fn without_descriptors_a_sandbox_is_not_built_and_the_others_go_on() {
    alone!(
        "without_descriptors_a_sandbox_is_not_built_and_the_others_go_on",
        without_descriptors,
    );
}

fn without_descriptors() {
    const WORDS: [&str; 2] = ["Too many open files", "ulimit -n"];
    // Not even /dev/kvm.
    let image = small(WakeMode::Poll);
    limit(libc::RLIMIT_NOFILE, Some(3));
    let error = image.build().unwrap_err();
    limit(libc::RLIMIT_NOFILE, None);
    says(&error, &WORDS);
    says(&error, &["/dev/kvm"]);

    // Every number from none to enough.
    let neighbour = Neighbour::start();
    let mut seen = Vec::new();
    for most in 3.. {
        let builder = small(WakeMode::Poll);
        limit(libc::RLIMIT_NOFILE, Some(most));
        let built = builder.build();
        limit(libc::RLIMIT_NOFILE, None);
        match built {
            Ok(_) => break,
            Err(error) => {
                says(&error, &WORDS);
                seen.push(chain(&error));
            }
        }
        neighbour.goes_on();
    }
    for what in ["a virtual machine", "a virtual processor", "wakebox-driver"] {
        assert!(seen.iter().any(|text| text.contains(what)), "{seen:?}");
    }
    assert_eq!(run(small(WakeMode::Poll)).outcome, Outcome::Exit(7));
    neighbour.ends();
}

/// Memory for small things is there, whatever the limit: Rust's allocator ends the process where it
/// is not, and that is not what is tested here.
fn cushion() {
    let mut pieces: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 64 << 10]).collect();
    // The last one keeps the others from going back to the kernel.
    std::mem::forget(pieces.pop());
}

/// Address space that this process has, in bytes.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let words = size.unwrap().split_whitespace().next();
    words.unwrap().parse::<u64>().unwrap() * 1024
}

#[kvm_test]
fn without_memory_a_sandbox_is_not_built_and_the_others_go_on() {
    alone!(
        "without_memory_a_sandbox_is_not_built_and_the_others_go_on",
        without_memory,
    );
}

fn without_memory() {
    const STEP: u64 = 256 << 10;
    let neighbour = Neighbour::start();
    cushion();
    let mut seen = Vec::new();
    let used = address_space();
    for step in 0.. {
        let builder = small(WakeMode::Poll);
        limit(libc::RLIMIT_AS, Some(used + step * STEP));
        let built = builder.build();
        limit(libc::RLIMIT_AS, None);
        match built {
            Ok(_) => break,
            Err(error) => {
                says(&error, &["ulimit -v"]);
                seen.push(chain(&error));
            }
        }
        neighbour.goes_on();
    }
    // Guest memory, and the stack of a thread that cannot start.
    for what in ["of guest memory", "the thread `wakebox-driver`"] {
        assert!(seen.iter().any(|text| text.contains(what)), "{seen:?}");
    }
    assert_eq!(run(small(WakeMode::Poll)).outcome, Outcome::Exit(7));
    neighbour.ends();
}

/// Runs a guest with two operations that need a thread, in a process that has been starved since the
/// sandbox was built. Returns what the guest was told.
fn make_folders(
    resource: libc::__rlimit_resource_t,
    most: impl FnOnce() -> u64,
) -> Result<String, Error> {
    let dir = tempfile::tempdir().unwrap();
    let grant = format!("{}:/d", dir.path().display());
    let output = wakebox::Captured::new();
    let mut sandbox = Sandbox::builder()
        .guest(guest("files"))
        .args(["mkdir /d/a", "mkdir /d/b"])
        .policy(Policy::new().allow_dir(grant.parse().unwrap()))
        .stdout(wakebox::Output::Capture(output.clone()))
        .wake(WakeMode::Out)
        .build()
        .unwrap();
    let runtime = runtime();
    cushion();
    limit(resource, Some(most()));
    let outcome = runtime.block_on(sandbox.run());
    limit(resource, None);
    assert!(outcome?.is_success());
    Ok(output.text())
}

#[kvm_test]
fn an_operation_for_whose_thread_there_is_no_memory_fails_alone() {
    alone!(
        "an_operation_for_whose_thread_there_is_no_memory_fails_alone",
        || {
            let neighbour = Neighbour::start();
            let said = make_folders(libc::RLIMIT_AS, || address_space() + (64 << 10));
            assert_eq!(said.unwrap(), "OutOfMemory\nOutOfMemory\n");
            neighbour.ends();
        },
    );
}

#[kvm_test]
fn an_operation_for_which_there_is_no_thread_left_fails_alone() {
    alone!(
        "an_operation_for_which_there_is_no_thread_left_fails_alone",
        || {
            let neighbour = Neighbour::start();
            count_threads();
            let mut seen = Vec::new();
            for most in 1..threads() + 4 {
                match make_folders(libc::RLIMIT_NPROC, || most) {
                    Ok(said) => seen.push(said),
                    // Some kernels start a thread of their own when a machine runs first.
                    Err(error) => says(&error, &["run the virtual processor", "ulimit -u"]),
                }
                neighbour.goes_on();
            }
            let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
            assert_eq!(first, "OutOfMemory\nOutOfMemory\n");
            assert_eq!(last, "ok\nok\n");
            neighbour.ends();
        },
    );
}

/// Has the kernel count this process's threads, which it does for everybody but the superuser:
/// under a user of its own, where there is nobody else's. It may do what it could before.
fn count_threads() {
    // Nobody's number, and no other test's.
    let user = 0x7E00_0000 + std::process::id();
    // SAFETY: these change what the process may do, not memory.
    unsafe {
        if libc::geteuid() != 0 {
            return;
        }
        // Files are opened as the effective user, who stays.
        assert_eq!(
            libc::setresuid(user, 0, 0),
            0,
            "{}",
            std::io::Error::last_os_error()
        );
    }
    // These two are what lets a process have more threads than its user may have
    // (setrlimit(2), RLIMIT_NPROC).
    let mut sets = rustix::thread::capabilities(None).expect("capabilities can be read");
    let mighty = CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
    sets.effective.remove(mighty);
    sets.permitted.remove(mighty);
    rustix::thread::set_capabilities(None, sets).expect("capabilities can be given up");
}

/// Threads that this process has.
fn threads() -> u64 {
    leaks::thread_names().unwrap().len() as u64
}

#[kvm_test]
fn without_threads_a_sandbox_is_not_built_and_the_others_go_on() {
    alone!(
        "without_threads_a_sandbox_is_not_built_and_the_others_go_on",
        without_threads,
    );
}

fn without_threads() {
    let neighbour = Neighbour::start();
    count_threads();
    // There are more than one already.
    for most in 1.. {
        let builder = small(WakeMode::Poll);
        limit(libc::RLIMIT_NPROC, Some(most));
        let built = builder.build();
        limit(libc::RLIMIT_NPROC, None);
        match built {
            Ok(_) => {
                assert!(most > 1, "a thread has started where none may");
                break;
            }
            Err(error) => says(&error, &["the thread `wakebox-driver`", "ulimit -u"]),
        }
        neighbour.goes_on();
    }
    assert_eq!(run(small(WakeMode::Poll)).outcome, Outcome::Exit(7));
    neighbour.ends();
}

#[kvm_test]
fn a_machine_that_cannot_be_created_is_an_error_with_its_cause() {
    let neighbour = Neighbour::start();
    for (request, what) in [
        (CREATE_VM, "create a virtual machine"),
        (CREATE_VCPU, "create a virtual processor"),
    ] {
        for (errno, cause) in [
            (libc::EMFILE, "ulimit -n"),
            (libc::ENFILE, "file-max"),
            (libc::ENOMEM, "memory.max"),
            (libc::EBUSY, "busy"),
        ] {
            answer(request, &[Answer::Errno(errno)], false);
            let error = small(WakeMode::Out).build().unwrap_err();
            says(&error, &[what, cause]);
        }
        // A signal meanwhile is no error.
        answer(request, &[Answer::Errno(libc::EINTR); 3], false);
        assert_eq!(run(small(WakeMode::Out)).outcome, Outcome::Exit(7));
    }
    neighbour.ends();
}

#[kvm_test(modes)]
fn a_run_that_is_interrupted_or_asked_to_try_again_goes_on(mode: WakeMode) {
    for errno in [libc::EINTR, libc::EAGAIN] {
        answer(RUN, &[Answer::Errno(errno); 50], false);
        // A machine that has served another would be asked sooner.
        let ended = run(small(mode).own_machine());
        assert_eq!(ended.outcome, Outcome::Exit(7), "mode {mode}");
        assert!(ended.stats.exits.kick >= 50, "mode {mode}: {}", ended.stats);
    }
}

#[kvm_test]
fn a_run_that_fails_is_an_error_with_its_cause() {
    let neighbour = Neighbour::start();
    let stopped = "KVM stopped the virtual processor";
    for mode in WakeMode::ALL {
        for (fault, words) in [
            (
                Answer::Errno(libc::EFAULT),
                [
                    "run the virtual processor",
                    "guest memory could not be reached",
                ],
            ),
            (
                Answer::Errno(libc::ENOMEM),
                ["run the virtual processor", "out of memory"],
            ),
            (
                Answer::Errno(libc::EAGAIN),
                ["run the virtual processor", "temporarily unavailable"],
            ),
            (
                Answer::Exit(KVM_EXIT_INTERNAL_ERROR),
                [stopped, "could not emulate what the guest did"],
            ),
            (
                Answer::Exit(KVM_EXIT_FAIL_ENTRY),
                [stopped, "entering the guest failed"],
            ),
        ] {
            let mut sandbox = small(mode).build().unwrap();
            answer(RUN, &[fault], true);
            let error = runtime().block_on(sandbox.run()).unwrap_err();
            answer(0, &[], false);
            says(&error, &words);
            assert!(matches!(sandbox.run_blocking(), Err(Error::Ended)));
        }
    }
    neighbour.ends();
}
