//! The operations in flight: a table of futures, and who is ready.
//!
//! An operation lies at the slot that its guest has chosen, so nothing is searched. Each
//! slot has one waker for its whole life; waking it puts the slot's index into the queue of
//! the ready and wakes whoever polls the driver. A future that is woken ten times is polled
//! once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wakebox_abi::entry::Token;
use wakebox_abi::op::Request;
use wakebox_abi::status::Status;
use wakebox_vmm::signal::RunPage;

use super::Violation;
use super::backend::Operation;
use crate::names::Names;
use crate::observe::Recorder;

/// The queue of operations that can go on, of a driver beside a vCPU of KVM.
pub(crate) type Ready = super::ready::Ready<RunPage>;

/// Wakes the operation in one slot.
#[derive(Debug)]
struct SlotWaker {
    slot: u32,
    queued: AtomicBool,
    ready: Arc<Ready>,
    recorder: Option<Recorder>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Acquire and release: what the waking side did before is visible to the poll that
        // takes the flag down, even if this wake found it up.
        if !self.queued.swap(true, Ordering::AcqRel) {
            if let Some(recorder) = &self.recorder {
                recorder.ready(self.slot);
            }
            self.ready.push(self.slot);
        }
    }
}

/// What lies in a slot.
struct Slot<O> {
    /// Made at the slot's first use.
    waker: Option<(Arc<SlotWaker>, Waker)>,
    generation: u32,
    operation: Option<O>,
    /// What was asked for, so that it can be issued again.
    request: Request,
    /// When.
    since: Moment,
}

/// A moment, to a few milliseconds: for whoever asks what has long been in flight, at a price that every
/// operation can pay.
#[derive(Clone, Copy, Debug)]
struct Moment(Duration);

impl Moment {
    fn now() -> Self {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        Self(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// Rounds of polls in one turn: what an operation that is done makes ready is mostly done in the next.
const BATCHES: u32 = 8;

/// The table.
pub(crate) struct InFlight<O> {
    /// By what they are [called](Self::of_ring) here.
    slots: Vec<Slot<O>>,
    /// Slots of each ring.
    most: u32,
    names: Names,
    len: u32,
    /// How many of them are of each ring, if there are several.
    lens: Vec<u32>,
    ready: Arc<Ready>,
    /// Slots taken from the queue and not polled yet, last first.
    batch: Vec<u32>,
    /// How often `batch` may still be filled in this turn.
    batches_left: u32,
    /// Writes down which operations are woken, if somebody watches.
    recorder: Option<Recorder>,
}

impl<O> std::fmt::Debug for InFlight<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight")
            .field("len", &self.len)
            .field("most", &self.most)
            .finish()
    }
}

impl<O: Operation<End: From<Status>>> InFlight<O> {
    /// An empty table of at most `most` slots for each of so many rings; memory grows with the highest slot
    /// used.
    pub(crate) fn new(
        most: u32,
        rings: u32,
        ready: Arc<Ready>,
        recorder: Option<Recorder>,
    ) -> Self {
        let lens = match rings {
            1 => Vec::new(),
            rings => vec![0; rings as usize],
        };
        Self {
            slots: Vec::new(),
            most,
            names: Names::of(rings),
            len: 0,
            lens,
            ready,
            batch: Vec::new(),
            batches_left: BATCHES,
            recorder,
        }
    }

    /// The operations in flight.
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.requests().map(|(token, _)| token).collect()
    }

    /// Operations in flight.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The queue of the ready.
    pub(crate) fn ready(&self) -> &Arc<Ready> {
        &self.ready
    }

    /// Operations of one ring in flight.
    #[inline]
    pub(crate) fn len_of(&self, ring: u32) -> u32 {
        self.lens.get(ring as usize).copied().unwrap_or(self.len)
    }

