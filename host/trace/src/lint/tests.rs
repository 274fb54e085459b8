use std::time::Duration;

use wakebox_abi::op::Opcode;

use super::*;
use crate::{ExitReason, OpKind, Roused, Side, TASKS};

const MS: u64 = 1_000_000;
const MAIN: TaskId = TaskId(1);
const WORKER: TaskId = TaskId(2);
const OTHER: TaskId = TaskId(3);

/// Events at times of their own.
#[derive(Default)]
struct Run {
    events: Vec<Event>,
    time: u64,
    processor: u32,
}

impl Run {
    /// Main, and a worker that it has spawned.
    fn new() -> Self {
        let mut run = Self::default();
        run.is(EventKind::Entered);
        for (task, name) in [(MAIN, "main"), (WORKER, "worker"), (OTHER, "other")] {
            run.is(EventKind::Spawned {
                task,
                by: None,
                name: name.into(),
                location: Some(format!("src/main.rs:{}:5", task.0)),
            });
        }
        run
    }

    fn is(&mut self, kind: EventKind) -> &mut Self {
        let (time, side) = (self.time, Side::Guest);
        let event = Event::new(time, side, kind).on(self.processor);
        self.events.push(event);
        self
    }

    /// What follows is on that processor.
    fn on(&mut self, processor: u32) -> &mut Self {
        self.processor = processor;
        self
    }

    fn after(&mut self, nanos: u64) -> &mut Self {
        self.time += nanos;
        self
    }

    fn begin(&mut self, task: TaskId) -> &mut Self {
        self.is(EventKind::PollBegin { task })
    }

    fn pending(&mut self, task: TaskId, on: Option<Awaited>) -> &mut Self {
        let result = PollResult::Pending { on, and: 0 };
        self.is(EventKind::PollEnd { task, result })
    }

    fn cloned(&mut self, task: TaskId) -> &mut Self {
        let by = Some(task);
        self.is(EventKind::Cloned { task, by })
    }

    fn woken(&mut self, task: TaskId, by: Cause) -> &mut Self {
        self.is(EventKind::Woken {
            task,
            by,
            queued: true,
            consumed: true,
        })
    }

    /// The guest is left and entered again.
    fn out_and_in(&mut self, reason: ExitReason) -> &mut Self {
        self.is(EventKind::Exited { reason }).is(EventKind::Entered)
    }

    fn finish(&mut self, status: u8) -> Report {
        self.is(EventKind::Finished {
            outcome: "over".into(),
            status,
            lost: 0,
            malformed: 0,
        });
        self.report()
    }

    fn report(&self) -> Report {
        let mut lint = Lint::new(Thresholds::default());
        self.events.iter().for_each(|event| lint.look(event));
        lint.report()
    }
}

#[track_caller]
fn only(report: &Report, kind: FindingKind, task: TaskId) -> Finding {
    assert_eq!(report.findings.len(), 1, "{report:#?}");
    let finding = &report.findings[0];
    assert_eq!((finding.kind, finding.task), (kind, task));
    finding.clone()
}

#[test]
fn polls_on_two_processors_at_once_are_judged_each_by_itself() {
    let mut run = Run::new();
    run.on(1).is(EventKind::Entered);
    for _ in 0..40 {
        run.on(0).begin(WORKER);
        run.on(1).after(MS).begin(OTHER);
        run.on(0)
            .after(MS)
            .pending(WORKER, Some(Awaited::Timer(TimerId(1))));
        // Out and in again: a stay counts for so much at most.
        run.is(EventKind::Exited {
            reason: ExitReason::Quantum,
        });
        run.is(EventKind::Entered);
        run.on(1)
            .after(MS)
            .pending(OTHER, Some(Awaited::Timer(TimerId(2))));
    }
    let found = run.report().findings;
    assert!(found.is_empty(), "{found:?}");
    // One that goes on for long is found, though others begin and end meanwhile.
    run.on(1).begin(OTHER);
    for _ in 0..40 {
        run.on(0).begin(WORKER);
        run.on(0)
            .after(2 * MS)
            .pending(WORKER, Some(Awaited::Timer(TimerId(1))));
        run.on(1).is(EventKind::Exited {
            reason: ExitReason::Quantum,
        });
        run.is(EventKind::Entered);
    }
    run.on(1).pending(OTHER, Some(Awaited::Timer(TimerId(2))));
    let found = run.report().findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].kind, found[0].task),
        (FindingKind::LongPoll, OTHER)
    );
}

