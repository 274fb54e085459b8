//! Every limit, reached: which end or which error the guest gets, and that others go on.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use wakebox::{
    Builder, CallError, Input, Limit, LimitKind, Limits, Outcome, Policy, Sandbox, WakeMode,
};
use wakebox_abi::entry::Token;
use wakebox_abi::op::{Deadline, Operation};
use wakebox_abi::status::Status;
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{ample, guest, kvm_test, run, runtime_of};

/// The probe with a command, in a mode.
fn quota(words: &[&str], mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("quota"))
        .wake(mode)
        .args(words.iter().copied())
}

/// What the probe says under these limits, which must be the same in every mode.
#[track_caller]
fn says(expected: &str, words: &[&str], limits: Limits, policy: &Policy) {
    for mode in WakeMode::ALL {
        let builder = quota(words, mode).policy(policy.clone()).limits(limits);
        let ended = run(builder).success();
        assert_eq!(ended.lines(), [expected], "mode {mode}");
    }
}

fn spin() -> Vec<u8> {
    Elf::guest(&code::spin()).to_bytes()
}

#[kvm_test]
fn the_wall_clock_ends_a_guest_that_computes_and_one_that_sleeps() {
    let limit = Duration::from_millis(20);
    let token = Token {
        slot: 0,
        generation: 1,
    };
    let never = Deadline { at_ns: u64::MAX }.submission(token);
    let sleeps = [code::submit(&[never]), code::wait(0), code::exit(1)].concat();
    for guest in [code::spin(), sleeps] {
        for mode in WakeMode::ALL {
            let builder = Sandbox::builder()
                .guest(Elf::guest(&guest).to_bytes())
                .wake(mode)
                // Not by the end of a quantum.
                .quantum(Duration::from_secs(3_600))
                .limits(Limits::new().wall_clock(limit));
            let expected = Outcome::Limit(Limit::WallClock(limit));
            assert_eq!(run(builder).outcome, expected, "mode {mode}");
        }
    }
}

#[kvm_test]
fn processor_time_ends_a_guest_that_computes_and_not_one_that_sleeps() {
    let limit = Duration::from_millis(20);
    for mode in WakeMode::ALL {
        for quantum in [Duration::from_millis(1), Duration::from_secs(3_600)] {
            let builder = Sandbox::builder()
                .guest(spin())
                .wake(mode)
                .quantum(quantum)
                .limits(Limits::new().cpu_time(limit));
            let ended = run(builder);
            let expected = Outcome::Limit(Limit::CpuTime(limit));
            assert_eq!(ended.outcome, expected, "mode {mode}");
            assert!(ended.stats.in_guest >= limit, "{}", ended.stats);
        }
    }
    // Sleeps for longer than it may compute.
    let token = Token {
        slot: 0,
        generation: 1,
    };
    let at_ns = (ample() + limit).as_nanos() as u64;
    let later = Deadline { at_ns }.submission(token);
    let sleeps = [code::submit(&[later]), code::wait(0), code::exit(3)].concat();
    let builder = Sandbox::builder()
        .guest(Elf::guest(&sleeps).to_bytes())
        .limits(Limits::new().cpu_time(ample()));
    assert_eq!(run(builder).outcome, Outcome::Exit(3));
}

#[kvm_test]
fn memory_that_is_used_up_is_a_failed_allocation() {
    let limits = Limits::new().memory(16 << 20);
    says("refused true", &["try-memory"], limits, &Policy::new());
    let ended = run(quota(&["memory"], WakeMode::Auto).limits(limits));
    match ended.outcome {
        Outcome::Panic(panic) => {
            assert!(panic.message.contains("memory allocation"), "{panic}");
        }
        other => panic!("expected a panic: {other}"),
    }
}

