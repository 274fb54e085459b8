//! What a sandbox has done so far, in numbers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wakebox_abi::memory::Counter;
pub use wakebox_abi::memory::GuestCounts;
use wakebox_abi::op::Opcode;
use wakebox_abi::wake::Mode;
use wakebox_vmm::memory::ControlPage;

use crate::observe::OpCounts;
use crate::trace::ExitReason;
use crate::units;

/// Exits from the guest, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exits {
    /// The guest rang "there are submissions".
    pub submit: u64,
    /// The guest rang "nothing to do".
    pub wait: u64,
    /// The guest halted.
    pub halt: u64,
    /// The guest rang for another of its processors, to let it begin or to wake it.
    pub processor: u64,
    /// The guest had pages of its heap appear in a window, or went on with a fault itself.
    pub window: u64,
    /// The guest was pulled out: end of its quantum, or completions for it.
    pub kick: u64,
    /// The guest ended, panicked, faulted or broke the interface.
    pub end: u64,
}

impl Exits {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.submit + self.wait + self.halt + self.processor + self.window + self.kick + self.end
    }
}

impl std::iter::Sum for Exits {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            submit: sum.submit + one.submit,
            wait: sum.wait + one.wait,
            halt: sum.halt + one.halt,
            processor: sum.processor + one.processor,
            window: sum.window + one.window,
            kick: sum.kick + one.kick,
            end: sum.end + one.end,
        })
    }
}

/// A number that one thread at a time counts up and others may read meanwhile. It orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn add(&self, more: u64) {
        self.set(self.get() + more);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The same of nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch(Tally);

impl Stopwatch {
    pub(crate) fn add(&self, more: Duration) {
        self.0.add(more.as_nanos() as u64);
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_nanos(self.0.get())
    }
}

/// What a run counts.
#[derive(Debug, Default)]
pub(crate) struct RunCounts {
    /// Exits, by [`ExitReason`].
    exits: [Tally; ExitReason::ALL.len()],
    /// Interrupts injected.
    pub(crate) interrupts: Tally,
    /// How often it gave its machine away.
    pub(crate) detached: Tally,
    pub(crate) in_guest: Stopwatch,
    pub(crate) in_host: Stopwatch,
    pub(crate) parked: Stopwatch,
}

impl RunCounts {
    /// The guest was left.
    pub(crate) fn exited(&self, reason: ExitReason) {
        self.exits[reason as usize].add(1);
    }

    /// How often, by reason.
    pub(crate) fn exits(&self) -> Exits {
        let mut exits = Exits::default();
        for (reason, count) in ExitReason::ALL.iter().zip(&self.exits) {
            let sum = match reason {
                ExitReason::Submit => &mut exits.submit,
                ExitReason::Wait => &mut exits.wait,
                ExitReason::Halt => &mut exits.halt,
                ExitReason::Start | ExitReason::Nudge => &mut exits.processor,
                ExitReason::Map | ExitReason::Caught => &mut exits.window,
                ExitReason::Quantum | ExitReason::Kick => &mut exits.kick,
                // The others end the guest.
                _ => &mut exits.end,
            };
            *sum += count.get();
        }
        exits
    }
}

/// What a guest says of itself, as it stands in its control page. The host only passes it on.
pub(crate) fn guest_counts(pages: impl Iterator<Item = ControlPage>) -> GuestCounts {
    let mut sums = Counter::ALL.map(|counter| (counter, 0_u64));
    for page in pages {
        for (counter, sum) in &mut sums {
            *sum = sum.wrapping_add(page.counter(*counter));
        }
    }
    sums.into_iter().collect()
}

