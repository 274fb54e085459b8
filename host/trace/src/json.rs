//! Traces in files: Chrome's trace-event format, which <https://ui.perfetto.dev> opens as it is.
//!
//! One event a line, and beside some of them lines that only draw: names of tracks, arrows, the
//! bars of operations. A line that is an event begins with `{"cat":"wakebox",` and has the
//! [`Event`], whole, in its `args`. The first line tells which version of this format it is. A
//! file that was cut off is still one that Perfetto opens, and [`Reader`] says where it ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::Path;

use serde::Deserialize;

use super::event::{
    Awaited, Cause, Doorbell, Event, EventKind, Idle, PollResult, Roused, TaskId, Track,
};
use super::sink::Sink;
use super::tasks::TASKS;

/// The version of the format that [`Writer`] writes and [`Reader`] reads.
pub const FORMAT: u32 = 1;

/// What a line that is an event begins with.
const EVENT: &[u8] = br#"{"cat":"wakebox","#;

/// Most bytes of a line: far beyond what is written.
const LINE_MAX: u64 = 1 << 20;

/// "Processes" and "threads" of the picture. Perfetto wants no number twice.
const HOST: (u32, u32) = (1, 11);
const BOUNDARY: (u32, u32) = (2, 12);
const EXECUTOR: (u32, u32) = (3, 13);
/// Of task zero.
const FIRST_TASK: u64 = 100;

/// Writes a trace, in memory that does not grow with its length (but with the number of tasks in the run
/// queue, up to [`TASKS`]; no arrow leads to the polls of further ones).
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    line: Lines,
    begun: bool,
    events: u64,
    /// The arrow that ends in the next poll of a task.
    arrows: HashMap<TaskId, u64>,
    wakes: u64,
}

impl Writer<BufWriter<File>> {
    /// A writer of a file, which is emptied if it is there.
    ///
    /// # Errors
    ///
    /// What opening it says.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::new(BufWriter::with_capacity(
            1 << 16,
            File::create(path)?,
        )))
    }
}

/// Where a track is drawn.
fn ids(track: Track) -> (u32, u64) {
    let (process, thread) = match track {
        Track::Host => HOST,
        Track::Boundary => BOUNDARY,
        Track::Executor => EXECUTOR,
        Track::Task(task) => return (EXECUTOR.0, FIRST_TASK + u64::from(task.0)),
    };
    (process, thread.into())
}

/// How an event is drawn.
enum Shape {
    Begin,
    End,
    Instant,
    /// A bar so short that it is a line, from which an arrow can start.
    Stroke,
    /// The end of an operation's bar.
    OpEnd,
}

