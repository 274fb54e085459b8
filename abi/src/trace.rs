//! The trace: what a guest tells of itself, record by record, while it runs.
//!
//! A host that wants to watch gives the guest a third ring (beside those of [`crate::ring`], and of
//! the same make): the guest puts [`Record`]s into it, the host takes them out whenever the guest
//! has been left. [`crate::boot::Boot::trace_records`] says how many slots the ring has; zero
//! means that nobody watches, and that no ring is there.
//!
//! The guest never waits for the host. What finds the ring full is lost, counted in
//! [`Word::TraceLost`](crate::memory::Word::TraceLost), and told as [`What::Lost`] as soon as there is room again, so that whoever
//! reads the trace knows where the hole is.
//!
//! # A record
//!
//! ```text
//! word 0   time-stamp counter
//! word 1   bits 0..8 kind, 8..16 detail, 16..32 more, 32..64 task
//! word 2   first argument
//! word 3   second argument
//! ```
//!
//! A name does not fit: it goes ahead of its record in [`What::Text`] records, 16 bytes each.
//!
//! # Tasks
//!
//! The guest numbers its tasks as it likes, from 1 on, and uses no number twice. Zero is what is no
//! task: the runtime itself.
//!
//! # For a guest that has no runtime
//!
//! [`Trace`] is all that it takes:
//!
//! ```no_run
//! use wakebox_abi::boot::Boot;
//! use wakebox_abi::trace::{Trace, What};
//!
//! # unsafe fn guest() {
//! // SAFETY: this is a guest, and nobody else writes its trace.
//! let mut trace = unsafe { Trace::of_guest(Boot::get()) };
//! trace.spawned(1, 0, "main");
//! trace.write(What::PollBegin { task: 1 });
//! trace.write(What::PollEnd { task: 1, ready: true, on: None, more: 0 });
//! # }
//! ```

mod writer;

#[cfg(target_arch = "x86_64")]
pub use self::writer::Trace;
pub use self::writer::Writer;
use crate::entry::{Entry, Token};

/// Most bytes of one text; what is longer is cut off at a character.
pub const TEXT_MAX: usize = 160;

/// Bytes of text in one record.
pub const TEXT_PART: usize = 16;

/// One thing that happened in a guest, and when, as it lies in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record(pub [u64; Record::WORDS]);

impl Record {
    /// Words of a record.
    pub const WORDS: usize = 4;
    /// Bytes of a record.
    pub const SIZE: usize = Self::WORDS * 8;
}

const _: () = assert!(Record::SIZE == 32, "Record: raise ABI_VERSION");

impl Entry<{ Record::WORDS }> for Record {
    #[inline]
    fn to_words(self) -> [u64; Record::WORDS] {
        self.0
    }

    #[inline]
    fn from_words(words: [u64; Record::WORDS]) -> Self {
        Self(words)
    }
}

/// What a [`What::Text`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Text {
    /// The name of the task whose [`What::Spawned`] follows.
    Name = 0,
    /// The location in the source, as `file:line:column`, where that task was spawned.
    Location = 1,
}

/// What a task waits for, or what woke it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing that the runtime knows: a future of the guest's own making; a waker used
    /// outside of all tasks.
    Unknown,
    /// A task: the one that is joined, or the one that woke.
    Task(u32),
    /// An operation of the host: its completion.
    Operation(Token),
    /// A call by the host, which arrives as the completion of that operation.
    HostCall(Token),
    /// A timer: its number, as in [`What::TimerSet`].
    Timer(u64),
    /// An operation that waits for a slot in which to be in flight.
    Slot,
    /// An interrupt.
    Interrupt,
    /// A waker used elsewhere than on the guest's own processor.
    Elsewhere,
}

impl Reason {
    const fn to_parts(self) -> (u8, u64) {
        match self {
            Self::Unknown => (0, 0),
            Self::Task(task) => (1, task as u64),
            Self::Operation(token) => (2, token.to_word()),
            Self::HostCall(token) => (3, token.to_word()),
            Self::Timer(timer) => (4, timer),
            Self::Slot => (5, 0),
            Self::Interrupt => (6, 0),
            Self::Elsewhere => (7, 0),
        }
    }