#[kvm_test(modes)]
fn operations_beyond_the_limit_wait_in_the_guest(mode: WakeMode) {
    let builder = Sandbox::builder()
        .guest(guest("ringfull"))
        .args(["2000"])
        .wake(mode)
        .limits(Limits::new().in_flight(2));
    let expected = ["ended 2000 of 2000", "in order true", "still works true"];
    assert_eq!(run(builder).success().lines(), expected, "mode {mode}");
}

#[kvm_test]
fn a_timer_too_many_is_refused_and_one_that_ends_makes_room() {
    let deadline = |slot: u32, at_ns| {
        let token = Token {
            slot,
            generation: 1,
        };
        Deadline { at_ns }.submission(token)
    };
    let limit = |most: u32| Limits::new().timers(most);
    let status = |entries: &[_], limits| {
        let parts = [
            code::submit(entries),
            code::wait(0),
            code::exit_with_status_of(0),
        ];
        let guest = Elf::guest(&parts.concat()).to_bytes();
        let builder = Sandbox::builder().guest(guest).wake(WakeMode::Out);
        match run(builder.limits(limits)).outcome {
            Outcome::Exit(code) => Status::from_code(code as u32),
            other => panic!("expected a completion: {other}"),
        }
    };
    let (soon, never) = (50_000_000, u64::MAX);
    let three = |last| [deadline(0, never), deadline(1, never), deadline(2, last)];
    assert_eq!(status(&three(never), limit(2)), Status::LimitReached);
    assert_eq!(status(&three(soon), limit(3)), Status::Ok);
    assert_eq!(status(&three(soon), Limits::new().timers(None)), Status::Ok);
    // One that is over when it is asked for is none.
    assert_eq!(status(&[deadline(0, 0)], limit(0)), Status::Ok);
}

/// Serves each connection with `serve`, for ever.
fn tcp(serve: fn(&mut std::net::TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve(&mut stream.unwrap());
        }
    });
    address
}

#[kvm_test]
fn bytes_of_connections_are_counted_to_the_last_one() {
    let pours = tcp(|stream| while stream.write_all(&[1; 4_096]).is_ok() {});
    let drinks = tcp(|stream| {
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let granted = |address: &str| Policy::new().allow_connect(address.parse().unwrap());
    let limits = Limits::new().network_in(12_345).network_out(23_456);
    let (receive, send) = (["receive", &pours], ["send", &drinks]);
    says("12345 QuotaExceeded", &receive, limits, &granted(&pours));
    says("23456 QuotaExceeded", &send, limits, &granted(&drinks));
    // Each direction has its own.
    let other = Limits::new().network_in(0);
    let ended = run(quota(&send, WakeMode::Auto)
        .policy(granted(&drinks))
        .limits(other));
    assert!(ended.stdout.ends_with("no limit\n"), "{}", ended.stdout);
    assert!(
        ended
            .stats
            .bytes
            .iter()
            .any(|(kind, _)| *kind == "network-out")
    );
}

#[kvm_test]
fn bytes_of_unix_sockets_count_as_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while stream.write_all(&[1; 4_096]).is_ok() {}
        }
    });
    let words = ["receive", path.to_str().unwrap()];
    let policy = Policy::new().allow_unix(&path);
    says(
        "777 QuotaExceeded",
        &words,
        Limits::new().network_in(777),
        &policy,
    );
}

#[kvm_test]
fn a_datagram_goes_whole_or_not_at_all() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut question = [0; 2_000];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(&[1; 300], from);
        }
    });
    let policy = Policy::new().allow_udp(address.parse().unwrap());
    let limits = Limits::new().network_in(1_000).network_out(2_500);
    let (receive, send) = (
        ["receive-datagrams", &address],
        ["send-datagrams", &address],
    );
    says("900 QuotaExceeded", &receive, limits, &policy);
    says("2000 QuotaExceeded", &send, limits, &policy);
}

