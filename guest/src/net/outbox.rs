//! What was written to a connection and not sent yet.
//!
//! Small writes are collected, and sent together: by a flush, when the buffer is full, and at the
//! latest when the task that wrote them waits for something, by a task of their own (the *carrier*):
//! it is polled only after that one has come back.
//!
//! ```text
//! write --> FILLING --- flush, full, or the carrier ---> SENDING (one operation) ---> gone
//!                                                           ^     | a part was taken
//!                                                           '-----'
//! ```
//!
//! The operation under way belongs to the outbox and not to the future that waits for it. When a
//! flush is dropped, or the writer, or the connection, a carrier goes on; the connection is closed
//! when the outbox is empty. Whoever sends has the turn, so the order is that of the writes. A peer
//! that takes nothing holds a connection that everybody has left for [`LINGER`] at most.
//!
//! What a carrier cannot send is told by the next operation on the connection.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use wakebox_abi::op::{Amount, Buf, Shutdown, ShutdownStream, WriteStream};
use wakebox_abi::status::Status;

use super::OwnedHandle;
use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Op;
use crate::reactor::{Orphan, Owner};
use crate::runtime::try_runtime;
use crate::task::spawn_named;
use crate::time::timeout;
use crate::turns::{Turn, Turns};

/// Bytes that are collected before they are sent.
const BUFFER: usize = 4 << 10;

/// How long what is left of a connection that nobody has any more may wait for its peer.
const LINGER: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    // The field order is that of the drop: first the operation, then its handle.
    sending: RefCell<Option<Sending>>,
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
    op: Op,
    /// What is sent, of the operation's buffer.
    rest: Buf,
}

impl Outbox {
    pub(super) fn new(handle: Rc<OwnedHandle>) -> Rc<Self> {
        Rc::new(Self {
            sending: RefCell::new(None),
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
        self.sending.borrow().is_none()
            && self
                .filling
                .borrow()
                .as_ref()
                .is_none_or(|buf| buf.is_empty())
    }

    /// Lets `write` append to the buffer, in which there is room for at least a byte.
    ///
    /// # Errors
    ///
    /// What was written before could not be sent.
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
        // A connection that waits for its next request holds no buffer.
        *self.filling.borrow_mut() = None;
        self.check()
    }

    /// Ends writing when everything is sent, without waiting for it.
    pub(super) fn end(self: &Rc<Self>) {
        self.ends.set(true);
        self.see_to_it();
        self.end_if_asked();
    }

    /// Whether what was written before could be sent. What is there is sent when the task waits for
    /// something next: a carrier was told.
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

    async fn send_all(self: &Rc<Self>) {
        let sender = Sender {
            outbox: self,
            turn: Some(self.turns.take().await),
        };
        poll_fn(|cx| self.poll_send(cx)).await;
        drop(sender);
    }

    /// Sees to it that what is there will be sent, also if nobody waits for that.
    fn see_to_it(self: &Rc<Self>) {
        if !self.is_empty() && !self.carried.replace(true) {
            drop(spawn_named("send", carry(self.clone())));
        }
    }

    fn start(&self, rest: Buf, buf: IoBuf) -> Sending {
        let write = WriteStream {
            stream: self.handle.0,
            from: rest,
            amount: Amount::All,
        };
        Sending {
            op: Op::with_buf(write, buf),
            rest,
        }
    }

    /// Sends until there is nothing left. For whoever has the turn.
    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut sending = self.sending.borrow_mut();
            let Some(Sending { op, rest }) = &mut *sending else {
                let full = self.filling.borrow_mut().take_if(|buf| !buf.is_empty());
                let Some(buf) = full else {
                    drop(sending);
                    self.end_if_asked();
                    return Poll::Ready(());
                };
                *sending = Some(self.start(buf.filled(), buf));
                continue;
            };
            let Poll::Ready((outcome, buf)) = Pin::new(op).poll(cx) else {
                return Poll::Pending;
            };
            let rest = *rest;
            *sending = None;
            let mut buf = buf.unwrap_or_else(|| unreachable!("a write has a buffer"));
            match outcome {
                Ok(count @ 1..) if count < rest.len => {
                    let rest = Buf {
                        offset: rest.offset + count,
                        len: rest.len - count,
                    };
                    *sending = Some(self.start(rest, buf));
                }
                Ok(1..) => {
                    buf.clear();
                    self.filling.borrow_mut().get_or_insert(buf);
                }
                Ok(0) | Err(_) => {
                    self.failed
                        .set(Some(outcome.err().unwrap_or(Status::BrokenPipe)));
                    *self.filling.borrow_mut() = None;
                }
            }
        }
    }

    fn end_if_asked(&self) {
        if self.is_empty() && self.ends.take() {
            let end = ShutdownStream {
                stream: self.handle.0,
                how: Shutdown::Write,
            };
            submit(end);
        }
    }
}

/// Submits what nobody waits for.
fn submit(operation: impl wakebox_abi::op::Operation) {
    if let Some(runtime) = try_runtime() {
        let nobody = Owner::Nobody(Orphan::default());
        runtime.reactor.submit_urgent(operation.into(), nobody);
    }
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

/// Sends what nobody waits for.
async fn carry(outbox: Rc<Outbox>) {
    // Somebody who sends already has a successor if they give up.
    while let Some(turn) = outbox.turns.try_take() {
        let sent = timeout(LINGER, poll_fn(|cx| outbox.poll_send(cx))).await;
        drop(turn);
        // Besides this one nobody has it.
        let is_left = Rc::strong_count(&outbox) == 1;
        if sent.is_ok() || is_left {
            break;
        }
    }
    outbox.carried.set(false);
    // A connection that waits for its next request holds no buffer.
    outbox.filling.borrow_mut().take_if(|buf| buf.is_empty());
}

impl Drop for Outbox {
    /// The connection is closed now, by a guest that ends or after [`LINGER`]: what the host takes on
    /// the spot is sent still, before the Close that follows, which also ends what is under way.
    fn drop(&mut self) {
        if let Some(Sending { op, .. }) = self.sending.get_mut().take() {
            op.leave();
        }
        let Some(buf) = self.filling.get_mut().take_if(|buf| !buf.is_empty()) else {
            return;
        };
        if let Some(runtime) = try_runtime() {
            let write = WriteStream {
                stream: self.handle.0,
                from: buf.filled(),
                amount: Amount::All,
            };
            let orphan = Orphan {
                buf: Some(buf),
                ..Orphan::default()
            };
            runtime
                .reactor
                .submit_urgent(write.into(), Owner::Nobody(orphan));
        }
    }
}
