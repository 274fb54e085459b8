//! Guests with several processors: in every mode, on one thread and on several, and every end of one
//! while others run.

use std::process::Command;
use std::time::Duration;

use wakebox::{Builder, Cause, Limit, LimitKind, Limits, Outcome, Sandbox, Violation, WakeMode};
use wakebox_tests::{Ended, ends, guest, guest_debug, kvm_test, run_here, runtime, runtime_of};

/// Sandboxes of the probe with so many processors.
fn processors(count: u32, mode: WakeMode, args: &[&str]) -> Builder {
    Sandbox::builder()
        .guest(guest("processors"))
        .limits(Limits::new().processors(64))
        .processors(count)
        .wake(mode)
        .args(args.iter().copied())
}

/// Runs it on one thread, and on three.
#[track_caller]
fn on_one_thread_and_on_several(make: impl Fn() -> Builder, check: impl Fn(Ended)) {
    check(runtime().block_on(run_here(make())));
    let ended = runtime_of(2).block_on(async {
        let builder = make();
        // As a task beside the others.
        tokio::spawn(async move { run_here(builder).await })
            .await
            .unwrap()
    });
    check(ended);
}

#[kvm_test(modes)]
fn a_turn_that_goes_around_wakes_whoever_has_it_next(mode: WakeMode) {
    for count in [2, 4] {
        on_one_thread_and_on_several(
            || processors(count, mode, &["turns"]),
            |ended| {
                let stats = ended.success().stats;
                assert!(stats.exits.processor >= u64::from(count) - 1, "{stats}");
            },
        );
    }
}

#[kvm_test(modes)]
fn tokens_that_anybody_passes_to_anybody_at_any_time_lose_no_wake(mode: WakeMode) {
    for count in [2, 4] {
        on_one_thread_and_on_several(
            || processors(count, mode, &["tokens", "2000"]),
            |ended| drop(ended.success()),
        );
    }
}

#[kvm_test(modes)]
fn operations_of_all_processors_go_by_the_same_tokens_and_come_home(mode: WakeMode) {
    for count in [1, 2, 3, 4] {
        on_one_thread_and_on_several(
            || processors(count, mode, &["operations"]),
            |ended| {
                let stats = ended.success().stats;
                assert_eq!(
                    stats.operations_total(),
                    u64::from(count) * 50 * 9,
                    "{stats}"
                );
            },
        );
    }
}

#[kvm_test(modes)]
fn a_cancellation_is_of_the_own_operation(mode: WakeMode) {
    on_one_thread_and_on_several(
        || processors(3, mode, &["cancel"]),
        |ended| drop(ended.success()),
    );
}

#[kvm_test]
fn one_that_computes_is_interrupted_for_what_another_left() {
    on_one_thread_and_on_several(
        || processors(3, WakeMode::Irq, &["interrupt"]),
        |ended| {
            let stats = ended.success().stats;
            assert!(stats.interrupts >= 2, "{stats}");
        },
    );
}

#[kvm_test(modes)]
fn a_processor_that_is_never_started_costs_nothing_and_ends_with_the_others(mode: WakeMode) {
    on_one_thread_and_on_several(
        || processors(4, mode, &["never"]),
        |ended| {
            let stats = ended.success().stats;
            // The first may have been kicked: a machine with much to do is slow.
            assert_eq!(stats.exits.total() - stats.exits.kick, 1, "{stats}");
        },
    );
}

#[kvm_test(modes)]
fn all_that_wait_for_each_other_are_stuck(mode: WakeMode) {
    for count in [1, 2, 4] {
        on_one_thread_and_on_several(
            || processors(count, mode, &["sleep"]),
            |ended| assert_eq!(ended.outcome, Outcome::Deadlock),
        );
    }
}

/// What the others do, while one ends.
const OTHERS: [&str; 3] = ["compute", "sleep", "work"];

/// One of three processors ends so, whichever it is and whatever the others do.
#[track_caller]
fn any_ends(mode: WakeMode, how: &str, check: impl Fn(u32, Ended)) {
    for who in 0..3 {
        for others in OTHERS {
            let number = who.to_string();
            on_one_thread_and_on_several(
                || processors(3, mode, &["end", &number, how, others]),
                |ended| check(who, ended),
            );
        }
    }
}