/// What a sandbox has done so far. Its `Display` is the table of `wakebox run --stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How the guest was told to sleep.
    pub mode: Mode,
    /// Exits by reason.
    pub exits: Exits,
    /// Interrupts injected.
    pub interrupts: u64,
    /// Operations that the host took, by kind; only kinds that occurred.
    pub operations: Vec<(&'static str, u64)>,
    /// Requests that policy refused.
    pub refusals: u64,
    /// The same by kind of request; only kinds that occurred.
    pub refused: Vec<(&'static str, u64)>,
    /// Bytes moved, by the limit that counts them ([`LimitKind::key`](crate::LimitKind::key)); only
    /// kinds that occurred.
    pub bytes: Vec<(&'static str, u64)>,
    /// Bytes of its own memory that the host keeps for the guest now.
    pub host_memory: u64,
    /// The most that it has kept at any time.
    pub host_memory_peak: u64,
    /// What the guest says of itself.
    pub guest: GuestCounts,
    /// Times that it gave its machine to another sandbox, while it was parked.
    pub detached: u64,
    /// Time in the guest.
    pub in_guest: Duration,
    /// Time in which the run was polled, outside the guest.
    pub in_host: Duration,
    /// Time in which the sandbox was parked and held no thread.
    pub parked: Duration,
}

impl Stats {
    /// Operations that the host took.
    #[must_use]
    pub fn operations_total(&self) -> u64 {
        self.operations.iter().map(|(_, count)| count).sum()
    }

    /// Exits per operation; zero without operations.
    #[must_use]
    pub fn exits_per_operation(&self) -> f64 {
        match self.operations_total() {
            0 => 0.0,
            operations => self.exits.total() as f64 / operations as f64,
        }
    }

    pub(crate) fn name_operations(counts: &OpCounts) -> Vec<(&'static str, u64)> {
        let named = Opcode::ALL
            .iter()
            .map(|op| (op.name(), counts.get(*op as u16)));
        let unknown = ("(unknown)", counts.get(u16::MAX));
        named
            .chain([unknown])
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl fmt::Display for Stats {
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use units::{count, duration};
        let Exits {
            submit,
            wait,
            halt,
            processor,
            window,
            kick,
            end,
        } = self.exits;
        write!(
            f,
            "exits      {} (submit {}, wait {}, halt {}, ",
            count(self.exits.total()),
            count(submit),
            count(wait),
            count(halt)
        )?;
        // Of a guest with one processor there are none.
        if processor > 0 {
            write!(f, "processor {}, ", count(processor))?;
        }
        // Nor of one without windows.
        if window > 0 {
            write!(f, "window {}, ", count(window))?;
        }
        writeln!(f, "kick {}, end {})", count(kick), count(end))?;
        let guest = &self.guest;
        writeln!(
            f,
            "wakes      mode {}: by out {}, by interrupt {}, by memory {}; interrupts injected {}",
            self.mode,
            count(guest.woken_by_out),
            count(guest.woken_by_interrupt),
            count(guest.woken_by_memory),
            count(self.interrupts)
        )?;
        write!(f, "ops        {}", count(self.operations_total()))?;
        for (index, (name, number)) in self.operations.iter().enumerate() {
            write!(
                f,
                "{}{name} {}",
                if index == 0 { " (" } else { ", " },
                count(*number)
            )?;
        }
        if !self.operations.is_empty() {
            write!(f, "); {:.4} exits an op", self.exits_per_operation())?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "executor   {} turns, {} polls, {} wakes, {} tasks spawned, {} ended, {} ops cancelled",
            count(guest.turns),
            count(guest.polls),
            count(guest.wakes),
            count(guest.spawned),
            count(guest.completed),
            count(guest.cancels)
        )?;
        if self.refusals > 0 {
            write!(f, "refused    {} by policy", count(self.refusals))?;
            for (index, (kind, number)) in self.refused.iter().enumerate() {
                let before = if index == 0 { " (" } else { ", " };
                write!(f, "{before}{kind} {}", count(*number))?;
            }
            writeln!(f, ")")?;
        }
        if !self.bytes.is_empty() {
            let bytes = |(kind, number): &(_, u64)| format!("{kind} {}", units::bytes(*number));
            let all: Vec<_> = self.bytes.iter().map(bytes).collect();
            writeln!(f, "bytes      {}", all.join(", "))?;
        }
        if self.host_memory_peak > 0 {
            writeln!(
                f,
                "host       keeps {} of memory for the guest, at the peak {}",
                units::bytes(self.host_memory),
                units::bytes(self.host_memory_peak)
            )?;
        }
        if self.detached > 0 {
            let times = count(self.detached);
            writeln!(f, "machine    given away {times} times while it was parked")?;
        }
        write!(
            f,
            "time       {} in the guest, {} in the host, {} parked",
            duration(self.in_guest),
            duration(self.in_host),
            duration(self.parked)
        )
    }
}
