//! Traces made to harm who watches: tasks, names, timers and operations without end, or that are not
//! there; times that run back; bits without a meaning; a ring that is broken.
//!
//! Nobody ends because of what is said in a trace: each of these guests ends by itself.

use core::sync::atomic::{AtomicU32, Ordering};

use wakebox_abi::entry::{Entry, Token};
use wakebox_abi::layout;
use wakebox_abi::memory::Word;
use wakebox_abi::port;
use wakebox_abi::trace::{Reason, Record, TEXT_PART, Text, What, ticks};

use crate::case::{Act, Args, Case, End, Modes};
use crate::guest::Guest;
use crate::reports::TEXTS;

/// More tasks, timers or operations than any sink tells apart.
const MANY: u32 = 70_000;
/// Three times as many: without a bound, more than who watches may take.
const MORE: u64 = 200_000;

/// The writing end of the trace's ring.
struct Trace<'g> {
    guest: &'g Guest,
    tail: u32,
}

impl<'g> Trace<'g> {
    fn of(guest: &'g Guest) -> Self {
        assert!(guest.boot.trace_records > 0, "nobody watches");
        Self { guest, tail: 0 }
    }

    /// Puts a record into the ring; leaves the guest while that is full.
    fn put(&mut self, record: Record) {
        let places = self.guest.boot.trace_records;
        while self.tail.wrapping_sub(self.guest.get(Word::TraceHead)) >= places {
            self.guest.ring(port::SUBMIT);
        }
        let at = layout::TRACE + u64::from(self.tail % places) * Record::SIZE as u64;
        for (index, word) in record.to_words().into_iter().enumerate() {
            // SAFETY: the ring is mapped for ever, and the place lies in it.
            unsafe { (at as *mut u64).add(index).write_volatile(word) };
        }
        self.tail = self.tail.wrapping_add(1);
        self.guest.set(Word::TraceTail, self.tail);
    }

    /// Tells of something that happens now.
    fn tell(&mut self, what: What) {
        self.put(Record::new(ticks(), what));
    }

    /// Tells of a part of a text, of which so many bytes are said to count.
    fn part(&mut self, text: Text, bytes: [u8; TEXT_PART], len: u8) {
        self.tell(What::Text { text, bytes, len });
    }

    fn text(&mut self, text: Text, words: &[u8]) {
        for part in words.chunks(TEXT_PART) {
            let mut bytes = [0; TEXT_PART];
            bytes[..part.len()].copy_from_slice(part);
            self.part(text, bytes, part.len() as u8);
        }
    }

    fn spawned(&mut self, task: u32) {
        self.tell(What::Spawned { task, by: 0 });
    }

    fn pending(&mut self, task: u32, on: Option<Reason>) {
        self.tell(What::PollEnd {
            task,
            ready: false,
            on,
            more: u16::MAX,
        });
    }

    fn woken(&mut self, task: u32, by: Reason) {
        self.tell(What::Woken {
            task,
            by,
            queued: true,
            consumed: true,
        });
    }
}

/// Tasks that live, or that are over, or one that begins again and again.
fn tasks(guest: &mut Guest, [count, ends, same, ..]: Args) {
    let mut trace = Trace::of(guest);
    for task in 1..=count as u32 {
        let task = if same != 0 { 7 } else { task };
        trace.spawned(task);
        trace.tell(What::PollBegin { task });
        trace.pending(task, None);
        if ends != 0 {
            let aborted = task % 2 == 0;
            trace.tell(What::Ended { task, aborted });
        }
    }
}

/// Tasks with the longest names and places that a sink takes, of bytes that are three in UTF-8 each.
fn names(guest: &mut Guest, [count, ..]: Args) {
    let mut trace = Trace::of(guest);
    for task in 1..=count as u32 {
        for text in [Text::Name, Text::Location] {
            for _ in 0..10 {
                trace.part(text, [0xFF; TEXT_PART], TEXT_PART as u8);
            }
        }
        trace.spawned(task);
    }
}

/// Tasks that never began are polled, woken and over; and again, so that they would be remembered.
fn strangers(guest: &mut Guest, [count, ..]: Args) {
    let mut trace = Trace::of(guest);
    for task in 1..=count as u32 {
        trace.woken(task, Reason::Task(task.wrapping_mul(7)));
        trace.tell(What::PollBegin { task });
        trace.woken(task, Reason::Unknown);
    }
    for task in 1..=1000 {
        trace.tell(What::Cloned { task, by: u32::MAX });
        trace.tell(What::Dropped { task, by: task });
        trace.pending(task, Some(Reason::Task(u32::MAX)));
    }
}

