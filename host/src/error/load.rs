//! Why a file is not a guest.

use wakebox_abi::layout::{IMAGE_MAX, IMAGE_MIN};

/// Most program headers of a guest. Linkers write about ten.
pub(crate) const MOST_HEADERS: u16 = 256;

/// Why a file is not a guest that can be loaded, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant is")]
pub enum LoadError {
    #[error("the file is empty")]
    Empty,
    #[error(
        "not an ELF file: a guest is what `cargo build` makes of a crate with `#[wakebox_guest::main]`"
    )]
    NotElf,
    #[error("a 32-bit or big-endian ELF file; guests are 64-bit, little endian")]
    WrongClass,
    #[error("an ELF file for another machine ({0}); guests are for x86-64")]
    WrongMachine(&'static str),
    #[error("an ELF file that is not a program ({0}); give the binary that `cargo build` made")]
    WrongType(&'static str),
    #[error("cut off: its headers speak of {needed} bytes and there are {present}")]
    Truncated { needed: u64, present: u64 },
    #[error("damaged: {0}")]
    Damaged(String),
    #[error(
        "a program for this host, not a guest: it carries no Wakebox note (a guest is `no_std` and \
         has `#[wakebox_guest::main]`; `wakebox new NAME` writes one)"
    )]
    NoNote,
    #[error(
        "built for version {guest} of the Wakebox interface, and this host speaks version {host}: \
         use the same release of `wakebox` and `wakebox-guest`"
    )]
    WrongVersion { guest: u32, host: u32 },
    #[error(
        "it asks for {0} processors, and a guest has from 1 to {most}: see `processors` of \
         `#[wakebox_guest::main]`",
        most = wakebox_abi::layout::PROCESSORS_MAX
    )]
    Processors(u32),
    #[error("it needs features that this host does not have (bits {0:#x}): use a newer `wakebox`")]
    MissingFeatures(u64),
    #[error(
        "it needs the shared library {0}, and there is none in a guest: some dependency uses `std` \
         or `libc`; look for it with `cargo tree`, and switch its `std` feature off"
    )]
    SharedLibrary(String),
    #[error("it uses thread-local storage, which guests do not have: some dependency uses `std`")]
    ThreadLocal,
    #[error("the segment at {0:#x} is writable and executable at once: a page is one or the other")]
    WritableCode(u64),
    #[error("the segments at {0:#x} and {1:#x} overlap or share a page: link with separate pages")]
    Overlap(u64, u64),
    #[error(
        "the segment at {start:#x} to {end:#x} is outside the image window, \
         {IMAGE_MIN:#x} to {IMAGE_MAX:#x}"
    )]
    OutsideWindow { start: u64, end: u64 },
    #[error("it has no segment to load")]
    NoSegments,
    #[error(
        "it has {0} program headers, and a guest has at most {MOST_HEADERS}: link it without a script \
         that makes a segment of every section"
    )]
    TooManyHeaders(u16),
    #[error(
        "its notes and relocations take more than {0} steps to read, which no linker's do for a file \
         of its size"
    )]
    TooMuchWork(u64),
    #[error("its entry point {0:#x} is not in an executable segment")]
    BadEntry(u64),
    #[error("it refers to the symbol `{0}`, which nothing defines: a guest stands alone")]
    Undefined(String),
    #[error(
        "it has a relocation of type {0} at {1:#x}, which is not one that a static guest needs"
    )]
    Relocation(u32, u64),
    #[error("it asks for executable stack: remove the flag (`-z noexecstack`)")]
    ExecutableStack,
}