#[test]
fn pending_without_a_waker_is_found_at_the_end() {
    let mut run = Run::new();
    run.begin(WORKER).pending(WORKER, None).after(MS);
    let finding = only(&run.finish(0), FindingKind::NoWaker, WORKER);
    assert_eq!(finding.name, "worker");
    assert_eq!(finding.location.as_deref(), Some("src/main.rs:2:5"));
}

#[test]
fn who_keeps_a_clone_or_is_woken_or_aborted_later_is_healthy() {
    let mut keeps = Run::new();
    keeps.begin(WORKER).cloned(WORKER).pending(WORKER, None);
    assert!(keeps.finish(0).is_clean());

    let mut queued = Run::new();
    queued
        .begin(WORKER)
        .woken(WORKER, Cause::Itself)
        .pending(WORKER, None);
    assert!(queued.finish(0).is_clean());

    let mut aborted = Run::new();
    aborted
        .begin(WORKER)
        .pending(WORKER, None)
        .is(EventKind::Ended {
            task: WORKER,
            aborted: true,
        });
    assert!(aborted.finish(0).is_clean());
}

#[test]
fn what_the_guest_aborts_at_its_end_was_not_given_up_on_purpose() {
    let mut run = Run::new();
    run.begin(WORKER).pending(WORKER, None);
    for (task, aborted) in [(MAIN, false), (WORKER, true), (OTHER, true)] {
        run.is(EventKind::Ended { task, aborted });
    }
    only(&run.finish(0), FindingKind::NoWaker, WORKER);
}

#[test]
fn main_may_wait_for_ever_while_others_work() {
    let waits = |status| {
        let mut run = Run::new();
        run.begin(MAIN).pending(MAIN, None).finish(status)
    };
    assert!(waits(130).is_clean());
    only(&waits(DEADLOCK), FindingKind::NoWaker, MAIN);
}

#[test]
fn a_waker_that_was_dropped_wakes_nobody() {
    let mut run = Run::new();
    run.begin(WORKER).cloned(WORKER).pending(WORKER, None);
    run.is(EventKind::Dropped {
        task: WORKER,
        by: Some(OTHER),
    });
    let finding = only(&run.finish(0), FindingKind::NeverWoken, WORKER);
    assert!(finding.what.contains("dropped"), "{}", finding.what);
}

#[test]
fn in_a_deadlock_the_root_is_named_and_not_who_waits_for_it() {
    let mut run = Run::new();
    run.begin(WORKER).cloned(WORKER).pending(WORKER, None);
    run.begin(MAIN)
        .cloned(MAIN)
        .pending(MAIN, Some(Awaited::Task(WORKER)));
    only(&run.finish(DEADLOCK), FindingKind::NeverWoken, WORKER);
}

#[test]
fn who_waits_for_what_the_host_owes_is_healthy() {
    for on in [Awaited::Op(OpId(1)), Awaited::Timer(TimerId(1))] {
        let mut run = Run::new();
        run.begin(WORKER).cloned(WORKER).pending(WORKER, Some(on));
        assert!(run.after(1000 * MS).finish(0).is_clean());
    }
}

#[test]
fn after_a_loss_nothing_is_concluded_from_what_is_missing() {
    let mut run = Run::new();
    run.begin(WORKER).is(EventKind::Lost { count: 1 });
    run.pending(WORKER, None);
    let report = run.finish(0);
    assert!(report.is_clean());
    assert_eq!(report.lost, 1);
}

#[test]
fn a_trace_that_was_cut_off_says_nothing_about_the_end() {
    let mut run = Run::new();
    run.begin(WORKER).pending(WORKER, None);
    let report = run.report();
    assert!(report.is_clean() && !report.whole);
}

#[test]
fn a_poll_is_long_by_what_it_computes_and_not_by_what_the_host_does_meanwhile() {
    let poll = |stays: u32| {
        let mut run = Run::new();
        run.begin(WORKER).cloned(WORKER);
        for _ in 0..stays {
            run.after(2 * MS).is(EventKind::Exited {
                reason: ExitReason::Quantum,
            });
            run.after(100 * MS).is(EventKind::Entered);
        }
        run.pending(WORKER, None).finish(0)
    };
    assert!(poll(25).is_clean(), "50 ms, and 2,500 ms of others");
    let finding = only(&poll(26), FindingKind::LongPoll, WORKER);
    assert!(finding.what.contains("52.0 ms"), "{}", finding.what);

    let mut preempted = Run::new();
    preempted.begin(WORKER).cloned(WORKER).after(500 * MS);
    preempted.pending(WORKER, None);
    assert!(
        preempted.finish(0).is_clean(),
        "one stay is no longer than 2 ms"
    );
}