/// A task's records in every order of three.
fn disorder(guest: &mut Guest, _: Args) {
    let mut trace = Trace::of(guest);
    let task = 1;
    let records = [
        What::Spawned { task, by: task },
        What::PollBegin { task },
        What::PollBegin { task: 2 },
        What::PollEnd {
            task,
            ready: true,
            on: Some(Reason::Task(task)),
            more: 0,
        },
        What::Ended {
            task,
            aborted: true,
        },
        What::Cloned { task, by: task },
        What::Dropped { task, by: 2 },
        What::Woken {
            task,
            by: Reason::Task(task),
            queued: false,
            consumed: true,
        },
        What::Sleeps {
            how: wakebox_abi::trace::Idle::Watch,
        },
        What::Doorbell { port: 0xFFFF },
    ];
    for first in records {
        for second in records {
            for third in records {
                for record in [first, second, third] {
                    trace.tell(record);
                }
            }
        }
    }
}

/// Texts in parts that are too many, too long, empty, and about nothing.
fn parts(guest: &mut Guest, _: Args) {
    let mut trace = Trace::of(guest);
    for len in [0, 1, 15, 16, 17, 127, 255] {
        for text in [Text::Name, Text::Location] {
            for _ in 0..1000 {
                trace.part(text, [b'x'; TEXT_PART], len);
            }
        }
        trace.spawned(len.into());
    }
    for _ in 0..MANY {
        trace.part(Text::Name, [b'y'; TEXT_PART], TEXT_PART as u8);
    }
}

/// A name that would move somebody's cursor.
fn name(guest: &mut Guest, [which, ..]: Args) {
    let mut trace = Trace::of(guest);
    let (_, text, _) = TEXTS[which as usize];
    for (task, text) in [text, b"</script><script>x"].into_iter().enumerate() {
        trace.text(Text::Name, text);
        trace.text(Text::Location, text);
        trace.spawned(task as u32 + 2);
        // A finding, so that it is shown.
        trace.tell(What::PollBegin {
            task: task as u32 + 2,
        });
        trace.pending(task as u32 + 2, None);
    }
}

/// Timers that are set again and again, are many, or were never set.
fn timers(guest: &mut Guest, [how, ..]: Args) {
    let mut trace = Trace::of(guest);
    for number in 0..u64::from(MANY) {
        let (timer, at_ns) = match how {
            0 => (1, u64::MAX - number),
            1 => (number, u64::MAX - number),
            2 => (number, 0),
            _ => (u64::MAX - number, number << 40),
        };
        trace.tell(What::TimerSet {
            timer,
            at_ns,
            by: number as u32,
        });
        if how == 3 {
            trace.woken(1, Reason::Timer(number));
        }
    }
}

/// Operations that nobody submitted, of kinds that there are not, in slots that cannot be.
fn operations(guest: &mut Guest, [mask, ..]: Args) {
    let mut trace = Trace::of(guest);
    for number in 0..MANY {
        let token = Token {
            slot: number & mask as u32,
            generation: number.wrapping_mul(0x9E37_79B9),
        };
        trace.tell(What::Submitted {
            token,
            opcode: number as u16,
            bytes: u32::MAX,
            by: number,
        });
        trace.pending(number, Some(Reason::HostCall(token)));
        trace.woken(number, Reason::Operation(token));
        trace.tell(What::CancelAsked { token, by: 0 });
    }
}

/// More lost than there can be.
fn lost(guest: &mut Guest, _: Args) {
    let mut trace = Trace::of(guest);
    for count in [u64::MAX, 0, 1, u64::MAX, 1 << 63] {
        trace.tell(What::Lost { count });
    }
    guest.set(Word::TraceLost, u32::MAX);
}

/// Times that are not those at which it happened.
fn times(guest: &mut Guest, [first, step, ..]: Args) {
    let mut trace = Trace::of(guest);
    let mut at = first;
    for task in 1..=1000 {
        for what in [
            What::Spawned { task, by: 0 },
            What::PollBegin { task },
            What::TimerSet {
                timer: u64::from(task),
                at_ns: at,
                by: task,
            },
            What::PollEnd {
                task,
                ready: false,
                on: Some(Reason::Timer(u64::from(task))),
                more: 0,
            },
        ] {
            trace.put(Record::new(at, what));
            at = at.wrapping_add(step);
        }
    }
}

/// Every kind with every detail, whether or not it has a meaning.
fn kinds(guest: &mut Guest, [argument, ..]: Args) {
    let mut trace = Trace::of(guest);
    for kind in 0..=0xFF {
        for detail in 0..=0xFF {
            let more = (kind ^ detail) * 257;
            let head = kind | detail << 8 | more << 16 | detail << 32;
            trace.put(Record([ticks(), head, argument, argument]));
        }
    }
}

/// Any words, of which half begin like a record.
fn random(guest: &mut Guest, [seed, ..]: Args) {
    let mut trace = Trace::of(guest);
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..u64::from(MANY) {
        let words = [next(), next(), next(), next()];
        let [at, head, first, second] = words;
        trace.put(match round % 2 {
            0 => Record(words),
            _ => Record([at, (head & !0xFF) | (head % 17), first, second]),
        });
    }
}