    const fn from_parts(code: u8, argument: u64) -> Result<Self, Unknown> {
        Ok(match code {
            0 => Self::Unknown,
            1 => Self::Task(argument as u32),
            2 => Self::Operation(Token::from_word(argument)),
            3 => Self::HostCall(Token::from_word(argument)),
            4 => Self::Timer(argument),
            5 => Self::Slot,
            6 => Self::Interrupt,
            7 => Self::Elsewhere,
            _ => return Err(Unknown),
        })
    }
}

/// How a guest with nothing to do passes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Idle {
    /// It watches the completion ring.
    Watch = 0,
    /// It leaves with [`crate::port::WAIT`].
    Out = 1,
    /// It halts in ring 0.
    Halt = 2,
}

/// What ended that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Roused {
    /// It saw a completion in memory.
    Memory = 0,
    /// `out` returned.
    Out = 1,
    /// An interrupt was taken.
    Interrupt = 2,
    /// The time of a timer came.
    Timer = 3,
    /// It gave up watching, and will sleep in another way.
    Nothing = 4,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Part of a text about what follows. Parts of one text come one after the other.
    Text {
        /// Which text.
        text: Text,
        /// The bytes of the part, of which `len` count.
        bytes: [u8; TEXT_PART],
        /// How many.
        len: u8,
    },
    /// A task was made and is to be polled for the first time.
    Spawned {
        /// Its number.
        task: u32,
        /// By which task; zero for none.
        by: u32,
    },
    /// A poll of a task begins.
    PollBegin {
        /// Which.
        task: u32,
    },
    /// The poll ends.
    PollEnd {
        /// Of which task.
        task: u32,
        /// Whether the task is done.
        ready: bool,
        /// If it is not, what it waits for: the first thing that took its waker in this poll.
        on: Option<Reason>,
        /// How many other things did.
        more: u16,
    },
    /// A waker was cloned.
    Cloned {
        /// The task that it wakes.
        task: u32,
        /// The task that did it; zero for the runtime.
        by: u32,
    },
    /// A waker was called.
    Woken {
        /// The task that it wakes.
        task: u32,
        /// Why. The task itself, if it woke itself.
        by: Reason,
        /// Whether this put the task into the run queue; it was there already if not.
        queued: bool,
        /// Whether the waker was used up by it.
        consumed: bool,
    },
    /// A waker was dropped without having been called.
    Dropped {
        /// The task that it would have woken.
        task: u32,
        /// The task that did it; zero for the runtime.
        by: u32,
    },
    /// A task has no future any more.
    Ended {
        /// Which.
        task: u32,
        /// Whether its future was dropped before it was ready.
        aborted: bool,
    },
    /// A timer was set.
    TimerSet {
        /// Its number, given by the guest, never used twice.
        timer: u64,
        /// When it is due, in nanoseconds on the monotonic clock.
        at_ns: u64,
        /// The task that did it; zero for the runtime.
        by: u32,
    },
    /// An operation was put into the submission ring.
    Submitted {
        /// Which.
        token: Token,
        /// [`crate::op::Opcode`] as a number.
        opcode: u16,
        /// Bytes of its buffers.
        bytes: u32,
        /// For which task; zero for the runtime.
        by: u32,
    },
    /// The future of an operation in flight was dropped.
    CancelAsked {
        /// Which operation.
        token: Token,
        /// By which task; zero for the runtime.
        by: u32,
    },
    /// A doorbell is about to ring.
    Doorbell {
        /// The verb, one of [`crate::port`].
        port: u16,
    },
    /// Nothing is left to do.
    Sleeps {
        /// How it sleeps.
        how: Idle,
    },
    /// There may be something to do again.
    Awake {
        /// What ended the sleep.
        by: Roused,
    },
    /// An interrupt was noticed to have been taken.
    Interrupted {
        /// Interrupts taken since the start, modulo 2³².
        count: u32,
    },
    /// The ring was full.
    Lost {
        /// Records that had no room since the one before this.
        count: u64,
    },
}