#[kvm_test(modes)]
fn the_exit_of_any_ends_all(mode: WakeMode) {
    any_ends(mode, "exit", |who, ended| {
        assert_eq!(ended.outcome, Outcome::Exit(40 + who.cast_signed()));
    });
}

#[kvm_test(modes)]
fn the_panic_of_any_ends_all_and_is_told(mode: WakeMode) {
    any_ends(mode, "panic", |who, ended| {
        let Outcome::Panic(panic) = &ended.outcome else {
            panic!("{}", ended.outcome);
        };
        assert_eq!(panic.message, format!("processor {who} has panicked"));
        let text = panic.backtrace.to_string();
        assert!(text.contains("one_of_those"), "{text}");
    });
}

#[kvm_test(modes)]
fn the_fault_of_any_ends_all_and_is_told(mode: WakeMode) {
    any_ends(mode, "fault", |_, ended| {
        let Outcome::Fault(fault) = &ended.outcome else {
            panic!("{}", ended.outcome);
        };
        assert_eq!(fault.cause(), Cause::IllegalInstruction);
        let text = fault.backtrace.to_string();
        assert!(text.contains("one_of_those"), "{text}");
    });
}

#[kvm_test]
fn the_stack_overflow_of_any_is_one() {
    for path in [guest("processors"), guest_debug("processors")] {
        for who in 0..3 {
            let number = who.to_string();
            let args = ["end", &number, "overflow", "compute"];
            on_one_thread_and_on_several(
                || processors(3, WakeMode::Auto, &args).guest(&path),
                |ended| {
                    let Outcome::Fault(fault) = &ended.outcome else {
                        panic!("{}", ended.outcome);
                    };
                    assert_eq!(
                        fault.cause(),
                        Cause::StackOverflow,
                        "processor {who}: {fault}"
                    );
                },
            );
        }
    }
}

#[kvm_test(modes)]
fn the_violation_of_any_ends_all(mode: WakeMode) {
    any_ends(mode, "violation", |_, ended| {
        let is_one = matches!(
            ended.outcome,
            Outcome::Violation(Violation::RingIndex { .. })
        );
        assert!(is_one, "{}", ended.outcome);
    });
}

#[kvm_test(modes)]
fn a_kill_ends_those_that_compute_and_those_that_sleep(mode: WakeMode) {
    for others in OTHERS {
        for threads in [1, 2] {
            runtime_of(threads).block_on(async {
                let args = ["end", "1", "compute", others];
                let mut sandbox = processors(3, mode, &args).build().unwrap();
                let handle = sandbox.handle();
                let run = tokio::spawn(async move {
                    let outcome = ends(&mut sandbox).await;
                    (outcome, sandbox.stats())
                });
                // All have begun when there were exits enough.
                while handle.stats().exits.total() < 8 {
                    tokio::task::yield_now().await;
                }
                handle.kill();
                let (outcome, stats) = run.await.unwrap();
                assert_eq!(outcome, Outcome::Cancelled, "{stats}");
            });
        }
    }
}

#[kvm_test(modes)]
fn a_run_that_is_dropped_stops_all(mode: WakeMode) {
    for threads in [1, 2] {
        runtime_of(threads).block_on(async {
            let args = ["end", "1", "compute", "compute"];
            let mut sandbox = processors(2, mode, &args).build().unwrap();
            let handle = sandbox.handle();
            let run = tokio::spawn(async move { ends(&mut sandbox).await });
            while handle.stats().exits.total() < 8 {
                tokio::task::yield_now().await;
            }
            run.abort();
            assert!(run.await.unwrap_err().is_cancelled());
            assert!(handle.is_ended());
            let stopped = handle.stats().exits.total();
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(
                handle.stats().exits.total(),
                stopped,
                "none is entered again"
            );
        });
    }
}

#[kvm_test(modes)]
fn time_on_a_processor_is_the_sum(mode: WakeMode) {
    let limit = Duration::from_millis(60);
    on_one_thread_and_on_several(
        || {
            let limits = Limits::new().processors(2).cpu_time(limit);
            processors(2, mode, &["end", "1", "compute", "compute"]).limits(limits)
        },
        |ended| {
            assert_eq!(ended.outcome, Outcome::Limit(Limit::CpuTime(limit)));
            // Both have computed: neither for all of it.
            assert!(ended.stats.in_guest >= limit, "{}", ended.stats);
        },
    );
}

