//! Traces in files: Chrome's trace-event format, which <https://ui.perfetto.dev> opens as it is.
//!
//! One event a line, and beside some of them lines that only draw: names of tracks, arrows, the
//! bars of operations. A line that is an event begins with `{"cat":"wakebox",` and has the
//! [`Event`], whole, in its `args`. The first line tells which version of this format it is. A
//! file that was cut off is still one that Perfetto opens, and [`Reader`] says where it ends.
//!
//! What a guest has one processor for stands in version 1. Version 2 is the same with the number of the
//! processor in each event of another than the first, and a track for each.

mod reader;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use wakebox_abi::layout::PROCESSORS_MAX;

pub use self::reader::{ReadError, Reader};
use super::event::{
    Awaited, Cause, Doorbell, Event, EventKind, Idle, PollResult, Roused, TaskId, Track,
};
use super::sink::{Names, Sink};
use super::tasks::TASKS;

/// The latest version of the format: what [`Writer`] writes of a guest with several processors. That of a guest
/// with one it writes in version 1. [`Reader`] reads both.
pub const FORMAT: u32 = 2;

/// The version for a guest with one processor.
const FORMAT_OF_ONE: u32 = 1;

/// What a line that is an event begins with.
const EVENT: &[u8] = br#"{"cat":"wakebox","#;

/// "Processes" and "threads" of the picture. Perfetto wants no number twice. Those of the next processor are
/// [`APART`] further on.
const HOST: (u32, u32) = (1, 11);
const BOUNDARY: (u32, u32) = (2, 12);
const EXECUTOR: (u32, u32) = (3, 13);
const APART: u32 = 3;
/// Of task zero, with one processor and with several.
const FIRST_TASK: [u64; 2] = [100, 1_000];

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
    /// Of a guest with several processors, on whose tracks polls stand with the names of their tasks.
    names: Option<Names>,
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