/// Tasks in a row, each of which wakes the next; and in places of their own.
fn circle(guest: &mut Guest, _: Args) {
    let mut trace = Trace::of(guest);
    for round in 0..u64::from(MANY) {
        let task = round as u32 + 2;
        if round < 5000 {
            let digits: [u8; 4] =
                core::array::from_fn(|place| b'0' + (round / 10_u64.pow(place as u32) % 10) as u8);
            trace.text(Text::Location, &digits);
            trace.spawned(task);
        }
        trace.woken(task, Reason::Task(task - 1));
        trace.tell(What::PollBegin { task });
        trace.pending(task, None);
    }
}

/// A ring whose words cannot be.
fn ring(guest: &mut Guest, [word, value, ..]: Args) {
    let mut trace = Trace::of(guest);
    trace.spawned(1);
    guest.ring(port::SUBMIT);
    let word = [Word::TraceTail, Word::TraceHead, Word::TraceLost][word as usize];
    for _ in 0..3 {
        guest.set(word, value as u32);
        guest.ring(port::SUBMIT);
    }
}

/// A full ring that nobody was told of.
fn untold(guest: &mut Guest, _: Args) {
    let mut trace = Trace::of(guest);
    for task in 1..=guest.boot.trace_records {
        trace.spawned(task);
    }
}

/// All of it without end.
fn without_end(guest: &mut Guest, _: Args) {
    let mut trace = Trace::of(guest);
    // Else the compiler may take the loop for one that does nothing.
    let task = AtomicU32::new(0);
    loop {
        let task = task.fetch_add(1, Ordering::Relaxed);
        trace.part(Text::Name, [b'n'; TEXT_PART], TEXT_PART as u8);
        trace.spawned(task);
        trace.woken(task.wrapping_mul(3), Reason::Task(task));
        trace.tell(What::TimerSet {
            timer: 1,
            at_ns: u64::MAX - u64::from(task),
            by: task,
        });
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let many = u64::from(MANY);
    let rows: &[(&str, Act, Args)] = &[
        ("tasks-that-live", tasks, [MORE, 0, 0, 0]),
        ("tasks-that-are-over", tasks, [many, 1, 0, 0]),
        ("task-again-and-again", tasks, [20_000, 0, 1, 0]),
        ("task-over-again-and-again", tasks, [20_000, 1, 1, 0]),
        ("names-of-the-longest", names, [130_000, 0, 0, 0]),
        ("strangers", strangers, [MORE, 0, 0, 0]),
        ("disorder", disorder, [0; 4]),
        ("parts", parts, [0; 4]),
        ("timer-set-again", timers, [0; 4]),
        ("timers-many", timers, [1, 0, 0, 0]),
        ("timers-due", timers, [2, 0, 0, 0]),
        ("timers-never-set", timers, [3, 0, 0, 0]),
        ("operations-of-a-ring", operations, [0xFFF, 0, 0, 0]),
        ("operations-of-any-slot", operations, [u64::MAX, 0, 0, 0]),
        ("lost-max", lost, [0; 4]),
        ("times-zero", times, [0; 4]),
        ("times-max", times, [u64::MAX, 0, 0, 0]),
        ("times-back", times, [u64::MAX, u64::MAX / 3 * 2, 0, 0]),
        ("times-far-apart", times, [0, 1 << 52, 0, 0]),
        ("kinds-zero", kinds, [0; 4]),
        ("kinds-max", kinds, [u64::MAX, 0, 0, 0]),
        ("random", random, [0x9E37_79B9_7F4A_7C15, 0, 0, 0]),
        ("circle", circle, [0; 4]),
    ];
    for (name, act, args) in rows {
        visit(Case::new("traces", *name, *act, End::Exit(0)).with(*args));
    }
    for (index, (text, ..)) in TEXTS.iter().enumerate() {
        let case = Case::new("traces", format_args!("name-{text}"), name, End::Exit(0));
        visit(case.with([index as u64, 0, 0, 0]));
    }
    for (name, word, value) in [
        ("tail-ahead", 0, 1 << 20),
        ("tail-back", 0, 0),
        ("tail-max", 0, u64::from(u32::MAX)),
        ("head-ahead", 1, 2),
        ("head-max", 1, u64::from(u32::MAX)),
        ("lost-ahead", 2, u64::from(u32::MAX)),
    ] {
        let case = Case::new("traces", format_args!("ring-{name}"), ring, End::Exit(0));
        visit(case.with([word, value, 0, 0]).modes(Modes::All));
    }
    visit(Case::new("traces", "untold", untold, End::Exit(0)).modes(Modes::All));
    // One mode: what was told in its time is given out to the end, which takes seconds.
    visit(Case::new(
        "traces",
        "without-end",
        without_end,
        End::WallClock,
    ));
}
