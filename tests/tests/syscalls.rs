//! What an operation costs in system calls of the thread that runs the guest and serves it. The kernel counts them, for whom it
//! lets: by a tracepoint, which wants `CAP_PERFMON` and a `tracefs`. Where it does not, this says so and tries nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::FromRawFd;
use std::thread;

use wakebox::{Captured, Output, Policy, Sandbox, Stats, WakeMode};
use wakebox_tests::{guest, kvm_test, runtime};

/// `struct perf_event_attr` of perf_event_open(2) in its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample: [u64; 3],
    flags: u64,
    rest: [u64; 2],
}

const TRACEPOINT: u32 = 2;
const CLOSE_ON_EXEC: u64 = 1 << 3;

/// Counts system calls of this thread from now on.
struct Calls(File);

impl Calls {
    fn new() -> Option<Self> {
        let ids = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
        let id = ids.iter().find_map(|root| {
            std::fs::read_to_string(format!("{root}/events/raw_syscalls/sys_enter/id")).ok()
        })?;
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: id.trim().parse().ok()?,
            ..Attributes::default()
        };
        let (this_thread, any_processor, no_group) = (0, -1, -1);
        // SAFETY: the attributes are as long as they say, and the call keeps nothing of them.
        let counter = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                this_thread,
                any_processor,
                no_group,
                CLOSE_ON_EXEC,
            )
        };
        let counter = i32::try_from(counter).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just made it, and nobody else has it.
        Some(Self(unsafe { File::from_raw_fd(counter) }))
    }

    fn count(&mut self) -> u64 {
        let mut count = [0; 8];
        self.0.read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count)
    }
}

/// What was counted while a sandbox ran, and what it did.
fn counted(calls: &mut Calls, mut sandbox: Sandbox) -> (u64, Stats) {
    let runtime = runtime();
    let before = calls.count();
    let outcome = runtime.block_on(sandbox.run()).unwrap();
    let counted = calls.count() - before;
    assert!(outcome.is_success(), "{outcome}");
    (counted, sandbox.stats())
}

/// So many tasks that do nothing but no-ops, so many in all.
fn storm(calls: &mut Calls, tasks: u32, operations: u32) -> (u64, Stats) {
    let builder = Sandbox::builder().guest(guest("storm")).wake(WakeMode::Out);
    let builder = builder.args([tasks.to_string(), operations.to_string()]);
    counted(calls, builder.build().unwrap())
}

/// One connection over which so many requests are echoed, one after the other.
fn echo(calls: &mut Calls, requests: usize) -> (u64, Stats) {
    let stdout = Captured::new();
    let sandbox = Sandbox::builder()
        .guest(guest("echo"))
        .wake(WakeMode::Out)
        .args(["127.0.0.1:0", "--once", "1"])
        .policy(Policy::new().allow_listen("127.0.0.1:0".parse().unwrap()))
        .stdout(Output::Capture(stdout.clone()))
        .build()
        .unwrap();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(listens(&stdout)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut answer = [0; 64];
        for _ in 0..requests {
            stream.write_all(&[7; 64]).unwrap();
            stream.read_exact(&mut answer).unwrap();
        }
    });
    let counted = counted(calls, sandbox);
    client.join().unwrap();
    counted
}

/// Where the guest listens, as soon as it has said so.
fn listens(stdout: &Captured) -> SocketAddr {
    loop {
        if let Some((line, _)) = stdout.text().split_once('\n') {
            return line.strip_prefix("listening on ").unwrap().parse().unwrap();
        }
        thread::yield_now();
    }
}

#[kvm_test]
fn an_operation_takes_its_part_of_few_system_calls() {
    let Some(mut calls) = Calls::new() else {
        eprintln!("not tried: this kernel counts no system calls for this user");
        return;
    };
    for (tasks, operations) in [(1, 2_000), (256, 256_000)] {
        // What is done once is done in both.
        let (few, first) = storm(&mut calls, tasks, operations);
        let (many, second) = storm(&mut calls, tasks, 2 * operations);
        let exits = second.exits.total() - first.exits.total();
        let more = many - few;
        // To enter the guest, and as many for what others of the thread have after each quantum, which are more where all
        // takes longer.
        let most = 2 * exits + u64::from(operations) / 100;
        assert!(
            more <= most,
            "{tasks} tasks: {more} calls for {exits} exits"
        );
    }
    let (few, first) = echo(&mut calls, 500);
    let (many, second) = echo(&mut calls, 2_500);
    let exits = second.exits.total() - first.exits.total();
    let more = many - few;
    // The answer and the next read are submitted together, and nobody waits for the end of the answer.
    assert!(exits <= 2_000 + 500, "{exits} exits for 2,000 requests");
    // Besides: to wait for a request, to receive it, to answer it.
    let most = exits + 3 * 2_000 + 1_000;
    assert!(
        more <= most,
        "{more} calls for 2,000 requests and {exits} exits"
    );
}
