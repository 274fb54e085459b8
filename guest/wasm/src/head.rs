//! The page behind the runtime guest that says what else is in the image. `wakebox-wasm`, which writes it,
//! compiles this very file.

/// Where it lies, counted from where the image starts in a guest.
pub(crate) const HEAD: u64 = 0x80_0000;
/// Its bytes: the code begins on the next page.
pub(crate) const PAGE: u64 = 4096;

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"WBXWASM2");

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// [`MAGIC`].
    pub(crate) magic: u64,
    /// Bytes of code.
    pub(crate) code: u64,
    /// Where the first stack lies, counted from the head.
    pub(crate) stacks: u64,
    pub(crate) stack_size: u64,
    /// Unmapped bytes below each stack.
    pub(crate) guard: u64,
    pub(crate) stack_count: u64,
    /// 1 if the code relies on what is not mapped behind a memory, whose place is a window; 0 if it checks bounds.
    pub(crate) pages: u64,
}

/// Bytes behind a memory that the code relies on in that case: all that a window has.
pub(crate) const GUARD: u64 = 4 << 30;

/// Windows that an image asks for in that case.
#[allow(dead_code, reason = "who writes it asks")]
pub(crate) const WINDOWS: u32 = 256;

impl Head {
    /// The fields in their order.
    #[allow(dead_code, reason = "who reads it reads it whole")]
    pub(crate) fn words(&self) -> [u64; 7] {
        let Self {
            magic,
            code,
            stacks,
            stack_size,
            guard,
            stack_count,
            pages,
        } = *self;
        [magic, code, stacks, stack_size, guard, stack_count, pages]
    }
}