#[test]
fn a_poll_that_never_ends_is_found_when_the_guest_is_stopped() {
    let mut run = Run::new();
    run.begin(WORKER);
    for _ in 0..50 {
        run.after(2 * MS).out_and_in(ExitReason::Quantum);
    }
    only(&run.finish(124), FindingKind::LongPoll, WORKER);
}

#[test]
fn a_thousand_wakes_before_a_poll_are_none_too_many_and_one_more_is() {
    let storm = |wakes: u32| {
        let mut run = Run::new();
        run.begin(WORKER).cloned(WORKER).pending(WORKER, None);
        for wake in 0..wakes {
            run.is(EventKind::Woken {
                task: WORKER,
                by: Cause::Task(MAIN),
                queued: wake == 0,
                consumed: false,
            });
        }
        run.begin(WORKER);
        run.finish(0)
    };
    assert!(storm(1_000).is_clean());
    let finding = only(&storm(1_001), FindingKind::WakeStorm, WORKER);
    assert!(finding.what.contains("1,001"), "{}", finding.what);
}

#[test]
fn polls_in_vain_are_found_by_their_share() {
    let polls = |in_vain: u32, length: u64| {
        let mut run = Run::new();
        run.begin(WORKER).cloned(WORKER).pending(WORKER, None);
        for poll in 1..200 {
            let by = match poll <= in_vain {
                true => Cause::Itself,
                false => Cause::Op(OpId(1)),
            };
            run.is(EventKind::Woken {
                task: WORKER,
                by,
                queued: true,
                consumed: false,
            });
            run.begin(WORKER).after(length).pending(WORKER, None);
        }
        run.finish(0)
    };
    assert!(polls(100, 1_000).is_clean());
    let finding = only(&polls(101, 1_000), FindingKind::SpuriousPolls, WORKER);
    assert!(finding.what.contains("101"), "{}", finding.what);
    assert!(polls(199, 50_000).is_clean(), "it computes, and yields");
}

#[test]
fn what_was_given_up_and_done_all_the_same_is_found() {
    let given_up = |status, bytes| {
        let (op, what) = (OpId(1), OpKind::from(Opcode::ReadStream));
        let by = Some(WORKER);
        let mut run = Run::new();
        run.is(EventKind::Submitted {
            op,
            what,
            bytes: 64,
            by,
        });
        run.is(EventKind::CancelAsked { op, by });
        run.is(EventKind::OpEnds {
            op,
            what,
            status,
            value: 0,
            bytes,
        });
        run.finish(0)
    };
    assert!(given_up(Status::Cancelled, Some(0)).is_clean());
    assert!(given_up(Status::Ok, None).is_clean());
    let finding = only(
        &given_up(Status::Ok, Some(64)),
        FindingKind::UnseenResult,
        WORKER,
    );
    assert!(finding.what.contains("ReadStream"), "{}", finding.what);
}

#[test]
fn a_timer_that_a_poll_made_late_is_found() {
    let fires = |late: u64| {
        let timer = TimerId(7);
        let mut run = Run::new();
        run.is(EventKind::TimerSet {
            timer,
            by: Some(WORKER),
            at: 5 * MS,
        });
        run.begin(OTHER)
            .after(5 * MS)
            .out_and_in(ExitReason::Quantum);
        run.after(late).cloned(OTHER).pending(OTHER, None);
        run.is(EventKind::Awake { by: Roused::Timer });
        run.woken(WORKER, Cause::Timer(timer));
        run.finish(0)
    };
    assert!(fires(100 * MS).is_clean());
    let finding = only(&fires(101 * MS), FindingKind::LateTimer, WORKER);
    assert!(
        finding.what.contains("101 ms too late; polls took 101 ms"),
        "{}",
        finding.what
    );
}

#[test]
fn a_timer_that_the_host_made_late_is_found_if_it_is_very_late() {
    let fires = |late: u64| {
        let timer = TimerId(7);
        let mut run = Run::new();
        run.is(EventKind::TimerSet {
            timer,
            by: Some(WORKER),
            at: 5 * MS,
        });
        run.after(5 * MS + late).woken(WORKER, Cause::Timer(timer));
        run.finish(0)
    };
    assert!(fires(1_000 * MS).is_clean());
    only(&fires(1_001 * MS), FindingKind::LateTimer, WORKER);
}

#[test]
fn tasks_of_one_place_are_one_finding_that_tells_of_the_worst() {
    let mut run = Run::new();
    for task in 10..20 {
        run.is(EventKind::Spawned {
            task: TaskId(task),
            by: None,
            name: format!("conn-{task}"),
            location: Some("src/serve.rs:9:1".into()),
        });
        run.after(MS)
            .begin(TaskId(task))
            .pending(TaskId(task), None);
    }
    let finding = only(&run.finish(0), FindingKind::NoWaker, TaskId(10));
    assert_eq!(finding.count, 10);
}

