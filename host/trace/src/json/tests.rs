use std::sync::{Arc, Mutex};

use wakebox_abi::op::Opcode;
use wakebox_abi::status::Status;

use super::super::event::*;
use super::*;

/// One of each kind, and what is hard to write.
fn events() -> Vec<Event> {
    let (task, op, what) = (TaskId(1), OpId(7), OpKind::from(Opcode::ReadStream));
    let by = Some(TaskId(2));
    let mut kinds = vec![
        EventKind::Started {
            mode: "out".into(),
            guest: Some("a \\ \"guest\"".into()),
            processors: 1,
        },
        EventKind::Restored { clock: u64::MAX },
        EventKind::Spawned {
            task,
            by: None,
            name: "</script><b>\"\u{0}\n\u{fffd}é\u{202e}".into(),
            location: Some("src/main.rs:1:2".into()),
        },
        EventKind::Spawned {
            task,
            by,
            name: String::new(),
            location: None,
        },
        EventKind::Lives {
            task,
            name: "\u{2028}".into(),
        },
        EventKind::PollBegin { task },
        EventKind::PollEnd {
            task,
            result: PollResult::Ready,
        },
        EventKind::Cloned { task, by },
        EventKind::Dropped { task, by: None },
        EventKind::Ended {
            task,
            aborted: true,
        },
        EventKind::TimerSet {
            timer: TimerId(u64::MAX),
            by,
            at: u64::MAX,
        },
        EventKind::UpcallBegin {
            task: Some(task),
            interrupted: true,
        },
        EventKind::UpcallEnd { task: None },
        EventKind::InterruptTaken { count: 3 },
        EventKind::Submitted {
            op,
            what: OpKind(999),
            bytes: 5,
            by,
        },
        EventKind::CancelAsked { op, by: None },
        EventKind::OpBegins { op, what, bytes: 5 },
        EventKind::OpReady { op },
        EventKind::CompletionWritten { op },
        EventKind::Entered,
        EventKind::InterruptInjected,
        EventKind::Parked,
        EventKind::Resumed,
        EventKind::Detached,
        EventKind::Attached,
        EventKind::Lost { count: 9 },
        EventKind::Malformed {
            count: 1,
            why: "x".into(),
        },
        EventKind::Finished {
            outcome: "exit 0".into(),
            status: 0,
            lost: 9,
            malformed: 1,
        },
    ];
    for on in [
        None,
        Some(Awaited::Op(op)),
        Some(Awaited::HostCall(op)),
        Some(Awaited::Timer(TimerId(1))),
        Some(Awaited::Task(TaskId(9))),
        Some(Awaited::Slot),
        Some(Awaited::Unknown),
    ] {
        let result = PollResult::Pending { on, and: 3 };
        kinds.push(EventKind::PollEnd { task, result });
    }
    for by in [
        Cause::Itself,
        Cause::Task(TaskId(2)),
        Cause::Op(op),
        Cause::HostCall(op),
        Cause::Timer(TimerId(1)),
        Cause::Interrupt,
        Cause::Elsewhere,
        Cause::Restored,
        Cause::Unknown,
    ] {
        kinds.push(EventKind::Woken {
            task,
            by,
            queued: true,
            consumed: false,
        });
    }
    for status in Status::ALL {
        kinds.push(EventKind::OpEnds {
            op,
            what,
            status: *status,
            value: u32::MAX,
            bytes: Some(1),
        });
    }
    for how in [Idle::Watch, Idle::Out, Idle::Halt] {
        kinds.push(EventKind::Sleeps { how });
    }
    for by in [
        Roused::Memory,
        Roused::Out,
        Roused::Interrupt,
        Roused::Timer,
        Roused::Nothing,
    ] {
        kinds.push(EventKind::Awake { by });
    }
    for verb in [
        Doorbell::Submit,
        Doorbell::Wait,
        Doorbell::Exit,
        Doorbell::Abort,
        Doorbell::Start,
        Doorbell::Nudge,
        Doorbell::Unknown,
    ] {
        kinds.push(EventKind::Doorbell { verb });
    }
    for reason in [
        ExitReason::Submit,
        ExitReason::Wait,
        ExitReason::Halt,
        ExitReason::Quantum,
        ExitReason::Kick,
        ExitReason::Exit,
        ExitReason::Abort,
        ExitReason::Fault,
        ExitReason::Violation,
        ExitReason::Start,
        ExitReason::Nudge,
        ExitReason::Map,
        ExitReason::Caught,
    ] {
        kinds.push(EventKind::Exited { reason });
    }
    kinds
        .into_iter()
        .enumerate()
        .map(|(index, kind)| Event {
            time: index as u64 * 1_234_567_891,
            side: [Side::Guest, Side::Host][index % 2],
            processor: 0,
            kind,
        })
        .collect()
}

#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn written(events: &[Event]) -> Vec<u8> {
    let bytes = Bytes::default();
    let mut writer = Writer::new(bytes.clone());
    for event in events {
        writer.event(event).unwrap();
    }
    writer.end().unwrap();
    drop(writer);
    Arc::into_inner(bytes.0).unwrap().into_inner().unwrap()
}

