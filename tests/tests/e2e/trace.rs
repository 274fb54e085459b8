//! What a trace tells: the same story in every mode, with a cause for every poll; and what is left of
//! it when the guest is too fast, dies, or lies.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use wakebox::trace::{
    Awaited, Cause, Event, EventKind, ExitReason, Idle, Names, OpId, PollResult, Recording, TaskId,
    TimerId, json,
};
use wakebox::{Outcome, Sandbox, WakeMode};
use wakebox_abi::layout;
use wakebox_abi::memory::Word;
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{Ended, guest, kvm_test, run};

fn watch(mode: WakeMode, args: &[&str]) -> (Ended, Vec<Event>) {
    let recording = Recording::new();
    let builder = Sandbox::builder()
        .guest(guest("traced"))
        .args(args.iter().copied())
        .wake(mode)
        .trace(recording.clone());
    (run(builder), recording.events())
}

/// What the last event says: lost, malformed.
#[track_caller]
fn finished(events: &[Event]) -> (String, u64, u64) {
    match events.last().map(|event| &event.kind) {
        Some(EventKind::Finished {
            outcome,
            lost,
            malformed,
            ..
        }) => (outcome.clone(), *lost, *malformed),
        other => panic!("the last event is {other:?}"),
    }
}

/// Checks what holds for every whole trace.
#[track_caller]
fn is_sound(events: &[Event]) {
    assert!(matches!(events[0].kind, EventKind::Started { .. }));
    assert!(events.is_sorted_by_key(|event| event.time), "in order");
    let (_, lost, malformed) = finished(events);
    assert_eq!((lost, malformed), (0, 0));

    let mut stages: HashMap<OpId, Vec<&str>> = HashMap::new();
    let mut timers: HashSet<TimerId> = HashSet::new();
    // Of each task: whether it may be polled without a wake, and the last wake that queued it.
    let mut tasks: HashMap<TaskId, (bool, Option<Cause>)> = HashMap::new();
    for event in events {
        let kind = &event.kind;
        if let Some(op) = kind.op() {
            assert_ne!(op, OpId::UNKNOWN, "{kind:?}");
            stages.entry(op).or_default().push(kind.name());
        }
        match kind {
            EventKind::TimerSet { timer, .. } => {
                assert!(timers.insert(*timer), "{timer} is set once");
            }
            EventKind::Spawned { task, .. } => {
                assert!(tasks.insert(*task, (true, None)).is_none(), "{task} is new");
            }
            EventKind::Woken {
                task,
                by,
                queued: true,
                ..
            } => {
                match by {
                    Cause::Op(op) => {
                        let stages = stages[op].iter().filter(|stage| **stage != "op_ready");
                        assert!(
                            stages.eq(&["submitted", "op_begins", "op_ends", "completion_written"]),
                            "{op}"
                        );
                    }
                    Cause::Timer(timer) => assert!(timers.contains(timer), "{timer} was set"),
                    Cause::Task(task) => assert!(tasks.contains_key(task), "{task} was spawned"),
                    Cause::Itself => {}
                    other => panic!("{task} was woken by {other:?}"),
                }
                tasks.get_mut(task).expect("a known task").1 = Some(*by);
            }
            EventKind::PollBegin { task } => {
                let (first, cause) = tasks.get_mut(task).expect("a known task");
                assert!(
                    *first || cause.is_some(),
                    "{task} is polled without a cause"
                );
                (*first, *cause) = (false, None);
            }
            _ => {}
        }
    }
    for op in 1..=stages.len() as u64 {
        assert!(stages.contains_key(&OpId(op)), "numbers have no gap");
    }
}

fn tasks(events: &[Event]) -> HashMap<String, TaskId> {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Spawned { task, name, .. } => Some((name.clone(), *task)),
            _ => None,
        })
        .collect()
}

/// The life of a task, in words.
fn life(events: &[Event], of: TaskId) -> Vec<String> {
    events
        .iter()
        .filter(|event| event.kind.task() == Some(of))
        .filter_map(|event| {
            Some(match &event.kind {
                EventKind::Spawned { .. } => "spawned".into(),
                EventKind::PollBegin { .. } => "poll".into(),
                EventKind::PollEnd { result, .. } => match result {
                    PollResult::Ready => "ready".into(),
                    PollResult::Pending { on, .. } => match on {
                        Some(Awaited::Op(_)) => "pending on op".into(),
                        Some(Awaited::Timer(_)) => "pending on timer".into(),
                        Some(Awaited::Task(_)) => "pending on task".into(),
                        None => "pending".into(),
                        other => format!("pending on {other:?}"),
                    },
                },
                EventKind::Woken { by, .. } => match by {
                    Cause::Op(_) => "woken by op".into(),
                    Cause::Timer(_) => "woken by timer".into(),
                    Cause::Task(_) => "woken by task".into(),
                    Cause::Itself => "woken by itself".into(),
                    other => format!("woken by {other:?}"),
                },
                EventKind::Ended { aborted: false, .. } => "ended".into(),
                EventKind::Ended { aborted: true, .. } => "aborted".into(),
                _ => return None,
            })
        })
        .collect()
}

