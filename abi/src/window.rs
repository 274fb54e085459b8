//! Windows: address space in which a guest lays pages of its heap out once more, with nothing behind them.
//!
//! A guest that asks for windows ([`crate::note`]) has so many ranges of [`WINDOW_SPACE`] bytes in which nothing lies. It
//! rings [`port::MAP`](crate::port::MAP), and pages of its heap appear in one of them, too, readable and writable; whatever
//! it touches there beside them faults. So a program whose addresses have 32 bits needs no check of bounds. The pages
//! are the heap's still, at both addresses.
//!
//! # Who decides
//!
//! Page tables are the host's. It writes an entry where there was none, of a page of this guest's heap, in a window of
//! this guest; all else is refused, and the [`Answer`] says so. A page that no longer lies in a window holds
//! what nobody knows afterwards, at its address in the heap, too: the host has given it back.
//!
//! # Faults
//!
//! If [`Word::FaultEntry`] of a guest with windows is not zero, a fault of ring 3 goes on there, with every register as it was: one at an address
//! in a window, or before the first at which anything is ever mapped (compiled code calls by null pointers), an instruction that there is not (`ud2`), or a division that cannot be. The host writes zero
//! into the word, and tells of the fault in [`Word::FaultAt`] and the words behind it. So a fault in what handles one,
//! and any other fault, ends the guest as without this. Who cannot make anything of a fault returns to where it was,
//! with the registers as they were, and faults again.
//!
//! It costs the host some calls of KVM: it is for what ends a computation, not for what is a part of one.

use core::sync::atomic::Ordering;

use crate::layout::{IMAGE_MIN, PAGE_SIZE, WINDOW_SPACE, WINDOWS, WINDOWS_MAX};
use crate::memory::{Control, Word};

/// Most pages of one [`port::MAP`](crate::port::MAP).
pub const MOST: u32 = 4096;

/// Bytes of a window in which pages may lie.
pub const LEN: u64 = 4 << 30;

/// Vectors of exceptions that may go on at [`Word::FaultEntry`] (Intel SDM vol. 3A, 6.15).
pub mod fault {
    /// A division by zero, or one whose result is too large.
    pub const DIVIDE: u8 = 0;
    /// An instruction that there is not.
    pub const INVALID: u8 = 6;
    /// A page fault, if its address lies in a window, or before [`IMAGE_MIN`](crate::layout::IMAGE_MIN).
    pub const PAGE: u8 = 14;
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Answer {
    /// It is done.
    Done = 0,
    /// Some of it does not lie in the first [`LEN`] bytes of a window that the guest has; more than [`MOST`] are asked for, or none.
    NoWindow = 1,
    /// Some of what is to appear is no page of the heap.
    NotHeap = 2,
    /// Something lies there already.
    Taken = 3,
    /// There is no room for page tables.
    NoRoom = 4,
}

impl Answer {
    /// What a number stands for; `NoWindow` for one that this version does not know.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Done,
            2 => Self::NotHeap,
            3 => Self::Taken,
            4 => Self::NoRoom,
            _ => Self::NoWindow,
        }
    }
}

/// Pages of a window, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The first.
    pub page: u32,
    /// The first page of the heap that is to appear there, or zero.
    pub from: u32,
    /// How many.
    pub count: u32,
}

impl Request {
    /// What the guest asks for, each word read once.
    pub fn read<C: Control>(control: &C) -> Self {
        let word = |word| control.load(word, Ordering::Relaxed);
        Self {
            page: word(Word::WindowPage),
            from: word(Word::WindowFrom),
            count: word(Word::WindowCount),
        }
    }

    /// Asks for this.
    pub fn write<C: Control>(&self, control: &C) {
        control.store(Word::WindowPage, self.page, Ordering::Relaxed);
        control.store(Word::WindowFrom, self.from, Ordering::Relaxed);
        control.store(Word::WindowCount, self.count, Ordering::Relaxed);
    }