/// A record that this version gives no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl core::fmt::Display for Unknown {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a trace record that has no meaning")
    }
}

impl core::error::Error for Unknown {}

/// Numbers of the kinds of records.
mod kind {
    pub(super) const TEXT: u8 = 1;
    pub(super) const SPAWNED: u8 = 2;
    pub(super) const POLL_BEGIN: u8 = 3;
    pub(super) const POLL_END: u8 = 4;
    pub(super) const CLONED: u8 = 5;
    pub(super) const WOKEN: u8 = 6;
    pub(super) const DROPPED: u8 = 7;
    pub(super) const ENDED: u8 = 8;
    pub(super) const TIMER_SET: u8 = 9;
    pub(super) const SUBMITTED: u8 = 10;
    pub(super) const CANCEL_ASKED: u8 = 11;
    pub(super) const DOORBELL: u8 = 12;
    pub(super) const SLEEPS: u8 = 13;
    pub(super) const AWAKE: u8 = 14;
    pub(super) const INTERRUPTED: u8 = 15;
    pub(super) const LOST: u8 = 16;
}

/// The bit beside a reason's code: ready, or queued.
const FLAG: u8 = 1 << 7;
/// The detail of a poll's end that waits for nothing known.
const ON_NOTHING: u8 = 0x7F;

impl Record {
    /// The record of something that happened when the counter showed `ticks`.
    // Where the kind is known, a few stores are left of it.
    #[allow(clippy::too_many_lines, reason = "a table")]
    #[inline(always)]
    #[must_use]
    pub const fn new(ticks: u64, what: What) -> Self {
        const fn words(
            ticks: u64,
            (kind, detail, more, task): (u8, u8, u16, u32),
            first: u64,
            second: u64,
        ) -> Record {
            let head =
                kind as u64 | (detail as u64) << 8 | (more as u64) << 16 | (task as u64) << 32;
            Record([ticks, head, first, second])
        }
        match what {
            What::Text { text, bytes, len } => {
                let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
                words(
                    ticks,
                    (kind::TEXT, text as u8, len as u16, 0),
                    u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                    u64::from_le_bytes([i, j, k, l, m, n, o, p]),
                )
            }
            What::Spawned { task, by } => words(ticks, (kind::SPAWNED, 0, 0, task), by as u64, 0),
            What::PollBegin { task } => words(ticks, (kind::POLL_BEGIN, 0, 0, task), 0, 0),
            What::PollEnd {
                task,
                ready,
                on,
                more,
            } => {
                let (code, argument) = match on {
                    Some(on) => on.to_parts(),
                    None => (ON_NOTHING, 0),
                };
                let detail = if ready { code | FLAG } else { code };
                words(ticks, (kind::POLL_END, detail, more, task), argument, 0)
            }
            What::Cloned { task, by } => words(ticks, (kind::CLONED, 0, 0, task), by as u64, 0),
            What::Woken {
                task,
                by,
                queued,
                consumed,
            } => {
                let (code, argument) = by.to_parts();
                let detail = if queued { code | FLAG } else { code };
                words(
                    ticks,
                    (kind::WOKEN, detail, consumed as u16, task),
                    argument,
                    0,
                )
            }
            What::Dropped { task, by } => words(ticks, (kind::DROPPED, 0, 0, task), by as u64, 0),
            What::Ended { task, aborted } => {
                words(ticks, (kind::ENDED, aborted as u8, 0, task), 0, 0)
            }
            What::TimerSet { timer, at_ns, by } => {
                words(ticks, (kind::TIMER_SET, 0, 0, by), timer, at_ns)
            }
            What::Submitted {
                token,
                opcode,
                bytes,
                by,
            } => words(
                ticks,
                (kind::SUBMITTED, 0, opcode, by),
                token.to_word(),
                bytes as u64,
            ),
            What::CancelAsked { token, by } => {
                words(ticks, (kind::CANCEL_ASKED, 0, 0, by), token.to_word(), 0)
            }
            What::Doorbell { port } => words(ticks, (kind::DOORBELL, 0, port, 0), 0, 0),
            What::Sleeps { how } => words(ticks, (kind::SLEEPS, how as u8, 0, 0), 0, 0),
            What::Awake { by } => words(ticks, (kind::AWAKE, by as u8, 0, 0), 0, 0),
            What::Interrupted { count } => {
                words(ticks, (kind::INTERRUPTED, 0, 0, 0), count as u64, 0)
            }
            What::Lost { count } => words(ticks, (kind::LOST, 0, 0, 0), count, 0),
        }
    }

