//! Upcalls: interrupts that go on in ring 3, in code of the guest's choice, and are masked by a store.
//!
//! In mode `irq` an injected interrupt ends in a ring-0 stub that counts it and returns to what it
//! interrupted ([`Word::Interrupts`]). A guest that names an address in [`Word::Upcall`] has it go on
//! there instead, with every register as it was, and finds what was interrupted in
//! [`Word::UpcallReturn`]. To return, it needs no ring 0: registers are popped, then `popfq` and `ret`.
//!
//! # Who decides
//!
//! The host, before it injects, while the guest stands still: if the word is zero, the interrupt is an
//! ordinary one; else the host writes zero there, the address to [`Word::UpcallTarget`], and injects the
//! other vector ([`crate::port::UPCALL_VECTOR`]). The first instruction that the guest executes then is
//! that of the stub. So the stub has nothing to decide and is three instructions long, which matters
//! where ring 0 is emulated; an upcall begins masked; and a guest that lies in the word hurts
//! itself: 32 bits are an address that `iretq` accepts, and nothing is redirected in ring 0.
//!
//! # The argument
//!
//! Zero in the word is the mask. An interrupt that comes meanwhile adds to the count:
//!
//! ```text
//! guest, masked                              an interrupt, at any instruction
//! M1  note the count                         I1  what it tells of has been published
//! M2  take everything there is               I2  the word is zero: add to the count
//! M3  lift: write the address                    else: upcall, which does M1 to M4
//! M4  read the count again
//! M5  as noted: done; else mask, go to M1
//! ```
//!
//! What an interrupt tells of is lost only if M2 was before I1, and nothing looks again after that. An
//! interrupt before M1 has I1 before M2. One between M1 and M3 finds zero and changes the count, which
//! M4 sees. One after M3 finds the address and is an upcall. There is no fourth case, and no
//! processor's store buffer in it: interrupt and guest are one flow of instructions on one
//! processor, so it is enough that the compiler keeps the order. M3 and M4 the other way round lose
//! those in between: `abi/tests/upcall_model.rs` tries an interrupt at every access, and interrupts within the
//! upcalls of those, with the order and without it.

use core::sync::atomic::{Ordering, compiler_fence};

use crate::memory::{Control, Word};

/// Masks upcalls, for the guest. Returns what was in the word: zero if they were masked before, and then
/// it is not for the caller to lift the mask.
#[inline(always)]
pub fn mask<C: Control>(control: &C) -> u32 {
    // An upcall between the two leaves the word as it found it.
    let was = control.load(Word::Upcall, Ordering::Relaxed);
    if was != 0 {
        control.store(Word::Upcall, 0, Ordering::Relaxed);
    }
    // What is masked does not begin before the mask.
    compiler_fence(Ordering::SeqCst);
    was
}

/// M1: the count, to be noted before what the interrupts tell of is taken.
#[inline(always)]
pub fn count<C: Control>(control: &C) -> u32 {
    let count = control.load(Word::Interrupts, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    count
}

/// M3 to M5: lets upcalls go on at `entry`. Returns whether nothing has come since `noted`; if
/// something has, they are masked again.
#[inline(always)]
pub fn lift<C: Control>(control: &C, entry: u32, noted: u32) -> bool {
    // What was masked ends before the mask.
    compiler_fence(Ordering::SeqCst);
    control.store(Word::Upcall, entry, Ordering::Relaxed); // M3
    // Partner: the interrupt. Race: it finds the mask and adds to the count that was read already.
    compiler_fence(Ordering::SeqCst);
    if control.load(Word::Interrupts, Ordering::Relaxed) == noted {
        // M4
        return true;
    }
    mask(control);
    false
}

/// Takes everything there is and lifts the mask, again and again until nothing has come meanwhile: M1 to
/// M5. `take` is told the count, for whoever lifts the mask next.
#[inline]
pub fn take_and_lift<C: Control>(control: &C, entry: u32, mut take: impl FnMut(u32)) {
    loop {
        let noted = count(control);
        take(noted);
        if lift(control, entry, noted) {
            return;
        }
    }
}

/// Whether the interrupt that the host is about to inject is an upcall: then the words are as its stub
/// wants them. The guest stands still, in ring 3, and takes the interrupt before it executes anything.
#[inline]
pub fn host_begins<C: Control>(control: &C) -> bool {
    let target = control.load(Word::Upcall, Ordering::Relaxed);
    if target == 0 {
        return false;
    }
    control.store(Word::Upcall, 0, Ordering::Relaxed);
    control.store(Word::UpcallTarget, target, Ordering::Relaxed);
    control.store(Word::UpcallTargetHigh, 0, Ordering::Relaxed);
    true
}

/// Whether the guest wants upcalls now, for the host, which need not ask more if not.
#[inline]
pub fn is_wanted<C: Control>(control: &C) -> bool {
    control.load(Word::Upcall, Ordering::Relaxed) != 0
}
