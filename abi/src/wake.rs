//! Sleeping and waking across the boundary, without losing a wake-up.
//!
//! # The argument
//!
//! One side wants to sleep until there is something to see; the other makes something
//! and must know whether anyone has to be woken for it. Each writes one word and
//! reads the other's:
//!
//! ```text
//! sleeper                                   waker
//! S1  take everything there is              W1  publish the entry (tail, Release)
//! S2  write "I sleep, I have seen N"        W2  full fence
//! S3  full fence                            W3  read what the sleeper said
//! S4  read the tail again                   W4  asleep: wake it; awake: nothing to do
//! S5  still N: sleep; else go on
//! ```
//!
//! A wake-up is lost only if S4 misses W1 *and* W3 misses S2. Both S2–S4 and W1–W3 are
//! a store followed by a load of the other's word. Release and Acquire do not order a
//! store before a later load, and neither does an x86 processor: both stores can sit in
//! their store buffers while both loads read the old values. The two full fences have
//! one total order. If S3 comes first, W3 sees S2 and the waker wakes. If W2 comes
//! first, S4 sees W1 and the sleeper does not sleep. One of the two always happens;
//! both may, which costs a needless wake and nothing else.
//!
//! There are three pairs of sleeper and waker, and the two words have the same roles:
//!
//! | sleeper | its word | wakes by |
//! |---|---|---|
//! | guest, waiting for completions | [`Word::Sleep`], [`Word::Seen`] | return of `out` / interrupt / nothing, it watches the tail |
//! | driver on its own thread, waiting for submissions | [`Word::DriverPolls`] (zero: asleep) | [`crate::port::SUBMIT`] |
//! | processor, waiting for another | [`Word::Sleep`], [`Word::PostsSeen`] | [`crate::port::NUDGE`] / nothing, it watches [`Word::Posts`] |
//!
//! The functions below are the only places where these words are written and read, and
//! `abi/tests/wake_model.rs` runs them through every interleaving and every reordering
//! that the memory model allows, with each fence and without it.
//!
//! # Several processors
//!
//! A processor of a guest with several is woken by the others, too. They leave what they have for it in
//! memory of the guest's own (an inbox, a queue), which this file does not know, and then *post*:
//!
//! ```text
//! sleeper                                   poster
//! P1  n = Posts (Acquire)                   Q1  leave it where the sleeper looks
//! P2  look where others leave things        Q2  Posts += 1 (Release)
//! P3  nothing: write PostsSeen = n, and     Q3  full fence
//!     "I sleep" as in S2                    Q4  read what the sleeper said
//! P4  full fence                            Q5  asleep: ring NUDGE; awake: nothing to do
//! P5  read Posts again (and the tail)
//! P6  still n: sleep; else go on
//! ```
//!
//! It is the same exchange of a store and a load on either side, with [`Word::Posts`] in the place of the
//! tail; so are the two fences and what they are for. Two things are added. What is left in Q1 is seen in P2 by
//! whoever has read the count of Q2 in P1, which Release and Acquire see to; whoever has read an older one is
//! told so by P5. And there are many posters, so Q2 is one instruction that nothing can come into.
//!
//! What Q5 rings, the host hands on. It looks at [`Word::Posts`] itself whenever it parks a processor, on both
//! ways out: in mode `irq` the interrupt may be taken in ring 3, between P6 and the halt, and be spent; the ring-0
//! stub looks at the tail alone, but its `hlt` leads to the host. A poster that reads "awake" from a processor that watches
//! rings nothing: who watches looks at `Posts` as well as at the tail, and that is the whole of the wake.
//!
//! # Where the sleeper exits to the host
//!
//! After `out WAIT` (or `hlt`) the host reads [`Word::Seen`] and compares it with the tail
//! that it has published itself: S4 once more, on the other side of the exit. In mode
//! `irq` the ring-0 stub does S4 with interrupts disabled, and `sti; hlt` enables them
//! only when the processor is halted: an interrupt that was injected in between is taken
//! right then and ends the halt.

use core::fmt;
use core::str::FromStr;
use core::sync::atomic::Ordering;

use crate::memory::{Control, Word};

/// How a guest sleeps when no task is ready, and how the host then wakes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Mode {
    /// `out WAIT`: an exit; woken by its return.
    Out = 0,
    /// `hlt` in a ring-0 stub; woken by an injected interrupt, also while it computes.
    Irq = 1,
    /// Watches the completion ring for a bounded time, then as [`Mode::Out`].
    Poll = 2,
    /// While the host watches as well, watches for as long as completions have lately taken; then, and else, as
    /// [`Mode::Out`].
    #[default]
    Auto = 3,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Out, Self::Irq, Self::Poll, Self::Auto];

    /// The mode of a number; [`Mode::Out`], which always works, for an unknown one.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Irq,
            2 => Self::Poll,
            3 => Self::Auto,
            _ => Self::Out,
        }
    }

    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Irq => "irq",
            Self::Poll => "poll",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMode;

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a wake mode is one of out, irq, poll, auto")
    }
}

impl core::error::Error for UnknownMode {}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or(UnknownMode)
    }
}