#[kvm_test(modes)]
fn a_limit_of_time_ends_all(mode: WakeMode) {
    let limit = Duration::from_millis(50);
    for others in OTHERS {
        on_one_thread_and_on_several(
            || processors(2, mode, &["end", "1", "compute", others]).timeout(limit),
            |ended| assert_eq!(ended.outcome, Outcome::Limit(Limit::WallClock(limit))),
        );
    }
}

#[kvm_test(modes)]
fn a_processor_is_started_once_and_only_if_it_is_there(mode: WakeMode) {
    for (case, sentence) in [
        (
            "start-self",
            "it started processor 0, which has begun already",
        ),
        (
            "start-twice",
            "it started processor 1, which has begun already",
        ),
        (
            "start-missing",
            "it rang for processor 3, counted from 0, and has 3",
        ),
        (
            "start-nowhere",
            "it started processor 1 at 0xdeadbeef00000000, where no code can be",
        ),
        (
            "nudge-missing",
            "it rang for processor 4294967295, counted from 0, and has 3",
        ),
    ] {
        on_one_thread_and_on_several(
            || processors(3, mode, &[case]),
            |ended| match ended.outcome {
                Outcome::Violation(violation) => assert_eq!(violation.to_string(), sentence),
                other => panic!("{case}: {other}"),
            },
        );
    }
}

#[kvm_test(modes)]
fn whoever_is_nudged_for_nothing_does_nothing(mode: WakeMode) {
    on_one_thread_and_on_several(
        || processors(3, mode, &["nudge-anybody"]),
        |ended| drop(ended.success()),
    );
}

#[kvm_test]
fn one_that_is_started_where_no_code_is_faults_there() {
    let ended = runtime().block_on(run_here(processors(2, WakeMode::Out, &["start-in-data"])));
    // The first may have left before.
    match ended.outcome {
        Outcome::Fault(fault) => assert_eq!(fault.cause(), Cause::ExecutionOfData),
        other => assert_eq!(other, Outcome::Exit(0)),
    }
}

#[kvm_test(modes)]
fn nonsense_from_all_at_once_ends_the_guest_and_nothing_else(mode: WakeMode) {
    for count in [2, 4] {
        on_one_thread_and_on_several(
            || processors(count, mode, &["nonsense"]),
            |ended| {
                let is_one = matches!(ended.outcome, Outcome::Violation(_) | Outcome::Deadlock);
                assert!(is_one, "{}", ended.outcome);
            },
        );
    }
}

#[kvm_test]
fn whoever_changes_where_anothers_upcall_goes_on_ends_the_guest_by_a_fault() {
    // No address at all, one of no guest, and one where there is no code.
    for high in [0x8000_0000_u32, 0xffff_8000, 1] {
        let args = ["upcalls", &high.to_string()];
        let ended = runtime_of(2).block_on(async {
            let builder = processors(2, WakeMode::Irq, &args);
            tokio::spawn(run_here(builder)).await.unwrap()
        });
        let Outcome::Fault(fault) = &ended.outcome else {
            panic!("{high:#x}: {}", ended.outcome);
        };
        let expected: &[Cause] = match high {
            0x8000_0000 => &[Cause::GeneralProtection],
            // Some KVMs have memory of their own there.
            _ => &[Cause::ExecutionOfData, Cause::NotMapped],
        };
        assert!(expected.contains(&fault.cause()), "{high:#x}: {fault}");
        // Its machine serves another as if nothing had been.
        let next = runtime().block_on(run_here(processors(2, WakeMode::Irq, &["turns"])));
        next.success();
    }
}

#[kvm_test]
fn as_many_as_there_can_be_take_turns() {
    on_one_thread_and_on_several(
        || processors(64, WakeMode::Auto, &["operations"]),
        |ended| drop(ended.success()),
    );
}

/// Why it is not built.
fn refused(builder: Builder) -> String {
    builder.build().expect_err("it is refused").to_string()
}

