//! Machines that wait for a guest.
//!
//! To make a virtual machine, and to end one, takes the kernel longer than to give one to another
//! guest. So a machine whose guest has ended waits here for the next whose memory is as large. That
//! finds nothing of the former:
//!
//! - Memory: where the next is made of the same template, every page that was written is written again
//!   from that, and stays, so that it need not be copied once more; else the next one's memory is mapped
//!   over the former's. Either happens before the next guest is entered, and when nobody else has the
//!   memory any more.
//! - The processor: all of its state is set ([`Machine::restore`]), and what it has learned of branches is
//!   forgotten where KVM lets that be asked for ([`System::has_branch_barrier`]).
//! - Whoever could kick the former guest cannot kick the next.
//!
//! A guest that sleeps can [give its machine away](Lent::detach) and [take one](Lent::attach) when it is
//! woken, as a task gives the thread to another that it runs on. It need not while there are few
//! ([`Machines::patience`]).

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backing::Backing;
use crate::error::Result;
use crate::machine::{Detached, Machine};
use crate::memory::{self, GuestMemory};
use crate::plan::Plan;
use crate::process::{self, PerProcess};
use crate::system::System;

/// Machines for each processor that wait, unless somebody asks for more.
const FOR_EACH_PROCESSOR: usize = 4;

/// How long a guest sleeps before its machine is another's, while more are lent than are kept: less than
/// this, and it would pay more often than it gains.
const PATIENCE: Duration = Duration::from_millis(10);
/// With so many times as many lent, it is another's at once.
const MANY: usize = 4;

/// Bytes that are written again from the template as soon as a guest has ended. To give them back instead
/// takes as long, and the next guest longer: it has all of its pages looked up again.
const WRITTEN_AGAIN: u64 = 256 << 10;

/// Machines that wait for a guest. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Machines(Arc<Waiting>);

#[derive(Debug)]
struct Waiting {
    most: usize,
    /// Bytes that a guest has written and that its machine keeps while it waits, to be written again
    /// from its template; with more, it gives all back.
    keeps: u64,
    machines: Mutex<Vec<Machine>>,
    /// How many guests have.
    lent: AtomicUsize,
    /// How many were made so far.
    made: AtomicUsize,
}

impl Machines {
    /// At most so many. When a guest has ended, what it has written is written again from its template, or
    /// given back if it is more than 256 KiB or there is no template. With no machines, each guest
    /// has one of its own, from its beginning to its end.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self::keeping(most, 0)
    }

    /// The same, but pages that a guest of a template has written stay where they are, if they are at
    /// most so many bytes: they need not be copied again. Somebody is to [tidy up](Self::tidy_up) when a
    /// guest has ended.
    #[must_use]
    pub fn keeping(most: usize, bytes: u64) -> Self {
        Self(Arc::new(Waiting {
            most,
            keeps: bytes,
            machines: Mutex::default(),
            lent: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
        }))
    }

    /// Those of this process: four for each of its processors.
    ///
    /// # Errors
    ///
    /// As [`System::get`].
    pub fn of_process() -> Result<Self> {
        static MACHINES: PerProcess<Machines> = PerProcess::new();
        let processors = System::get()?.processors;
        let machines = MACHINES.get_or_init(|| {
            // What a process has open does not depend on whether one of its guests ever sleeps.
            memory::prepare();
            Self::new(FOR_EACH_PROCESSOR * processors)
        });
        Ok(machines.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Machine>> {
        self.0
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// How many guests have a machine.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.0.lent.load(Ordering::Relaxed)
    }

    /// How many were made so far, because none waited.
    #[must_use]
    pub fn made(&self) -> usize {
        self.0.made.load(Ordering::Relaxed)
    }

    /// For how long a guest may sleep and keep its machine. `None` is for ever: there are enough.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let most = self.0.most;
        match self.lent() {
            _ if most == 0 => None,
            lent if lent <= most => None,
            lent if lent <= MANY * most => Some(PATIENCE),
            _ => Some(Duration::ZERO),
        }
    }

    /// Writes again what guests have written that have ended, from their templates. It takes a while.
    pub fn tidy_up(&self) {
        // Without the lock. Meanwhile those that are ready are there for who wants one: to make another takes much
        // longer than this.
        let written: Vec<_> = self
            .lock()
            .extract_if(.., |machine| !machine.is_reset())
            .collect();
        for mut machine in written {
            machine.reset();
            self.lock().push(machine);
        }
    }

    /// Ends those that wait.
    pub fn clear(&self) {
        // Without the lock: it takes a while.
        let machines = std::mem::take(&mut *self.lock());
        drop(machines);
    }

    /// A machine with this memory, which is to be [started](Machine::start) or
    /// [restored](Machine::restore).
    ///
    /// # Errors
    ///
    /// What could not be mapped, and what KVM could not do.
    pub fn take(&self, backing: &Backing, plan: Plan) -> Result<Lent> {
        let machine = self.one(backing, plan)?;
        self.0.lent.fetch_add(1, Ordering::Relaxed);
        Ok(Lent {
            memory: machine.memory().clone(),
            process: process::generation(),
            machine: Some(machine),
            detached: None,
            is_spoiled: false,
            machines: self.clone(),
        })
    }

    fn one(&self, backing: &Backing, plan: Plan) -> Result<Machine> {
        while let Some(machine) = self.next(backing, &plan) {
            // One that cannot be used again is gone; there may be another.
            if let Some(machine) = machine.renewed(backing, plan.clone()) {
                return Ok(machine);
            }
        }
        let make = |plan| Machine::new(&GuestMemory::on(backing, plan)?);
        self.0.made.fetch_add(1, Ordering::Relaxed);
        match make(plan.clone()) {
            // What waits takes memory and descriptors that this one lacks.
            Err(error) if error.is_of_shortage() && self.let_go() => make(plan),
            made => made,
        }
    }

    /// Ends those that wait, here and in the process. Returns whether there were any.
    fn let_go(&self) -> bool {
        let others = Self::of_process().ok();
        let all = [Some(self), others.as_ref()].into_iter().flatten();
        let waited = all.clone().any(|machines| machines.waiting() > 0);
        all.for_each(Self::clear);
        waited
    }

    /// One that fits, best one whose memory is made of the same.
    fn next(&self, backing: &Backing, plan: &Plan) -> Option<Machine> {
        let mut machines = self.lock();
        let fits = |machine: &Machine| machine.is_free_for(plan);
        let same = |machine: &Machine| fits(machine) && machine.memory().is_made_of(backing, plan);
        // Tables of windows are those of what the memory is made of.
        let has_windows = |plan: &Plan| plan.window_count > 0;
        let other = |machine: &Machine| {
            fits(machine) && !has_windows(plan) && !has_windows(machine.memory().plan())
        };
        let at = machines
            .iter()
            .rposition(same)
            .or_else(|| machines.iter().rposition(other))?;
        Some(machines.remove(at))
    }

    /// A machine whose guest has ended, and whose memory the caller holds as well.
    fn give_back(&self, mut machine: Machine, is_spoiled: bool) {
        self.0.lent.fetch_sub(1, Ordering::Relaxed);
        let is_spoiled = is_spoiled || machine.memory().is_edited();
        if self.0.most == 0 || is_spoiled || !machine.is_of_this_process() {
            return;
        }
        if !machine.is_reset() {
            // Its last guest shows those to come what one writes.
            machine.memory().learn();
            // Who keeps more has somebody to tidy up.
            if self.0.keeps > 0 || !machine.reset_at_most(WRITTEN_AGAIN) {
                machine.memory().keep_at_most(self.0.keeps);
            }
        }
        let mut machines = self.lock();
        machines.push(machine);
        // The one that has waited longest fits nobody.
        let most = (machines.len() > self.0.most).then(|| machines.remove(0));
        drop(machines);
        drop(most);
    }
}