/// What a guest says about its own sleep, in [`Word::Sleep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Sleep {
    /// It runs, or watches the completion ring: it will see a new entry by itself.
    Awake = 0,
    /// It is about to leave, or has left, with [`crate::port::WAIT`].
    Out = 1,
    /// It is about to halt, or has halted, in ring 0.
    Halt = 2,
}

/// S2 to S4 for the guest: announces a sleep, having consumed `seen` completions.
/// Returns whether it may sleep now; if not, it is awake again.
#[inline]
pub fn guest_may_sleep<C: Control>(control: &C, how: Sleep, seen: u32) -> bool {
    control.store(Word::Seen, seen, Ordering::Relaxed);
    control.store(Word::Sleep, how as u32, Ordering::Relaxed);
    // S3. Partner: `host_must_wake`. Race: the host publishes a completion and misses
    // the announcement while this side misses the completion.
    control.full_fence();
    if control.load(Word::CompletionTail, Ordering::Relaxed) == seen {
        return true;
    }
    guest_is_awake(control);
    false
}

/// P3 to P5 for a processor that others post to, which are S2 to S4 as well: announces a sleep, having
/// consumed `seen` completions, and having looked where others leave things after it had read `posts` by
/// [`posts`]. Returns whether it may sleep now; if not, it is awake again.
#[inline]
pub fn guest_may_sleep_after<C: Control>(control: &C, how: Sleep, seen: u32, posts: u32) -> bool {
    control.store(Word::PostsSeen, posts, Ordering::Relaxed);
    // P4 is S3. Partner: `post`. Race: another processor leaves something and misses the announcement
    // while this one misses the count.
    if !guest_may_sleep(control, how, seen) {
        return false;
    }
    if control.load(Word::Posts, Ordering::Relaxed) == posts {
        return true;
    }
    guest_is_awake(control);
    false
}

/// P1: how often others have posted to this processor. What they had left by then is seen by whoever looks now.
#[inline]
pub fn posts<C: Control>(control: &C) -> u32 {
    // Acquire, with the Release in `post`.
    control.load(Word::Posts, Ordering::Acquire)
}

/// Q2 to Q4, by a processor that has left something for another, whose control page this is: whether it
/// must ring [`crate::port::NUDGE`].
#[inline]
pub fn post<C: Control>(target: &C) -> bool {
    // Release, with the Acquire in `posts`: what was left is there.
    target.add(Word::Posts, 1, Ordering::Release);
    // Q3. Partner: `guest_may_sleep_after`.
    target.full_fence();
    target.load(Word::Sleep, Ordering::Relaxed) != Sleep::Awake as u32
}

/// P5 on the other side of the exit, for the host that parks a processor: whether others have posted what it has not
/// seen.
#[inline]
pub fn guest_has_posts<C: Control>(control: &C) -> bool {
    control.load(Word::Posts, Ordering::Relaxed) != control.load(Word::PostsSeen, Ordering::Relaxed)
}

/// Takes the announcement back, after a sleep or instead of one.
#[inline]
pub fn guest_is_awake<C: Control>(control: &C) {
    control.store(Word::Sleep, Sleep::Awake as u32, Ordering::Relaxed);
}

/// W2 and W3 for the host, after it has published completions: whether the guest
/// has announced a sleep and must be woken.
#[inline]
pub fn host_must_wake<C: Control>(control: &C) -> bool {
    // W2. Partner: `guest_may_sleep`.
    control.full_fence();
    control.load(Word::Sleep, Ordering::Relaxed) != Sleep::Awake as u32
}

/// What the guest claims to have seen of the completion ring when it announced its sleep.
#[inline]
pub fn guest_has_seen<C: Control>(control: &C) -> u32 {
    control.load(Word::Seen, Ordering::Relaxed)
}

/// W2 and W3 for the guest, after it has published submissions: whether it must ring
/// [`crate::port::SUBMIT`] for anyone to notice.
#[inline]
pub fn guest_must_ring<C: Control>(control: &C) -> bool {
    // W2. Partner: `driver_may_sleep`.
    control.full_fence();
    control.load(Word::DriverPolls, Ordering::Relaxed) == 0
}

/// Whether somebody watches the submission ring, as far as one can tell without asking whether it goes on. A hint.
#[inline]
pub fn driver_is_near<C: Control>(control: &C) -> bool {
    control.load(Word::DriverPolls, Ordering::Relaxed) != 0
}

/// Tells the guest that its submissions will be seen without a doorbell: submission queue polling.
#[inline]
pub fn driver_polls<C: Control>(control: &C) {
    control.store(Word::DriverPolls, 1, Ordering::Relaxed);
}

/// S2 to S4 for the driver: arms the doorbell, having consumed `taken` submissions.
/// Returns whether it may stop polling; if not, it is still said to poll.
#[inline]
pub fn driver_may_sleep<C: Control>(control: &C, taken: u32) -> bool {
    control.store(Word::DriverPolls, 0, Ordering::Relaxed);
    // S3. Partner: `guest_must_ring`. Race: the guest publishes a submission and sees
    // "no doorbell needed" while this side misses the submission.
    control.full_fence();
    if control.load(Word::SubmissionTail, Ordering::Relaxed) == taken {
        return true;
    }
    driver_polls(control);
    false
}
