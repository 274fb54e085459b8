//! Urgent tasks: in mode `irq` they interrupt whatever computes, at any instruction, and nothing of it
//! changes; in the other modes they have their turn first.

use wakebox::template::{Open, When};
use wakebox::trace::{Event, EventKind, Recording, TaskId};
use wakebox::{Cause, Limits, Outcome, Sandbox, Template, WakeMode};
use wakebox_tests::{Ended, guest, guest_debug, kvm_test, run};

/// Runs a test of the probe in each mode and in both builds. Where nothing interrupts, what computes
/// awaits now and then.
#[track_caller]
fn every(test: &str, check: impl Fn(WakeMode, Ended)) {
    for path in [guest("urgent"), guest_debug("urgent")] {
        for mode in WakeMode::ALL {
            let awaiting = (mode != WakeMode::Irq).then_some("awaiting");
            let probe = Sandbox::builder().guest(&path).wake(mode);
            let args = std::iter::once(test).chain(awaiting);
            check(mode, run(probe.args(args)));
        }
    }
}

/// In mode `irq`, in both builds.
#[track_caller]
fn interrupted(test: &str, check: impl Fn(Ended)) {
    for path in [guest("urgent"), guest_debug("urgent")] {
        let probe = Sandbox::builder().guest(path).wake(WakeMode::Irq);
        check(run(probe.args([test])));
    }
}

#[kvm_test]
fn an_urgent_task_interrupts_a_computation_where_there_are_interrupts() {
    every("preempts", |mode, ended| {
        let expected = match mode {
            WakeMode::Irq => ["preempted", "ticked; upcalls true"],
            _ => ["not preempted", "ticked; upcalls false"],
        };
        assert_eq!(ended.success().lines(), expected, "{mode}");
    });
}

#[kvm_test]
fn whoever_has_the_handle_of_an_urgent_task_has_its_output_and_its_end() {
    every("joins", |mode, ended| {
        let expected = ["Ok(11)", "Err(Aborted)", "Err(Aborted)", "3 dropped"];
        assert_eq!(ended.success().lines(), expected, "{mode}");
    });
}

#[kvm_test(modes)]
async fn urgent_tasks_go_on_where_a_template_was_taken(mode: WakeMode) {
    let awaiting = (mode != WakeMode::Irq).then_some("awaiting");
    let args: Vec<_> = std::iter::once("copied").chain(awaiting).collect();
    let builder = Sandbox::builder().guest(guest("urgent")).wake(mode);
    let running = builder.args(args.iter().copied()).build().unwrap().start();
    let handle = running.handle();
    assert!(running.call::<_, u32>("computed", &()).await.unwrap() >= 5);
    let template = handle.snapshot(When::Parked, Open::Refuse).await.unwrap();
    let mut file = Vec::new();
    template.save(&mut file).unwrap();
    let loaded = Template::load(&mut &*file).unwrap();
    let before: (u32, u32) = running.call("seen", &()).await.unwrap();
    for template in [template, loaded] {
        let copy = template.spawn().args(args.iter().copied());
        let copy = copy.build().unwrap().start();
        assert!(copy.call::<_, u32>("computed", &()).await.unwrap() >= 5);
        let (ticks, restores) = copy.call::<_, (u32, u32)>("seen", &()).await.unwrap();
        assert!(ticks >= 10, "{ticks} ticks, those of before included");
        assert_eq!((before.1, restores), (0, 1), "{mode}");
        let (outcome, stats) = copy.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0));
        assert_eq!(stats.guest.upcalls > 0, mode == WakeMode::Irq, "{mode}");
    }
    running.close().await.unwrap();
}

#[kvm_test]
fn registers_flags_and_red_zone_are_as_they_were() {
    every("registers", |mode, ended| {
        let ended = ended.success();
        assert_eq!(ended.lines(), ["all as it was"], "{mode}");
        let upcalls = ended.stats.guest.upcalls;
        assert_eq!(upcalls > 200, mode == WakeMode::Irq, "{upcalls} in {mode}");
    });
}

#[kvm_test]
fn x87_sse_and_avx_state_is_as_it_was() {
    every("vectors", |mode, ended| {
        let ended = ended.success();
        assert_eq!(ended.lines(), ["all as it was"], "{mode}");
        let upcalls = ended.stats.guest.upcalls;
        assert_eq!(upcalls > 200, mode == WakeMode::Irq, "{upcalls} in {mode}");
    });
}

#[kvm_test]
fn a_critical_task_interrupts_an_urgent_one_which_interrupts_an_ordinary_one() {
    interrupted("nests", |ended| {
        assert_eq!(ended.success().lines(), ["over 0b110", "in task main"]);
    });
}

