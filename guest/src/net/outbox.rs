//! What was written to a connection and is not sent yet.
//!
//! A write is *posted*: it is submitted, and whoever wrote goes on. So it goes out when the task next waits for
//! something, with whatever else was submitted by then, and the guest is not entered again to hear that it has gone out.
//! The host does those of a connection in their order, so a few are under way at a time ([`MOST`]); the next waits for the end of
//! the first.
//!
//! Writers of [`picoserve`](super::picoserve) collect small writes besides, which are posted together: when the buffer
//! is full, and at the latest when the task that wrote them waits for something, by a task of their own (the *carrier*):
//! it is polled only after that one has come back.
//!
//! ```text
//! collected --> FILLING --- flush, full, or the carrier ---> SENDING (some operations) ---> gone
//!                                                               ^
//! written ------------------------------------------------------'
//! ```
//!
//! When a flush is dropped, or the writer, or the connection, a carrier goes on; the connection is closed
//! when the outbox is empty. Whoever sends has the turn, so the order is that of the writes. A peer
//! that takes nothing holds a connection that everybody has left for [`LINGER`] at most.
//!
//! What cannot be sent is told by the next operation that writes.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Context, Poll, ready};

use wakebox_abi::op::{Amount, Shutdown, ShutdownStream, WriteStream};
use wakebox_abi::status::Status;

use super::OwnedHandle;
use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Posted;
use crate::reactor::{Orphan, Outcome, Owner};
use crate::runtime::{LINGER, runtime, try_runtime};
use crate::task::spawn_named;
use crate::time::timeout;
use crate::turns::{Turn, Turns};

/// Most writes that are under way at a time, and most bytes of them, if there are several.
const MOST: (usize, u32) = (4, 512 << 10);

/// Bytes that are collected before they are sent.
#[cfg(feature = "picoserve")]
const BUFFER: usize = 4 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    // The field order is that of the drop: first the operation, then its handle.
    sending: RefCell<VecDeque<Sending>>,
    filling: RefCell<Option<IoBuf>>,
    /// Of whoever sends.
    turns: Turns,
    /// Whether a carrier is under way.
    carried: Cell<bool>,
    /// Why bytes were not sent.
    failed: Cell<Option<Status>>,
    /// Whether writing ends with the last byte.
    ends: Cell<bool>,
    handle: Rc<OwnedHandle>,
}

#[derive(Debug)]
struct Sending {
    write: Posted,
    /// Bytes.
    len: u32,
}

impl Outbox {
    pub(super) fn new(handle: Rc<OwnedHandle>) -> Rc<Self> {
        Rc::new(Self {
            sending: RefCell::new(VecDeque::new()),
            filling: RefCell::new(None),
            turns: Turns::new(),
            carried: Cell::new(false),
            failed: Cell::new(None),
            ends: Cell::new(false),
            handle,
        })
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.has_room(None) && self.is_unfilled()
    }

    fn is_unfilled(&self) -> bool {
        let filling = self.filling.borrow();
        filling.as_ref().is_none_or(|buf| buf.is_empty())
    }

    /// Whether a write of so many bytes may be posted beside those under way; for `None`, whether none is.
    fn has_room(&self, len: Option<u32>) -> bool {
        let mut sending = self.sending.borrow_mut();
        while let Some(Sending { write, len }) = sending.front_mut()
            && let Some(outcome) = write.take()
        {
            self.ended(outcome, *len);
            sending.pop_front();
        }
        may_be_beside(&sending, len)
    }

    /// Waits until that is so.
    fn poll_room(&self, room: Option<u32>, cx: &mut Context<'_>) -> Poll<()> {
        let mut sending = self.sending.borrow_mut();
        while !may_be_beside(&sending, room) {
            let Some(Sending { write, len }) = sending.front_mut() else {
                break;
            };
            let outcome = ready!(write.poll(cx));
            self.ended(outcome, *len);
            sending.pop_front();
        }
        Poll::Ready(())
    }

    fn ended(&self, outcome: Outcome, len: u32) {
        if outcome != Ok(len) {
            let why = outcome.err().unwrap_or(Status::BrokenPipe);
            self.failed.set(Some(why));
            *self.filling.borrow_mut() = None;
        }
    }

    /// Posts a write, when there is room for it beside those before it. May be dropped; nothing is written then.
    ///
    /// # Errors
    ///
    /// What was written before could not be sent.
    pub(super) async fn send(self: &Rc<Self>, buf: IoBuf) -> Result<()> {
        let len = buf.len() as u32;
        // Behind what was collected, and whoever waits.
        while !(self.is_unfilled() && self.has_room(Some(len))) {
            let sender = self.sender().await;
            poll_fn(|cx| {
                ready!(self.poll_post(cx));
                self.poll_room(Some(len), cx)
            })
            .await;
            drop(sender);
        }
        self.check()?;
        self.post(buf);
        Ok(())
    }

    fn post(&self, buf: IoBuf) {
        let from = buf.filled();
        let write = WriteStream {
            stream: self.handle.0,
            from,
            amount: Amount::All,
        };
        self.sending.borrow_mut().push_back(Sending {
            write: Posted::new(write, buf),
            len: from.len,
        });
    }

