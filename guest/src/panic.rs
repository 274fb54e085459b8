//! Last words.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use wakebox_abi::boot::{Boot, Range};
use wakebox_abi::report::{MAX_FRAMES, SIZE, Writer};
use wakebox_abi::{layout, port};

use crate::machine;
use crate::runtime::try_runtime;

/// Most bytes of stack that are searched for return addresses.
const SEARCHED: usize = 64 << 10;

/// The panic handler: fills the report page without allocating, lets out what was
/// printed, and rings ABORT.
#[doc(hidden)]
pub fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);

    // A second panic is one of this function's own; the first has its words already.
    if !PANICKING.swap(true, Ordering::Relaxed) {
        // SAFETY: a panic handler is linked into guests only, and this is its one use of
        // the page, which nobody else uses before ABORT rings.
        let page = unsafe {
            &mut *core::ptr::with_exposed_provenance_mut::<[u8; SIZE]>(layout::REPORT as usize)
        };
        report(&mut Writer::new(page), info);
        if let Some(runtime) = try_runtime()
            && runtime.is_calm()
        {
            runtime.flush_console();
        }
    }
    loop {
        machine::ring(port::ABORT);
    }
}

fn report(writer: &mut Writer<'_>, info: &PanicInfo<'_>) {
    // Writing to the page does not fail; a `Display` that does has said what it could.
    let _ = write!(writer, "{}", info.message());
    if let Some(location) = info.location() {
        writer.location(location.file(), location.line(), location.column());
    }
    if let Some(runtime) = try_runtime() {
        runtime
            .executor
            .with_current_name(|name| writer.task(name.unwrap_or_default()));
    }
    // SAFETY: as in `panic`.
    let boot = unsafe { Boot::get() };
    writer.frames(return_addresses(boot).take(MAX_FRAMES));
}

/// Words on the stack that look like return addresses: they point into code, right behind
/// a call. Without frame pointers, which precompiled code has not, this is the best that
/// can be had without unwind tables. It may show a call that has returned.
fn return_addresses(boot: &Boot) -> impl Iterator<Item = u64> {
    let marker = 0_u64;
    let here = (&raw const marker).addr();
    let end = boot.stack.end() as usize;
    let len = end.saturating_sub(here).min(SEARCHED) / 8;
    let is_on_stack = here >= boot.stack.start as usize;
    let code = code(boot.image).filter(|_| is_on_stack).unwrap_or_default();
    (0..len)
        .map(move |index| {
            // SAFETY: between a local variable and the end of the stack; words of it may be
            // padding or dead, so they are read as the machine sees them.
            unsafe { read(here + index * 8) }
        })
        .filter(move |&word| {
            word.checked_sub(code.start)
                .is_some_and(|offset| (8..code.len).contains(&offset))
                && follows_call(word as usize)
        })
}

/// A word of memory, without a notion of what is in it.
///
/// # Safety
///
/// The address is aligned to 8 and readable.
unsafe fn read(address: usize) -> u64 {
    let word: u64;
    // SAFETY: the caller's promise. In assembly, because dead stack is no Rust object.
    unsafe {
        core::arch::asm!("mov {}, [{}]", out(reg) word, in(reg) address, options(nostack, readonly, preserves_flags));
    }
    word
}

/// Whether the instruction before an address in code is a call: `E8` with a 32-bit
/// displacement, or `FF /2` with a ModRM byte and what belongs to it (Intel SDM vol. 2, CALL).
fn follows_call(address: usize) -> bool {
    let byte = |back: usize| {
        // SAFETY: the caller has seen that the eight bytes before the address are code.
        unsafe { *core::ptr::with_exposed_provenance::<u8>(address - back) }
    };
    byte(5) == 0xE8
        || [2, 3, 4, 6, 7]
            .into_iter()
            .any(|back| byte(back) == 0xFF && byte(back - 1) >> 3 & 7 == 2)
}

/// The executable segment, from the program headers that lie at the image's start.
fn code(image: Range) -> Option<Range> {
    const PT_LOAD: u32 = 1;
    const PF_X: u32 = 1;

    let at = image.start as usize;
    // SAFETY: (all four) the first segment of an image that begins with an ELF header is
    // mapped readable, and linkers put the program headers, of 56 bytes each, behind it.
    let u16_at = |offset: usize| unsafe {
        core::ptr::with_exposed_provenance::<u16>(at + offset).read_unaligned()
    };
    // SAFETY: as above.
    let u32_at = |offset: usize| unsafe {
        core::ptr::with_exposed_provenance::<u32>(at + offset).read_unaligned()
    };
    // SAFETY: as above.
    let u64_at = |offset: usize| unsafe {
        core::ptr::with_exposed_provenance::<u64>(at + offset).read_unaligned()
    };
    if u32_at(0) != u32::from_le_bytes(*b"\x7FELF") {
        return None;
    }
    let is_pie = u16_at(16) == 3;
    let bias = if is_pie { image.start } else { 0 };
    let (headers, count) = (u64_at(32) as usize, usize::from(u16_at(56)));
    (0..count)
        .map(|index| headers + index * 56)
        .find(|&header| u32_at(header) == PT_LOAD && u32_at(header + 4) & PF_X != 0)
        .map(|header| Range {
            start: bias + u64_at(header + 16),
            len: u64_at(header + 40),
        })
}
