//! From the ELF entry to the first task.
//!
//! The C compiler's start file provides the ELF entry `_start` and calls `__libc_start_main`,
//! which would be the C library's if there was one. So a guest needs no linker script
//! and no flags: it only has to define that function. The relocations of the executable
//! have been applied by the host; constructors (`.init_array`) are run before `main`: exported
//! functions announce themselves in them.

use core::future::Future;

use wakebox_abi::ABI_VERSION;
use wakebox_abi::boot::{self, Boot};

use crate::elsewhere;
use crate::executor::Home;
use crate::heap;
use crate::mask;
use crate::process::Termination;
use crate::runtime::{Addresses, Runtime, install};
use crate::trace;

/// Runs a guest.
///
/// # Safety
///
/// The code runs as a Wakebox guest, and has not done so before.
#[doc(hidden)]
pub unsafe fn start<F, T>(main: fn() -> F) -> !
where
    F: Future<Output = T> + 'static,
    T: Termination,
{
    elsewhere::end_if_so();
    // SAFETY: the caller's promise. Before the check only the address is relied upon.
    let boot = unsafe { *Boot::get() };
    assert!(
        boot.magic == boot::MAGIC && boot.version == ABI_VERSION,
        "the host speaks version {} of the interface, this guest version {ABI_VERSION}",
        boot.version
    );
    // SAFETY: this is the entry, and the boot page is one.
    unsafe { trace::start(&boot) };
    // SAFETY: the boot page is one, and a host tells the truth. The heap comes first,
    // because the runtime is on it. Nothing else has run on this stack or will.
    let runtime = unsafe {
        heap::claim(boot.heap);
        let home = Home::stack(boot.stack.start as usize, boot.stack.len as usize);
        install(Runtime::new(boot, &Addresses::of_guest(), home))
    };
    mask::begin();
    #[cfg(feature = "log")]
    crate::logger::install();
    let code = runtime.block_on(main()).report();
    runtime.exit(code.code())
}

/// The critical section of a guest: there is one flow of control, and nothing but upcalls preempts it.
/// Where those may come they are masked; the compiler has to be told not to move things about.
#[cfg(feature = "critical-section")]
#[derive(Debug)]
pub struct SingleCore;

// SAFETY: interrupt stubs run in ring 0 and touch words that no guest code writes while they may be
// touched; a guest has one virtual processor; upcalls are masked.
#[cfg(feature = "critical-section")]
unsafe impl critical_section::Impl for SingleCore {
    unsafe fn acquire() -> critical_section::RawRestoreState {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        mask::mask().keep()
    }

    unsafe fn release(is_outermost: critical_section::RawRestoreState) {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        if is_outermost {
            mask::lift();
        }
    }
}

/// Everything that a guest's binary, and only that, may define. [`crate::main`] expands to it.
#[doc(hidden)]
#[macro_export]
macro_rules! __guest {
    ($main:ident) => {
        #[cfg(not(test))]
        mod __wakebox_guest {
            /// Tells the host that this is a guest, and of which version.
            #[used]
            #[unsafe(link_section = ".note.wakebox")]
            static NOTE: $crate::__private::Note = $crate::__private::Note::new(0);

            #[global_allocator]
            static HEAP: $crate::__private::Heap = $crate::__private::Heap;

            #[panic_handler]
            fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
                $crate::__private::panic(info)
            }

            unsafe extern "C" {
                // The linker's (ELF gABI, "Initialization and Termination Functions").
                static __init_array_start: [extern "C" fn(); 0];
                static __init_array_end: [extern "C" fn(); 0];
            }

            /// What `_start` calls.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn __libc_start_main() -> ! {
                // SAFETY: the two symbols bound the array of constructors, which need nothing but
                // to be called once. `_start` calls once, and a host starts nothing but guests.
                unsafe {
                    let mut next = (&raw const __init_array_start).cast::<extern "C" fn()>();
                    while next != (&raw const __init_array_end).cast() {
                        (*next)();
                        next = next.add(1);
                    }
                    $crate::__private::start(super::$main)
                }
            }

            /// What `_start` passes to the function above, which does not care.
            #[unsafe(no_mangle)]
            extern "C" fn main() {}

            /// The precompiled `core` and `alloc` name these; without unwinding nobody calls them.
            #[unsafe(no_mangle)]
            extern "C" fn rust_eh_personality() {}

            #[unsafe(no_mangle)]
            extern "C" fn _Unwind_Resume() {}

            $crate::__c_symbols!(#[unsafe(no_mangle)]);
            $crate::__critical_section!();
            $crate::__time_driver!();
            $crate::__getrandom!();
        }
    };
}

/// Defines the critical section, if the feature is on.
#[cfg(feature = "critical-section")]
#[doc(hidden)]
#[macro_export]
macro_rules! __critical_section {
    () => {
        use $crate::__private::{SingleCore, critical_section};
        critical_section::set_impl!(SingleCore);
    };
}

/// Defines nothing: the feature is off.
#[cfg(not(feature = "critical-section"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __critical_section {
    () => {};
}

/// Defines the clock of `embassy-time`, if the feature is on.
#[cfg(feature = "embassy-time")]
#[doc(hidden)]
#[macro_export]
macro_rules! __time_driver {
    () => {
        use $crate::__private::{TimeDriver, embassy_time_driver};
        embassy_time_driver::time_driver_impl!(static TIME_DRIVER: TimeDriver = TimeDriver);
    };
}

/// Defines nothing: the feature is off.
#[cfg(not(feature = "embassy-time"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __time_driver {
    () => {};
}

/// Defines nothing: the feature is off.
#[cfg(not(feature = "getrandom"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __getrandom {
    () => {};
}
