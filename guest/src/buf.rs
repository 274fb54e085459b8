//! The I/O arena and the buffers taken from it.
//!
//! The host reads and writes bytes only in the arena, so what is sent or received
//! passes through an [`IoBuf`]. Reading into one and writing from one copies nothing.

use alloc::boxed::Box;
use core::alloc::Layout;
use core::fmt;
use core::future::Future;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll};

use talc::base::Talc;
use talc::base::binning::DefaultBinning;
use talc::source::Manual;
use wakebox_abi::op::Buf;
use wakebox_abi::status::Status;

use crate::io::{Error, Result};
use crate::mask;
use crate::runtime::runtime;
use crate::several::SharedCell;
use crate::wait_queue::{Key, WaitQueue};

/// Buffers begin at a multiple of this.
const ALIGN: usize = 16;

/// The arena's free space.
pub(crate) struct Arena {
    start: usize,
    len: usize,
    space: SharedCell<Free>,
    /// Those who need more than there is.
    queue: SharedCell<WaitQueue>,
}

/// What nobody has.
struct Free {
    talc: Talc<Manual, DefaultBinning>,
    bytes: usize,
}

impl Arena {
    /// An arena in a range of memory.
    ///
    /// # Safety
    ///
    /// Only the arena and the host use the range, for ever, and the host only where an
    /// operation in flight names it.
    pub(crate) unsafe fn new(start: usize, len: usize) -> Self {
        let mut space = Talc::new(Manual);
        // SAFETY: the range is ours for ever. Too small a range leaves an arena without
        // space, in which every allocation fails.
        let _ = unsafe { space.claim(core::ptr::with_exposed_provenance_mut(start), len) };
        Self {
            start,
            len,
            space: SharedCell::new(Free {
                talc: space,
                bytes: len,
            }),
            queue: SharedCell::new(WaitQueue::new()),
        }
    }

    fn layout(capacity: u32) -> Layout {
        // Never zero, as the allocator wants it.
        match Layout::from_size_align((capacity as usize).max(1), ALIGN) {
            Ok(layout) => layout,
            Err(_) => unreachable!("32 bits of size and a small power of two"),
        }
    }

    /// A buffer, if there is space for it now.
    pub(crate) fn allocate(&self, capacity: u32) -> Option<IoBuf> {
        let mut free = self.space.borrow_mut();
        // SAFETY: the size is not zero.
        let start = unsafe { free.talc.try_allocate(Self::layout(capacity))? };
        free.bytes = free.bytes.saturating_sub(capacity as usize);
        Some(IoBuf {
            start,
            len: 0,
            capacity,
        })
    }

    /// Takes a buffer's space back and lets the first in the queue try again.
    fn free(&self, buf: &mut IoBuf) {
        let _masked = mask::mask();
        {
            let mut free = self.space.borrow_mut();
            // SAFETY: `allocate` gave it out with this layout, and a buffer ends once.
            unsafe {
                free.talc
                    .deallocate(buf.start.as_ptr(), Self::layout(buf.capacity));
            }
            free.bytes += buf.capacity as usize;
        }
        let first = self.queue.borrow().first();
        if let Some(waker) = first {
            waker.wake();
        }
    }

    /// Where an address lies, in bytes from the start.
    fn offset(&self, start: NonNull<u8>) -> u32 {
        (start.addr().get() - self.start) as u32
    }

    /// Whether somebody needs more than there is.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("len", &self.len)
            .field("free", &self.space.borrow().bytes)
            .finish_non_exhaustive()
    }
}

/// Bytes in the I/O arena, owned: what operations read into and write from.
///
/// A buffer has a capacity that never changes and a length within it; it dereferences
/// to its first `len` bytes. All of its memory is initialized at any time, with whatever
/// this guest had there before, so the length may be set freely.
pub struct IoBuf {
    start: NonNull<u8>,
    len: u32,
    capacity: u32,
}

impl IoBuf {
    /// An empty buffer of this capacity in bytes. Waits, first come first served, while
    /// the arena has no space for it.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if the whole arena is smaller than that.
    pub fn with_capacity(capacity: usize) -> impl Future<Output = Result<Self>> {
        Space {
            capacity,
            key: None,
        }
    }

    /// A buffer with a copy of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`Self::with_capacity`].
    pub async fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut buf = Self::with_capacity(bytes.len()).await?;
        buf.extend_from_slice(bytes);
        Ok(buf)
    }

    /// An empty buffer of this capacity in bytes, if there is space for it now.
    #[must_use]
    pub fn try_with_capacity(capacity: usize) -> Option<Self> {
        runtime().arena.allocate(u32::try_from(capacity).ok()?)
    }

    /// Most bytes that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Sets the length in bytes. What is added has the value that it had before.
    ///
    /// # Panics
    ///
    /// If `len` exceeds the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "longer than the buffer's capacity");
        self.len = len as u32;
    }

    /// Sets the length to zero.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends as much of `bytes` as there is room for, and returns how much that is.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let old = self.len();
        let count = bytes.len().min(self.capacity() - old);
        self.set_len(old + count);
        self[old..].copy_from_slice(&bytes[..count]);
        count
    }

    /// The bytes that it holds, for an operation that reads them.
    pub(crate) fn filled(&self) -> Buf {
        Buf {
            offset: runtime().arena.offset(self.start),
            len: self.len,
        }
    }

    /// Its whole capacity, as an operation that has ended left it.
    pub(crate) fn written(&self) -> &[u8] {
        // SAFETY: as in `deref`, up to the capacity.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.capacity()) }
    }

    /// Its whole capacity, for an operation that writes to it.
    pub(crate) fn whole(&self) -> Buf {
        Buf {
            len: self.capacity,
            ..self.filled()
        }
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is allocated to this buffer alone and initialized (the host
        // gives zeroed memory), and no operation uses it: that would own the buffer.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for IoBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for IoBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoBuf")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        runtime().arena.free(self);
    }
}

/// Waits for space in the arena.
struct Space {
    capacity: usize,
    key: Option<Key>,
}

impl Future for Space {
    type Output = Result<IoBuf>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let arena = &runtime().arena;
        // Nothing larger than this ever fits beside the allocator's own bookkeeping.
        let max = arena.len() - arena.len() / 8;
        let Some(capacity) = u32::try_from(self.capacity)
            .ok()
            .filter(|&capacity| capacity as usize <= max)
        else {
            let what: Box<str> = alloc::format!("a buffer of {} bytes", self.capacity).into();
            return Poll::Ready(Err(Error::new(Status::OutOfMemory, what)));
        };
        let is_next = match self.key {
            Some(key) => arena.queue.borrow().is_first(key),
            None => arena.queue.borrow().is_empty(),
        };
        if is_next && let Some(buf) = arena.allocate(capacity) {
            self.leave();
            return Poll::Ready(Ok(buf));
        }
        match self.key {
            Some(key) => {
                // Dropped after the borrow.
                let _old = arena.queue.borrow_mut().renew(key, cx.waker());
            }
            None => {
                let key = arena.queue.borrow_mut().join(cx.waker());
                self.key = Some(key);
                // Another processor may have freed what is needed before this stood in the queue.
                #[cfg(feature = "processors")]
                if arena.queue.borrow().is_first(key)
                    && let Some(buf) = arena.allocate(capacity)
                {
                    self.leave();
                    return Poll::Ready(Ok(buf));
                }
            }
        }
        Poll::Pending
    }
}

impl Space {
    /// Leaves the queue, so that the next may try.
    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            let left = runtime().arena.queue.borrow_mut().leave(key);
            if let (_, Some(next)) = left {
                next.wake();
            }
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.leave();
    }
}
