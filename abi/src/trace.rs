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
//! The [table of records](What) says what is in which of them. To add one, add a row, and what becomes of
//! it on the host.
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

mod codec;
mod writer;

use self::codec::{Bytes, Code, Detail, First, Flag, Len, More, Parts, Place, Second, Task, Why};
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

/// Declares an enumeration whose variants have a number in a record.
macro_rules! coded {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            #[repr(u8)]
            pub enum $name {
                $($(#[$variant_doc])* $variant = $code,)*
            }

            impl Code for $name {
                #[inline(always)]
                fn to_code(self) -> u8 {
                    self as u8
                }

                #[inline(always)]
                fn from_code(code: u8) -> Result<Self, Unknown> {
                    match code {
                        $($code => Ok(Self::$variant),)*
                        _ => Err(Unknown),
                    }
                }
            }
        )*
    };
}

coded! {
    /// What a [`What::Text`] says.
    Text {
        /// The name of the task whose [`What::Spawned`] or [`What::Lives`] follows.
        Name = 0,
        /// The location in the source, as `file:line:column`, where that task was spawned.
        Location = 1,
    }

    /// How a guest with nothing to do passes the time.
    Idle {
        /// It watches the completion ring.
        Watch = 0,
        /// It leaves with [`crate::port::WAIT`].
        Out = 1,
        /// It halts in ring 0.
        Halt = 2,
    }

    /// What ended that.
    Roused {
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
    /// The guest was restored from a template.
    Restored,
}

impl Reason {
    fn to_parts(self) -> (u8, u64) {
        match self {
            Self::Unknown => (0, 0),
            Self::Task(task) => (1, task.into()),
            Self::Operation(token) => (2, token.to_word()),
            Self::HostCall(token) => (3, token.to_word()),
            Self::Timer(timer) => (4, timer),
            Self::Slot => (5, 0),
            Self::Interrupt => (6, 0),
            Self::Elsewhere => (7, 0),
            Self::Restored => (8, 0),
        }
    }

    fn from_parts(code: u8, argument: u64) -> Result<Self, Unknown> {
        Ok(match code {
            0 => Self::Unknown,
            1 => Self::Task(argument as u32),
            2 => Self::Operation(Token::from_word(argument)),
            3 => Self::HostCall(Token::from_word(argument)),
            4 => Self::Timer(argument),
            5 => Self::Slot,
            6 => Self::Interrupt,
            7 => Self::Elsewhere,
            8 => Self::Restored,
            _ => return Err(Unknown),
        })
    }
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

/// Declares [`What`] and its way into a [`Record`] and back, from one row for each kind: its number, its
/// name, and of each field the type and the [place](codec) in the record.
macro_rules! records {
    ($($(#[$doc:meta])* $code:literal $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty => $place:ident,)*
    })*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum What {
            $($(#[$doc])* $name {
                $($(#[$field_doc])* $field: $type,)*
            },)*
        }

        impl Record {
            /// The record of something that happened when the counter showed `ticks`.
            // Where the kind is known, a few stores are left of it.
            #[inline(always)]
            #[must_use]
            pub fn new(ticks: u64, what: What) -> Self {
                match what {
                    $(What::$name { $($field),* } => {
                        let mut parts = Parts::default();
                        $(<$place as Place<$type>>::put($field, &mut parts);)*
                        Self(parts.to_words(ticks, $code))
                    })*
                }
            }

            /// What happened.
            ///
            /// # Errors
            ///
            /// [`Unknown`] if this version has no such record. Bits without a meaning are ignored.
            #[inline]
            pub fn what(&self) -> Result<What, Unknown> {
                let (code, parts) = Parts::from_words(&self.0);
                Ok(match code {
                    $($code => What::$name {
                        $($field: <$place as Place<$type>>::get(&parts)?,)*
                    },)*
                    _ => return Err(Unknown),
                })
            }
        }
    };
}

records! {
    /// Part of a text about what follows. Parts of one text come one after the other.
    1 Text {
        /// Which text.
        text: Text => Detail,
        /// The bytes of the part, of which `len` count.
        bytes: [u8; TEXT_PART] => Bytes,
        /// How many.
        len: u8 => Len,
    }

    /// A task was made and is to be polled for the first time.
    2 Spawned {
        /// Its number.
        task: u32 => Task,
        /// By which task; zero for none.
        by: u32 => First,
    }

    /// A poll of a task begins.
    3 PollBegin {
        /// Which.
        task: u32 => Task,
    }

    /// The poll ends.
    4 PollEnd {
        /// Of which task.
        task: u32 => Task,
        /// Whether the task is done.
        ready: bool => Flag,
        /// If it is not, what it waits for: the first thing that took its waker in this poll.
        on: Option<Reason> => Why,
        /// How many other things did.
        more: u16 => More,
    }

    /// A waker was cloned.
    5 Cloned {
        /// The task that it wakes.
        task: u32 => Task,
        /// The task that did it; zero for the runtime.
        by: u32 => First,
    }

    /// A waker was called.
    6 Woken {
        /// The task that it wakes.
        task: u32 => Task,
        /// Why. The task itself, if it woke itself.
        by: Reason => Why,
        /// Whether this put the task into the run queue; it was there already if not.
        queued: bool => Flag,
        /// Whether the waker was used up by it.
        consumed: bool => More,
    }

    /// A waker was dropped without having been called.
    7 Dropped {
        /// The task that it would have woken.
        task: u32 => Task,
        /// The task that did it; zero for the runtime.
        by: u32 => First,
    }

    /// A task has no future any more.
    8 Ended {
        /// Which.
        task: u32 => Task,
        /// Whether its future was dropped before it was ready.
        aborted: bool => Detail,
    }

    /// A timer was set.
    9 TimerSet {
        /// Its number, given by the guest, never used twice.
        timer: u64 => First,
        /// When it is due, in nanoseconds on the monotonic clock.
        at_ns: u64 => Second,
        /// The task that did it; zero for the runtime.
        by: u32 => Task,
    }

    /// An operation was put into the submission ring.
    10 Submitted {
        /// Which.
        token: Token => First,
        /// [`crate::op::Opcode`] as a number.
        opcode: u16 => More,
        /// Bytes of its buffers.
        bytes: u32 => Second,
        /// For which task; zero for the runtime.
        by: u32 => Task,
    }

    /// The future of an operation in flight was dropped.
    11 CancelAsked {
        /// Which operation.
        token: Token => First,
        /// By which task; zero for the runtime.
        by: u32 => Task,
    }

    /// A doorbell is about to ring.
    12 Doorbell {
        /// The verb, one of [`crate::port`].
        port: u16 => More,
    }

    /// Nothing is left to do.
    13 Sleeps {
        /// How it sleeps.
        how: Idle => Detail,
    }

    /// There may be something to do again.
    14 Awake {
        /// What ended the sleep.
        by: Roused => Detail,
    }

    /// An interrupt was noticed to have been taken.
    15 Interrupted {
        /// Interrupts taken since the start, modulo 2³².
        count: u32 => First,
    }

    /// The ring was full.
    16 Lost {
        /// Records that had no room since the one before this.
        count: u64 => First,
    }

    /// A task is there that began when nobody watched.
    17 Lives {
        /// Its number.
        task: u32 => Task,
    }

    /// Urgent tasks have their turn, in the middle of whatever the guest does.
    18 UpcallBegin {
        /// The task whose poll is under way; zero for none.
        task: u32 => Task,
        /// Whether an interrupt began it, at any instruction. If not, the guest was at a place of its own.
        interrupted: bool => Flag,
    }

    /// They have had it, and what was interrupted goes on.
    19 UpcallEnd {
        /// The task whose poll goes on; zero for none.
        task: u32 => Task,
    }
}

impl Record {
    /// What the time-stamp counter showed.
    #[inline]
    #[must_use]
    pub const fn ticks(&self) -> u64 {
        let [ticks, ..] = self.0;
        ticks
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
