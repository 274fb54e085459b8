//! Reading without losing bytes.

use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::Pin;

use wakebox_abi::op::{Buf, Operation};
use wakebox_abi::status::Status;

use crate::buf::IoBuf;
use crate::op::Op;
use crate::turns::Turns;

/// Least and most bytes that are asked for on behalf of a slice.
const READ_SIZE: core::ops::RangeInclusive<usize> = 2 << 10..=16 << 10;

/// The reading end of something.
///
/// The read in flight belongs to it and not to the future that waits: when that is
/// dropped, the next one takes over, and no byte is lost.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Bytes that were read and not yet delivered, from `at` on.
    rest: RefCell<Option<IoBuf>>,
    at: Cell<usize>,
    op: RefCell<Option<Op>>,
    /// Of those who read.
    turns: Turns,
}

impl Reader {
    pub(crate) const fn new() -> Self {
        Self {
            rest: RefCell::new(None),
            at: Cell::new(0),
            op: RefCell::new(None),
            turns: Turns::new(),
        }
    }

    /// Reads into a slice and returns the number of bytes; zero is the end, or an empty slice.
    pub(crate) async fn read<O: Operation>(
        &self,
        into: &mut [u8],
        operation: impl FnOnce(Buf) -> O,
    ) -> Result<usize, Status> {
        let _turn = self.turns.take().await;
        if into.is_empty() {
            return Ok(0);
        }
        if !self.has_rest() {
            let size = into.len().clamp(*READ_SIZE.start(), *READ_SIZE.end());
            self.fill(size, operation).await?;
        }
        Ok(self.take(into))
    }

    /// Sees to it that there is at least a byte, and asks for about `wanted` bytes if there is none.
    /// Returns whether there is: not at the end.
    pub(crate) async fn fill_rest<O: Operation>(
        &self,
        wanted: usize,
        operation: impl FnOnce(Buf) -> O,
    ) -> Result<bool, Status> {
        let _turn = self.turns.take().await;
        if !self.has_rest() {
            let size = wanted.clamp(*READ_SIZE.start(), *READ_SIZE.end());
            self.fill(size, operation).await?;
        }
        Ok(self.has_rest())
    }

    /// Reads into a buffer, from its start, without copying unless bytes are there already.
    pub(crate) async fn read_buf<O: Operation>(
        &self,
        mut into: IoBuf,
        operation: impl FnOnce(Buf) -> O,
    ) -> (Result<usize, Status>, IoBuf) {
        into.clear();
        let _turn = self.turns.take().await;
        if !self.has_rest() {
            if self.op.borrow().is_none() {
                *self.op.borrow_mut() = Some(Op::with_buf(operation(into.whole()), into));
                let outcome = self.finish().await;
                // Nobody else had a turn meanwhile, so this is the caller's buffer.
                let own = self
                    .rest
                    .borrow_mut()
                    .take()
                    .unwrap_or_else(|| unreachable!("a read gives its buffer back"));
                return (outcome, own);
            }
            if let Err(status) = self.finish().await {
                return (Err(status), into);
            }
        }
        into.set_len(into.capacity());
        let count = self.take(&mut into);
        into.set_len(count);
        (Ok(count), into)
    }

    /// The bytes at hand, given to `look`, which says how many of them are used up.
    pub(crate) fn consume(&self, look: impl FnOnce(&[u8]) -> usize) {
        if let Some(rest) = &*self.rest.borrow() {
            let at = self.at.get();
            self.at.set(at + look(&rest[at..]));
        }
    }

    /// The bytes at hand, for whoever has the reader alone.
    #[cfg(feature = "embedded-io-async")]
    pub(crate) fn rest(&mut self) -> &[u8] {
        let at = self.at.get();
        self.rest.get_mut().as_ref().map_or(&[], |rest| &rest[at..])
    }

    /// Ends the read in flight without a Cancel: what follows closes its source.
    pub(crate) fn leave(&self) {
        if let Some(op) = self.op.borrow_mut().take() {
            op.leave();
        }
    }

    /// Whether no read is under way and no byte is left.
    pub(crate) fn is_idle(&self) -> bool {
        self.op.borrow().is_none() && !self.has_rest()
    }

    fn has_rest(&self) -> bool {
        let rest = self.rest.borrow();
        rest.as_ref().is_some_and(|rest| self.at.get() < rest.len())
    }

    fn take(&self, into: &mut [u8]) -> usize {
        let mut count = 0;
        self.consume(|bytes| {
            count = bytes.len().min(into.len());
            into[..count].copy_from_slice(&bytes[..count]);
            count
        });
        count
    }

    /// Starts a read of `size` bytes, unless one is in flight, and waits for it.
    async fn fill<O: Operation>(
        &self,
        size: usize,
        operation: impl FnOnce(Buf) -> O,
    ) -> Result<usize, Status> {
        if self.op.borrow().is_none() {
            // The last buffer will do if it is as large.
            let old = self.rest.borrow_mut().take();
            let buf = match old.filter(|buf| buf.capacity() == size) {
                Some(buf) => buf,
                None => IoBuf::with_capacity(size)
                    .await
                    .map_err(|error| error.status())?,
            };
            *self.op.borrow_mut() = Some(Op::with_buf(operation(buf.whole()), buf));
        }
        self.finish().await
    }

    /// Waits for the read in flight. What it brought is the rest.
    async fn finish(&self) -> Result<usize, Status> {
        let (outcome, buf) = poll_fn(|cx| match &mut *self.op.borrow_mut() {
            Some(op) => Pin::new(op).poll(cx),
            None => unreachable!("the caller has started a read"),
        })
        .await;
        *self.op.borrow_mut() = None;
        let mut buf = buf.unwrap_or_else(|| unreachable!("a read has a buffer"));
        let count = (outcome.unwrap_or(0) as usize).min(buf.capacity());
        buf.set_len(count);
        self.at.set(0);
        *self.rest.borrow_mut() = Some(buf);
        outcome.map(|_| count)
    }
}
