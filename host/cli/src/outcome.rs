//! How a guest ended, as a good compiler would say it: what, where, why, and what to do.

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;

use super::say::note;
use super::style::Style;
use wakebox::printable_line;
use wakebox::{
    Allocation, Backtrace, Cause, Fault, Frame, LostOutput, Outcome, Panic, Room, Sandbox, Task,
};

/// How much of a backtrace is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Frames {
    /// None of it
    None,
    /// The guest's own functions
    Short,
    /// All of them, with those of the runtime
    Full,
}

/// Longest source file that is looked into, in bytes.
const LONGEST_SOURCE: u64 = 4 << 20;

/// Says on standard error how a guest ended that did not end by itself. `stopped_at` is where it
/// stood if it was stopped.
pub(super) fn explain(
    outcome: &Outcome,
    stopped_at: Option<&Backtrace>,
    memory: Option<Memory>,
    frames: Frames,
    style: Style,
) {
    let mut text = String::new();
    let wrote = Explanation {
        text: &mut text,
        memory,
        frames,
        style,
    }
    .outcome(outcome, stopped_at);
    debug_assert!(wrote.is_ok(), "strings can be written to");
    note!("{}", text.trim_end());
}

/// What of a guest's memory is for what, and who has the most of it.
pub(super) struct Memory {
    room: Room,
    largest: Vec<Allocation>,
}

impl Memory {
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        let mut largest: Vec<Allocation> = Vec::new();
        // A person looks for the place in the source, by whatever way it was reached.
        for other in sandbox.largest_allocations() {
            match largest
                .iter_mut()
                .find(|known| is_same_place(known, &other))
            {
                Some(known) => {
                    known.bytes = known.bytes.saturating_add(other.bytes);
                    known.blocks += other.blocks;
                }
                None => largest.push(other),
            }
        }
        largest.sort_by_key(|allocation| std::cmp::Reverse(allocation.bytes));
        Self {
            room: sandbox.room(),
            largest,
        }
    }
}