    /// What an operation is called here that a ring calls so. The token was [checked](Self::check_slot).
    #[inline]
    pub(crate) fn of_ring(&self, ring: u32, token: Token) -> Token {
        self.names.of_ring(ring, token)
    }

    /// The ring of an operation, and what that calls it.
    #[inline]
    pub(crate) fn in_ring(&self, token: Token) -> (u32, Token) {
        self.names.in_ring(token)
    }

    /// One more, or one less, of the ring of this slot.
    #[inline]
    fn count(&mut self, slot: u32, more: bool) {
        let ring = self.names.ring(slot);
        let one = if more { 1 } else { u32::MAX };
        self.len = self.len.wrapping_add(one);
        if let Some(len) = self.lens.get_mut(ring as usize) {
            *len = len.wrapping_add(one);
        }
    }

    /// Checks that there is such a slot in a ring.
    ///
    /// # Errors
    ///
    /// The slot is out of range.
    #[inline]
    pub(crate) fn check_slot(&self, token: Token) -> Result<(), Violation> {
        if token.slot >= self.most {
            return Err(Violation::NoSuchSlot {
                slot: token.slot,
                slots: self.most,
            });
        }
        Ok(())
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
        request: Request,
        operation: O,
    ) -> Result<Option<O::End>, Violation> {
        let (_, in_ring) = self.in_ring(token);
        self.check_slot(in_ring)?;
        let index = token.slot as usize;
        let since = Moment::now();
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || Slot {
                waker: None,
                generation: 0,
                operation: None,
                request,
                since,
            });
        }
        let slot = &mut self.slots[index];
        if slot.operation.is_some() {
            return Err(Violation::SlotTaken { slot: in_ring.slot });
        }
        slot.generation = token.generation;
        slot.request = request;
        slot.since = since;
        slot.operation = Some(operation);
        self.count(token.slot, true);
        Ok(self.poll(token.slot).map(|(_, _, end)| end))
    }

    /// The operation in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&O> {
        self.slots.get(slot as usize)?.operation.as_ref()
    }

    /// An operation in flight, what it was started with, and how long ago.
    pub(crate) fn find(&self, token: Token) -> Option<(&Request, &O, Duration)> {
        let slot = self.slots.get(token.slot as usize)?;
        let operation = slot.operation.as_ref()?;
        (slot.generation == token.generation)
            .then(|| (&slot.request, operation, slot.since.elapsed()))
    }

    /// What the operations in flight were started with, to issue them again elsewhere.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (Token, Request)> {
        let used = (0..).zip(&self.slots);
        used.filter(|(_, slot)| slot.operation.is_some())
            .map(|(index, slot)| {
                let generation = slot.generation;
                let slot_of = Token {
                    slot: index,
                    generation,
                };
                (slot_of, slot.request)
            })
    }

    /// Takes an operation out, to be dropped, if it is still in flight and may be dropped.
    pub(crate) fn cancel(&mut self, token: Token) -> Option<O> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if slot.generation != token.generation {
            return None;
        }
        let operation = slot
            .operation
            .take_if(|operation| operation.may_be_dropped())?;
        self.count(token.slot, false);
        Some(operation)
    }

    /// Whether no operation reaches into the guest's memory from elsewhere.
    pub(crate) fn may_all_be_dropped(&self) -> bool {
        let mut operations = self.slots.iter().filter_map(|slot| slot.operation.as_ref());
        operations.all(Operation::may_be_dropped)
    }

    /// All operations. Given up when they are dropped.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = O> + Send + use<O> {
        self.len = 0;
        self.lens.fill(0);
        let slots = std::mem::take(&mut self.slots).into_iter();
        slots.filter_map(|slot| slot.operation)
    }

    /// Begins a turn, or several that do the work of one. An operation that wakes itself whenever it
    /// is polled does not keep its driver: after so many rounds it waits until this is called again,
    /// for which its wake has asked.
    pub(crate) fn begin_turn(&mut self) {
        self.batches_left = BATCHES;
    }

    /// The next slot whose operation was woken, to be polled. `None` when all have been.
    pub(crate) fn next_ready(&mut self) -> Option<u32> {
        if self.batch.is_empty() {
            if self.batches_left == 0 || !self.ready.is_some() {
                return None;
            }
            self.batches_left -= 1;
            self.ready.take(&mut self.batch);
            self.batch.reverse();
        }
        self.batch.pop()
    }

    /// Polls the operation in a slot. Returns its end if that came.
    pub(crate) fn poll(&mut self, index: u32) -> Option<(Token, O, O::End)> {
        let slot = self.slots.get_mut(index as usize)?;
        let (ready, recorder) = (&self.ready, &self.recorder);
        let (state, waker) = slot.waker.get_or_insert_with(|| {
            let state = Arc::new(SlotWaker {
                slot: index,
                queued: AtomicBool::new(false),
                ready: ready.clone(),
                recorder: recorder.clone(),
            });
            let waker = Waker::from(state.clone());
            (state, waker)
        });
        // Taken down before the poll, so that a wake during it queues the slot again.
        state.queued.swap(false, Ordering::AcqRel);
        // A wake for a former user of the slot finds nothing, or polls once in vain.
        let operation = slot.operation.as_mut()?;
        // Tokio panics where it cannot start a thread for a blocking call. One operation ends of
        // that, not the sandbox, and nobody else's task.
        let poll = || Pin::new(&mut *operation).poll(&mut Context::from_waker(waker));
        let poll = catch_unwind(AssertUnwindSafe(poll));
        let Poll::Ready(end) = poll.unwrap_or(Poll::Ready(Status::OutOfMemory.into())) else {
            return None;
        };
        let operation = slot.operation.take()?;
        let token = Token {
            slot: index,
            generation: slot.generation,
        };
        self.count(index, false);
        Some((token, operation, end))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::sync::oneshot;
    use wakebox_abi::op;

    use super::*;

    /// How an operation of these tests ends.
    #[derive(Debug, PartialEq, Eq)]
    enum End {
        Value(u32),
        Status(Status),
    }

    impl From<Status> for End {
        fn from(status: Status) -> Self {
            Self::Status(status)
        }
    }

    struct Boxed(Pin<Box<dyn Future<Output = End> + Send>>);

    impl Boxed {
        fn new(future: impl Future<Output = End> + Send + 'static) -> Self {
            Self(Box::pin(future))
        }
    }

    impl std::fmt::Debug for Boxed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Boxed")
        }
    }

    impl Future for Boxed {
        type Output = End;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
            self.0.as_mut().poll(context)
        }
    }

    impl Operation for Boxed {
        type End = End;
    }

    const NOP: Request = Request::Nop(op::Nop {});

    fn token(slot: u32, generation: u32) -> Token {
        Token { slot, generation }
    }

    fn operation(gate: oneshot::Receiver<u32>) -> Boxed {
        Boxed::new(async move { End::Value(gate.await.unwrap_or(0)) })
    }

    fn ended(table: &mut InFlight<Boxed>) -> Vec<(u32, u32)> {
        table.begin_turn();
        std::iter::from_fn(|| table.next_ready().map(|slot| table.poll(slot)))
            .flatten()
            .map(|(token, _, end)| match end {
                End::Value(value) => (token.slot, value),
                End::Status(status) => unreachable!("no operation here ends with {status:?}"),
            })
            .collect()
    }

    #[test]
    fn operations_end_in_the_order_in_which_they_are_woken() {
        let mut table = InFlight::new(8, 1, Arc::new(Ready::new(None)), None);
        let mut gates = Vec::new();
        for slot in 0..4 {
            let (open, gate) = oneshot::channel();
            assert!(
                table
                    .insert(token(slot, 1), NOP, operation(gate))
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
        let mut table = InFlight::new(8, 1, Arc::new(Ready::new(None)), None);
        let (open, gate) = oneshot::channel();
        table.insert(token(5, 2), NOP, operation(gate)).unwrap();
        assert!(table.cancel(token(5, 1)).is_none());
        assert!(table.cancel(token(6, 2)).is_none());
        open.send(7).unwrap();
        assert_eq!(ended(&mut table), [(5, 7)]);
        assert!(table.cancel(token(5, 2)).is_none());
    }

    #[test]
    fn a_cancelled_operation_is_dropped_at_once() {
        let mut table = InFlight::new(8, 1, Arc::new(Ready::new(None)), None);
        let (open, gate) = oneshot::channel::<u32>();
        table.insert(token(0, 1), NOP, operation(gate)).unwrap();
        assert_eq!(table.requests().next(), Some((token(0, 1), NOP)));
        drop(table.cancel(token(0, 1)).unwrap());
        assert!(open.is_closed());
        assert_eq!((table.len(), ended(&mut table)), (0, vec![]));
    }

    #[test]
    fn an_operation_that_always_wakes_itself_does_not_keep_its_driver() {
        let mut table = InFlight::new(8, 1, Arc::new(Ready::new(None)), None);
        let restless: Boxed = Boxed::new(std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }));
        table.insert(token(0, 1), NOP, restless).unwrap();
        let (open, gate) = oneshot::channel();
        table.insert(token(1, 1), NOP, operation(gate)).unwrap();
        assert_eq!(ended(&mut table), []);
        open.send(7).unwrap();
        assert_eq!(ended(&mut table), [(1, 7)]);
        assert!(
            table.ready().is_some(),
            "the restless one has asked for another turn"
        );
    }

    #[test]
    fn an_operation_that_panics_ends_alone() {
        let mut table = InFlight::new(8, 1, Arc::new(Ready::new(None)), None);
        let (open, gate) = oneshot::channel();
        table.insert(token(0, 1), NOP, operation(gate)).unwrap();
        let panics: Boxed = Boxed::new(async { panic!("a panic that a test asked for") });
        let end = table.insert(token(1, 1), NOP, panics).unwrap();
        assert!(matches!(end, Some(End::Status(Status::OutOfMemory))));
        open.send(5).unwrap();
        assert_eq!(ended(&mut table), [(0, 5)]);
    }

    #[test]
    fn operations_of_two_rings_in_a_slot_of_one_number_are_two() {
        let mut table = InFlight::new(8, 3, Arc::new(Ready::new(None)), None);
        let mut gates = Vec::new();
        for ring in [0, 2] {
            let (open, gate) = oneshot::channel();
            let token = table.of_ring(ring, token(5, 1));
            assert_eq!(table.in_ring(token), (ring, self::token(5, 1)));
            assert!(table.insert(token, NOP, operation(gate)).unwrap().is_none());
            gates.push(open);
        }
        assert_eq!([0, 1, 2].map(|ring| table.len_of(ring)), [1, 0, 1]);
        gates.pop().unwrap().send(7).unwrap();
        let of_the_last = table.of_ring(2, token(5, 1)).slot;
        assert_eq!(ended(&mut table), [(of_the_last, 7)]);
        assert_eq!([0, 1, 2].map(|ring| table.len_of(ring)), [1, 0, 0]);
        drop(table.cancel(table.of_ring(0, token(5, 1))).unwrap());
        assert_eq!((table.len(), table.len_of(0)), (0, 0));
    }

    #[test]
    fn a_slot_out_of_range_or_taken_is_a_violation() {
        let mut table = InFlight::new(8, 1, Arc::new(Ready::new(None)), None);
        let pending = || -> Boxed { Boxed::new(std::future::pending()) };
        assert!(table.insert(token(8, 0), NOP, pending()).is_err());
        assert!(table.insert(token(7, 0), NOP, pending()).is_ok());
        assert!(table.insert(token(7, 1), NOP, pending()).is_err());
    }
}