#[kvm_test]
fn channels_lead_from_one_priority_to_another() {
    every("channels", |_, ended| {
        assert_eq!(ended.success().lines(), ["sum 3998000"]);
    });
}

#[kvm_test]
fn heap_timers_and_tasks_stay_whole_whatever_interrupts_them() {
    every("allocates", |_, ended| {
        assert_eq!(ended.success().lines(), ["whole"]);
    });
}

#[kvm_test]
fn what_is_ordinary_gets_on_in_a_storm() {
    every("storm", |_, ended| {
        let ended = ended.success();
        assert!(ended.stdout.starts_with("got on: 0x"), "{}", ended.stdout);
    });
}

#[kvm_test]
fn an_urgent_task_that_never_rests_keeps_the_processor_up_to_the_limit() {
    for mode in WakeMode::ALL {
        let limits = Limits::new().set("cpu-time=300ms").unwrap();
        let probe = Sandbox::builder().guest(guest("urgent")).wake(mode);
        let ended = run(probe.limits(limits).args(["greedy"]));
        assert!(
            matches!(ended.outcome, Outcome::Limit(_)),
            "{}",
            ended.outcome
        );
        assert_eq!(ended.stdout, "");
    }
}

#[kvm_test]
fn a_fault_in_an_upcall_names_its_place_and_what_it_interrupted() {
    every("fault", |mode, ended| {
        let Outcome::Fault(fault) = ended.outcome else {
            panic!("{mode}: {}", ended.outcome);
        };
        assert_eq!(fault.cause(), Cause::NullDereference);
        let calls = fault.backtrace.to_string();
        assert!(calls.contains("ends"), "{calls}");
        if mode == WakeMode::Irq {
            // The upcall's frame leads to that of the computation.
            assert!(calls.contains("compute"), "{calls}");
        }
    });
}

#[kvm_test]
fn a_panic_in_an_upcall_names_the_urgent_task() {
    every("panic", |_, ended| {
        let Outcome::Panic(panic) = ended.outcome else {
            panic!("{}", ended.outcome);
        };
        assert_eq!(panic.message, "in an upcall");
        assert_eq!(panic.task.as_deref(), Some("the one that ends it"));
    });
}

#[kvm_test]
fn a_stack_that_overflows_in_an_upcall_is_one() {
    every("overflow", |_, ended| {
        let Outcome::Fault(fault) = ended.outcome else {
            panic!("{}", ended.outcome);
        };
        assert_eq!(fault.cause(), Cause::StackOverflow);
    });
}

#[kvm_test]
fn a_guest_may_end_in_an_upcall() {
    every("exit", |_, ended| {
        assert!(
            matches!(ended.outcome, Outcome::Exit(7)),
            "{}",
            ended.outcome
        );
    });
}

#[kvm_test]
fn urgent_tasks_that_wait_for_nothing_are_a_deadlock_that_names_them() {
    every("deadlock", |mode, ended| {
        assert_eq!(ended.outcome, Outcome::Deadlock, "{mode}");
        let names: Vec<_> = ended.tasks.iter().map(|task| &task.name[..]).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            ["critical", "main", "main::{async}"],
            "{mode}: {:?}",
            ended.tasks
        );
    });
}

#[kvm_test]
fn a_trace_tells_which_poll_an_upcall_interrupts() {
    let recording = Recording::new();
    let probe = Sandbox::builder()
        .guest(guest("urgent"))
        .wake(WakeMode::Irq);
    run(probe.args(["preempts"]).trace(recording.clone())).success();
    let events = recording.events();
    const MAIN: TaskId = TaskId(1);
    let begins = |event: &Event| {
        let interrupted = true;
        let task = Some(MAIN);
        event.kind == EventKind::UpcallBegin { task, interrupted }
    };
    let first = events.iter().position(begins).expect("an upcall in main");
    let end = |event: &Event| event.kind == EventKind::UpcallEnd { task: Some(MAIN) };
    let last = events[first..].iter().position(end).expect("its end") + first;
    let polls =
        |event: &&Event| matches!(event.kind, EventKind::PollBegin { task } if task != MAIN);
    // Some upcalls tell of what is nobody's, such as a timer that was cancelled.
    assert!(last > first);
    assert!(events[first..].iter().any(|event| polls(&event)));
    // Within the one poll of main that computes, the urgent task is polled and ends its polls.
    let mut depth = 0;
    for event in &events {
        match event.kind {
            EventKind::UpcallBegin { .. } => depth += 1,
            EventKind::UpcallEnd { .. } => depth -= 1,
            _ => {}
        }
        assert!((0..=2).contains(&depth));
    }
}
