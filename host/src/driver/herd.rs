//! The processors of a guest that has several, as those who take turns of their driver wake them.
//!
//! Each processor is a task. Whoever has left something for one wakes it, whatever it does (`member.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use wakebox_abi::memory::MappedControl;
use wakebox_abi::wake::{self, Mode};
use wakebox_vmm::memory::Shared;
use wakebox_vmm::signal::{RunPage, VcpuKick};

use super::member::Member;
use crate::names::Names;

/// All processors of a guest.
#[derive(Debug)]
pub(crate) struct Herd {
    members: Box<[One]>,
    names: Names,
    /// Whether the first is to be woken when all sleep. Written and read under the driver's lock.
    is_awaited: AtomicBool,
}

#[derive(Debug)]
struct One {
    control: Shared<MappedControl>,
    member: Member<RunPage>,
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
        let members: Box<[One]> = members
            .map(|(control, kick)| One {
                control,
                member: Member::new(kick, mode == Mode::Irq),
                has_begun: AtomicBool::new(false),
                sleeps: AtomicBool::new(false),
            })
            .collect();
        members[0].has_begun.store(true, Ordering::Relaxed);
        Self {
            names: Names::of(members.len() as u32),
            members,
            is_awaited: AtomicBool::new(false),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.members.len() as u32
    }

    fn one(&self, processor: u32) -> &One {
        &self.members[processor as usize]
    }

    /// A processor begins. Returns whether it had not yet.
    pub(crate) fn begins(&self, processor: u32) -> bool {
        !self.one(processor).has_begun.swap(true, Ordering::AcqRel)
    }

    /// Whether there is such a processor, and it has begun.
    pub(crate) fn has_begun(&self, processor: u32) -> bool {
        let one = self.members.get(processor as usize);
        one.is_some_and(|one| one.has_begun.load(Ordering::Acquire))
    }

    /// Something was completed for a processor, or another has nudged it.
    pub(crate) fn completed(&self, processor: u32) {
        self.one(processor).member.has_some();
    }

    /// All are to look, whatever they do.
    pub(crate) fn wake_all(&self) {
        self.members.iter().for_each(|one| one.member.wake());
    }

    /// All are to leave the guest.
    pub(crate) fn stop(&self) {
        self.members.iter().for_each(|one| one.member.stop());
        self.wake_all();
    }

    /// A processor is about to be entered. Returns whether it is to be interrupted.
    pub(crate) fn enters(&self, processor: u32) -> bool {
        self.one(processor).member.enters()
    }

    /// A processor was left.
    pub(crate) fn left(&self, processor: u32) {
        self.one(processor).member.left();
    }

    /// A processor's task is to be woken by this.
    pub(crate) fn register(&self, processor: u32, waker: &Waker) {
        self.one(processor).member.register(waker);
    }

    /// Under the driver's lock: whether a processor has something that it had not seen when it
    /// announced its sleep. If not, it sleeps.
    pub(super) fn sleeps_unless_it_has_news(&self, processor: u32, published: u32) -> bool {
        let one = self.one(processor);
        let has_news = one.has_news(published);
        one.sleeps.store(!has_news, Ordering::Relaxed);
        has_news
    }

    /// Whether all that have begun sleep, under the driver's lock.
    pub(super) fn all_sleep(&self, published: impl Fn(u32) -> u32) -> bool {
        (0..).zip(&self.members).all(|(processor, one)| {
            !one.has_begun.load(Ordering::Acquire)
                || one.sleeps.load(Ordering::Relaxed) && !one.has_news(published(processor))
        })
    }

    /// The same; if one does not, the first is woken when all do.
    pub(super) fn all_sleep_else_wake_first(&self, published: impl Fn(u32) -> u32) -> bool {
        let all_sleep = self.all_sleep(published);
        self.is_awaited.store(!all_sleep, Ordering::Relaxed);
        all_sleep
    }

    /// Whether the first is to be woken when all sleep.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    /// All sleep, under the driver's lock, of which this one is the last to do so.
    pub(super) fn slept_last(&self, processor: u32) {
        if self.is_awaited.swap(false, Ordering::Relaxed) && processor != 0 {
            self.one(0).member.wake();
        }
    }

    /// How many completions a guest's processor has said that it has seen, and other words of its control page.
    pub(crate) fn control(&self, processor: u32) -> &Shared<MappedControl> {
        &self.one(processor).control
    }
}

impl One {
    fn has_news(&self, published: u32) -> bool {
        published != wake::guest_has_seen(&self.control) || wake::guest_has_posts(&self.control)
    }
}

/// An operation can go on.
impl super::ready::Owners for Herd {
    fn ready(&self, slot: u32) {
        let ring = self.names.ring(slot);
        if let Some(one) = self.members.get(ring as usize) {
            one.member.look();
        }
    }
}
