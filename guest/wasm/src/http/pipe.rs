//! A body on its way from a component to a connection.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use wakebox_guest::io::Status;

use super::Fields;
use crate::flight::{Result, Verdict};

/// Bytes that may be under way.
const CAPACITY: usize = 64 << 10;

/// What is written at one end and taken at the other.
#[derive(Default)]
pub(crate) struct Pipe {
    inner: RefCell<Inner>,
    /// How it was sent.
    pub(crate) sent: Rc<Verdict>,
}

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    end: Option<End>,
    /// Whether nobody takes any more.
    is_left: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

/// How the writer has ended.
enum End {
    Whole(Fields),
    /// It is gone, and has not said that this is all.
    Cut,
}

impl Pipe {
    /// How many bytes may be written now; `None` if no more can be.
    pub(crate) fn room(&self) -> Option<usize> {
        let inner = self.inner.borrow();
        let is_open = !inner.is_left && inner.end.is_none();
        is_open.then(|| CAPACITY.saturating_sub(inner.bytes.len()))
    }

    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.room() != Some(0) {
            return Poll::Ready(());
        }
        self.inner.borrow_mut().writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        inner.bytes.extend_from_slice(bytes);
        let reader = inner.reader.take();
        drop(inner);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Says that this was all.
    pub(crate) fn finish(&self, trailers: Fields) {
        self.end(End::Whole(trailers));
    }

    /// Says that nobody writes any more; of no effect after [`Self::finish`].
    pub(crate) fn cut(&self) {
        self.end(End::Cut);
    }

    fn end(&self, end: End) {
        let mut inner = self.inner.borrow_mut();
        inner.end.get_or_insert(end);
        let reader = inner.reader.take();
        drop(inner);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Says that nobody takes any more, and how it was sent.
    pub(crate) fn leave(&self, sent: Result<()>) {
        self.sent.settle(sent);
        let mut inner = self.inner.borrow_mut();
        inner.is_left = true;
        inner.bytes = Vec::new();
        let writer = inner.writer.take();
        drop(inner);
        writer.into_iter().for_each(Waker::wake);
    }

    /// What there is now.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut inner = self.inner.borrow_mut();
        let bytes = core::mem::take(&mut inner.bytes);
        let writer = inner.writer.take();
        drop(inner);
        writer.into_iter().for_each(Waker::wake);
        bytes
    }

    /// The trailers, if this was all.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the writer is gone and has not said so.
    pub(super) fn trailers(&self) -> Result<Option<Fields>> {
        match &mut self.inner.borrow_mut().end {
            Some(End::Whole(trailers)) => Ok(Some(core::mem::take(trailers))),
            Some(End::Cut) => Err(Status::UnexpectedEof),
            None => Ok(None),
        }
    }

    /// Waits until there are bytes, or the end.
    pub(super) async fn filled(&self) {
        poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            if !inner.bytes.is_empty() || inner.end.is_some() {
                return Poll::Ready(());
            }
            inner.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
