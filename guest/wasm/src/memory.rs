//! Linear memories in windows: code that relies on what is not mapped behind them checks no bounds.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;

use wakebox_abi::boot::Boot;
use wakebox_guest::window::{self, Fault, LEN, PAGE, fault};
use wasmtime::{Config, LinearMemory, MemoryCreator, MemoryType, Result, bail};

use crate::head::{GUARD, WINDOWS};

type TrapHandler = extern "C" fn(usize, usize, bool, usize);

/// What a guest has once, as it has one thread.
struct Once<T>(T);

// SAFETY: a guest has one thread, and no upcall of this program touches it.
unsafe impl<T> Sync for Once<T> {}

/// What Wasmtime does about a fault.
static HANDLER: Once<Cell<Option<TrapHandler>>> = Once(Cell::new(None));
/// The windows in which a memory lies, one bit each.
static USED: Once<Cell<[u64; WINDOWS as usize / 64]>> = Once(Cell::new([0; WINDOWS as usize / 64]));

/// Settings that agree with those of the compiler.
pub(crate) fn configure(config: &mut Config, pages: bool) {
    config.signals_based_traps(pages);
    config.memory_guard_size(if pages { GUARD } else { 0 });
    if pages {
        config.memory_reservation(LEN);
        config.with_host_memory(Arc::new(Windows));
    }
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_init_traps(handler: TrapHandler) -> i32 {
    HANDLER.0.set(Some(handler));
    // SAFETY: Wasmtime goes on elsewhere for faults of code that it has compiled, which is made for that.
    unsafe { window::on_fault(trap) };
    0
}

extern "C" fn trap(of: &Fault, frame: usize) {
    if let Some(handler) = HANDLER.0.get() {
        // It returns if the fault is not one of WebAssembly's.
        let is_memory = of.kind == fault::PAGE;
        handler(of.at as usize, frame, is_memory, of.address as usize);
    }
}

struct Windows;

// SAFETY: each memory has a window of its own, in which only that lies.
unsafe impl MemoryCreator for Windows {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        _: Option<usize>,
        _: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let mut memory = match taken(minimum) {
            Some(kept) => kept,
            None => Memory::new()?,
        };
        memory.grow_to(minimum).map_err(|error| error.to_string())?;
        Ok(Box::new(Held(Some(memory))))
    }
}

/// Memories that nobody has any more, in their windows: who makes an instance for each request finds one as large, for
/// which the host has nothing to do.
static KEPT: Once<Cell<Vec<Memory>>> = Once(Cell::new(Vec::new()));
/// Most of them.
const MOST_KEPT: usize = 32;
/// The part of the heap that they take at most.
const KEPT_PART: usize = 8;

/// The largest that is kept and no larger than this, zeroed.
fn taken(minimum: usize) -> Option<Memory> {
    let mut kept = KEPT.0.take();
    let fits = kept
        .iter()
        .enumerate()
        .filter(|(_, kept)| kept.size <= minimum);
    let best = fits.max_by_key(|(_, kept)| kept.size).map(|(at, _)| at);
    let memory = best.map(|at| kept.swap_remove(at));
    KEPT.0.set(kept);
    if let Some(memory) = &memory {
        // SAFETY: so much lies there, and nobody else has it.
        unsafe { core::ptr::write_bytes(memory.start(), 0, memory.size) };
    }
    memory
}

/// Gives back those that are kept. Returns whether there were any.
pub(crate) fn release() -> bool {
    !KEPT.0.take().is_empty()
}

/// What WebAssembly has: a memory that is kept afterwards, if there are not too many.
struct Held(Option<Memory>);

impl Held {
    fn memory(&self) -> &Memory {
        // It is taken out when this is dropped.
        self.0.as_ref().expect("it is there")
    }
}

// SAFETY: as the memory's.
unsafe impl LinearMemory for Held {
    fn byte_size(&self) -> usize {
        self.memory().size
    }

    fn byte_capacity(&self) -> usize {
        LEN as usize
    }

    fn grow_to(&mut self, size: usize) -> Result<()> {
        self.0.as_mut().expect("it is there").grow_to(size)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.memory().start()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(memory) = self.0.take() else {
            return;
        };
        // SAFETY: this is a guest.
        let most = unsafe { Boot::get() }.heap.len as usize / KEPT_PART;
        let mut kept = KEPT.0.take();
        let bytes: usize = kept.iter().map(|kept| kept.size).sum();
        if kept.len() < MOST_KEPT && bytes + memory.size <= most && kept.try_reserve(1).is_ok() {
            kept.push(memory);
        }
        KEPT.0.set(kept);
    }
}

/// A memory: pieces of the heap, one behind the other in a window.
struct Memory {
    window: usize,
    size: usize,
    pieces: Vec<(usize, Layout)>,
}

impl Memory {
    /// An empty one, in a window in which nothing lies.
    fn new() -> Result<Self, &'static str> {
        let free = || {
            let used = USED.0.get();
            let word = used.iter().position(|word| *word != u64::MAX)?;
            let window = word * 64 + used[word].trailing_ones() as usize;
            (window < window::count()).then_some(window)
        };
        let window = free().or_else(|| release().then(free).flatten());
        let window = window.ok_or("there are too many memories at once")?;
        let mut used = USED.0.get();
        used[window / 64] |= 1 << (window % 64);
        USED.0.set(used);
        Ok(Self {
            window,
            size: 0,
            pieces: Vec::new(),
        })
    }

    fn start(&self) -> *mut u8 {
        window::start(self.window)
    }

    fn grow_to(&mut self, size: usize) -> Result<()> {
        let more = size.saturating_sub(self.size);
        if more == 0 {
            return Ok(());
        }
        let layout = Layout::from_size_align(more, PAGE)?;
        self.pieces.try_reserve(1)?;
        // SAFETY: it is not empty.
        let mut piece = unsafe { alloc_zeroed(layout) };
        if piece.is_null() && release() {
            // SAFETY: as above.
            piece = unsafe { alloc_zeroed(layout) };
        }
        if piece.is_null() {
            bail!("there is no memory left");
        }
        let at = window::start(self.window).wrapping_add(self.size);
        // SAFETY: the piece is this memory's, until it is hidden.
        if unsafe { window::show(at, piece, more) }.is_err() {
            // SAFETY: nobody knows of what was shown, nor of the piece.
            unsafe {
                let _ = window::hide(at, more);
                dealloc(piece, layout);
            }
            bail!("there is no room in the window");
        }
        self.pieces.push((piece as usize, layout));
        self.size = size;
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody uses the memory any more; its pieces were allocated so.
        unsafe {
            let _ = window::hide(self.start(), self.size);
            for (piece, layout) in self.pieces.drain(..) {
                dealloc(piece as *mut u8, layout);
            }
        }
        let mut used = USED.0.get();
        used[self.window / 64] &= !(1 << (self.window % 64));
        USED.0.set(used);
    }
}