/// A machine that waits for another guest when this is dropped, and when the guest that has it
/// [gives it away](Self::detach).
#[derive(Debug)]
pub struct Lent {
    /// None while it is dropped, or while the guest has none.
    machine: Option<Machine>,
    /// The guest while it has none.
    detached: Option<Box<Detached>>,
    /// The guest's memory, wherever that lies.
    memory: Arc<GuestMemory>,
    /// The process in which it was lent.
    process: u32,
    /// Whether something has failed in it.
    is_spoiled: bool,
    machines: Machines,
}

impl Lent {
    /// It is not to be used again: something has failed in it.
    pub fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    /// The memory of its guest.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Whether this process has made it, and not one that this is a child of.
    #[must_use]
    pub fn is_of_this_process(&self) -> bool {
        self.process == process::generation()
    }

    /// As [`Machines::patience`].
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.machines.patience()
    }

    /// Whether the guest has no machine.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached.is_some()
    }

    /// The guest, which sleeps, gives its machine away: until it has one [again](Self::attach), its memory
    /// lies nowhere. Returns whether it does. It does not if it has more memory of its own than is kept,
    /// or while somebody [uses](GuestMemory::stay) that. Only who runs the guest, and holds up whoever
    /// else reaches into its memory, may call this.
    ///
    /// # Errors
    ///
    /// What KVM could not do.
    pub fn detach(&mut self) -> Result<bool> {
        let Some(mut machine) = self.machine.take() else {
            return Ok(self.is_detached());
        };
        match machine.detach() {
            Ok(Some(detached)) => {
                self.detached = Some(Box::new(detached));
                self.machines.give_back(machine, self.is_spoiled);
                Ok(true)
            }
            kept => {
                self.machine = Some(machine);
                kept.map(|_| false)
            }
        }
    }

    /// The guest has a machine again, if it had [none](Self::detach), and goes on where it slept.
    ///
    /// # Errors
    ///
    /// As [`Machines::take`]; then it still has none, or one that is good for nothing.
    pub fn attach(&mut self) -> Result<()> {
        let Some(detached) = &self.detached else {
            return Ok(());
        };
        let (backing, plan) = (self.memory.backing(), self.memory.plan().clone());
        let mut machine = self.machines.one(backing, plan)?;
        self.machines.0.lent.fetch_add(1, Ordering::Relaxed);
        let attached = machine.attach(detached, &self.memory);
        self.machine = Some(machine);
        self.detached = None;
        attached
    }
}

impl Deref for Lent {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        self.machine
            .as_ref()
            .expect("it is there until it is dropped or given away")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Machine {
        self.machine
            .as_mut()
            .expect("it is there until it is dropped or given away")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.machines.give_back(machine, self.is_spoiled);
        }
    }
}
