//! Traces of guests with several processors: each poll stands on the processor that made it, and what woke it is on
//! record with the way there.

use std::collections::{HashMap, HashSet};
use std::process::{Command, Output};

use wakebox::trace::lint::{FindingKind, Lint, Thresholds};
use wakebox::trace::{
    Cause, Doorbell, Event, EventKind, ExitReason, Idle, OpId, Recording, Roused, Summary, TaskId,
    json,
};
use wakebox::{Limits, Outcome, Sandbox, Stats, WakeMode};
use wakebox_tests::{guest, kvm_test, run};

/// Runs a guest with two processors, watched.
fn watch(name: &str, mode: WakeMode, args: &[&str]) -> (Outcome, Stats, Vec<Event>) {
    let recording = Recording::new();
    let builder = Sandbox::builder()
        .guest(guest(name))
        .limits(Limits::new().processors(2))
        .processors(2)
        .wake(mode)
        .args(args.iter().copied())
        .trace_records(1 << 18)
        .trace(recording.clone());
    let ended = run(builder);
    (ended.outcome, ended.stats, recording.events())
}

/// How many processors there are.
const PROCESSORS: usize = 2;

/// What happens on one.
#[derive(Default)]
struct Track {
    poll: Option<TaskId>,
    inside: bool,
    parked: bool,
    polls: usize,
}

/// Checks that each processor does one thing after the other, and that nothing was lost.
#[track_caller]
fn tracks(events: &[Event]) -> [Track; PROCESSORS] {
    assert!(events.is_sorted_by_key(|event| event.time), "in order");
    let started =
        matches!(&events[0].kind, EventKind::Started { processors, .. } if *processors == 2);
    assert!(started, "{:?}", events[0]);
    let mut tracks = <[Track; PROCESSORS]>::default();
    let mut polled = HashSet::new();
    for event in events {
        let track = &mut tracks[event.processor as usize];
        match &event.kind {
            EventKind::Entered => assert!(!std::mem::replace(&mut track.inside, true), "{event:?}"),
            EventKind::Exited { .. } => assert!(std::mem::take(&mut track.inside), "{event:?}"),
            EventKind::Parked => assert!(!std::mem::replace(&mut track.parked, true), "{event:?}"),
            EventKind::Resumed => assert!(std::mem::take(&mut track.parked), "{event:?}"),
            EventKind::PollBegin { task } => {
                assert_eq!(track.poll.replace(*task), None, "{event:?}");
                assert!(polled.insert(*task), "{task} is polled on two");
                track.polls += 1;
            }
            EventKind::PollEnd { task, .. } => {
                assert_eq!(track.poll.take(), Some(*task), "{event:?}");
                assert!(polled.remove(task));
            }
            EventKind::Finished {
                lost, malformed, ..
            } => assert_eq!((*lost, *malformed), (0, 0)),
            _ => {}
        }
    }
    tracks
}

/// What is known of a task.
#[derive(Default)]
struct Known {
    is_polled: bool,
    /// Where the last wake that queued it stands among all events.
    wake: Option<usize>,
}

/// Checks that each poll of a task after its first has a cause on record, which stands where it was. Gives the places of
/// wakes and of the polls that they led to.
#[track_caller]
fn causes(events: &[Event]) -> Vec<(usize, usize)> {
    let mut tasks: HashMap<TaskId, Known> = HashMap::new();
    let mut polls: [Option<TaskId>; PROCESSORS] = [None; PROCESSORS];
    let mut ended = HashSet::new();
    let mut chains = Vec::new();
    let mut places: HashMap<OpId, u32> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        let on = event.processor as usize;
        if let Some(op) = event.kind.op() {
            assert_ne!(op, OpId::UNKNOWN, "{event:?}");
            // An operation goes back to where it came from.
            assert_eq!(
                *places.entry(op).or_insert(event.processor),
                event.processor
            );
        }
        match &event.kind {
            EventKind::Spawned { task, .. } => {
                assert!(
                    tasks.insert(*task, Known::default()).is_none(),
                    "{task} is new"
                );
            }
            EventKind::Woken {
                task, by, queued, ..
            } => {
                match by {
                    Cause::Task(by) => assert!(
                        polls[on] == Some(*by) || ended.contains(by),
                        "{by} wakes where it is polled: {event:?}"
                    ),
                    Cause::Op(op) => assert_eq!(places[op], event.processor),
                    Cause::Timer(_) | Cause::Itself => {}
                    other => panic!("{task} was woken by {other:?}"),
                }
                if *queued {
                    tasks.get_mut(task).expect("a known task").wake = Some(index);
                }
            }
            EventKind::PollBegin { task } => {
                polls[on] = Some(*task);
                let known = tasks.get_mut(task).expect("a known task");
                let wake = known.wake.take();
                let is_first = !std::mem::replace(&mut known.is_polled, true);
                assert!(is_first || wake.is_some(), "{event:?} has no cause");
                chains.extend(wake.map(|wake| (wake, index)));
            }
            EventKind::PollEnd { .. } => polls[on] = None,
            EventKind::Ended { task, .. } => _ = ended.insert(*task),
            _ => {}
        }
    }
    chains
}

