//! The processors of a guest that has several, as those who take turns of their driver wake them.
//!
//! Each processor is a task. Whoever has left something for one wakes it, whatever it does:
//!
//! ```text
//! a processor's task                        whoever has something for it
//! T1 register its waker                     W1 publish it (a completion, `Posts`, or `any` of `Ready`)
//! T2 look: sleep if there is nothing        W2 due = true, in mode `irq`
//!                                           W3 fence
//! E1 inside = true                          W4 wake its waker
//! E2 fence                                  W5 if inside, in mode `irq`: kick it
//! E3 if due: take that, interrupt
//! E4 enter the guest
//! ```
//!
//! One that sleeps has registered its waker before it has looked: it sees W1, or W4 finds the waker. One that
//! enters its guest sees W2 at E3, or W5 sees E1, and a kick is not lost (`vmm/kick.rs`). In the other modes
//! nobody is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use wakebox_abi::memory::MappedControl;
use wakebox_abi::wake::{self, Mode};
use wakebox_vmm::kick::Reasons;
use wakebox_vmm::memory::Shared;
use wakebox_vmm::signal::VcpuKick;

use crate::outside;

/// All processors of a guest.
#[derive(Debug)]
pub(crate) struct Herd {
    members: Box<[Member]>,
    /// Whether those that compute are interrupted.
    interrupts: bool,
    /// Bits of a slot's number that are the ring's.
    ring_bits: u32,
}

#[derive(Debug)]
struct Member {
    control: Shared<MappedControl>,
    kick: Arc<VcpuKick>,
    runner: AtomicWaker,
    /// Whether its task is about to enter the guest, or has.
    inside: AtomicBool,
    /// Whether it is to be interrupted.
    due: AtomicBool,
    /// Whether it has begun.
    has_begun: AtomicBool,
    /// Whether it sleeps. Written under the driver's lock.
    sleeps: AtomicBool,
}

impl Herd {
    /// Of processors with these control pages, which are kicked so. The first has begun.
    pub(crate) fn new(
        members: impl Iterator<Item = (Shared<MappedControl>, Arc<VcpuKick>)>,
        mode: Mode,
    ) -> Self {
        let members: Box<[Member]> = members
            .map(|(control, kick)| Member {
                control,
                kick,
                runner: AtomicWaker::new(),
                inside: AtomicBool::new(false),
                due: AtomicBool::new(false),
                has_begun: AtomicBool::new(false),
                sleeps: AtomicBool::new(false),
            })
            .collect();
        members[0].has_begun.store(true, Ordering::Relaxed);
        Self {
            interrupts: mode == Mode::Irq,
            ring_bits: members.len().next_power_of_two().trailing_zeros(),
            members,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.members.len() as u32
    }

    fn member(&self, processor: u32) -> &Member {
        &self.members[processor as usize]
    }

    /// A processor begins. Returns whether it had not yet.
    pub(crate) fn begins(&self, processor: u32) -> bool {
        !self
            .member(processor)
            .has_begun
            .swap(true, Ordering::AcqRel)
    }

    /// Whether there is such a processor, and it has begun.
    pub(crate) fn has_begun(&self, processor: u32) -> bool {
        let member = self.members.get(processor as usize);
        member.is_some_and(|member| member.has_begun.load(Ordering::Acquire))
    }

    /// Something was completed for a processor, or another has nudged it.
    pub(crate) fn completed(&self, processor: u32) {
        let member = self.member(processor);
        if self.interrupts {
            member.due.store(true, Ordering::Relaxed); // W2
        }
        self.look(member);
    }

    /// W3 to W5.
    fn look(&self, member: &Member) {
        fence(Ordering::SeqCst); // W3, partner: E2
        member.runner.take().into_iter().for_each(outside::wake); // W4
        if self.interrupts && member.inside.load(Ordering::Relaxed) {
            member.kick.kick(Reasons::COMPLETION); // W5
        }
    }

    /// All are to look, whatever they do.
    pub(crate) fn wake_all(&self) {
        for member in &self.members {
            member.runner.take().into_iter().for_each(outside::wake);
        }
    }

    /// All are to leave the guest.
    pub(crate) fn stop(&self) {
        for member in &self.members {
            member.kick.kick(Reasons::STOP);
        }
        self.wake_all();
    }

    /// E1 to E3: a processor is about to be entered. Returns whether it is to be interrupted.
    pub(crate) fn enters(&self, processor: u32) -> bool {
        let member = self.member(processor);
        member.sleeps.store(false, Ordering::Relaxed);
        if !self.interrupts {
            return false;
        }
        member.inside.store(true, Ordering::Relaxed); // E1
        fence(Ordering::SeqCst); // E2, partner: W3
        member.due.load(Ordering::Relaxed) && member.due.swap(false, Ordering::Relaxed) // E3
    }

    /// A processor was left.
    pub(crate) fn left(&self, processor: u32) {
        self.member(processor)
            .inside
            .store(false, Ordering::Relaxed);
    }

    /// T1: a processor's task is to be woken by this.
    pub(crate) fn register(&self, processor: u32, waker: &Waker) {
        self.member(processor).runner.register(waker);
    }

    /// T2, under the driver's lock: whether a processor has something that it had not seen when it
    /// announced its sleep. If not, it sleeps.
    pub(super) fn sleeps_unless_it_has_news(&self, processor: u32, published: u32) -> bool {
        let member = self.member(processor);
        let has_news = member.has_news(published);
        member.sleeps.store(!has_news, Ordering::Relaxed);
        has_news
    }

    /// Whether all that have begun sleep, under the driver's lock.
    pub(super) fn all_sleep(&self, published: impl Fn(u32) -> u32) -> bool {
        (0..).zip(&self.members).all(|(processor, member)| {
            !member.has_begun.load(Ordering::Acquire)
                || member.sleeps.load(Ordering::Relaxed) && !member.has_news(published(processor))
        })
    }

    /// How many completions a guest's processor has said that it has seen, and other words of its control page.
    pub(crate) fn control(&self, processor: u32) -> &Shared<MappedControl> {
        &self.member(processor).control
    }
}

impl Member {
    fn has_news(&self, published: u32) -> bool {
        published != wake::guest_has_seen(&self.control) || wake::guest_has_posts(&self.control)
    }
}

/// An operation can go on.
impl super::ready::Owners for Herd {
    fn ready(&self, slot: u32) {
        let ring = slot & ((1 << self.ring_bits) - 1);
        if let Some(member) = self.members.get(ring as usize) {
            self.look(member);
        }
    }
}