#[kvm_test(modes)]
fn the_same_story_is_told_in_every_mode_and_every_poll_has_a_cause(mode: WakeMode) {
    let (ended, events) = watch(mode, &["story"]);
    assert_eq!(ended.success().lines(), ["told"]);
    is_sound(&events);
    let tasks = tasks(&events);
    let life = |name: &str| life(&events, tasks[name]);
    assert_eq!(tasks["main"], TaskId(1));
    assert_eq!(
        life("asker"),
        [
            "spawned",
            "poll",
            "pending on op",
            "woken by op",
            "poll",
            "pending on op",
            "woken by op",
            "poll",
            "ready",
            "ended"
        ],
        "mode {mode}"
    );
    assert_eq!(
        life("ticker"),
        [
            "spawned",
            "poll",
            "pending on timer",
            "woken by timer",
            "poll",
            "ready",
            "ended"
        ],
        "mode {mode}"
    );
    assert_eq!(
        life("listener"),
        [
            "spawned",
            "poll",
            "pending",
            "woken by task",
            "poll",
            "ready",
            "ended"
        ],
        "mode {mode}"
    );
    assert_eq!(
        life("speaker"),
        [
            "spawned",
            "poll",
            "woken by itself",
            "pending",
            "poll",
            "ready",
            "ended"
        ],
        "mode {mode}"
    );
    assert_eq!(
        life("idler"),
        ["spawned", "poll", "pending", "woken by task", "aborted"],
        "mode {mode}"
    );
    let main = life("main");
    assert_eq!(main[..3], ["spawned", "poll", "pending on task"]);
    assert!(main.contains(&"woken by task".to_owned()));
}

#[kvm_test(modes)]
fn each_mode_sleeps_and_is_woken_in_its_own_way(mode: WakeMode) {
    let has = |events: &[Event], wanted: &EventKind| events.iter().any(|e| e.kind == *wanted);
    let sleeps = |how| EventKind::Sleeps { how };
    let exited = |reason| EventKind::Exited { reason };
    let (_, events) = watch(mode, &["story"]);
    assert_eq!(
        has(&events, &EventKind::InterruptInjected),
        mode == WakeMode::Irq
    );
    assert_eq!(has(&events, &sleeps(Idle::Halt)), mode == WakeMode::Irq);
    assert_eq!(
        has(&events, &exited(ExitReason::Halt)),
        mode == WakeMode::Irq
    );
    assert_eq!(has(&events, &sleeps(Idle::Out)), mode != WakeMode::Irq);
    assert_eq!(
        has(&events, &exited(ExitReason::Wait)),
        mode != WakeMode::Irq
    );
    if mode == WakeMode::Irq {
        let taken = |event: &Event| matches!(event.kind, EventKind::InterruptTaken { .. });
        assert!(events.iter().any(taken));
    }
    // Entered and left in turn, parked and resumed in turn.
    let turns = |a: &str, b: &str| {
        let both = events.iter().map(|event| event.kind.name());
        let both: Vec<_> = both.filter(|name| *name == a || *name == b).collect();
        assert!(both.chunks(2).all(|pair| pair == [a, b]), "{both:?}");
        both.len() / 2
    };
    assert!(turns("entered", "exited") > 0);
    // A guest that watches may see the time of its timer come, and need nobody who parks it.
    let parks = turns("parked", "resumed");
    assert!(parks > 0 || mode != WakeMode::Out);
}

#[kvm_test]
fn a_task_has_its_name_and_its_place() {
    let (_, events) = watch(WakeMode::Out, &["names"]);
    is_sound(&events);
    let mut names = Vec::new();
    for event in &events {
        if let EventKind::Spawned { name, location, .. } = &event.kind {
            names.push(name.as_str());
            match location {
                Some(location) => assert!(location.contains("traced.rs:"), "{location}"),
                None => assert_eq!(name, "main"),
            }
        }
    }
    assert_eq!(
        names,
        [
            "main",
            "\"</script>\\",
            "",
            "\u{202e}\0\n",
            "naïve 名前",
            "nop"
        ]
    );
    let mut known = Names::new();
    events.iter().for_each(|event| known.learn(event));
    assert_eq!(known.name(TaskId(3)), "task 3");
    assert_eq!(known.name(TaskId(6)), "nop");
}

#[kvm_test]
fn a_guest_that_dies_leaves_all_that_it_told() {
    let (ended, events) = watch(WakeMode::Out, &["die"]);
    assert!(matches!(ended.outcome, Outcome::Panic(_)));
    is_sound(&events);
    let polls = |name: &str| {
        events
            .iter()
            .filter(|event| event.kind.name() == name)
            .count()
    };
    assert_eq!(polls("poll_begin"), polls("poll_end") + 1);
    assert!(finished(&events).0.contains("enough"));
}