/// Where the track of a processor is drawn. Tasks have one, wherever they are polled.
fn ids(track: Track, processor: u32, several: bool) -> (u32, u64) {
    let (process, thread) = match track {
        Track::Host => HOST,
        Track::Boundary => BOUNDARY,
        Track::Executor => EXECUTOR,
        Track::Task(task) => {
            let first = FIRST_TASK[usize::from(several)];
            return (EXECUTOR.0, first + u64::from(task.0));
        }
    };
    let apart = APART * processor.min(PROCESSORS_MAX - 1);
    (process, (thread + apart).into())
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
            names: None,
        }
    }

    fn begin(&mut self, processors: u32) -> io::Result<()> {
        self.begun = true;
        let several = processors > 1;
        self.line.several = several;
        self.names = several.then(Names::new);
        let format = if several { FORMAT } else { FORMAT_OF_ONE };
        let version = env!("CARGO_PKG_VERSION");
        writeln!(
            self.out,
            r#"[{{"name":"wakebox_trace","ph":"M","pid":1,"tid":11,"args":{{"format":{format},"wakebox":"{version}"}}}},"#
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
            if several {
                self.begin_each(ids, thread, processors.min(PROCESSORS_MAX))?;
                continue;
            }
            writeln!(
                self.out,
                r#"{{"name":"thread_name","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":"{thread}"}}}},"#
            )?;
        }
        Ok(())
    }

    /// A track of a kind for each processor.
    fn begin_each(
        &mut self,
        (pid, tid): (u32, u32),
        kind: &str,
        processors: u32,
    ) -> io::Result<()> {
        for processor in 0..processors {
            let tid = tid + APART * processor;
            writeln!(
                self.out,
                r#"{{"name":"thread_name","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":"vCPU {processor}: {kind}"}}}},"#
            )?;
            writeln!(
                self.out,
                r#"{{"name":"thread_sort_index","ph":"M","pid":{pid},"tid":{tid},"args":{{"sort_index":{tid}}}}},"#
            )?;
        }
        Ok(())
    }

    /// The line of an event.
    fn draw(&mut self, event: &Event) -> io::Result<()> {
        let line = &mut self.line;
        line.bytes.extend_from_slice(EVENT);
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
        line.at(event.kind.track(), event.processor, event.time);
        line.text(r#","args":"#);
        serde_json::to_writer(&mut line.bytes, event)?;
        line.text("},\n");
        Ok(())
    }

    /// What is drawn beside the event.
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn decorate(&mut self, event: &Event) -> io::Result<()> {
        let (time, on) = (event.time, event.processor);
        self.decorate_processor(event)?;
        let line = &mut self.line;
        match &event.kind {
            EventKind::Spawned { task, name, .. } | EventKind::Lives { task, name } => {
                let (pid, tid) = ids(Track::Task(*task), on, line.several);
                let title = if name.is_empty() {
                    task.to_string()
                } else {
                    format!("{name} ({})", task.0)
                };
                let title = serde_json::to_string(&title)?;
                writeln!(
                    line.bytes,
                    r#"{{"name":"thread_name","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":{title}}}}},"#
                )?;
                writeln!(
                    line.bytes,
                    r#"{{"name":"thread_sort_index","ph":"M","pid":{pid},"tid":{tid},"args":{{"sort_index":{tid}}}}},"#
                )?;
            }
            // The way of an operation: from the poll that submitted it, past the host, to the
            // poll that its completion woke.
            EventKind::Submitted {
                op, by: Some(task), ..
            } => line.arrow("s", op.0.wrapping_mul(2), Track::Task(*task), on, time),
            EventKind::OpBegins { op, what, .. } => {
                line.arrow("t", op.0.wrapping_mul(2), Track::Host, on, time);
                line.text(r#"{"cat":"wakebox_op","name":""#);
                line.text(what.name()).text(" #").number(op.0);
                line.text(r#"","ph":"b","id":"#).number(op.0);
                line.at(Track::Host, on, time).text("},\n");
            }
            EventKind::CompletionWritten { op } => {
                line.arrow("t", op.0.wrapping_mul(2), Track::Host, on, time);
            }
            EventKind::Woken {
                task,
                by,
                queued: true,
                ..
            } => {
                let arrow = match by {
                    Cause::Op(op) | Cause::HostCall(op) => op.0.wrapping_mul(2),
                    Cause::Task(by) => self.start_arrow(Track::Task(*by), on, time),
                    Cause::Itself => self.start_arrow(Track::Task(*task), on, time),
                    _ => {
                        line.text(r#"{"name":""#);
                        cause(line, *by);
                        line.text(r#"","ph":"X","dur":0.001"#);
                        line.at(Track::Executor, on, time).text("},\n");
                        self.start_arrow(Track::Executor, on, time)
                    }
                };
                if self.arrows.len() < TASKS || self.arrows.contains_key(task) {
                    self.arrows.insert(*task, arrow);
                }
            }
            EventKind::PollBegin { task } => {
                if let Some(arrow) = self.arrows.remove(task) {
                    line.arrow("f", arrow, Track::Task(*task), on, time);
                }
            }
            EventKind::Ended { task, .. } => {
                self.arrows.remove(task);
            }
            _ => {}
        }
        Ok(())
    }

    /// Of several processors, each has the polls on its track.
    fn decorate_processor(&mut self, event: &Event) -> io::Result<()> {
        let Some(names) = &mut self.names else {
            return Ok(());
        };
        names.learn(event);
        let point = match &event.kind {
            EventKind::PollBegin { task } => {
                let name = serde_json::to_string(&names.name(*task))?;
                self.line.text(r#"{"name":"#).text(&name);
                "B"
            }
            EventKind::PollEnd { .. } => {
                self.line.text(r#"{"name":"poll""#);
                "E"
            }
            _ => return Ok(()),
        };
        self.line.text(r#","ph":""#).text(point).text("\"");
        self.line.at(Track::Executor, event.processor, event.time);
        self.line.text("},\n");
        Ok(())
    }

    fn start_arrow(&mut self, from: Track, processor: u32, time: u64) -> u64 {
        self.wakes += 1;
        let id = self.wakes * 2 + 1;
        self.line.arrow("s", id, from, processor, time);
        id
    }
}

/// The lines of one event, put together without `format!`, which would take longer than all the rest.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Whether the guest has several processors.
    several: bool,
}

impl Lines {
    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.text(itoa::Buffer::new().format(number))
    }

    /// Where and when. Perfetto counts in microseconds.
    fn at(&mut self, track: Track, processor: u32, time: u64) -> &mut Self {
        let (pid, tid) = ids(track, processor, self.several);
        self.text(r#","pid":"#).number(pid);
        self.text(r#","tid":"#).number(tid);
        self.text(r#","ts":"#).number(time / 1000);
        let digit = |divisor: u64| b'0' + (time / divisor % 10) as u8;
        self.bytes
            .extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
        self
    }

    /// A point of an arrow: `s` where it starts, `t` where it passes, `f` where it ends.
    fn arrow(&mut self, point: &str, id: u64, track: Track, processor: u32, time: u64) {
        self.text(r#"{"cat":"cause","name":"cause","ph":""#)
            .text(point);
        self.text(if point == "f" { r#"","bp":"e""# } else { "\"" });
        self.text(r#","id":"#).number(id);
        self.at(track, processor, time).text("},\n");
    }
}

impl<W: Write + Send> Sink for Writer<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        if !self.begun {
            self.begin(match &event.kind {
                EventKind::Started { processors, .. } => *processors,
                _ => 1,
            })?;
        }
        self.events += 1;
        self.line.bytes.clear();
        self.draw(event)?;
        self.decorate(event)?;
        self.out.write_all(&self.line.bytes)
    }

    fn caught_up(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begin(1)?;
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
        Kind::PollBegin { .. }
        | Kind::UpcallBegin { .. }
        | Kind::Entered
        | Kind::Parked
        | Kind::Sleeps { .. } => Shape::Begin,
        Kind::PollEnd { .. }
        | Kind::UpcallEnd { .. }
        | Kind::Exited { .. }
        | Kind::Resumed
        | Kind::Awake { .. } => Shape::End,
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
        Kind::UpcallBegin { interrupted, .. } => line.text(match interrupted {
            true => "interrupted by an upcall",
            false => "urgent tasks first",
        }),
        Kind::UpcallEnd { .. } => line.text("goes on"),
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
            Doorbell::Start => "doorbell: start",
            Doorbell::Nudge => "doorbell: nudge",
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
            Some(Awaited::Restored) => line.text("pending on a restore"),
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
        Cause::Restored => line.text("the restore"),
        Cause::Unknown => line.text("the runtime"),
    }
}

#[cfg(test)]
mod tests;
