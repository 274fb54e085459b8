use super::telling::wrap;
use super::*;
use unicode_width::UnicodeWidthStr;
use wakebox::trace::json::Writer;
use wakebox::trace::{Awaited, Cause, Doorbell, ExitReason, Idle, OpId, PollResult, Side, TaskId};

fn printer(width: Option<usize>) -> Printer<Vec<u8>> {
    Printer {
        out: Vec::new(),
        teller: Teller::default(),
        said: Said::default(),
        style: Style::plain(),
        width,
        step: false,
        stopped: Arc::default(),
    }
}

fn read_of(task: TaskId, name: &str) -> Vec<Event> {
    let (op, what) = (OpId(7), OpKind::from(Opcode::ReadStream));
    let on = Some(Awaited::Op(op));
    let (guest, host) = (Side::Guest, Side::Host);
    [
        (
            guest,
            EventKind::Spawned {
                task,
                by: None,
                name: name.into(),
                location: Some("src/main.rs:3:5".into()),
            },
        ),
        (guest, EventKind::PollBegin { task }),
        (
            guest,
            EventKind::Submitted {
                op,
                what,
                bytes: 512,
                by: Some(task),
            },
        ),
        (
            guest,
            EventKind::PollEnd {
                task,
                result: PollResult::Pending { on, and: 0 },
            },
        ),
        (guest, EventKind::Sleeps { how: Idle::Out }),
        (
            guest,
            EventKind::Doorbell {
                verb: Doorbell::Wait,
            },
        ),
        (
            host,
            EventKind::Exited {
                reason: ExitReason::Wait,
            },
        ),
        (host, EventKind::Parked),
        (
            guest,
            EventKind::Woken {
                task,
                by: Cause::Op(op),
                queued: true,
                consumed: true,
            },
        ),
        (guest, EventKind::PollBegin { task }),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, (side, kind))| Event {
        time: index as u64 * 1_500,
        side,
        processor: 0,
        kind,
    })
    .collect()
}

fn told(events: &[Event], width: Option<usize>) -> String {
    let mut printer = printer(width);
    for event in events {
        printer.tell(event).unwrap();
    }
    String::from_utf8(printer.out).unwrap()
}

#[test]
fn the_way_of_a_read_is_told_in_plain_words() {
    let text = told(&read_of(TaskId(2), "fetch-2"), None);
    let lines: Vec<_> = text.lines().map(|line| line[TIME..].trim_start()).collect();
    assert_eq!(
        lines,
        [
            "task `fetch-2` is spawned at src/main.rs:3:5; it stands in the run queue",
            "task `fetch-2` is polled for the first time",
            "task `fetch-2` puts ReadStream #7 of 512 bytes into the submission ring",
            "task `fetch-2` is Pending on ReadStream #7; nothing else is ready",
            "nothing is ready; the guest is about to leave with `out WAIT`",
            "`out WAIT`: nothing to do until a completion comes",
            "the guest is left: it has nothing to do",
            "the host parks the machine; it holds no thread now",
            "the completion of ReadStream #7 wakes task `fetch-2`: into the run queue",
            "task `fetch-2` is polled again, because of the completion of ReadStream #7",
        ]
    );
}

#[test]
fn the_sides_of_the_boundary_stand_apart() {
    let text = told(&read_of(TaskId(2), "fetch-2"), None);
    let indent = |line: usize| {
        let line = text.lines().nth(line).unwrap();
        line.len() - line[TIME..].trim_start().len()
    };
    let (guest, boundary, host) = (indent(1), indent(5), indent(7));
    assert!(host < boundary && boundary < guest);
}

#[test]
fn forty_columns_are_enough() {
    let events = read_of(TaskId(2), &"a long name with words, ".repeat(4));
    let text = told(&events, Some(40));
    for line in text.lines() {
        assert!(line.width() <= 40, "{line}");
    }
    let words = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(&text),
        words(&told(&events, None)),
        "nothing is missing"
    );
}

#[test]
fn words_are_broken_only_if_they_must_be() {
    assert_eq!(wrap("one two three", Some(8)), ["one two", "three"]);
    assert_eq!(wrap("eightlet ters", Some(8)), ["eightlet", "ters"]);
    assert_eq!(wrap("nineletters", Some(8)), ["ninelett", "ers"]);
    assert_eq!(wrap("名前名前名前", Some(8)), ["名前名前", "名前"]);
    assert_eq!(wrap("", Some(8)), [""]);
    assert_eq!(wrap("as it is", None), ["as it is"]);
}

#[test]
fn a_name_cannot_write_on_the_terminal() {
    let text = told(&read_of(TaskId(2), "\x1b[2Jx\r\n\u{202e}<b>"), None);
    assert!(text.contains("`\\u{1b}[2Jx\\r\\n\\u{202e}<b>`"), "{text}");
    assert_eq!(text.lines().count(), 10);
}

#[test]
fn what_the_guest_prints_stands_where_it_was_printed() {
    let mut printer = printer(None);
    printer.said.bytes().extend(b"hello\nworld\nlater\n");
    let ends = |bytes| Event {
        time: 0,
        side: Side::Host,
        processor: 0,
        kind: EventKind::OpEnds {
            op: OpId(1),
            what: Opcode::WriteConsole.into(),
            status: wakebox_abi::status::Status::Ok,
            value: bytes,
            bytes: Some(bytes),
        },
    };
    printer.tell(&ends(12)).unwrap();
    printer.tell(&ends(6)).unwrap();
    let text = String::from_utf8(printer.out).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    assert_eq!(lines[1..3], ["| hello", "| world"]);
    assert_eq!(lines[4..], ["| later"]);
}

#[test]
fn a_trace_that_was_cut_off_is_told_to_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.json");
    let mut writer = Writer::create(&path).unwrap();
    for event in read_of(TaskId(2), "fetch-2") {
        writer.event(&event).unwrap();
    }
    writer.caught_up().unwrap();
    drop(writer);
    assert!(is_trace(&path));
    let mut printer = printer(None);
    printer.read(&path).unwrap();
    let text = String::from_utf8(printer.out).unwrap();
    assert!(text.ends_with("(the trace was cut off here)\n"), "{text}");
}

#[test]
fn a_closed_pipe_ends_it_and_says_so_to_the_run() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let Printer {
        teller,
        said,
        style,
        stopped,
        ..
    } = printer(None);
    let mut printer = Printer {
        out: Closed,
        teller,
        said,
        style,
        width: None,
        step: false,
        stopped: stopped.clone(),
    };
    let error = printer.event(&read_of(TaskId(2), "x")[0]).unwrap_err();
    assert!(is_end(&error));
    let mut told = std::pin::pin!(stopped.notified());
    assert!(told.as_mut().enable());
}
