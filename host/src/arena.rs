//! The part of guest memory in which the bytes of operations travel.
//!
//! What is copied from or to it is spent of the turn's [`allowance`]. How long a range is, its guest
//! decides: what may be longer than a [`PIECE`] is copied by a future, piece by piece.

use std::io;
use std::sync::Arc;

use wakebox_abi::op::Buf;
use wakebox_abi::status::Status;
use wakebox_vmm::memory::{GuestMemory, Stay};

use crate::account::{Account, Kept};
use crate::allowance::{self, PIECE, REACH};

/// The range of guest memory in which the bytes of operations travel.
#[derive(Clone, Debug)]
pub(crate) struct Arena {
    memory: Arc<GuestMemory>,
}

impl Arena {
    /// That of a guest's memory.
    pub(crate) fn of(memory: &Arc<GuestMemory>) -> Self {
        Self {
            memory: memory.clone(),
        }
    }

    /// The range that a buffer names, if it lies in the arena.
    pub(crate) fn slice(&self, buf: Buf) -> Option<ArenaSlice> {
        buf.lies_in(self.memory.plan().arena.len)
            .then(|| ArenaSlice {
                memory: self.memory.clone(),
                buf,
            })
    }
}

/// So many bytes were copied in one go.
fn spend(bytes: usize) {
    debug_assert!(
        bytes <= PIECE || !allowance::counts(),
        "{bytes} bytes are copied without a look: a guest says how many"
    );
    allowance::spend(bytes);
}

/// A checked range of the arena.
#[derive(Clone, Debug)]
pub(crate) struct ArenaSlice {
    memory: Arc<GuestMemory>,
    buf: Buf,
}

impl ArenaSlice {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.buf.len as usize
    }

    /// Its first `most` bytes, or all of them.
    pub(crate) fn at_most(mut self, most: usize) -> Self {
        self.buf = self.buf.at_most(most);
        self
    }

    /// What follows its first `count` bytes, which may be nothing.
    pub(crate) fn behind(&self, count: usize) -> Self {
        Self {
            memory: self.memory.clone(),
            buf: self.buf.behind(count),
        }
    }

    fn offset(&self) -> u64 {
        self.memory.plan().arena.offset + u64::from(self.buf.offset)
    }

    /// Its pieces, in order: each short enough to be copied at once.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Self> + use<> {
        let whole = self.clone();
        let starts = (0..self.len()).step_by(PIECE);
        starts.map(move |start| whole.behind(start).at_most(PIECE))
    }

    /// Adds its bytes to some for which there is room.
    fn append_to(&self, bytes: &mut Vec<u8>) {
        let before = bytes.len();
        bytes.resize(before + self.len(), 0);
        self.memory.read(self.offset(), &mut bytes[before..]);
        spend(self.len());
    }

    /// The bytes, copied out once. Who keeps them has charged them, or they are a piece in passing.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if the host has none.
    pub(crate) fn copied(&self) -> Result<Vec<u8>, Status> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(self.len())
            .map_err(|_| Status::OutOfMemory)?;
        self.append_to(&mut bytes);
        Ok(bytes)
    }

    /// A small array's bytes, copied out once, if there are so many.
    pub(crate) fn array<const LEN: usize>(&self) -> Option<[u8; LEN]> {
        let mut bytes = [0; LEN];
        (self.len() >= LEN).then(|| self.memory.read(self.offset(), &mut bytes))?;
        Some(bytes)
    }

    /// The bytes, copied out once and charged for as long as they are kept. For few: others are
    /// [copied in pieces](Self::copy_out).
    ///
    /// # Errors
    ///
    /// As [`Account::room`].
    pub(crate) fn keep(&self, account: &Account) -> Result<Kept, Status> {
        let mut kept = account.room(self.len())?;
        self.append_to(kept.as_mut());
        Ok(kept)
    }

    /// The bytes, copied out once, in as many turns as it takes, and charged for as long as they are
    /// kept. The guest may change what has not been copied yet, as ever.
    ///
    /// # Errors
    ///
    /// As [`Account::room`].
    pub(crate) async fn copy_out(&self, account: &Account) -> Result<Kept, Status> {
        let mut kept = account.room(self.len())?;
        for piece in self.pieces() {
            allowance::give_way().await;
            piece.append_to(kept.as_mut());
        }
        Ok(kept)
    }

    /// Copies bytes to the start of the range, in as many turns as it takes; those that do not fit
    /// are left out. Returns how many were copied.
    pub(crate) async fn copy_in(&self, bytes: &[u8]) -> usize {
        for (piece, bytes) in self.pieces().zip(bytes.chunks(PIECE)) {
            allowance::give_way().await;
            piece.fill(bytes);
        }
        bytes.len().min(self.len())
    }

    /// Copies bytes to the start of the range; those that do not fit are left out.
    /// Returns how many were copied. For few: others are [copied in pieces](Self::copy_in).
    pub(crate) fn fill(&self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.len());
        self.memory.write(self.offset(), &bytes[..count]);
        spend(count);
        count
    }

    /// The range, kept where it is; `None` if it lies nowhere.
    pub(crate) fn lasting(self) -> Option<Lasting> {
        let stay = Stay::of(self.memory.clone())?;
        Some(Lasting {
            slice: self,
            _stay: stay,
        })
    }

    /// Has a system call read or write the range, or its first `most` bytes: `call` gets the first
    /// address and the length, and gives how many bytes it has moved. In a turn that is [`REACH`] at
    /// most, which is more than the largest datagram.
    ///
    /// # Errors
    ///
    /// What `call` says.
    pub(crate) fn in_kernel(
        &self,
        most: usize,
        call: impl FnOnce(*mut u8, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // Who takes the driver's turns keeps the memory where it is; a thread for blocking calls says so.
        let (most, _stay) = if allowance::counts() {
            (most.min(REACH), None)
        } else {
            let stay = self.memory.stay().ok_or(io::ErrorKind::Other)?;
            (most, Some(stay))
        };
        let base = self.memory.pointer(self.offset(), self.buf.len.into());
        let moved = call(base.as_ptr(), self.len().min(most))?;
        allowance::spend(moved);
        Ok(moved)
    }
}

/// A range of the arena that stays where it is.
#[derive(Debug)]
pub(crate) struct Lasting {
    slice: ArenaSlice,
    _stay: Stay<Arc<GuestMemory>>,
}

impl Lasting {
    /// The first address and the length, for the kernel, which may read and write there as long as the value lives.
    pub(crate) fn range(&self) -> (*mut u8, usize) {
        let ArenaSlice { memory, buf } = &self.slice;
        let base = memory.pointer(self.slice.offset(), buf.len.into());
        (base.as_ptr(), self.slice.len())
    }
}