#[kvm_test]
fn processors_that_cannot_be_or_are_not_granted_are_refused_with_what_to_do() {
    let probe = |count| {
        Sandbox::builder()
            .guest(guest("processors"))
            .processors(count)
    };
    for count in [0, 65, u32::MAX] {
        let told = refused(probe(count).limits(Limits::unlimited()));
        assert!(
            told.contains(&format!("{count} processors cannot be: from 1 to 64")),
            "{told}"
        );
    }
    for (limits, granted) in [(Limits::new(), 1), (Limits::new().processors(3), 3)] {
        let told = refused(probe(4).limits(limits));
        let words = [
            "4 processors",
            &format!("{granted} is the limit"),
            "processors=4",
        ];
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
    assert_eq!(Limits::new().get(LimitKind::Processors), Some(1));
}

#[kvm_test]
fn a_machine_with_several_processors_serves_guests_with_as_many() {
    runtime_of(2).block_on(async {
        for round in 0..6 {
            // One after the other, and each finds nothing of the former.
            let count = [2, 4, 1][round % 3];
            run_here(processors(count, WakeMode::Auto, &["operations"]))
                .await
                .success();
            let args = ["end", "0", "panic", "compute"];
            let ended = run_here(processors(count, WakeMode::Irq, &args)).await;
            assert!(
                matches!(ended.outcome, Outcome::Panic(_)),
                "{}",
                ended.outcome
            );
        }
    });
}

/// The number of each thread of a core file, in their order.
fn threads(core: &[u8]) -> Vec<u32> {
    // Sizes of the name and of `struct elf_prstatus`, and the type of the note.
    let words = [5_u32, 336, 1].map(u32::to_le_bytes);
    let found = memchr::memmem::find_iter(core, words.as_flattened());
    // Behind them and the name, the process is the 32nd byte.
    let number = |at: usize| core[at + 12 + 8 + 32..][..4].try_into().unwrap();
    found.map(|at| u32::from_le_bytes(number(at))).collect()
}

#[kvm_test]
async fn each_processor_that_has_begun_has_a_backtrace_and_is_a_thread_of_the_crash_dump() {
    let folder = tempfile::tempdir().unwrap();
    let core = folder.path().join("core");
    let mut sandbox = processors(3, WakeMode::Out, &["end", "1", "fault", "sleep"])
        .build()
        .unwrap();
    let outcome = ends(&mut sandbox).await;
    assert!(matches!(outcome, Outcome::Fault(_)), "{outcome}");
    for processor in 0..3 {
        let backtrace = sandbox
            .backtrace_of(processor)
            .unwrap()
            .unwrap()
            .to_string();
        assert!(
            backtrace.contains("one_of_those"),
            "processor {processor}: {backtrace}"
        );
    }
    assert!(sandbox.backtrace_of(3).unwrap().is_none());
    sandbox.crash_dump().unwrap().write(&core).unwrap();
    // From one on, and the one that has ended it first.
    assert_eq!(threads(&std::fs::read(&core).unwrap()), [2, 1, 3]);

    let mut sandbox = processors(3, WakeMode::Out, &["never"]).build().unwrap();
    assert!(ends(&mut sandbox).await.is_success());
    assert!(
        sandbox.backtrace_of(1).unwrap().is_none(),
        "it has not begun"
    );
    sandbox.crash_dump().unwrap().write(&core).unwrap();
    assert_eq!(threads(&std::fs::read(&core).unwrap()), [1]);
}

#[kvm_test]
fn the_command_gives_a_guest_processors_in_its_jail() {
    let run = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
        command.arg("run").args(options).arg(guest("processors"));
        let ended = command
            .args(["--", "turns"])
            .output()
            .expect("the command starts");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code(), said)
    };
    for mode in ["out", "irq", "poll", "auto"] {
        let granted = [
            "--limit",
            "processors=3",
            "--processors",
            "3",
            "--wake",
            mode,
        ];
        let (code, said) = run(&[&granted[..], &["--stats"]].concat());
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains(", processor "),
            "it has rung for others: {said}"
        );
    }
    let (code, said) = run(&["--processors", "2"]);
    assert!(
        code == Some(1) && said.contains("--limit processors=2"),
        "{said}"
    );
}
