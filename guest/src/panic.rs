//! Last words.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use wakebox_abi::report::{SIZE, Writer};
use wakebox_abi::{layout, port};

use crate::machine;
use crate::mask;
use crate::runtime::try_runtime;

/// The panic handler: fills the report page without allocating, lets out what was
/// printed, and rings ABORT. The host takes the backtrace from there, by the registers that it finds.
#[doc(hidden)]
pub fn panic(info: &PanicInfo<'_>) -> ! {
    /// A bit for each processor: each has a report page.
    static PANICKING: AtomicU64 = AtomicU64::new(0);

    // Nothing comes between any more.
    core::mem::forget(mask::mask());

    // A second panic is one of this function's own; the first has its words already.
    let bit = 1 << (machine::processor() % 64);
    if PANICKING.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
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
    if let Some(location) = info.location() {
        writer.location(location.file(), location.line(), location.column());
    }
    if let Some(runtime) = try_runtime() {
        runtime.with_current_name(|name| writer.task(name.unwrap_or_default()));
    }
    // Last, because a `Display` may panic, too. Writing to the page does not fail; a `Display`
    // that does has said what it could.
    let _ = write!(writer, "{}", info.message());
}