    /// What the time-stamp counter showed.
    #[inline]
    #[must_use]
    pub const fn ticks(&self) -> u64 {
        let [ticks, ..] = self.0;
        ticks
    }

    /// What happened.
    ///
    /// # Errors
    ///
    /// [`Unknown`] if this version has no such record. Bits without a meaning are ignored.
    #[inline]
    #[allow(clippy::too_many_lines, reason = "a table")]
    pub const fn what(&self) -> Result<What, Unknown> {
        let [_, head, first, second] = self.0;
        let (detail, more) = ((head >> 8) as u8, (head >> 16) as u16);
        let task = (head >> 32) as u32;
        let flag = detail & FLAG != 0;
        Ok(match head as u8 {
            kind::TEXT => {
                let [a, b, c, d, e, f, g, h] = first.to_le_bytes();
                let [i, j, k, l, m, n, o, p] = second.to_le_bytes();
                if more == 0 || more as usize > TEXT_PART {
                    return Err(Unknown);
                }
                What::Text {
                    text: match detail {
                        0 => Text::Name,
                        1 => Text::Location,
                        _ => return Err(Unknown),
                    },
                    bytes: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p],
                    len: more as u8,
                }
            }
            kind::SPAWNED => What::Spawned {
                task,
                by: first as u32,
            },
            kind::POLL_BEGIN => What::PollBegin { task },
            kind::POLL_END => What::PollEnd {
                task,
                ready: flag,
                on: match detail & !FLAG {
                    ON_NOTHING => None,
                    code => match Reason::from_parts(code, first) {
                        Ok(reason) => Some(reason),
                        Err(unknown) => return Err(unknown),
                    },
                },
                more,
            },
            kind::CLONED => What::Cloned {
                task,
                by: first as u32,
            },
            kind::WOKEN => What::Woken {
                task,
                by: match Reason::from_parts(detail & !FLAG, first) {
                    Ok(reason) => reason,
                    Err(unknown) => return Err(unknown),
                },
                queued: flag,
                consumed: more != 0,
            },
            kind::DROPPED => What::Dropped {
                task,
                by: first as u32,
            },
            kind::ENDED => What::Ended {
                task,
                aborted: detail != 0,
            },
            kind::TIMER_SET => What::TimerSet {
                timer: first,
                at_ns: second,
                by: task,
            },
            kind::SUBMITTED => What::Submitted {
                token: Token::from_word(first),
                opcode: more,
                bytes: second as u32,
                by: task,
            },
            kind::CANCEL_ASKED => What::CancelAsked {
                token: Token::from_word(first),
                by: task,
            },
            kind::DOORBELL => What::Doorbell { port: more },
            kind::SLEEPS => What::Sleeps {
                how: match detail {
                    0 => Idle::Watch,
                    1 => Idle::Out,
                    2 => Idle::Halt,
                    _ => return Err(Unknown),
                },
            },
            kind::AWAKE => What::Awake {
                by: match detail {
                    0 => Roused::Memory,
                    1 => Roused::Out,
                    2 => Roused::Interrupt,
                    3 => Roused::Timer,
                    4 => Roused::Nothing,
                    _ => return Err(Unknown),
                },
            },
            kind::INTERRUPTED => What::Interrupted {
                count: first as u32,
            },
            kind::LOST => What::Lost { count: first },
            _ => return Err(Unknown),
        })
    }
}

/// The time-stamp counter, which is the trace's clock on both sides.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and a host leaves it to ring 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests;