#[kvm_test(modes)]
fn each_poll_is_on_the_track_of_a_processor_and_has_a_cause(mode: WakeMode) {
    for (name, args) in [
        ("cores", &[][..]),
        ("spread", &["each"]),
        ("spread", &["shares"]),
        ("spread", &["channel"]),
        ("spread", &["tokens"]),
        ("spread", &["aborts"]),
    ] {
        let (outcome, stats, events) = watch(name, mode, args);
        assert!(outcome.is_success(), "{name} {args:?}: {outcome}");
        let tracks = tracks(&events);
        // What any processor may run, one of them may run alone.
        assert!(
            args == ["shares"] || tracks.iter().all(|track| track.polls > 0),
            "{name} {args:?}"
        );
        causes(&events);

        let mut summary = Summary::new();
        let mut lint = Lint::new(Thresholds::default());
        for event in &events {
            summary.count(event);
            lint.look(event);
        }
        assert_eq!(summary.uncaused, 0, "{name} {args:?}");
        let exits = summary.processors.iter().map(|one| one.exits).sum();
        assert_eq!((summary.exits(), stats.exits.total()), (exits, exits));
        assert_eq!(summary.interrupts, stats.interrupts);
        // The machine may be slow, and some of them do nothing but to wake each other.
        let wrong = [FindingKind::NoWaker, FindingKind::NeverWoken];
        let findings = lint.report().findings;
        let found = findings.iter().find(|found| wrong.contains(&found.kind));
        assert!(found.is_none(), "{name} {args:?}: {found:#?}");
    }
}

#[kvm_test(modes)]
fn the_way_from_a_wake_to_the_poll_on_a_processor_that_slept_is_complete(mode: WakeMode) {
    // Its tasks stay where they are.
    let (outcome, _, events) = watch("spread", mode, &["channel"]);
    assert!(outcome.is_success(), "{outcome}");
    let (mut across, mut slept) = (0, HashMap::new());
    for (wake, poll) in causes(&events) {
        let (from, to) = (events[wake].processor, events[poll].processor);
        if from == to {
            continue;
        }
        across += 1;
        let between = &events[wake..poll];
        let on = |processor, is: &dyn Fn(&EventKind) -> bool| {
            let mut there = between.iter().filter(|event| event.processor == processor);
            there.any(|event| is(&event.kind))
        };
        let before = events[..wake].iter().rev();
        let last = before
            .filter(|event| event.processor == to)
            .find_map(|event| match event.kind {
                EventKind::Sleeps { how } => Some(Some(how)),
                EventKind::Awake { .. } | EventKind::PollBegin { .. } => Some(None),
                _ => None,
            });
        let Some(how) = last.flatten() else {
            continue;
        };
        *slept.entry(how).or_insert(0) += 1;
        // It says by what it is awake.
        assert!(
            on(to, &|kind| matches!(kind, EventKind::Awake { .. })),
            "{between:#?}"
        );
        let sees = |kind: &EventKind| matches!(kind, EventKind::Awake { by: Roused::Memory });
        if how == Idle::Watch && on(to, &sees) {
            continue;
        }
        let parked = |kind: &EventKind| matches!(kind, EventKind::Parked);
        let rings = |kind: &EventKind| {
            let verb = Doorbell::Nudge;
            *kind == EventKind::Doorbell { verb }
        };
        let left = |kind: &EventKind| {
            let reason = ExitReason::Nudge;
            *kind == EventKind::Exited { reason }
        };
        // If it was parked when it was woken, that one has rung for it.
        let stands = events[..wake]
            .iter()
            .rev()
            .filter(|event| event.processor == to);
        let is_parked = stands.take_while(|event| event.side == wakebox::trace::Side::Host);
        if how != Idle::Watch && is_parked.into_iter().any(|event| parked(&event.kind)) {
            assert!(on(from, &rings), "it rings: {between:#?}");
            let entered = |kind: &EventKind| *kind == EventKind::Entered;
            assert!(on(to, &entered), "{between:#?}");
            assert!(on(to, &|kind| *kind == EventKind::Resumed), "{between:#?}");
            // Who rings is left for it, perhaps later than the other goes on.
            let until = events[wake..]
                .iter()
                .filter(|event| event.processor == from);
            assert!(
                until.into_iter().any(|event| left(&event.kind)),
                "{between:#?}"
            );
        }
    }
    assert!(across > 10, "{across}");
    let ways: u32 = slept.values().sum();
    assert!(ways > 0, "one of them has slept: {slept:?}");
    if mode == WakeMode::Irq {
        assert!(slept.contains_key(&Idle::Halt), "{slept:?}");
    }
    if mode == WakeMode::Out {
        assert!(slept.contains_key(&Idle::Out), "{slept:?}");
    }
}

