//! Windows: address space with nothing behind what is put there, and faults that go on.
//!
//! A guest that asks for windows (`#[wakebox_guest::main(windows = 1)]`) has so many ranges of 8 GiB of address space. What
//! [`show`] lays there lies on the heap, too; all else faults, and a fault goes on in a function of the guest's
//! ([`on_fault`], [`catch`]). So a program whose addresses have 32 bits, such as one of WebAssembly, needs no check of
//! bounds. `wakebox_abi::window` says what the host does for it.

use core::arch::naked_asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use wakebox_abi::boot::Boot;
use wakebox_abi::layout::{CONTROL, PAGE_SIZE, window_of};
use wakebox_abi::memory::{Control, MappedControl, Word};
use wakebox_abi::port;
pub use wakebox_abi::window::{Answer, Fault, LEN, fault};
use wakebox_abi::window::{MOST, Request};

/// Bytes of a page: what is shown and hidden is whole pages.
pub const PAGE: usize = PAGE_SIZE as usize;

fn control() -> MappedControl {
    let page = core::ptr::with_exposed_provenance_mut(CONTROL as usize);
    // SAFETY: the address is not zero, and in a guest, which alone comes here, the control page is there for ever.
    unsafe { MappedControl::new(NonNull::new_unchecked(page)) }
}

/// How many windows there are: as many as the guest asks for, or none where the host has none.
#[must_use]
pub fn count() -> usize {
    // SAFETY: this is a guest.
    unsafe { Boot::get() }.windows as usize
}

/// Where a window begins. Pages may lie in its first [`LEN`] bytes; in as many behind them nothing ever does.
///
/// # Panics
///
/// If there is no such window.
#[must_use]
pub fn start(window: usize) -> *mut u8 {
    assert!(window < count(), "there is such a window");
    core::ptr::with_exposed_provenance_mut(window_of(window as u32) as usize)
}

/// Has memory of the heap appear in a window as well.
///
/// # Errors
///
/// What the host answers. Some of it may have appeared then: [`hide`] all.
///
/// # Panics
///
/// If something is no whole page.
///
/// # Safety
///
/// The `len` bytes at `heap` are memory that the caller has allocated, and lie in no other window. They are
/// [hidden](hide) before they are released.
pub unsafe fn show(at: *mut u8, heap: *mut u8, len: usize) -> Result<(), Answer> {
    ask(at, heap.expose_provenance(), len)
}

/// Has nothing lie in this part of a window. What lay there holds nobody knows what afterwards, on the heap, too.
///
/// # Errors
///
/// [`Answer::NoWindow`].
///
/// # Panics
///
/// As [`show`].
///
/// # Safety
///
/// Nobody uses what lay there, until it has been written anew.
pub unsafe fn hide(at: *mut u8, len: usize) -> Result<(), Answer> {
    ask(at, 0, len)
}

fn ask(at: *mut u8, from: usize, len: usize) -> Result<(), Answer> {
    let is_whole = (at.addr() | from | len).is_multiple_of(PAGE);
    assert!(is_whole, "whole pages lie in windows");
    let (mut page, mut from) = ((at.addr() / PAGE) as u32, (from / PAGE) as u32);
    let mut left = len / PAGE;
    while left > 0 {
        let count = left.min(MOST as usize) as u32;
        Request { page, from, count }.write(&control());
        // SAFETY: this is a guest.
        unsafe { port::ring(port::MAP) };
        match Answer::from_code(control().load(Word::WindowAnswer, Ordering::Relaxed)) {
            Answer::Done => {}
            refused => return Err(refused),
        }
        page += count;
        from += if from == 0 { 0 } else { count };
        left -= count as usize;
    }
    Ok(())
}

/// What is done about a fault: it is told of it, and what the frame pointer was (`rbp`), on the stack on which it happened.
/// To return is to say that nothing is done about it: it happens again, and ends the guest as faults do. Else it does not
/// return, but goes on elsewhere on that stack, or on another.
pub type Handler = extern "C" fn(&Fault, usize);

static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Has faults handled so while they are [caught](catch).
///
/// # Safety
///
/// A fault happens between any two instructions, whatever the compiler believes. If the handler does not return, that is
/// sound for what has faulted and for all that it was called by, up to where the handler goes on.
pub unsafe fn on_fault(handler: Handler) {
    HANDLER.store(handler as *const () as usize, Ordering::Relaxed);
}

/// From now on faults go on in the [handler](on_fault), or they end the guest: what kinds there are is in [`fault`]. One that
/// goes on is the last, until this is called again.
#[inline]
pub fn catch(caught: bool) {
    let is_handled = caught && HANDLER.load(Ordering::Relaxed) != 0;
    let entry = match is_handled {
        true => entry as *const () as usize as u32,
        false => 0,
    };
    control().store(Word::FaultEntry, entry, Ordering::Relaxed);
}

/// Where a fault goes on: between any two instructions, with every register as it was.
///
/// # Safety
///
/// Not to be called: what it returns to is in the control page.
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    naked_asm!(
        // What may be in use below the stack pointer (System V ABI, AMD64 supplement, 3.2.2).
        "lea rsp, [rsp - 128]",
        "push qword ptr [{at}]",
        "pushfq",
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rdi, rbp",
        "mov rbx, rsp",
        "and rsp, -16",
        "call {handle}",
        "mov rsp, rbx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbp",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "popfq",
        "ret 128",
        at = const CONTROL as i32 + Word::FaultAt.offset() as i32,
        handle = sym handle,
    );
}

extern "C" fn handle(frame: usize) {
    let handler = HANDLER.load(Ordering::Relaxed);
    // SAFETY: `entry` is entered only while faults are caught, so there is a handler, and it is one.
    let handler: Handler = unsafe { core::mem::transmute(handler) };
    handler(&Fault::read(&control()), frame);
}