#[test]
fn memory_is_for_what_lives() {
    let mut lint = Lint::new(Thresholds::default());
    let mut look = |kind| {
        lint.look(&Event {
            time: 0,
            side: Side::Guest,
            processor: 0,
            kind,
        });
    };
    for number in 1..=200_000 {
        let task = TaskId(number);
        look(EventKind::Spawned {
            task,
            by: None,
            name: "short".into(),
            location: None,
        });
        look(EventKind::TimerSet {
            timer: TimerId(number.into()),
            by: Some(task),
            at: u64::MAX,
        });
        look(EventKind::Submitted {
            op: OpId(number.into()),
            what: OpKind(0),
            bytes: 0,
            by: Some(task),
        });
        look(EventKind::Ended {
            task,
            aborted: false,
        });
        // Whoever still has a waker does not bring a task back.
        look(EventKind::Dropped { task, by: None });
        look(EventKind::Woken {
            task,
            by: Cause::Unknown,
            queued: false,
            consumed: true,
        });
    }
    assert_eq!((lint.tasks.len(), lint.summary.tasks.len()), (0, 0));
    assert_eq!(lint.timers.len(), REMEMBERED);
    assert_eq!(lint.deadlines.len(), REMEMBERED);
    assert_eq!(lint.ops.len(), REMEMBERED);
}

#[test]
fn a_timer_that_is_set_again_has_one_time() {
    let mut run = Run::new();
    for at in 0..10 {
        run.is(EventKind::TimerSet {
            timer: TimerId(1),
            by: Some(MAIN),
            at: u64::MAX - at,
        });
    }
    let mut lint = Lint::new(Thresholds::default());
    run.events.iter().for_each(|event| lint.look(event));
    assert_eq!((lint.timers.len(), lint.deadlines.len()), (1, 1));
    assert_eq!(lint.timers.first(), Some(&(u64::MAX - 9, TimerId(1))));
}

#[test]
fn tasks_beyond_the_most_are_counted() {
    let mut run = Run::new();
    for task in 1_000..1_000 + TASKS as u32 {
        run.is(EventKind::Spawned {
            task: TaskId(task),
            by: None,
            name: "one of many".into(),
            location: None,
        });
    }
    assert_eq!(run.finish(0).unwatched, 3);
}

#[test]
fn thresholds_move_what_is_found() {
    let mut run = Run::new();
    run.begin(WORKER).cloned(WORKER).pending(WORKER, None);
    run.after(50 * MS).finish(0);
    let mut lint = Lint::new(Thresholds {
        unwoken: Some(Duration::from_millis(10)),
        ..Thresholds::default()
    });
    run.events.iter().for_each(|event| lint.look(event));
    only(&lint.report(), FindingKind::NeverWoken, WORKER);
}

/// Two tasks that wake each other so often, with something in between now and then.
fn circle(rounds: usize, length: u64, between: impl Fn(&mut Run)) -> Run {
    let mut run = Run::new();
    run.woken(WORKER, Cause::Task(MAIN));
    for round in 0..rounds {
        for (task, next) in [(WORKER, OTHER), (OTHER, WORKER)] {
            run.begin(task).cloned(task).cloned(next);
            run.woken(next, Cause::Task(task));
            run.after(length).pending(task, None);
        }
        if round % 100 == 99 {
            between(&mut run);
        }
    }
    run
}

#[test]
fn tasks_that_wake_each_other_in_turns_and_get_nowhere_are_found() {
    let report = circle(1_000, 100, |_| {}).finish(0);
    let finding = only(&report, FindingKind::WakeCircle, WORKER);
    assert_eq!(
        finding.what,
        "and 1 more woke each other for 2,000 polls, and nothing else happened meanwhile"
    );
}

#[test]
fn tasks_that_wake_each_other_and_get_somewhere_are_not_blamed() {
    let clean = |report: Report| {
        let circles = report.findings.iter();
        let circles = circles.filter(|finding| finding.kind == FindingKind::WakeCircle);
        assert_eq!(circles.count(), 0, "{:?}", report.findings);
    };
    // An operation in between, or a task that ends.
    clean(
        circle(1_000, 100, |run| {
            run.woken(MAIN, Cause::Op(OpId(1)));
        })
        .finish(0),
    );
    clean(
        circle(1_000, 100, |run| {
            run.is(EventKind::Ended {
                task: TaskId(9),
                aborted: false,
            });
        })
        .finish(0),
    );
    // A few; and those who compute.
    clean(circle(400, 100, |_| {}).finish(0));
    clean(circle(1_000, 50_000, |_| {}).finish(0));
}