#[kvm_test]
fn bytes_of_files_are_counted_whichever_way_they_go() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for dir in [memory, disk] {
        fs::write(dir.path().join("long"), vec![1; 50_000]).unwrap();
        let grant = format!("{}:/d", dir.path().display());
        let policy = Policy::new().allow_dir(grant.parse().unwrap());
        let limits = Limits::new().files_in(4_321).files_out(5_432);
        says("4321 QuotaExceeded", &["read", "/d/long"], limits, &policy);
        says("5432 QuotaExceeded", &["write", "/d/new"], limits, &policy);
        assert_eq!(fs::read(dir.path().join("new")).unwrap().len(), 5_432);
        let ended = run(quota(&["list", "/d"], WakeMode::Auto)
            .policy(policy)
            .limits(limits));
        assert!(
            ended.stdout.ends_with("QuotaExceeded\n"),
            "{}",
            ended.stdout
        );
    }
}

#[kvm_test(modes)]
fn standard_input_and_output_have_quotas_of_their_own(mode: WakeMode) {
    let builder = quota(&["input"], mode)
        .stdin(Input::bytes(vec![b'x'; 5_000]))
        .limits(Limits::new().stdin(3_210));
    assert_eq!(run(builder).success().lines(), ["3210 QuotaExceeded"]);
    let builder = quota(&["print"], mode).limits(Limits::new().stdout(2_345));
    assert_eq!(run(builder).success().stdout, "x".repeat(2_345));
}

#[kvm_test(modes)]
fn a_guest_that_logs_too_much_ends_and_what_it_may_is_kept(mode: WakeMode) {
    for most in [0, 2_345, 9_999] {
        let builder = quota(&["log"], mode).limits(Limits::new().log(most));
        let ended = run(builder);
        assert_eq!(
            ended.outcome,
            Outcome::Limit(Limit::Log(most)),
            "mode {mode}"
        );
        assert_eq!(ended.stderr, "x".repeat(most as usize), "mode {mode}");
        assert_eq!(ended.outcome.exit_status(), 124);
    }
    let builder = quota(&["log"], mode).limits(Limits::new().log(10_000));
    assert_eq!(run(builder).success().stderr, "x".repeat(10_000));
}

/// The probe with the host functions that it wants.
fn with_functions(words: &[&str], mode: WakeMode) -> Builder {
    quota(words, mode)
        .host_fn("echo", async |_, bytes: Vec<u8>| bytes)
        .host_fn("never", async |_, (): ()| {
            std::future::pending::<()>().await;
        })
}

#[kvm_test(modes)]
fn messages_of_calls_are_counted_in_both_directions(mode: WakeMode) {
    // 1,000 bytes and two for their number.
    for limits in [
        Limits::new().calls_in(5_100),
        Limits::new().calls_out(5_100),
    ] {
        let ended = run(with_functions(&["calls"], mode).limits(limits)).success();
        assert_eq!(ended.lines(), ["5000 QuotaExceeded"], "mode {mode}");
    }
}

#[kvm_test(modes)]
fn a_host_function_that_takes_too_long_is_given_up(mode: WakeMode) {
    let limits = Limits::new().host_fn_time(Duration::from_millis(20));
    let ended = run(with_functions(&["never"], mode).limits(limits)).success();
    assert_eq!(ended.lines(), ["Err(TimedOut)"], "mode {mode}");
}

#[kvm_test(modes)]
fn a_caller_learns_that_the_guest_may_not_be_told_or_may_not_answer(mode: WakeMode) {
    for limits in [Limits::new().calls_in(900), Limits::new().calls_out(900)] {
        runtime_of(2).block_on(async {
            let running = Sandbox::builder()
                .guest(guest("calls"))
                .args(["serve"])
                .wake(mode)
                .limits(limits)
                .build()
                .unwrap()
                .start();
            let small = running
                .call::<_, Vec<u8>>("reverse", &vec![1_u8; 300])
                .await;
            assert_eq!(small.unwrap().len(), 300);
            let large = running
                .call::<_, Vec<u8>>("reverse", &vec![1_u8; 700])
                .await;
            assert_eq!(large, Err(CallError::LimitReached("reverse".into())));
            let (outcome, _) = running.close().await.unwrap();
            assert!(outcome.is_success(), "mode {mode}: {outcome}");
        });
    }
}

