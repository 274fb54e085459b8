//! A guest's file in its memory.

use std::io::{self, Cursor};

use linux_loader::loader::KernelLoader as _;
use linux_loader::loader::elf::Elf;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::memory::GuestMemory;

impl GuestMemory {
    /// Copies the segments of an ELF file to where the plan has the guest's pages: `bias` is added to their
    /// addresses, of which the physical ones count. Nothing is written but those pages, whatever the
    /// file says.
    ///
    /// # Errors
    ///
    /// `InvalidData` if a segment lies elsewhere, or the file is no ELF file.
    pub fn place(&self, file: &[u8], bias: u64) -> io::Result<()> {
        let plan = self.plan();
        let base = self.pointer(plan.image.offset, plan.image.len);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE;
        // SAFETY: the range was checked to lie in the mapping of `self`, which outlives the region; the
        // region unmaps nothing.
        let region =
            unsafe { MmapRegion::build_raw(base.as_ptr(), plan.image.len as usize, rights, flags) };
        let region = region.map_err(io::Error::other)?;
        let refused = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let region = GuestRegionMmap::new(region, GuestAddress(plan.image_start))
            .ok_or_else(|| refused("it ends beyond all addresses".into()))?;
        let window = GuestMemoryMmap::<()>::from_regions(vec![region]).map_err(io::Error::other)?;
        // With an offset, notes for booting a kernel are not looked for: they could be many.
        Elf::load(
            &window,
            Some(GuestAddress(bias)),
            &mut Cursor::new(file),
            None,
        )
        .map(drop)
        .map_err(|error| refused(error.to_string()))
    }
}