    /// Whether it lies in one of so many windows, and asks for no more than it may.
    #[must_use]
    pub fn fits(&self, windows: u32) -> bool {
        let (start, len) = (
            u64::from(self.page) * PAGE_SIZE,
            u64::from(self.count) * PAGE_SIZE,
        );
        let Some(offset) = start.checked_sub(WINDOWS) else {
            return false;
        };
        (1..=MOST).contains(&self.count)
            && offset / WINDOW_SPACE < u64::from(windows.min(WINDOWS_MAX))
            && offset % WINDOW_SPACE + len <= LEN
    }
}

/// Whether an address lies in one of so many windows, or in what lies behind it.
#[must_use]
pub fn holds(address: u64, windows: u32) -> bool {
    address
        .checked_sub(WINDOWS)
        .is_some_and(|offset| offset / WINDOW_SPACE < u64::from(windows))
}

/// A fault that goes on in ring 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The instruction's address.
    pub at: u64,
    /// The vector of the exception ([`fault`]).
    pub kind: u8,
    /// The address that could not be reached; zero for exceptions that have none.
    pub address: u64,
}

impl Fault {
    /// The last one, for the guest.
    pub fn read<C: Control>(control: &C) -> Self {
        let address = |low, high| control.load_address(low, high, Ordering::Relaxed);
        Self {
            at: address(Word::FaultAt, Word::FaultAtHigh),
            kind: control.load(Word::FaultKind, Ordering::Relaxed) as u8,
            address: address(Word::FaultAddress, Word::FaultAddressHigh),
        }
    }

    /// Whether it is one that may go on, in a guest with so many windows.
    #[must_use]
    pub fn may_go_on(&self, windows: u32) -> bool {
        match self.kind {
            fault::DIVIDE | fault::INVALID => windows > 0,
            fault::PAGE => windows > 0 && self.address < IMAGE_MIN || holds(self.address, windows),
            _ => false,
        }
    }

    /// Begins it, for the host, while the guest stands still: gives where the guest goes on, or `None` if it does not.
    pub fn begin<C: Control>(&self, control: &C) -> Option<u32> {
        let entry = control.load(Word::FaultEntry, Ordering::Relaxed);
        if entry == 0 {
            return None;
        }
        control.store(Word::FaultEntry, 0, Ordering::Relaxed);
        control.store_address(Word::FaultAt, Word::FaultAtHigh, self.at, Ordering::Relaxed);
        let (low, high) = (Word::FaultAddress, Word::FaultAddressHigh);
        control.store_address(low, high, self.address, Ordering::Relaxed);
        control.store(Word::FaultKind, self.kind.into(), Ordering::Relaxed);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::window_of;

    fn request(address: u64, count: u32) -> Request {
        Request {
            page: (address / PAGE_SIZE) as u32,
            from: 1,
            count,
        }
    }

    #[test]
    fn what_is_asked_for_lies_in_the_first_half_of_a_window() {
        let half = WINDOW_SPACE / 2;
        for (address, count, fits) in [
            (WINDOWS, 1, true),
            (WINDOWS, MOST, true),
            (WINDOWS, MOST + 1, false),
            (WINDOWS, 0, false),
            (WINDOWS, u32::MAX, false),
            (WINDOWS - PAGE_SIZE, 1, false),
            (WINDOWS - PAGE_SIZE, 2, false),
            (WINDOWS + half - PAGE_SIZE, 1, true),
            (WINDOWS + half - PAGE_SIZE, 2, false),
            (WINDOWS + half, 1, false),
            (window_of(1), 1, true),
            (window_of(2), 1, false),
            (0, 1, false),
            (u64::from(u32::MAX) * PAGE_SIZE, 1, false),
        ] {
            let request = request(address, count);
            assert_eq!(request.fits(2), fits, "{address:#x}, {count}");
            assert!(!request.fits(0));
        }
        assert!(request(window_of(WINDOWS_MAX - 1), 1).fits(u32::MAX));
        assert!(!request(window_of(WINDOWS_MAX), 1).fits(u32::MAX));
    }

    #[test]
    fn an_address_lies_in_a_window_or_in_what_is_behind_it() {
        assert!(!holds(WINDOWS, 0) && !holds(WINDOWS - 1, 1) && !holds(0, 1));
        assert!(holds(WINDOWS, 1) && holds(window_of(1) - 1, 1) && !holds(window_of(1), 1));
    }
}