#[kvm_test]
fn the_builder_counts_before_the_policy_and_that_before_the_defaults() {
    let policy = Policy::new().limit(Limits::new().log(100).stdout(50));
    let log = quota(&["log"], WakeMode::Auto).policy(policy.clone());
    assert_eq!(run(log).outcome, Outcome::Limit(Limit::Log(100)));
    let log = quota(&["log"], WakeMode::Auto)
        .policy(policy)
        .limits(Limits::new().log(None));
    assert_eq!(run(log).success().stderr.len(), 10_000);
    assert_eq!(Limits::new().get(LimitKind::Log), Some(1 << 30));
}

#[kvm_test(modes)]
fn a_guest_without_limits_runs_as_any_other(mode: WakeMode) {
    let builder = with_functions(&["calls"], mode).limits(Limits::unlimited());
    let ended = run(builder).success();
    assert_eq!(ended.lines(), ["101000 no limit"], "mode {mode}");
}

/// A guest that never does anything, and takes no calls.
fn idle() -> Vec<u8> {
    let token = Token {
        slot: 0,
        generation: 1,
    };
    let never = Deadline { at_ns: u64::MAX }.submission(token);
    let sleeps = [code::submit(&[never]), code::wait(0), code::exit(0)].concat();
    Elf::guest(&sleeps).to_bytes()
}

#[kvm_test(modes)]
fn calls_that_are_given_up_before_the_guest_takes_them_leave_nothing(mode: WakeMode) {
    const INPUT: usize = 1 << 20;
    runtime_of(2).block_on(async {
        let builder = Sandbox::builder().guest(idle()).wake(mode);
        let running = builder.build().unwrap().start();
        let (caller, input) = (running.caller(), vec![1; INPUT]);
        // As who puts a time-out around each of them.
        for _ in 0..500 {
            let call = caller.call_bytes("f", &input);
            assert_eq!(call.now_or_never(), None);
        }
        running.handle().kill();
        let (outcome, stats) = running.ended().await.unwrap();
        assert_eq!(outcome, Outcome::Cancelled, "mode {mode}");
        assert_eq!(stats.host_memory, 0, "{stats}");
        let peak = stats.host_memory_peak as usize;
        assert!((INPUT..2 * INPUT).contains(&peak), "{stats}");
    });
}

#[kvm_test(modes)]
fn calls_that_wait_are_kept_up_to_the_limit_and_refused_beyond(mode: WakeMode) {
    const LIMIT: u64 = 10 << 20;
    runtime_of(2).block_on(async {
        let builder = Sandbox::builder().guest(idle()).wake(mode);
        let limits = Limits::new().host_memory(LIMIT);
        let running = builder.limits(limits).build().unwrap().start();
        let (caller, input) = (running.caller(), vec![1; 1 << 20]);
        let calls = (0..100).map(|_| Box::pin(caller.call_bytes("f", &input)));
        let mut calls: Vec<_> = calls.collect();
        let ends: Vec<_> = calls.iter_mut().map(FutureExt::now_or_never).collect();
        let (waiting, refused) = ends.split_at(9);
        assert!(waiting.iter().all(Option::is_none), "mode {mode}");
        let reached = Some(Err(CallError::LimitReached("f".into())));
        assert!(refused.iter().all(|end| *end == reached), "mode {mode}");
        drop(calls);
        running.handle().kill();
        let (_, stats) = running.ended().await.unwrap();
        assert!(stats.host_memory_peak <= LIMIT, "{stats}");
        assert!(stats.to_string().contains("host       keeps"), "{stats}");
    });
}
