//! From the ELF entry to the first task.
//!
//! The C compiler's start file provides the ELF entry `_start` and calls `__libc_start_main`,
//! which would be the C library's if there was one. So a guest needs no linker script
//! and no flags: it only has to define that function. The relocations of the executable
//! have been applied by the host; constructors (`.init_array`) are run before `main`: exported
//! functions announce themselves in them.

#[cfg(any(feature = "processors", test))]
use alloc::boxed::Box;
use core::future::Future;
#[cfg(any(feature = "processors", test))]
use core::ptr::NonNull;
#[cfg(all(feature = "critical-section", feature = "processors"))]
use core::sync::atomic::{AtomicU32, Ordering};

use wakebox_abi::ABI_VERSION;
use wakebox_abi::boot::{self, Boot};
#[cfg(any(feature = "processors", test))]
use wakebox_abi::layout;
#[cfg(any(feature = "processors", test))]
use wakebox_abi::memory::MappedControl;

use crate::elsewhere;
use crate::executor::Home;
use crate::heap;
#[cfg_attr(
    feature = "processors",
    allow(unused_imports, reason = "nothing preempts")
)]
use crate::mask;
use crate::process::Termination;
use crate::runtime::{Addresses, Runtime, install};
#[cfg(any(feature = "processors", test))]
use crate::several::Common;
use crate::several::Here;
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
        heap::claim(&boot);
        let addresses = Addresses::of_guest();
        let here = here(&boot);
        let (start, len) = (boot.stack.start as usize, boot.stack.len as usize);
        let home = Home::stack(start, len, here.whereabouts());
        install(Runtime::new(boot, &addresses, home, here, None))
    };
    mask::begin();
    #[cfg(feature = "log")]
    crate::logger::install();
    let code = runtime.block_on(main()).report();
    runtime.exit(code.code())
}

/// The one processor.
#[cfg(not(any(feature = "processors", test)))]
#[inline(always)]
fn here(_boot: &Boot) -> Here {
    Here
}

/// The first processor, and what it has in common with the others.
#[cfg(any(feature = "processors", test))]
fn here(boot: &Boot) -> Here {
    let count = boot.vcpus.clamp(1, layout::PROCESSORS_MAX);
    let controls = (0..count as usize).map(|number| {
        // The pages of all are mapped only where there are several.
        let page = match count {
            1 => layout::CONTROL,
            _ => layout::control_of(number as u32),
        };
        let page = core::ptr::with_exposed_provenance_mut(page as usize);
        // SAFETY: the address is not zero, and the host maps the page for ever.
        unsafe { MappedControl::new(NonNull::new_unchecked(page)) }
    });
    Here::new(Box::leak(Box::new(Common::new(controls))), 0)
}

/// Where the other processors begin: the host sets the stack pointer, and this aligns it as a call wants it.
#[cfg(all(feature = "processors", not(test)))]
#[unsafe(naked)]
pub(crate) extern "C" fn other() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp",
        "and rsp, -16",
        "call {begin}",
        "ud2",
        begin = sym begin_other,
    )
}

/// Runs another processor than the first.
#[cfg(all(feature = "processors", not(test)))]
extern "C" fn begin_other() -> ! {
    let Some(first) = crate::runtime::first_runtime() else {
        unreachable!("only a guest that runs starts others");
    };
    let number = crate::machine::processor();
    trace::restored(first.instance);
    let len = first.boot.stack.len;
    let here = Here::new(first.here.common, number);
    // SAFETY: this is a processor of a guest, whose boot page tells the truth; what is its own lies where that of the
    // first does. Nothing else has run on this stack or will.
    let runtime = unsafe {
        let start = layout::stack_of(number, len) as usize;
        let home = Home::stack(start, len as usize, here.whereabouts());
        let addresses = Addresses::of_guest();
        install(Runtime::new(
            first.boot,
            &addresses,
            home,
            here,
            Some(first),
        ))
    };
    runtime.serve_others();
    runtime.park();
}