/// Whether blocks were asked for at one place in the source.
fn is_same_place(one: &Allocation, other: &Allocation) -> bool {
    let place = |allocation: &Allocation| {
        let frame = allocation.backtrace.location()?;
        Some((frame.function.clone(), frame.file.clone()?, frame.line?))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

/// How many places are named that have asked for memory.
const PLACES: usize = 5;

struct Explanation<'a> {
    text: &'a mut String,
    /// What is known of the guest's memory.
    memory: Option<Memory>,
    frames: Frames,
    style: Style,
}

impl Explanation<'_> {
    fn outcome(&mut self, outcome: &Outcome, stopped_at: Option<&Backtrace>) -> std::fmt::Result {
        match outcome {
            Outcome::Panic(panic) => self.panic(panic),
            Outcome::Fault(fault) => self.fault(fault),
            other => {
                self.headline("", &other.to_string())?;
                match stopped_at {
                    Some(backtrace) if backtrace.is_runtime_only() => {
                        self.note("it was waiting: none of its tasks was being polled")
                    }
                    Some(backtrace) => {
                        if let Some(frame) = backtrace.location() {
                            self.frame(frame)?;
                        }
                        self.backtrace(backtrace)
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn panic(&mut self, panic: &Panic) -> std::fmt::Result {
        let task = panic
            .task
            .as_deref()
            .map(|task| format!(" in task `{task}`"))
            .unwrap_or_default();
        self.headline(&format!("the guest panicked{task}: "), &panic.message)?;
        if let Some(file) = &panic.file {
            let (line, column) = (Some(panic.line), Some(panic.column));
            // The compiler was given a path relative to where it ran; debug information knows where
            // that was.
            let known = panic.backtrace.frames().iter().find_map(|frame| {
                let path = frame.file.as_deref()?;
                (frame.line == line && Path::new(path).ends_with(file)).then_some(path)
            });
            self.location(file, known.unwrap_or(file), line, column)?;
        } else if let Some(frame) = panic.backtrace.location() {
            self.frame(frame)?;
        }
        // The words of the standard library (`alloc::alloc::handle_alloc_error`).
        if panic.message.starts_with("memory allocation of ") {
            self.note(
                "the guest has no memory left for that: `--mem` gives it more (it is 64M unless \
                 something else was said), and who asks with `try_reserve` gets an error instead",
            )?;
            self.memory()?;
        }
        self.backtrace(&panic.backtrace)
    }

    fn memory(&mut self) -> std::fmt::Result {
        let Some(Memory { room, largest }) = self.memory.take() else {
            return Ok(());
        };
        self.note(&room.to_string())?;
        if largest.is_empty() {
            return self.note("`--trace FILE` has it say who has asked for the most of it");
        }
        for allocation in largest.iter().take(PLACES) {
            self.note(&format!("of the largest blocks, {allocation}"))?;
        }
        Ok(())
    }

    fn fault(&mut self, fault: &Fault) -> std::fmt::Result {
        self.headline("the guest faulted: ", &fault.to_string())?;
        if let Some(frame) = fault.backtrace.location() {
            self.frame(frame)?;
        }
        self.note(advice(fault.cause()))?;
        if !fault.instruction.bytes().is_empty() {
            self.note(&format!("the instruction is {}", fault.instruction))?;
        }
        if let Some(shutdown) = &fault.shutdown {
            for frame in &shutdown.frames {
                self.note(&format!("the processor has kept {frame}"))?;
            }
        }
        if fault.has_registers() {
            for line in fault.registers.to_string().lines() {
                writeln!(self.text, "  {}", self.style.faint(line))?;
            }
        }
        self.backtrace(&fault.backtrace)
    }

    fn headline(&mut self, start: &str, what: &str) -> std::fmt::Result {
        let (name, what) = (self.style.error("wakebox"), self.style.strong(what));
        writeln!(self.text, "{name}: {start}{what}")
    }

    fn note(&mut self, note: &str) -> std::fmt::Result {
        writeln!(self.text, "  {} {note}", self.style.faint("="))
    }

    fn frame(&mut self, frame: &Frame) -> std::fmt::Result {
        match &frame.file {
            Some(file) => self.location(file, file, frame.line, frame.column),
            None => writeln!(self.text, "  {} {frame}", self.style.faint("-->")),
        }
    }

    /// A location, and the line of source that is there if the file is on this host.
    fn location(
        &mut self,
        shown: &str,
        path: &str,
        line: Option<u32>,
        column: Option<u32>,
    ) -> std::fmt::Result {
        let arrow = self.style.faint("-->");
        writeln!(
            self.text,
            "  {arrow} {}",
            wakebox::location(shown, line, column)
        )?;
        let Some((line, source)) = line.and_then(|line| Some((line, source_line(path, line)?)))
        else {
            return Ok(());
        };
        let number = line.to_string();
        let bar = self.style.faint("|");
        let gap = " ".repeat(number.len());
        writeln!(self.text, " {gap} {bar}")?;
        writeln!(self.text, " {} {bar} {source}", self.style.faint(&number))?;
        if let Some(column) = column.filter(|column| (*column as usize) <= source.len() + 1) {
            let before = " ".repeat((column as usize).saturating_sub(1));
            writeln!(self.text, " {gap} {bar} {before}{}", self.style.error("^"))?;
        }
        Ok(())
    }

    fn backtrace(&mut self, backtrace: &Backtrace) -> std::fmt::Result {
        if self.frames == Frames::None || backtrace.addresses().is_empty() {
            return Ok(());
        }
        writeln!(self.text, "{}", self.style.strong("backtrace:"))?;
        let style = self.style;
        backtrace.write(self.text, self.frames == Frames::Full, &|text| {
            style.faint(text)
        })
    }
}

/// What a fault means, and what its author can do.
fn advice(cause: Cause) -> &'static str {
    match cause {
        Cause::NullDereference => {
            "the first 64 KiB are never mapped: a pointer was null, or was computed from one"
        }
        Cause::StackOverflow => {
            "the stack is used up: a recursion without end, or large values in deep calls; it is \
             an eighth of the memory (--mem), at most 1 MiB unless the embedder sets `stack`"
        }
        Cause::WriteToReadOnly => {
            "code, constants and what the host tells the guest cannot be written; look for a pointer \
             that was cast from `*const` or `&`"
        }
        Cause::ExecutionOfData => {
            "only the code of the guest's file can be executed: a function pointer or a return \
             address was overwritten, or code was made at run time, which guests cannot"
        }
        Cause::NotMapped => {
            "nothing is at that address: a pointer that was never valid, or ran past its buffer"
        }
        Cause::Supervisor => {
            "that page belongs to the machine's own tables, which guests cannot reach"
        }
        Cause::DivideError => {
            "Rust checks divisors; this came from assembly, C, or an unchecked operation"
        }
        Cause::IllegalInstruction => {
            "`ud2` stands where code must not get to, after `unreachable_unchecked` for instance; \
             another instruction may need a newer processor than this one"
        }
        Cause::GeneralProtection => {
            "guests cannot use privileged instructions and ports; an address that is not canonical \
             ends here, too"
        }
        Cause::Alignment => "alignment checks were switched on in the flags register",
        Cause::FloatingPoint => {
            "floating-point exceptions were unmasked in MXCSR or the x87 control word"
        }
        Cause::Debug => "the trap flag was set; single steps end a guest",
        Cause::DoubleFault => "the guest left the processor in a state in which it could not go on",
        Cause::Shutdown => {
            "what delivers exceptions is the host's, and no guest should be able to change it: please \
             report it as SECURITY.md says, with this text and the guest"
        }
        _ => "no code of a guest should raise this",
    }
}

/// A line of a source file on this host. Debug information is the guest's: it may name any file, so
/// none is shown that is not a file of Rust source.
fn source_line(path: &str, line: u32) -> Option<String> {
    if Path::new(path).extension()? != "rs" {
        return None;
    }
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(LONGEST_SOURCE).read_to_string(&mut text).ok()?;
    let line = text.lines().nth(line.checked_sub(1)? as usize)?;
    Some(printable_line(&line.replace('\t', " ")))
}

/// What a program wants to know of a run.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) guest: String,
    pub(super) message: String,
    pub(super) exit_status: u8,
    #[serde(flatten)]
    pub(super) outcome: &'a Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped_at: Option<&'a Backtrace>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) tasks: &'a [Task],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) lost_output: &'a [LostOutput],
}

impl Report<'_> {
    /// # Errors
    ///
    /// It cannot be said in JSON.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}
