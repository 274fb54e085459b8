//! Tasks: order, fairness, joining, and how a guest ends when one goes wrong.

use std::path::PathBuf;

use wakebox::{FaultKind, Outcome, Sandbox, WakeMode};
use wakebox_tests::{Ended, guest, guest_debug, is_qemu, kvm_test, run};

/// Runs a probe in each mode and in both builds; all give the same.
#[track_caller]
fn every(probe: &str, args: &[&str], check: impl Fn(Ended)) {
    let builds: [fn(&str) -> PathBuf; 2] = [guest, guest_debug];
    for build in builds {
        for mode in WakeMode::ALL {
            let probe = Sandbox::builder().guest(build(probe));
            check(run(probe.args(args.iter().copied()).wake(mode)));
        }
    }
}

#[kvm_test]
fn tasks_run_first_in_first_out() {
    every("tasks", &["order"], |ended| {
        let expected = "spawned a1 b1 c1 d1 e1 a2 b2 c2 d2 e2";
        assert_eq!(ended.success().lines().join(" "), expected);
    });
}

#[kvm_test]
fn nobody_starves_beside_a_task_that_is_always_ready() {
    every("order", &[], |ended| {
        let expected = [
            "turns abcabcabc",
            "operations in order true",
            "operations beside a busy task true",
            "timers beside a busy task",
        ];
        assert_eq!(ended.success().lines(), expected);
    });
}

#[kvm_test]
fn a_task_that_is_always_ready_gets_every_other_turn_and_no_more() {
    every("tasks", &["fair"], |ended| {
        assert_eq!(ended.success().lines(), ["100", "Err(Aborted)"]);
    });
}

#[kvm_test]
fn operations_that_end_together_wake_in_the_order_of_their_submission() {
    every("tasks", &["wakes"], |ended| {
        assert_eq!(ended.success().lines(), ["true"]);
    });
}

#[kvm_test]
fn a_handle_gives_the_output_ends_the_task_or_lets_it_go() {
    every("tasks", &["join"], |ended| {
        let expected = [
            "Ok(7)",
            "aborted dropped",
            "Err(Aborted)",
            "detached",
            "Ok(())",
        ];
        assert_eq!(ended.success().lines(), expected);
    });
}

#[kvm_test]
fn tasks_have_names() {
    every("tasks", &["names"], |ended| {
        assert_eq!(ended.success().lines(), ["main", "fetch-2"]);
    });
}

#[kvm_test]
fn crates_of_the_ecosystem_work_unchanged() {
    every("ecosystem", &[], |ended| {
        let ended = ended.success();
        let expected = [
            "futures [1, 2, 3]",
            "futures join 2",
            "futures select 1",
            "futures-lite 1",
            "futures-lite zip (2, 1)",
            "async-channel [0, 1, 2, 3, 4]",
            "async-lock 10",
            "embassy-sync channel 10",
            "embassy-sync signal 7",
        ];
        assert_eq!(ended.lines(), expected);
        assert!(ended.stderr.contains("log 1"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("not shown"), "{}", ended.stderr);
    });
}

#[kvm_test]
fn a_panic_says_what_where_and_in_which_task_after_what_was_printed() {
    every("tasks", &["panic"], |ended| {
        assert_eq!(ended.lines(), ["before"]);
        let Outcome::Panic(panic) = ended.outcome else {
            panic!("expected a panic: {}", ended.outcome);
        };
        assert_eq!(panic.message, "there should be one");
        assert_eq!(panic.task.as_deref(), Some("doomed"));
        let file = panic.file.as_deref();
        assert!(
            file.is_some_and(|file| file.ends_with("tasks.rs")),
            "{file:?}"
        );
        assert!(panic.line > 0);
    });
}

#[kvm_test]
fn a_guest_that_waits_for_nothing_is_told_so() {
    every("deadlock", &[], |ended| {
        assert_eq!(ended.outcome, Outcome::Deadlock);
        assert_eq!(ended.lines(), ["waiting"]);
    });
}

#[kvm_test]
fn faults_have_names() {
    for (case, kind) in [
        ("null", FaultKind::PageRead),
        ("write-rodata", FaultKind::PageWrite),
        ("exec-data", FaultKind::PageExecute),
        ("stack", FaultKind::PageWrite),
        ("div-zero", FaultKind::DivideError),
        ("ud2", FaultKind::IllegalInstruction),
        ("port", FaultKind::GeneralProtection),
        ("supervisor", FaultKind::PageRead),
    ] {
        every("fault", &[case], |ended| match ended.outcome {
            Outcome::Fault(fault) => assert_eq!(fault.kind, kind, "{case}"),
            Outcome::Violation(_) if case == "port" && is_qemu() => {}
            other => panic!("{case}: expected a fault: {other}"),
        });
    }
}

#[kvm_test]
fn a_stack_that_overflows_meets_its_guard_page() {
    every("fault", &["stack"], |ended| {
        let sentence = ended.outcome.to_string();
        assert!(sentence.contains("stack overflow"), "{sentence}");
    });
}

#[kvm_test]
fn an_exit_code_is_what_main_returns() {
    for code in [0, 1, 255, -1] {
        every("exit", &[&code.to_string()], |ended| {
            assert_eq!(ended.outcome, Outcome::Exit(code));
        });
    }
}
