//! Guests with several processors: each runs what it is given, what any may run is shared, and no wake is lost
//! between them, in every mode.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wakebox::{Handle, Limits, Outcome, Policy, Sandbox, Waits, WakeMode};
use wakebox_tests::{Ended, guest, guest_debug, kvm_test, run, runtime};

/// Runs a test of the probe in each mode, with one processor and with several, in both builds.
#[track_caller]
fn every(test: &str, check: impl Fn(u32, WakeMode, Ended)) {
    for path in [guest("spread"), guest_debug("spread")] {
        for mode in WakeMode::ALL {
            for processors in [1, 2, 4] {
                check(processors, mode, probe(&path, test, mode, processors));
            }
        }
    }
}

fn probe(path: &std::path::Path, test: &str, mode: WakeMode, processors: u32) -> Ended {
    let limits = Limits::new().processors(processors);
    let policy = Policy::new().allow_listen("127.0.0.1:0".parse().unwrap());
    let builder = Sandbox::builder()
        .guest(path)
        .wake(mode)
        .limits(limits)
        .policy(policy.allow_connect("127.0.0.0/8".parse().unwrap()));
    run(builder.processors(processors).args([test]))
}

#[kvm_test]
fn each_processor_runs_what_it_is_given_and_what_it_prints_is_written() {
    every("each", |processors, mode, ended| {
        let mut expected = vec![format!("{processors} processors")];
        expected.extend(
            (0..processors)
                .rev()
                .map(|number| format!("this is {number}")),
        );
        // Lines of different processors come in any order.
        expected.sort_unstable();
        let ended = ended.success();
        let mut lines = ended.lines();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{mode}");
    });
}

#[kvm_test]
fn what_any_may_run_is_run_by_several_once_each() {
    every("shares", |processors, mode, ended| {
        let expected = format!("sum 79800, 1600 polls, several {}", processors > 1);
        assert_eq!(
            ended.success().lines(),
            [expected],
            "{processors} in {mode}"
        );
    });
}

#[kvm_test]
fn a_channel_leads_from_one_processor_to_another() {
    every("channel", |processors, mode, ended| {
        let numbers: u32 = (0..processors).sum();
        let expected = format!("sum {}", 124_750 * numbers);
        assert_eq!(
            ended.success().lines(),
            [expected],
            "{processors} in {mode}"
        );
    });
}

#[kvm_test]
fn no_wake_is_lost_between_processors() {
    every("tokens", |processors, mode, ended| {
        assert_eq!(
            ended.success().lines(),
            ["all arrived"],
            "{processors} in {mode}"
        );
    });
}

#[kvm_test]
fn a_task_is_aborted_from_another_processor() {
    every("aborts", |processors, mode, ended| {
        assert_eq!(
            ended.success().lines(),
            ["true true"],
            "{processors} in {mode}"
        );
    });
}

#[kvm_test]
fn what_any_may_run_sleeps_and_has_operations_done_wherever_it_is() {
    every("stays", |processors, mode, ended| {
        let ended = ended.success();
        assert_eq!(ended.lines(), ["sum 1770"], "{processors} in {mode}");
    });
}

#[kvm_test]
fn what_is_left_when_main_ends_is_dropped_once_wherever_it_waits() {
    every("drops", |processors, mode, ended| {
        let ended = ended.success();
        let mut lines = ended.lines();
        lines.sort_unstable();
        let expected = [
            "what a destructor has made is dropped",
            "what a destructor has made is dropped",
            "what is of one is dropped",
            "what is queued is dropped",
            "what sleeps is dropped",
            "what stays is dropped",
            "what waits is dropped",
        ];
        assert_eq!(lines, expected, "{processors} in {mode}");
    });
}

#[kvm_test]
fn a_deadlock_of_several_processors_names_the_tasks_that_any_may_run() {
    every("stuck", |processors, mode, ended| {
        assert_eq!(ended.outcome, Outcome::Deadlock, "{processors} in {mode}");
        let tasks = &ended.tasks;
        let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names.len(), 4, "{tasks:#?}");
        let named = |name: &str| {
            let task = tasks.iter().find(|task| task.name == name);
            task.unwrap_or_else(|| panic!("no `{name}` in {names:?}"))
        };
        let lost = named("lost");
        assert_eq!(lost.waits, Waits::Other);
        let location = lost.location.as_deref().unwrap_or_default();
        assert!(location.contains("bin/spread.rs:"), "{location}");
        let number = lost.number;
        assert_eq!(named("joins").waits, Waits::Task { number });
        // One of `spawn_on` is called as what makes its future is.
        assert_eq!(named("lost_there").waits, Waits::Other);
    });
}

#[kvm_test]
fn a_connection_is_served_where_it_is_moved_to() {
    every("connections", |processors, mode, ended| {
        assert_eq!(
            ended.success().lines(),
            ["served"],
            "{processors} in {mode}"
        );
    });
}

#[kvm_test]
fn a_call_begins_though_the_processor_that_makes_it_computes_on_the_only_thread() {
    for mode in WakeMode::ALL {
        for processors in [1, 2] {
            let handle = Arc::new(OnceLock::<Handle>::new());
            let ends = handle.clone();
            let builder = Sandbox::builder()
                .guest(guest("spread"))
                .args(["calls"])
                .wake(mode)
                .processors(processors)
                .limits(Limits::new().processors(processors))
                // Not by the end of a quantum.
                .quantum(Duration::from_secs(3_600))
                .host_fn("end", move |_, ()| {
                    ends.get().expect("it runs").kill();
                    async {}
                });
            let mut sandbox = builder.build().unwrap();
            let _ = handle.set(sandbox.handle());
            let outcome = runtime().block_on(sandbox.run()).unwrap();
            assert_eq!(outcome, Outcome::Cancelled, "{processors} in {mode}");
        }
    }
}

#[kvm_test]
fn time_does_not_go_back_between_processors() {
    every("clock", |processors, mode, ended| {
        assert_eq!(
            ended.success().lines(),
            ["forward"],
            "{processors} in {mode}"
        );
    });
}

#[kvm_test]
fn a_guest_counts_what_all_its_processors_do() {
    every("counts", |processors, mode, ended| {
        let ended = ended.success();
        assert_eq!(ended.lines(), ["counted"], "{processors} in {mode}");
    });
}

#[kvm_test]
fn the_end_does_not_wait_for_a_processor_that_computes() {
    for mode in WakeMode::ALL {
        let ended = probe(&guest("spread"), "ends", mode, 2);
        assert_eq!(ended.success().lines(), ["ends"], "{mode}");
    }
}

#[kvm_test]
fn a_panic_on_one_processor_ends_the_guest() {
    for mode in WakeMode::ALL {
        let ended = probe(&guest("spread"), "panics", mode, 2);
        let said = ended.outcome.to_string();
        assert!(said.contains("on another"), "{said} in {mode}");
    }
}
