//! The operations in flight: a table of futures, and who is ready.
//!
//! An operation lies at the slot that its guest has chosen, so nothing is searched. Each
//! slot has one waker for its whole life; waking it puts the slot's index into the queue of
//! the ready and wakes whoever polls the driver. A future that is woken ten times is polled
//! once.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use wakebox_abi::entry::Token;
use wakebox_abi::op::Handle;

use super::Violation;
use crate::ops::End;
use crate::ops::blocking::Reach;
use crate::vm::kick::{Kick, Reasons};

/// An operation that could not be done at once.
pub(crate) type Operation = Pin<Box<dyn Future<Output = End> + Send>>;

/// The queue of slots whose operations can go on, and who wants to know.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    queue: Mutex<Vec<u32>>,
    any: AtomicBool,
    driver: AtomicWaker,
    /// Threads that take turns by themselves for a moment, so that nobody need be woken.
    helpers: AtomicU32,
    /// In mode `irq`: the vCPU to pull out of its guest.
    kick: OnceLock<Arc<Kick>>,
}

impl Ready {
    /// Whoever polls the driver is to be woken by this from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// From now on a wake also kicks a vCPU that is in its guest: the host's waker reaches
    /// across the boundary.
    pub(crate) fn kick_too(&self, kick: Arc<Kick>) {
        let _ = self.kick.set(kick);
    }

    /// Whether any slot is queued. A hint.
    pub(crate) fn is_some(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The calling thread takes turns as long as it has the value: nobody else is woken for them.
    pub(crate) fn hold(&self) -> Helper<'_> {
        self.helpers.fetch_add(1, Ordering::SeqCst);
        Helper(self)
    }

    fn push(&self, slot: u32) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
        // Partner: the drop of a `Helper`. Either this sees a helper, who will look before it leaves, or the
        // helper has left and sees the flag.
        self.any.store(true, Ordering::SeqCst);
        if self.helpers.load(Ordering::SeqCst) == 0 {
            self.driver.wake();
        }
        if let Some(kick) = self.kick.get()
            && kick.is_in_guest()
        {
            kick.kick(Reasons::COMPLETION);
        }
    }

    /// Swaps the queue for an empty one.
    fn take(&self, into: &mut Vec<u32>) {
        // Before the queue is taken, so that a push after it raises the flag again.
        self.any.store(false, Ordering::Relaxed);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *queue, into);
    }
}

/// A thread that takes turns by itself.
#[derive(Debug)]
pub(crate) struct Helper<'a>(&'a Ready);

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        self.0.helpers.fetch_sub(1, Ordering::SeqCst);
        // What became ready since its last turn is somebody else's now.
        if self.0.any.load(Ordering::SeqCst) {
            self.0.driver.wake();
        }
    }
}

/// Wakes the operation in one slot.
#[derive(Debug)]
struct SlotWaker {
    slot: u32,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Acquire and release: what the waking side did before is visible to the poll that
        // takes the flag down, even if this wake found it up.
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.slot);
        }
    }
}

/// What lies in a slot.
struct Slot {
    /// Made at the slot's first use.
    waker: Option<(Arc<SlotWaker>, Waker)>,
    generation: u32,
    handle: Option<Handle>,
    operation: Option<Operation>,
    /// Whether the operation may not be dropped, if that can be.
    reach: Option<Reach>,
}

/// The table.
pub(crate) struct InFlight {
    slots: Vec<Slot>,
    most: u32,
    len: u32,
    ready: Arc<Ready>,
    /// Slots taken from the queue and not polled yet, last first.
    batch: Vec<u32>,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight")
            .field("len", &self.len)
            .field("most", &self.most)
            .finish()
    }
}

impl InFlight {
    /// An empty table of at most `most` slots; memory grows with the highest slot used.
    pub(crate) fn new(most: u32, ready: Arc<Ready>) -> Self {
        Self {
            slots: Vec::new(),
            most,
            len: 0,
            ready,
            batch: Vec::new(),
        }
    }

    /// Operations in flight.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The queue of the ready.
    pub(crate) fn ready(&self) -> &Arc<Ready> {
        &self.ready
    }