#[test]
fn what_is_written_is_read_back_and_is_json() {
    let bytes = written(&events());
    let all: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert!(all.as_array().unwrap().len() > events().len());
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!(read, events());
    assert!(reader.is_whole());
    assert_eq!(reader.events_read(), events().len() as u64);
}

/// A poll on each of two processors, at once.
fn on_two() -> Vec<Event> {
    let started = EventKind::Started {
        mode: "out".into(),
        guest: None,
        processors: 2,
    };
    let spawned = |task: u32| EventKind::Spawned {
        task: TaskId(task),
        by: None,
        name: format!("t{task}"),
        location: None,
    };
    let (result, side) = (PollResult::Ready, Side::Guest);
    let end = |task| EventKind::PollEnd { task, result };
    vec![
        Event::new(0, Side::Host, started),
        Event::new(1, side, spawned(1)),
        Event::new(2, side, spawned(2)).on(1),
        Event::new(3, side, EventKind::PollBegin { task: TaskId(1) }),
        Event::new(4, side, EventKind::PollBegin { task: TaskId(2) }).on(1),
        Event::new(5, side, end(TaskId(1))),
        Event::new(6, side, end(TaskId(2))).on(1),
    ]
}

#[test]
fn of_several_processors_each_has_tracks_with_its_polls() {
    let bytes = written(&on_two());
    let read: Result<Vec<_>, _> = Reader::new(&bytes[..]).unwrap().collect();
    assert_eq!(read.unwrap(), on_two());
    let all: Vec<serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(all[0]["args"]["format"], 2);
    let track = |name: &str| {
        let named = |line: &&serde_json::Value| line["args"]["name"] == name;
        let line = all.iter().find(named).expect(name);
        (line["pid"].clone(), line["tid"].clone())
    };
    for (processor, task) in [(0, "t1"), (1, "t2")] {
        let (pid, tid) = track(&format!("vCPU {processor}: executor"));
        let on_it = all
            .iter()
            .filter(|line| line["pid"] == pid && line["tid"] == tid);
        let polls: Vec<_> = on_it.filter(|line| line["ts"].is_number()).collect();
        assert_eq!(polls.len(), 2, "{polls:?}");
        assert_eq!(
            (&polls[0]["name"], &polls[0]["ph"]),
            (&task.into(), &"B".into())
        );
        assert_eq!(polls[1]["ph"], "E");
    }
    assert_ne!(
        track("vCPU 0: virtual processor"),
        track("vCPU 1: virtual processor")
    );
    assert_ne!(track("vCPU 1: driver"), track("t1 (1)"));
}

#[test]
fn of_one_processor_a_file_says_nothing_of_processors() {
    let text = String::from_utf8(written(&events())).unwrap();
    assert!(
        text.starts_with(
            r#"[{"name":"wakebox_trace","ph":"M","pid":1,"tid":11,"args":{"format":1,"#
        )
    );
    for word in ["\"processor\":", "processors", "vCPU"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn arrows_to_polls_that_never_come_are_so_many_at_most() {
    let mut writer = Writer::new(io::sink());
    for task in 0..TASKS as u32 + 5 {
        let kind = EventKind::Woken {
            task: TaskId(task),
            by: Cause::Unknown,
            queued: true,
            consumed: false,
        };
        let (time, side) = (0, Side::Guest);
        writer.event(&Event::new(time, side, kind)).unwrap();
    }
    assert_eq!(writer.arrows.len(), TASKS);
}

#[test]
fn a_trace_cut_off_anywhere_gives_the_events_before_and_says_so() {
    let events = &events()[..30];
    let bytes = written(events);
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for len in 0..bytes.len() - 3 {
        let reader = Reader::new(&bytes[..len]);
        if len < first_line - 1 {
            assert!(matches!(reader, Err(ReadError::Empty)), "{len}: {reader:?}");
            continue;
        }
        let mut reader = reader.unwrap();
        let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(read, events[..read.len()]);
        assert!(!reader.is_whole(), "{len} of {} bytes", bytes.len());
    }
}

#[test]
fn what_is_no_trace_is_told_apart() {
    let error = |bytes: &[u8]| Reader::new(bytes).unwrap_err().to_string();
    assert!(error(b"").contains("empty"));
    assert!(error(b"\x7fELF").contains("no trace"));
    assert!(
        error(b"[{\"ph\":\"M\",\"name\":\"process_name\",\"args\":{}},\n").contains("no trace")
    );
    assert!(error(&vec![b'['; 3 << 20]).contains("does not end"));
    let other = br#"[{"name":"wakebox_trace","ph":"M","args":{"format":77,"wakebox":"9.9.9"}},"#;
    let sentence = error(other);
    assert!(
        sentence.contains("77") && sentence.contains("9.9.9"),
        "{sentence}"
    );
}

#[test]
fn a_line_that_is_no_event_is_named_by_its_number() {
    let text = String::from_utf8(written(&events()[..1])).unwrap();
    let text = text.replace("started", "sturted");
    let mut reader = Reader::new(text.as_bytes()).unwrap();
    let error = reader.next().unwrap().unwrap_err();
    assert!(matches!(error, ReadError::Line { line: 11, .. }), "{error}");
    assert!(reader.next().is_none());
}