/// The critical section of a guest with several processors: a lock, which one that has it may take again. Each
/// waits for at most one section of each other.
#[cfg(all(feature = "critical-section", feature = "processors"))]
#[derive(Debug)]
pub struct SingleCore;

// SAFETY: one processor has the lock, and knows so by its number; nothing preempts it.
#[cfg(all(feature = "critical-section", feature = "processors"))]
unsafe impl critical_section::Impl for SingleCore {
    unsafe fn acquire() -> critical_section::RawRestoreState {
        let own = crate::machine::processor() + 1;
        if OWNER.load(Ordering::Relaxed) == own {
            return false;
        }
        SECTION.acquire();
        OWNER.store(own, Ordering::Relaxed);
        true
    }

    unsafe fn release(is_outermost: critical_section::RawRestoreState) {
        if is_outermost {
            OWNER.store(0, Ordering::Relaxed);
            SECTION.release();
        }
    }
}

#[cfg(all(feature = "critical-section", feature = "processors"))]
static SECTION: crate::lock::RawLock = crate::lock::RawLock::new();

/// One more than the number of the processor that is in the critical section. Another never reads its own number there.
#[cfg(all(feature = "critical-section", feature = "processors"))]
static OWNER: AtomicU32 = AtomicU32::new(0);

/// The critical section of a guest: there is one flow of control, and nothing but upcalls preempts it.
/// Where those may come they are masked; the compiler has to be told not to move things about.
#[cfg(all(feature = "critical-section", not(feature = "processors")))]
#[derive(Debug)]
pub struct SingleCore;

// SAFETY: interrupt stubs run in ring 0 and touch words that no guest code writes while they may be
// touched; a guest has one virtual processor; upcalls are masked.
#[cfg(all(feature = "critical-section", not(feature = "processors")))]
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
        $crate::__guest!($main, 1, 0);
    };
    ($main:ident, $processors:tt, $windows:tt) => {
        $crate::__processors!($processors);

        #[cfg(not(test))]
        mod __wakebox_guest {
            /// Tells the host that this is a guest, and of which version.
            #[used]
            #[unsafe(link_section = ".note.wakebox")]
            static NOTE: $crate::__private::Note = $crate::__private::Note::new(0)
                .processors($processors)
                .windows($windows);

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
            $crate::__pender!();
            $crate::__getrandom!();
            $crate::__c_random!();
        }
    };
}

/// Nothing: the features allow it.
#[cfg(all(feature = "processors", not(feature = "interrupt")))]
#[doc(hidden)]
#[macro_export]
macro_rules! __processors {
    ($processors:tt) => {};
}

/// Says that the features exclude each other.
#[cfg(all(feature = "processors", feature = "interrupt"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __processors {
    ($processors:tt) => {
        ::core::compile_error!(
            "the features `processors` and `interrupt` of wakebox-guest exclude each other: urgent tasks \
             interrupt a guest with one processor; leave one of them out (another guest of this build may want it: \
             then build them one by one, with `--package`)"
        );
    };
}

/// Says what is missing, if several processors are asked for.
#[cfg(not(feature = "processors"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __processors {
    (1) => {};
    ($processors:tt) => {
        ::core::compile_error!(
            "#[wakebox_guest::main(processors = ...)] wants the feature `processors` of wakebox-guest: \
             put `features = [\"processors\"]` into its line of Cargo.toml"
        );
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

/// Defines what wakes an executor of `embassy-executor`, if the feature is on.
#[cfg(feature = "embassy-executor")]
#[doc(hidden)]
#[macro_export]
macro_rules! __pender {
    () => {
        /// What an executor calls when it has something to do.
        #[unsafe(export_name = "__pender")]
        fn pender(context: *mut ()) {
            $crate::__private::pend(context);
        }
    };
}

/// Defines nothing: the feature is off.
#[cfg(not(feature = "embassy-executor"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __pender {
    () => {};
}

/// Defines nothing: the feature is off.
#[cfg(not(feature = "getrandom"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __getrandom {
    () => {};
}

/// Defines nothing: the feature is off.
#[cfg(not(feature = "getrandom-02"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __c_random {
    () => {};
}