#[kvm_test]
fn what_finds_the_ring_full_is_counted_and_its_place_is_known() {
    let recording = Recording::new();
    let builder = Sandbox::builder()
        .guest(guest("traced"))
        .args(["burst"])
        .wake(WakeMode::Out)
        .trace_records(64)
        .trace(recording.clone());
    run(builder).success();
    let events = recording.events();
    let (_, lost, malformed) = finished(&events);
    let told = events.iter().filter_map(|event| match event.kind {
        EventKind::Lost { count } => Some(count),
        _ => None,
    });
    assert!(lost > 0);
    assert_eq!((told.sum::<u64>(), malformed), (lost, 0));
    let wakers = |event: &&Event| {
        matches!(
            event.kind,
            EventKind::Cloned { .. } | EventKind::Dropped { .. }
        )
    };
    let told = events.iter().filter(wakers).count() as u64;
    assert!((2_000..2_010).contains(&(told + lost)), "{told} + {lost}");
    assert_eq!(life(&events, TaskId(1)).last().unwrap(), "ended");
}

#[kvm_test]
fn a_guest_that_tells_a_lot_goes_out_before_the_ring_is_full() {
    let recording = Recording::new();
    let builder = Sandbox::builder()
        .guest(guest("traced"))
        .args(["events", "20000"])
        .wake(WakeMode::Out)
        .trace_records(256)
        .trace(recording.clone());
    run(builder).success();
    let events = recording.events();
    is_sound(&events);
    assert!(events.len() > 60_000);
}

/// Runs machine code that writes what it likes into the ring.
fn hostile(parts: &[Vec<u8>]) -> Vec<Event> {
    let recording = Recording::new();
    let mut parts = parts.to_vec();
    parts.push(code::exit(0));
    let builder = Sandbox::builder()
        .guest(Elf::guest(&parts.concat()).to_bytes())
        .wake(WakeMode::Out)
        .trace(recording.clone());
    assert_eq!(run(builder).outcome, Outcome::Exit(0));
    recording.events()
}

#[kvm_test]
fn what_is_no_record_is_counted_and_spoils_only_itself() {
    // Kinds zero and 200, then a poll of task 7 at a time beyond the end of the world.
    let records = [
        code::store(layout::TRACE + 32 + 8, 200),
        code::store(layout::TRACE + 64, u32::MAX),
        code::store(layout::TRACE + 64 + 4, u32::MAX),
        code::store(layout::TRACE + 64 + 8, 3),
        code::store(layout::TRACE + 64 + 12, 7),
        code::set(Word::TraceTail, 3),
    ];
    let events = hostile(&records);
    assert!(events.is_sorted_by_key(|event| event.time));
    assert_eq!(finished(&events).2, 2);
    let malformed = |event: &&Event| matches!(event.kind, EventKind::Malformed { count: 2, .. });
    let at = events
        .iter()
        .position(|event| malformed(&event))
        .expect("an event for it");
    assert_eq!(
        events[at + 1].kind,
        EventKind::PollBegin { task: TaskId(7) }
    );
}

#[kvm_test]
fn a_broken_ring_ends_what_the_guest_tells_and_not_the_guest() {
    for tail in [u32::MAX, 1 << 31, wakebox::trace::RECORDS + 1] {
        let events = hostile(&[code::set(Word::TraceTail, tail)]);
        let (outcome, lost, malformed) = finished(&events);
        assert_eq!((lost, malformed), (0, 1), "{outcome}");
    }
}

#[kvm_test]
fn the_file_of_the_command_holds_the_same_and_is_json() {
    wakebox_tests::require_kvm();
    let folder = tempfile::tempdir().unwrap();
    for (case, status) in [("story", 0), ("names", 0), ("die", 101)] {
        let path = folder.path().join(case);
        let done = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
            .arg("run")
            .arg(guest("traced"))
            .arg("--trace")
            .arg(&path)
            .args(["--", case])
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(status), "{done:?}");
        let mut reader = json::Reader::open(&path).unwrap();
        let events: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        assert!(reader.is_whole());
        is_sound(&events);
        let text = std::fs::read(&path).unwrap();
        let all: serde_json::Value = serde_json::from_slice(&text).unwrap();
        // Every arrow that ends has begun.
        let mut begun = HashSet::new();
        let mut ended = 0;
        for line in all.as_array().unwrap() {
            match line["ph"].as_str().unwrap() {
                "s" => assert!(begun.insert(line["id"].as_u64().unwrap())),
                "f" => {
                    assert!(begun.contains(&line["id"].as_u64().unwrap()));
                    ended += 1;
                }
                _ => {}
            }
        }
        assert!(ended > 0);
    }
    let refused = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .args(["run", "nothing", "--trace"])
        .arg(folder.path().join("no/such/folder"))
        .output()
        .unwrap();
    let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(sentence.contains("cannot write the trace"), "{sentence}");
}
