//! What `wakebox-wasm` has put behind this program: the component's compiled code, mapped to be read and
//! executed, and stacks for fibers, each with unmapped pages below.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
use core::ops::Range;
use core::ptr::NonNull;

use wakebox_abi::layout::IMAGE_PIE_BASE;
use wasmtime::{CustomCodeMemory, Error, Result, StackCreator, StackMemory, bail, ensure};

use crate::head::{self, Head};

/// The first page of what was attached.
const HEAD: usize = (IMAGE_PIE_BASE + head::HEAD) as usize;
const PAGE: usize = head::PAGE as usize;

pub(crate) fn read_head() -> Result<Head> {
    // SAFETY: nobody runs this program but with the head that `wakebox-wasm` attaches, a read-only page.
    let head = unsafe { core::hint::black_box(HEAD as *const Head).read() };
    ensure!(
        head.magic == head::MAGIC,
        "the image was made by another version of wakebox-wasm: compile the component again"
    );
    Ok(head)
}

/// The compiled component.
pub(crate) fn code() -> Result<NonNull<[u8]>> {
    let head = read_head()?;
    let Some(start) = NonNull::new((HEAD + PAGE) as *mut u8) else {
        bail!("there is no code");
    };
    Ok(NonNull::slice_from_raw_parts(start, head.code as usize))
}

/// Code lies in pages that are executable from the start, and never writable.
pub(crate) struct MappedCode;

impl CustomCodeMemory for MappedCode {
    fn required_alignment(&self) -> usize {
        PAGE
    }
    fn publish_executable(&self, _: *const u8, _: usize) -> Result<()> {
        Ok(())
    }
    fn unpublish_executable(&self, _: *const u8, _: usize) -> Result<()> {
        Ok(())
    }
}

/// The stacks that are not in use, one bit each.
pub(crate) struct Stacks {
    head: Head,
    free: Arc<Free>,
}

struct Free(Cell<u64>);

// SAFETY: a guest has one thread, and no upcall of this program touches stacks.
unsafe impl Send for Free {}
// SAFETY: as above.
unsafe impl Sync for Free {}

impl Stacks {
    pub(crate) fn new() -> Result<Self> {
        let head = read_head()?;
        ensure!(head.stack_count < 64, "too many stacks");
        let free = Arc::new(Free(Cell::new((1 << head.stack_count) - 1)));
        Ok(Self { head, free })
    }

    /// How many there are.
    pub(crate) fn count() -> Result<usize> {
        Ok(read_head()?.stack_count as usize)
    }

    /// Bytes of each.
    pub(crate) fn size(&self) -> usize {
        self.head.stack_size as usize
    }
}

// SAFETY: the stacks are segments of the image with pages between them that no segment covers; a bit of
// `free` says whose each is.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, zeroed: bool) -> Result<Box<dyn StackMemory>, Error> {
        ensure!(
            size <= self.size(),
            "a stack of {size} bytes is wanted, and there are {}",
            self.size()
        );
        let free = self.free.0.get();
        let index = free.trailing_zeros();
        ensure!(
            index < 64,
            "{} stacks are in use, and there are no more",
            self.head.stack_count
        );
        self.free.0.set(free & !(1 << index));
        let step = self.head.guard + self.head.stack_size;
        let start = HEAD + (self.head.stacks + u64::from(index) * step) as usize;
        if zeroed {
            // SAFETY: mapped and writable, and nobody's until now.
            unsafe { core::ptr::write_bytes(start as *mut u8, 0, self.size()) };
        }
        Ok(Box::new(Stack {
            range: start..start + self.size(),
            guard: self.head.guard as usize,
            index,
            free: self.free.clone(),
        }))
    }
}

struct Stack {
    range: Range<usize>,
    guard: usize,
    index: u32,
    free: Arc<Free>,
}

// SAFETY: see `Stacks`; its bit is set again when this is dropped.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.range.end as *mut u8
    }
    fn range(&self) -> Range<usize> {
        self.range.clone()
    }
    fn guard_range(&self) -> Range<*mut u8> {
        let start = self.range.start as *mut u8;
        start.wrapping_sub(self.guard)..start
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.free.0.set(self.free.0.get() | 1 << self.index);
    }
}