    /// Lets `write` append to the buffer, in which there is room for at least a byte.
    ///
    /// # Errors
    ///
    /// What was written before could not be sent.
    #[cfg(feature = "picoserve")]
    pub(super) async fn write<R>(
        self: &Rc<Self>,
        write: impl FnOnce(&mut IoBuf) -> R,
    ) -> Result<R> {
        loop {
            self.check()?;
            let room = self
                .filling
                .borrow()
                .as_ref()
                .map(|buf| buf.capacity() - buf.len());
            match room {
                Some(0) => self.send_all().await,
                Some(_) => break,
                None => {
                    let buf = IoBuf::with_capacity(BUFFER).await?;
                    self.filling.borrow_mut().get_or_insert(buf);
                }
            }
        }
        let result = match &mut *self.filling.borrow_mut() {
            Some(buf) => write(buf),
            None => unreachable!("there is a buffer with room"),
        };
        self.see_to_it();
        Ok(result)
    }

    /// Waits until everything is sent. May be dropped; what is left goes on.
    ///
    /// # Errors
    ///
    /// What was written before could not be sent.
    pub(super) async fn flush(self: &Rc<Self>) -> Result<()> {
        if !self.is_empty() {
            self.send_all().await;
        }
        self.check()
    }

    /// Ends writing when everything is sent, without waiting for it.
    pub(super) fn end(self: &Rc<Self>) {
        self.ends.set(true);
        self.see_to_it();
        self.end_if_asked();
    }

    /// The connection is dropped: what is not sent is seen to.
    pub(super) fn left(self: &Rc<Self>) {
        self.see_to_it();
    }

    /// Whether what was written before could be sent. What is there is sent when the task waits for
    /// something next.
    ///
    /// # Errors
    ///
    /// It could not.
    pub(super) fn check(&self) -> Result<()> {
        match self.failed.take() {
            Some(status) => Err(status.into()),
            None => Ok(()),
        }
    }

    async fn sender(self: &Rc<Self>) -> Sender<'_> {
        Sender {
            outbox: self,
            turn: Some(self.turns.take().await),
        }
    }

    async fn send_all(self: &Rc<Self>) {
        let sender = self.sender().await;
        poll_fn(|cx| self.poll_send(cx)).await;
        drop(sender);
    }

    /// Sees to it that what is there will be sent, also if nobody waits for that.
    fn see_to_it(self: &Rc<Self>) {
        if !self.is_empty() && !self.carried.replace(true) {
            drop(spawn_named("send", carry(self.clone())));
        }
    }

    /// Posts what was collected, when there is room for it. For whoever has the turn.
    fn poll_post(&self, cx: &mut Context<'_>) -> Poll<()> {
        let len = match &*self.filling.borrow() {
            Some(buf) if !buf.is_empty() => buf.len() as u32,
            _ => return Poll::Ready(()),
        };
        ready!(self.poll_room(Some(len), cx));
        let full = self.filling.borrow_mut().take_if(|buf| !buf.is_empty());
        if let Some(buf) = full {
            self.post(buf);
        }
        Poll::Ready(())
    }

    /// Sends until there is nothing left. For whoever has the turn.
    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_empty() {
            ready!(self.poll_post(cx));
            ready!(self.poll_room(None, cx));
        }
        self.end_if_asked();
        Poll::Ready(())
    }

    fn end_if_asked(&self) {
        if self.is_empty()
            && self.ends.take()
            && let Some(runtime) = try_runtime()
        {
            let end = ShutdownStream {
                stream: self.handle.0,
                how: Shutdown::Write,
            };
            let nobody = Owner::Nobody(Orphan::default());
            runtime.reactor.submit_urgent(end.into(), nobody);
        }
    }
}

/// Whether a write of so many bytes may be beside these; for `None`, whether there are none.
fn may_be_beside(sending: &VecDeque<Sending>, len: Option<u32>) -> bool {
    let bytes: u32 = sending.iter().map(|sending| sending.len).sum();
    sending.is_empty()
        || len.is_some_and(|len| {
            sending.len() < MOST.0 && bytes.saturating_add(len) <= MOST.1.min(arena_part())
        })
}

/// As many bytes of the arena as one connection may have for what it writes.
fn arena_part() -> u32 {
    (runtime().arena.len() / 4) as u32
}

/// Somebody who sends and waits for it. If that is dropped before its end, a carrier goes on.
struct Sender<'a> {
    outbox: &'a Rc<Outbox>,
    turn: Option<Turn<'a>>,
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        self.turn = None;
        self.outbox.see_to_it();
    }
}

/// Posts what nobody waits for, and if nobody has the connection any more, or it ends, waits until it is sent.
async fn carry(outbox: Rc<Outbox>) {
    let is_left = || Rc::strong_count(&outbox) == 1;
    let carried = |cx: &mut Context<'_>| match outbox.ends.get() || is_left() {
        true => outbox.poll_send(cx),
        false => outbox.poll_post(cx),
    };
    // Somebody who sends already has a successor if they give up.
    while let Some(turn) = outbox.turns.try_take() {
        let sent = timeout(LINGER, poll_fn(carried)).await;
        drop(turn);
        if sent.is_ok() || is_left() {
            break;
        }
    }
    outbox.carried.set(false);
}

impl Drop for Outbox {
    /// The connection is closed now, by a guest that ends or after [`LINGER`]: what the host takes on
    /// the spot is sent still, before the Close that follows, which also ends what is under way.
    fn drop(&mut self) {
        for Sending { write, .. } in self.sending.get_mut().drain(..) {
            write.leave();
        }
        let Some(buf) = self.filling.get_mut().take_if(|buf| !buf.is_empty()) else {
            return;
        };
        if try_runtime().is_some() {
            self.post(buf);
            for Sending { write, .. } in self.sending.get_mut().drain(..) {
                write.leave();
            }
        }
    }
}
