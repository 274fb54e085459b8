//! The largest blocks of the heap and who has asked for them, kept while somebody watches
//! ([`wakebox_abi::heap`]).

use core::arch::asm;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use wakebox_abi::boot::Boot;
use wakebox_abi::heap::{LEAST, Large, PLACES, STACK};
use wakebox_abi::layout;

use crate::{machine, trace};

/// The records, once there are some. The host reads it as a word.
static RECORDS: AtomicPtr<[Large; PLACES]> = AtomicPtr::new(null_mut());

/// Bytes of a processor's stack.
static STACK_LEN: AtomicU64 = AtomicU64::new(0);

/// Where the word lies that has the records' address, or zero.
pub(crate) fn address() -> usize {
    (&raw const RECORDS).addr()
}

pub(crate) fn begin(boot: &Boot) {
    STACK_LEN.store(boot.stack.len, Ordering::Relaxed);
}

/// A block has been given to whoever called the allocator. `allocate` gives room for the records, or null.
///
/// # Safety
///
/// Whoever calls is alone here and in [`taken`] until it returns.
#[inline(always)]
pub(crate) unsafe fn given(block: *mut u8, len: usize, allocate: impl FnOnce() -> *mut u8) {
    if len as u64 >= LEAST && trace::is_on() && !block.is_null() {
        // SAFETY: the caller's promise.
        unsafe { record(block.addr() as u64, len as u64, allocate) };
    }
}

/// A block has been taken back.
///
/// # Safety
///
/// As [`given`].
#[inline(always)]
pub(crate) unsafe fn taken(block: *mut u8, len: usize) {
    if len as u64 >= LEAST {
        // SAFETY: the records are there, if any are, and the caller is alone.
        let records = unsafe { RECORDS.load(Ordering::Relaxed).as_mut() };
        if let Some(records) = records {
            strike(records, block.addr() as u64);
        }
    }
}

/// # Safety
///
/// As [`given`].
#[cold]
unsafe fn record(address: u64, len: u64, allocate: impl FnOnce() -> *mut u8) {
    let mut records = RECORDS.load(Ordering::Relaxed);
    if records.is_null() {
        records = allocate().cast();
        if records.is_null() {
            return;
        }
        // SAFETY: it was allocated for that, and is never given back.
        unsafe { records.write([Large::NONE; PLACES]) };
        RECORDS.store(records, Ordering::Relaxed);
    }
    // SAFETY: the records are there, and the caller is alone.
    let records = unsafe { &mut *records };
    let least = records.iter_mut().min_by_key(|record| record.len);
    if let Some(least) = least.filter(|record| record.len < len) {
        least.address = address;
        least.len = len;
        least.task = trace::current().into();
        note_calls(least);
    }
}

#[cold]
fn strike(records: &mut [Large; PLACES], address: u64) {
    let found = records.iter_mut().find(|record| record.address == address);
    if let Some(found) = found {
        found.address = 0;
        found.len = 0;
    }
}

/// Notes where the calls stand: the registers that the unwind tables of this very function begin with, and what is on
/// the stack.
#[inline(never)]
fn note_calls(record: &mut Large) {
    // SAFETY: it writes eight words of the record, and nothing else.
    unsafe {
        asm!(
            "lea {place}, [rip]",
            "mov [{to}], {place}",
            "mov [{to} + 8], rsp",
            "mov [{to} + 16], rbp",
            "mov [{to} + 24], rbx",
            "mov [{to} + 32], r12",
            "mov [{to} + 40], r13",
            "mov [{to} + 48], r14",
            "mov [{to} + 56], r15",
            place = out(reg) _,
            to = in(reg) record.registers.as_mut_ptr(),
            options(nostack),
        );
    }
    let top = record.registers[1];
    let words = (end_of_stack(top) - top) / 8;
    let depth = words.min(STACK as u64);
    record.depth = depth;
    let stack = core::ptr::with_exposed_provenance::<u64>(top as usize);
    for (at, word) in record.stack.iter_mut().enumerate().take(depth as usize) {
        // SAFETY: below the end of the stack, or of the page, all is mapped from its top on. Others may write
        // there: to words that lie in frames below this one nobody does while this runs.
        *word = unsafe { stack.add(at).read_volatile() };
    }
}

/// Where the stack ends whose top this is; of one that is not this processor's, at least the page is there.
fn end_of_stack(top: u64) -> u64 {
    let len = STACK_LEN.load(Ordering::Relaxed);
    let start = layout::stack_of(machine::processor(), len);
    match (start..start + len).contains(&top) {
        true => start + len,
        false => (top | (layout::PAGE_SIZE - 1)) + 1,
    }
}