    /// Puts an operation into its slot and polls it for the first time. Returns its end if
    /// that came at once.
    ///
    /// # Errors
    ///
    /// The slot is out of range or taken.
    pub(crate) fn insert(
        &mut self,
        token: Token,
        handle: Option<Handle>,
        operation: Operation,
    ) -> Result<Option<End>, Violation> {
        if token.slot >= self.most {
            return Err(Violation(format!(
                "it submitted an operation in slot {} of {}",
                token.slot, self.most
            )));
        }
        let index = token.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || Slot {
                waker: None,
                generation: 0,
                handle: None,
                operation: None,
                reach: None,
            });
        }
        let slot = &mut self.slots[index];
        if slot.operation.is_some() {
            return Err(Violation(format!(
                "it submitted a second operation in slot {}, where one is in flight",
                token.slot
            )));
        }
        slot.generation = token.generation;
        slot.handle = handle;
        slot.operation = Some(operation);
        slot.reach = None;
        self.len += 1;
        Ok(self.poll(token.slot).map(|(_, _, end)| end))
    }

    /// The operation that was put into this slot last is not dropped once it reaches into the arena.
    pub(crate) fn respect(&mut self, slot: u32, reach: Reach) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.reach = Some(reach);
        }
    }

    /// Drops an operation if it is still in flight and may be dropped. Returns its handle, if it had one, inside.
    #[allow(
        clippy::option_option,
        reason = "whether it was there, and what it held"
    )]
    pub(crate) fn cancel(&mut self, token: Token) -> Option<Option<Handle>> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if slot.generation != token.generation {
            return None;
        }
        if slot.reach.as_ref().is_some_and(Reach::is_begun) {
            // It completes by itself when the kernel is done with its buffer.
            return None;
        }
        let operation = slot.operation.take()?;
        drop(operation);
        self.len -= 1;
        Some(slot.handle.take())
    }

    /// Drops all operations.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.len = 0;
    }

    /// Polls the operations that were woken until one ends. `None` when all have been polled.
    pub(crate) fn poll_next(&mut self) -> Option<(Token, Option<Handle>, End)> {
        loop {
            while let Some(slot) = self.batch.pop() {
                if let Some(ended) = self.poll(slot) {
                    return Some(ended);
                }
            }
            if !self.ready.is_some() {
                return None;
            }
            self.ready.take(&mut self.batch);
            self.batch.reverse();
        }
    }

    fn poll(&mut self, index: u32) -> Option<(Token, Option<Handle>, End)> {
        let slot = self.slots.get_mut(index as usize)?;
        let ready = &self.ready;
        let (state, waker) = slot.waker.get_or_insert_with(|| {
            let state = Arc::new(SlotWaker {
                slot: index,
                queued: AtomicBool::new(false),
                ready: ready.clone(),
            });
            let waker = Waker::from(state.clone());
            (state, waker)
        });
        // Taken down before the poll, so that a wake during it queues the slot again.
        state.queued.swap(false, Ordering::AcqRel);
        // A wake for a former user of the slot finds nothing, or polls once in vain.
        let operation = slot.operation.as_mut()?;
        let Poll::Ready(end) = operation.as_mut().poll(&mut Context::from_waker(waker)) else {
            return None;
        };
        slot.operation = None;
        self.len -= 1;
        let token = Token {
            slot: index,
            generation: slot.generation,
        };
        Some((token, slot.handle.take(), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;
    use wakebox_abi::status::Status;

    fn token(slot: u32, generation: u32) -> Token {
        Token { slot, generation }
    }

    fn operation(gate: oneshot::Receiver<u32>) -> Operation {
        Box::pin(async move { End::Done(Status::Ok, gate.await.unwrap_or(0)) })
    }

    fn ended(table: &mut InFlight) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| table.poll_next())
            .map(|(token, _, end)| match end {
                End::Done(_, value) => (token.slot, value),
                other => unreachable!("no operation here opens anything: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn operations_end_in_the_order_in_which_they_are_woken() {
        let mut table = InFlight::new(8, Arc::default());
        let mut gates = Vec::new();
        for slot in 0..4 {
            let (open, gate) = oneshot::channel();
            assert!(
                table
                    .insert(token(slot, 1), None, operation(gate))
                    .unwrap()
                    .is_none()
            );
            gates.push(Some(open));
        }
        assert_eq!(ended(&mut table), []);
        for slot in [2, 0, 3] {
            gates[slot].take().unwrap().send(slot as u32 * 10).unwrap();
        }
        assert_eq!(ended(&mut table), [(2, 20), (0, 0), (3, 30)]);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_cancel_for_a_former_user_of_a_slot_changes_nothing() {
        let mut table = InFlight::new(8, Arc::default());
        let (open, gate) = oneshot::channel();
        table.insert(token(5, 2), None, operation(gate)).unwrap();
        assert!(table.cancel(token(5, 1)).is_none());
        assert!(table.cancel(token(6, 2)).is_none());
        open.send(7).unwrap();
        assert_eq!(ended(&mut table), [(5, 7)]);
        assert!(table.cancel(token(5, 2)).is_none());
    }

    #[test]
    fn a_cancelled_operation_is_dropped_at_once() {
        let mut table = InFlight::new(8, Arc::default());
        let (open, gate) = oneshot::channel::<u32>();
        table
            .insert(token(0, 1), Some(Handle(3)), operation(gate))
            .unwrap();
        assert_eq!(table.cancel(token(0, 1)), Some(Some(Handle(3))));
        assert!(open.is_closed());
        assert_eq!((table.len(), ended(&mut table)), (0, vec![]));
    }

    #[test]
    fn a_slot_out_of_range_or_taken_is_a_violation() {
        let mut table = InFlight::new(8, Arc::default());
        let pending = || -> Operation { Box::pin(std::future::pending()) };
        assert!(table.insert(token(8, 0), None, pending()).is_err());
        assert!(table.insert(token(7, 0), None, pending()).is_ok());
        assert!(table.insert(token(7, 1), None, pending()).is_err());
    }
}