impl<W: Write> Writer<W> {
    /// A writer to anything. It makes small writes: give it something buffered.
    pub fn new(out: W) -> Self {
        Self {
            out,
            line: Lines::default(),
            begun: false,
            events: 0,
            arrows: HashMap::new(),
            wakes: 0,
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.begun = true;
        let version = env!("CARGO_PKG_VERSION");
        writeln!(
            self.out,
            r#"[{{"name":"wakebox_trace","ph":"M","pid":1,"tid":11,"args":{{"format":{FORMAT},"wakebox":"{version}"}}}},"#
        )?;
        for (order, (ids, process, thread)) in [
            (HOST, "host", "driver"),
            (BOUNDARY, "boundary", "virtual processor"),
            (EXECUTOR, "guest", "executor"),
        ]
        .into_iter()
        .enumerate()
        {
            let (pid, tid) = ids;
            writeln!(
                self.out,
                r#"{{"name":"process_name","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":"{process}"}}}},"#
            )?;
            writeln!(
                self.out,
                r#"{{"name":"process_sort_index","ph":"M","pid":{pid},"tid":{tid},"args":{{"sort_index":{order}}}}},"#
            )?;
            writeln!(
                self.out,
                r#"{{"name":"thread_name","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":"{thread}"}}}},"#
            )?;
        }
        Ok(())
    }

    /// The line of an event.
    fn draw(&mut self, event: &Event) -> io::Result<()> {
        let line = &mut self.line;
        line.0.extend_from_slice(EVENT);
        line.text(r#""name":""#);
        name(line, event);
        match shape(&event.kind) {
            Shape::Begin => line.text(r#"","ph":"B""#),
            Shape::End => line.text(r#"","ph":"E""#),
            Shape::Instant => line.text(r#"","ph":"i","s":"t""#),
            Shape::Stroke => line.text(r#"","ph":"X","dur":0.001"#),
            Shape::OpEnd => {
                let op = event.kind.op().map_or(0, |op| op.0);
                line.text(r#"","ph":"e","id":"#).number(op)
            }
        };
        line.at(event.kind.track(), event.time);
        line.text(r#","args":"#);
        serde_json::to_writer(&mut line.0, event)?;
        line.text("},\n");
        Ok(())
    }

    /// What is drawn beside the event.
    fn decorate(&mut self, event: &Event) -> io::Result<()> {
        let time = event.time;
        let line = &mut self.line;
        match &event.kind {
            EventKind::Spawned { task, name, .. } => {
                let (pid, tid) = ids(Track::Task(*task));
                let title = if name.is_empty() {
                    task.to_string()
                } else {
                    format!("{name} ({})", task.0)
                };
                let title = serde_json::to_string(&title)?;
                writeln!(
                    line.0,
                    r#"{{"name":"thread_name","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":{title}}}}},"#
                )?;
                writeln!(
                    line.0,
                    r#"{{"name":"thread_sort_index","ph":"M","pid":{pid},"tid":{tid},"args":{{"sort_index":{tid}}}}},"#
                )?;
            }
            // The way of an operation: from the poll that submitted it, past the host, to the
            // poll that its completion woke.
            EventKind::Submitted {
                op, by: Some(task), ..
            } => line.arrow("s", op.0.wrapping_mul(2), Track::Task(*task), time),
            EventKind::OpBegins { op, what, .. } => {
                line.arrow("t", op.0.wrapping_mul(2), Track::Host, time);
                line.text(r#"{"cat":"wakebox_op","name":""#);
                line.text(what.name()).text(" #").number(op.0);
                line.text(r#"","ph":"b","id":"#).number(op.0);
                line.at(Track::Host, time).text("},\n");
            }
            EventKind::CompletionWritten { op } => {
                line.arrow("t", op.0.wrapping_mul(2), Track::Host, time);
            }
            EventKind::Woken {
                task,
                by,
                queued: true,
                ..
            } => {
                let arrow = match by {
                    Cause::Op(op) | Cause::HostCall(op) => op.0.wrapping_mul(2),
                    Cause::Task(by) => self.start_arrow(Track::Task(*by), time),
                    Cause::Itself => self.start_arrow(Track::Task(*task), time),
                    _ => {
                        line.text(r#"{"name":""#);
                        cause(line, *by);
                        line.text(r#"","ph":"X","dur":0.001"#);
                        line.at(Track::Executor, time).text("},\n");
                        self.start_arrow(Track::Executor, time)
                    }
                };
                if self.arrows.len() < TASKS || self.arrows.contains_key(task) {
                    self.arrows.insert(*task, arrow);
                }
            }
            EventKind::PollBegin { task } => {
                if let Some(arrow) = self.arrows.remove(task) {
                    line.arrow("f", arrow, Track::Task(*task), time);
                }
            }
            EventKind::Ended { task, .. } => {
                self.arrows.remove(task);
            }
            _ => {}
        }
        Ok(())
    }

    fn start_arrow(&mut self, from: Track, time: u64) -> u64 {
        self.wakes += 1;
        let id = self.wakes * 2 + 1;
        self.line.arrow("s", id, from, time);
        id
    }
}

/// The lines of one event, put together without `format!`, which would take longer than all the rest.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.text(itoa::Buffer::new().format(number))
    }

    /// Where and when. Perfetto counts in microseconds.
    fn at(&mut self, track: Track, time: u64) -> &mut Self {
        let (pid, tid) = ids(track);
        self.text(r#","pid":"#).number(pid);
        self.text(r#","tid":"#).number(tid);
        self.text(r#","ts":"#).number(time / 1000);
        let digit = |divisor: u64| b'0' + (time / divisor % 10) as u8;
        self.0
            .extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
        self
    }

    /// A point of an arrow: `s` where it starts, `t` where it passes, `f` where it ends.
    fn arrow(&mut self, point: &str, id: u64, track: Track, time: u64) {
        self.text(r#"{"cat":"cause","name":"cause","ph":""#)
            .text(point);
        self.text(if point == "f" { r#"","bp":"e""# } else { "\"" });
        self.text(r#","id":"#).number(id);
        self.at(track, time).text("},\n");
    }
}

impl<W: Write + Send> Sink for Writer<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        if !self.begun {
            self.begin()?;
        }
        self.events += 1;
        self.line.0.clear();
        self.draw(event)?;
        self.decorate(event)?;
        self.out.write_all(&self.line.0)
    }

    fn caught_up(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begin()?;
        }
        let events = self.events;
        writeln!(
            self.out,
            r#"{{"name":"wakebox_end","ph":"M","pid":1,"tid":11,"args":{{"events":{events}}}}}"#
        )?;
        writeln!(self.out, "]")?;
        self.out.flush()
    }
}

/// How an event is drawn.
fn shape(kind: &EventKind) -> Shape {
    use EventKind as Kind;
    match kind {
        Kind::PollBegin { .. } | Kind::Entered | Kind::Parked | Kind::Sleeps { .. } => Shape::Begin,
        Kind::PollEnd { .. } | Kind::Exited { .. } | Kind::Resumed | Kind::Awake { .. } => {
            Shape::End
        }
        Kind::OpBegins { .. } | Kind::CompletionWritten { .. } => Shape::Stroke,
        Kind::OpEnds { .. } => Shape::OpEnd,
        _ => Shape::Instant,
    }
}

/// Under which name, in words that need no escaping.
fn name(line: &mut Lines, event: &Event) {
    use EventKind as Kind;
    match &event.kind {
        Kind::PollBegin { .. } => line.text("poll"),
        Kind::PollEnd { result, .. } => poll_end(line, *result),
        Kind::Entered => line.text("in the guest"),
        Kind::Exited { reason } => line.text("exit: ").text(reason.name()),
        Kind::Parked | Kind::Resumed => line.text("parked"),
        Kind::Sleeps { how } => line.text(match how {
            Idle::Watch => "sleeps (watch)",
            Idle::Out => "sleeps (out)",
            Idle::Halt => "sleeps (halt)",
        }),
        Kind::Awake { by } => line.text(match by {
            Roused::Memory => "awake by memory",
            Roused::Out => "awake by out",
            Roused::Interrupt => "awake by interrupt",
            Roused::Timer => "awake by timer",
            Roused::Nothing => "awake by nothing",
        }),
        Kind::OpBegins { op, what, .. } => {
            let line = line.text(what.name()).text(" #").number(op.0);
            line.text(" begins")
        }
        Kind::OpEnds { op, what, .. } => line.text(what.name()).text(" #").number(op.0),
        Kind::CompletionWritten { op } => line.text("completion #").number(op.0),
        Kind::OpReady { op } => line.text("#").number(op.0).text(" ready"),
        Kind::Submitted { op, what, .. } => {
            let line = line.text("submits ").text(what.name());
            line.text(" #").number(op.0)
        }
        Kind::CancelAsked { op, .. } => line.text("cancels #").number(op.0),
        Kind::Woken { by, .. } => {
            line.text("woken by ");
            cause(line, *by)
        }
        Kind::TimerSet { timer, .. } => line.text("sets timer ").number(timer.0),
        Kind::Doorbell { verb } => line.text(match verb {
            Doorbell::Submit => "doorbell: submit",
            Doorbell::Wait => "doorbell: wait",
            Doorbell::Exit => "doorbell: exit",
            Doorbell::Abort => "doorbell: abort",
            Doorbell::Unknown => "doorbell: unknown",
        }),
        kind => {
            for (index, word) in kind.name().split('_').enumerate() {
                line.text(if index > 0 { " " } else { "" }).text(word);
            }
            line
        }
    };
}

fn poll_end(line: &mut Lines, result: PollResult) -> &mut Lines {
    match result {
        PollResult::Ready => line.text("ready"),
        PollResult::Pending { on, .. } => match on {
            None | Some(Awaited::Unknown) => line.text("pending"),
            Some(Awaited::Op(op) | Awaited::HostCall(op)) => line.text("pending on #").number(op.0),
            Some(Awaited::Timer(timer)) => line.text("pending on timer ").number(timer.0),
            Some(Awaited::Task(task)) => line.text("pending on task ").number(task.0),
            Some(Awaited::Slot) => line.text("pending on a slot in flight"),
        },
    }
}

fn cause(line: &mut Lines, cause: Cause) -> &mut Lines {
    match cause {
        Cause::Itself => line.text("itself"),
        Cause::Task(task) => line.text("task ").number(task.0),
        Cause::Op(op) => line.text("#").number(op.0),
        Cause::HostCall(op) => line.text("a host call (#").number(op.0).text(")"),
        Cause::Timer(timer) => line.text("timer ").number(timer.0),
        Cause::Interrupt => line.text("an interrupt"),
        Cause::Elsewhere => line.text("another thread"),
        Cause::Unknown => line.text("the runtime"),
    }
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the trace cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("the trace is empty: not even its first line was written")]
    Empty,
    /// It is something else.
    #[error("this is no trace of Wakebox: {0}; `wakebox run --trace FILE` writes one")]
    Foreign(&'static str),
    /// It is of another version.
    #[error(
        "the trace is in version {found} of the format, this program reads version {FORMAT}; \
         record it again, or read it with the Wakebox that wrote it ({writer})"
    )]
    Version {
        /// Which.
        found: u32,
        /// The version of Wakebox that wrote it.
        writer: String,
    },
    /// A line in the middle is no event.
    #[error("line {line} of the trace is no event: {why}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
}

/// Reads what [`Writer`] wrote, event by event, in memory for one line.
///
/// It ends when the file does. Then [`Self::is_whole`] tells whether the trace was written to its
/// end, or was cut off after the last event: the process was killed, or the disk was full.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    line: Vec<u8>,
    lines: u64,
    events: u64,
    whole: bool,
    over: bool,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    args: HeaderArgs,
}

#[derive(Deserialize)]
struct HeaderArgs {
    #[serde(default)]
    format: Option<u32>,
    #[serde(default)]
    wakebox: String,
}

#[derive(Deserialize)]
struct Line {
    args: Event,
}

impl Reader<BufReader<File>> {
    /// A reader of a file.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        Self::new(BufReader::with_capacity(1 << 16, File::open(path)?))
    }
}

impl<R: BufRead> Reader<R> {
    /// A reader of anything. Reads the first line.
    ///
    /// # Errors
    ///
    /// It cannot be read, is empty, is no trace, or one of another version.
    pub fn new(from: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            from,
            line: Vec::new(),
            lines: 0,
            events: 0,
            whole: false,
            over: false,
        };
        let Some(whole) = reader.next_line()? else {
            return Err(ReadError::Empty);
        };
        let text = reader.line.trim_ascii();
        let text = text.strip_suffix(b",").unwrap_or(text);
        let foreign = ReadError::Foreign("its first line is not that of a trace");
        let Some(text) = text.strip_prefix(b"[") else {
            return Err(foreign);
        };
        match serde_json::from_slice::<Header>(text) {
            Ok(Header { name, args }) if name == "wakebox_trace" => match args.format {
                Some(FORMAT) => Ok(reader),
                found => Err(ReadError::Version {
                    found: found.unwrap_or(0),
                    writer: args.wakebox,
                }),
            },
            // The beginning of a first line.
            Err(_)
                if !whole
                    && br#"{"name":"wakebox_trace""#.starts_with(&text[..text.len().min(23)]) =>
            {
                Err(ReadError::Empty)
            }
            _ => Err(foreign),
        }
    }

    /// Events read so far.
    pub fn events_read(&self) -> u64 {
        self.events
    }

    /// Whether the trace was written to its end. Ask when there are no more events.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Reads a line. Returns whether it is whole, or `None` at the end.
    fn next_line(&mut self) -> Result<Option<bool>, ReadError> {
        self.line.clear();
        let read = (&mut self.from)
            .take(LINE_MAX)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.lines += 1;
        let whole = self.line.last() == Some(&b'\n');
        if !whole && read as u64 == LINE_MAX {
            return Err(match self.lines {
                1 => ReadError::Foreign("its first line does not end"),
                line => ReadError::Line {
                    line,
                    why: "it does not end".into(),
                },
            });
        }
        Ok(Some(whole))
    }

    fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        while let Some(whole) = self.next_line()? {
            if self.whole || !whole {
                // Behind the end, or the rest of a line that was cut off.
                continue;
            }
            if self.line.starts_with(EVENT) {
                let text = self.line.trim_ascii();
                let text = text.strip_suffix(b",").unwrap_or(text);
                let Line { args } =
                    serde_json::from_slice(text).map_err(|error| ReadError::Line {
                        line: self.lines,
                        why: error.to_string(),
                    })?;
                self.events += 1;
                return Ok(Some(args));
            }
            self.whole = self.line.starts_with(br#"{"name":"wakebox_end""#);
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.next_event().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
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
            },
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
        ] {
            kinds.push(EventKind::Exited { reason });
        }
        kinds
            .into_iter()
            .enumerate()
            .map(|(index, kind)| Event {
                time: index as u64 * 1_234_567_891,
                side: [Side::Guest, Side::Host][index % 2],
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
            writer.event(&Event { time, side, kind }).unwrap();
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
        let other =
            br#"[{"name":"wakebox_trace","ph":"M","args":{"format":77,"wakebox":"9.9.9"}},"#;
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
}
