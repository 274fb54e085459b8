use super::*;
use crate::{ExitReason, OpId, Side};

const MAIN: TaskId = TaskId(1);

fn summary(events: impl IntoIterator<Item = (u64, EventKind)>) -> Summary {
    let mut summary = Summary::new();
    for (time, kind) in events {
        let side = Side::Guest;
        summary.count(&Event::new(time, side, kind));
    }
    summary
}

fn begin() -> EventKind {
    EventKind::PollBegin { task: MAIN }
}

fn pending() -> EventKind {
    let result = PollResult::Pending { on: None, and: 0 };
    EventKind::PollEnd { task: MAIN, result }
}

fn woken(by: Cause) -> EventKind {
    EventKind::Woken {
        task: MAIN,
        by,
        queued: true,
        consumed: false,
    }
}

#[test]
fn the_parts_of_the_time_add_up_to_the_whole() {
    let summary = summary([
        (10, EventKind::Entered),
        (12, begin()),
        (20, pending()),
        (21, EventKind::Sleeps { how: Idle::Watch }),
        (
            51,
            EventKind::Exited {
                reason: ExitReason::Quantum,
            },
        ),
        (60, EventKind::Parked),
        (160, EventKind::Resumed),
        (161, EventKind::Entered),
    ]);
    let Times {
        polls,
        executor,
        watching,
        host,
        parked,
    } = summary.time;
    assert_eq!(
        (polls, executor, watching, host, parked),
        (8, 3, 30, 20, 100)
    );
    assert_eq!(polls + executor + watching + host + parked, summary.end);
}

#[test]
fn each_processor_has_a_time_of_its_own_from_when_it_begins() {
    let mut summary = Summary::new();
    let (task, processors) = (TaskId(2), 2);
    let started = EventKind::Started {
        mode: "out".into(),
        guest: None,
        processors,
    };
    for (time, processor, kind) in [
        (0, 0, started),
        (0, 0, EventKind::Entered),
        (10, 0, begin()),
        (20, 1, EventKind::Entered),
        (30, 1, EventKind::PollBegin { task }),
        (40, 0, pending()),
        (70, 1, EventKind::Parked),
    ] {
        summary.count(&Event::new(time, Side::Guest, kind).on(processor));
    }
    let times = |polls, executor| Times {
        polls,
        executor,
        ..Times::default()
    };
    let [first, second] = &summary.processors[..] else {
        panic!("{:?}", summary.processors);
    };
    assert_eq!((first.time, first.polls), (times(30, 40), 1));
    assert_eq!((second.time, second.polls), (times(40, 10), 1));
    assert_eq!(summary.time, times(70, 50));
    assert!(second.parked && !first.parked);
    assert_eq!(
        summary.tasks[&MAIN].busy, 30,
        "the other poll is not its end"
    );
}

#[test]
fn a_poll_that_nothing_called_for_and_that_does_nothing_is_in_vain() {
    let nothing_done = |cause| {
        summary([
            (0, begin()),
            (1, pending()),
            (2, woken(cause)),
            (3, begin()),
            (4, pending()),
        ])
    };
    assert_eq!(nothing_done(Cause::Itself).spurious, 1);
    assert_eq!(nothing_done(Cause::Task(TaskId(2))).spurious, 1);
    assert_eq!(nothing_done(Cause::Op(OpId(1))).spurious, 0);
}

#[test]
fn a_poll_that_leaves_a_waker_with_somebody_is_not_in_vain() {
    let cloned = || EventKind::Cloned {
        task: MAIN,
        by: Some(MAIN),
    };
    let dropped = || EventKind::Dropped {
        task: MAIN,
        by: Some(MAIN),
    };
    let in_vain = |during: Vec<EventKind>| {
        let wake = woken(Cause::Task(TaskId(2)));
        let events = [begin(), pending(), wake, begin()].into_iter();
        let events = events.chain(during).chain([pending()]);
        summary(events.map(|kind| (0, kind))).spurious == 1
    };
    assert!(in_vain(vec![]));
    assert!(!in_vain(vec![cloned()]));
    assert!(in_vain(vec![dropped(), cloned()]), "one for another");
    let itself = EventKind::Woken {
        task: MAIN,
        by: Cause::Itself,
        queued: true,
        consumed: true,
    };
    assert!(in_vain(vec![cloned(), itself]), "not even kept");
}

#[test]
fn a_poll_after_the_first_without_a_wake_is_counted() {
    let summary = summary([(0, begin()), (1, pending()), (2, begin())]);
    assert_eq!((summary.polls, summary.uncaused), (2, 1));
}

#[test]
fn of_too_many_tasks_those_that_are_over_are_told_together() {
    let mut summary = Summary::new();
    let mut count = |kind| {
        let (time, side) = (0, Side::Guest);
        summary.count(&Event::new(time, side, kind));
    };
    let many = TASKS as u32 + 1_000;
    for task in (1..=many).map(TaskId) {
        let aborted = false;
        count(EventKind::Spawned {
            task,
            by: None,
            name: "one of many".into(),
            location: None,
        });
        count(EventKind::PollBegin { task });
        let result = PollResult::Ready;
        count(EventKind::PollEnd { task, result });
        count(EventKind::Ended { task, aborted });
        // Of those that are not known.
        let by = None;
        count(EventKind::Dropped {
            task: TaskId(u32::MAX - task.0),
            by,
        });
        count(EventKind::Woken {
            task: TaskId(u32::MAX - task.0),
            by: Cause::Unknown,
            queued: true,
            consumed: true,
        });
    }
    assert_eq!((summary.tasks.len(), summary.left_out), (TASKS, 1_000));
    assert_eq!((summary.others.polls, summary.polls), (1_000, many.into()));
    assert!(summary.ended.len() <= TASKS);
}

#[test]
fn what_a_guest_says_that_it_lost_is_any_number() {
    let lost = EventKind::Lost { count: u64::MAX };
    let summary = summary([(1, lost.clone()), (2, lost)]);
    assert_eq!(summary.lost, u64::MAX);
}

#[test]
fn a_poll_does_not_last_while_an_upcall_interrupts_it() {
    let urgent = TaskId(2);
    let (task, interrupted) = (Some(MAIN), true);
    let ready = PollResult::Ready;
    let summary = summary([
        (0, EventKind::Entered),
        (0, begin()),
        (10, EventKind::UpcallBegin { task, interrupted }),
        (11, EventKind::PollBegin { task: urgent }),
        (
            18,
            EventKind::PollEnd {
                task: urgent,
                result: ready,
            },
        ),
        (20, EventKind::UpcallEnd { task }),
        (25, pending()),
    ]);
    let longest = |task| summary.tasks[&task].longest;
    assert_eq!((longest(MAIN), longest(urgent)), (15, 7));
    assert_eq!((summary.time.polls, summary.time.executor), (22, 3));
}

#[test]
fn an_end_whose_beginning_was_lost_is_no_poll() {
    assert_eq!(summary([(5, pending())]).polls, 0);
}
