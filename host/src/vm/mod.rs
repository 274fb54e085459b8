//! The machine: memory, page tables, descriptor tables, stubs, registers, the vCPU.
//!
//! Everything that knows x86 is in this folder.

pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod ioctl;
pub(crate) mod kick;
pub(crate) mod memory;
pub(crate) mod paging;
pub(crate) mod process;
mod shutdown;
pub(crate) mod signal;
pub(crate) mod space;
pub(crate) mod stubs;
pub(crate) mod system;
pub(crate) mod ticker;
pub(crate) mod vcpu;

use crate::loader::Image;

/// Writes what the processor needs before its first instruction: descriptor tables, stubs, page
/// tables, and the image.
///
/// # Panics
///
/// If the tables take more pages than were planned, which would be a mistake in `space`.
pub(crate) fn install(memory: &memory::GuestMemory, image: &Image) {
    let space = memory.space();
    memory.write(space.descriptors.offset, &descriptors::page());
    memory.write(space.stubs.offset, stubs::code());
    let tables = space.tables(image).to_bytes();
    assert!(
        tables.len() as u64 <= space.tables.len,
        "page tables have room"
    );
    memory.write(space.tables.offset, &tables);
    image.load(memory);
}
