//! The ELF note that makes an executable a guest.
//!
//! A host refuses an executable without this note before it looks any further, so
//! that an ordinary program is named as such instead of faulting in its first
//! system call.

use crate::ABI_VERSION;

/// Owner name of the note, with its terminating NUL (ELF gABI, "Note Section").
pub const NAME: [u8; 8] = *b"Wakebox\0";

/// Note type: "this is a guest, and this is the interface that it wants".
pub const TYPE: u32 = 1;

/// Section in which [`Note`] is placed; linkers turn `.note*` into `PT_NOTE`.
pub const SECTION: &str = ".note.wakebox";

/// The whole note, as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Note {
    name_size: u32,
    desc_size: u32,
    kind: u32,
    name: [u8; 8],
    version: u32,
    processors: u32,
    features_low: u32,
    features_high: u32,
    windows: u32,
}

const _: () = assert!(
    size_of::<Note>() == 40,
    "the note is part of the interface: see note.rs and raise ABI_VERSION"
);

/// Bytes of the note's descriptor.
pub const DESC_SIZE: usize = 20;

/// Bytes of the shortest descriptor, of a guest that asks for no windows.
pub const DESC_LEAST: usize = 16;

impl Note {
    /// The note of a guest that needs `features` ([`crate::boot::Features`]).
    #[must_use]
    pub const fn new(features: u64) -> Self {
        Self {
            name_size: NAME.len() as u32,
            desc_size: DESC_SIZE as u32,
            kind: TYPE,
            name: NAME,
            version: ABI_VERSION,
            processors: 1,
            features_low: features as u32,
            features_high: (features >> 32) as u32,
            windows: 0,
        }
    }

    /// The same, of a guest that asks for so many processors. It may be given more, or fewer.
    #[must_use]
    pub const fn processors(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// The same, of a guest that asks for so many windows ([`crate::window`]).
    #[must_use]
    pub const fn windows(mut self, windows: u32) -> Self {
        self.windows = windows;
        self
    }

    /// The note's bytes, as they lie in the file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `Note` is `repr(C)` of integers without padding (its size is asserted above),
        // so every byte is initialized.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
}

/// What a note's descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The interface version that the guest was built for.
    pub version: u32,
    /// How many processors it asks for.
    pub processors: u32,
    /// The features that it cannot do without.
    pub features: u64,
    /// How many windows it asks for.
    pub windows: u32,
}

impl Description {
    /// Reads a descriptor, or `None` if it is too short to be one.
    #[must_use]
    pub fn parse(desc: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(desc.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            version: word(0)?,
            processors: word(4)?,
            features: u64::from(word(8)?) | u64::from(word(12)?) << 32,
            windows: word(16).unwrap_or(0),
        })
    }
}