#[kvm_test]
fn a_task_of_another_processor_says_who_made_it_and_where() {
    let (outcome, _, events) = watch("spread", WakeMode::Auto, &["each"]);
    assert!(outcome.is_success(), "{outcome}");
    let made: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Spawned { by, location, .. } => {
                Some((event.processor, *by, location.clone()))
            }
            _ => None,
        })
        .collect();
    let [main, last, first] = &made[..] else {
        panic!("{made:?}");
    };
    assert_eq!((main.0, main.1), (0, None));
    for (task, on) in [(last, 1), (first, 0)] {
        assert_eq!((task.0, task.1), (on, Some(TaskId(1))));
        assert!(task.2.as_ref().unwrap().contains("spread.rs:"), "{task:?}");
    }
}

/// Runs the command.
fn command(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(args).output().unwrap()
}

#[kvm_test]
fn the_command_records_draws_judges_and_explains_several_processors() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, page) = (
        folder.path().join("run.json"),
        folder.path().join("run.html"),
    );
    let (guest, trace) = (guest("spread"), trace.to_str().unwrap());
    let guest = guest.to_str().unwrap();
    let several = [
        "--limit",
        "processors=2",
        "--processors",
        "2",
        "--wake",
        "out",
    ];
    let run = command(&[&["run"], &several[..], &["--trace", trace, guest, "each"]].concat());
    assert!(run.status.success(), "{run:?}");
    let mut reader = json::Reader::open(trace).unwrap();
    let events: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    assert!(reader.is_whole());
    tracks(&events);
    let text = std::fs::read_to_string(trace).unwrap();
    assert!(
        text.starts_with(
            r#"[{"name":"wakebox_trace","ph":"M","pid":1,"tid":11,"args":{"format":2"#
        )
    );
    for track in [
        "vCPU 0: executor",
        "vCPU 1: executor",
        "vCPU 1: virtual processor",
    ] {
        assert!(text.contains(track), "{track}");
    }
    let timeline = command(&["timeline", trace]);
    assert!(timeline.status.success(), "{timeline:?}");
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .contains(r#""processor":1"#)
    );
    let lint = command(&["lint", trace]);
    let said = String::from_utf8_lossy(&lint.stdout).into_owned();
    assert!(said.contains("nothing found"), "{said}");

    let told = command(&["explain", trace]);
    let live = command(&[&["explain"], &several[..], &[guest, "each"]].concat());
    for story in [told, live] {
        assert!(story.status.success(), "{story:?}");
        let text = String::from_utf8_lossy(&story.stdout).into_owned();
        for words in [
            "with 2 processors begins",
            "vCPU 1: the host enters the guest",
            "vCPU 0: `out START`: another processor is to begin",
        ] {
            assert!(text.contains(words), "`{words}` in\n{text}");
        }
    }
}
