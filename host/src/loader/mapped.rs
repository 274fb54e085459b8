//! Guests of whose file large parts are mapped, and not read: all sandboxes of it share them, and so do other
//! processes. They are segments that the guest cannot write, on whole pages.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use goblin::elf::program_header::{self as ph, ProgramHeader};
use wakebox_abi::layout::{IMAGE_MAX, PAGE_SIZE};
use wakebox_vmm::backing::{Backing, Part, Parts};
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::plan::Plan;

use super::headers::{parse_header, parse_program_headers};
use super::{Image, checked, parse, regular};
use crate::elf::fuel::Fuel;
use crate::error::{Error, Result};

/// Fewest bytes of a part that is mapped: to copy less is as fast.
const LEAST: u64 = 1 << 20;

/// Bytes of the file's header.
const HEADER: usize = 64;

/// The parts of a file that are mapped.
#[derive(Clone)]
pub(super) struct Mapped {
    file: Arc<File>,
    parts: Arc<[Range<usize>]>,
}

impl Image {
    /// As [`Image::from_path`], with large parts of the file mapped, and not read. They are read when the guest
    /// touches them, and all who run the same file have them once.
    ///
    /// Nobody may write into the file or make it shorter while a sandbox of it lives: what it reads of it then
    /// ends this process with a signal. So it should be a file into which nobody writes but by putting another in its
    /// place. `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] or [`Error::Load`].
    pub fn mapped(file: File, name: impl AsRef<Path>) -> Result<Self> {
        let path = name.as_ref();
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let len = regular(&file.metadata().map_err(read)?).map_err(read)?;
        let name = path.display().to_string();
        let (bytes, parts) = read_rest(&file, len).map_err(read)?;
        let fuel = Fuel::for_file(bytes.len());
        let mut image = checked(&name, parse(&name, bytes, &fuel, Arc::new))?;
        if !parts.is_empty() {
            let file = Arc::new(file);
            let parts = parts.into();
            image.mapped = Some(Mapped { file, parts });
        }
        Ok(image)
    }

    fn is_mapped(&self, file: &Range<usize>) -> bool {
        let mapped = self.mapped.as_ref();
        mapped.is_some_and(|mapped| mapped.parts.contains(file))
    }

    /// What memory for it is made of.
    pub(crate) fn backing(&self, plan: &Plan) -> Backing {
        let Some(mapped) = &self.mapped else {
            return Backing::Anonymous;
        };
        let segments = self.segments.iter();
        let parts = segments.filter(|segment| self.is_mapped(&segment.file));
        let parts = parts.map(|segment| Part {
            offset: plan.image_offset(segment.addresses.start),
            at: segment.file.start as u64,
            len: segment.file.len() as u64,
        });
        Backing::Parts(Parts::new(mapped.file.clone(), parts.collect::<Vec<_>>()))
    }

    /// Copies the segments that are not mapped to where they were planned.
    pub(super) fn copy_rest(&self, memory: &GuestMemory) {
        for segment in &*self.segments {
            let bytes = self.bytes.get(segment.file.clone());
            if let Some(bytes) = bytes.filter(|_| !self.is_mapped(&segment.file)) {
                memory.write(memory.plan().image_offset(segment.addresses.start), bytes);
            }
        }
    }
}

/// A file without its large parts, where zeroes are that take no memory; and these.
fn read_rest(file: &File, len: u64) -> io::Result<(Vec<u8>, Vec<Range<usize>>)> {
    let mut bytes = vec![0; len as usize];
    let read = |bytes: &mut [u8], range: Range<usize>| -> io::Result<()> {
        let into = bytes.get_mut(range.clone()).unwrap_or_default();
        file.read_exact_at(into, range.start as u64)
    };
    read(&mut bytes, 0..HEADER.min(len as usize))?;
    // What is wrong with the file, whoever parses the whole says.
    let mut parts = Vec::new();
    if let Ok(header) = parse_header(&bytes) {
        let at = usize::try_from(header.e_phoff).unwrap_or(usize::MAX);
        let size = ph::program_header64::SIZEOF_PHDR * usize::from(header.e_phnum);
        read(&mut bytes, at..at.saturating_add(size))?;
        parts = large(&parse_program_headers(&bytes, &header).unwrap_or_default());
    }
    let mut at = 0;
    for part in &parts {
        read(&mut bytes, at..part.start)?;
        at = part.end;
    }
    read(&mut bytes, at..len as usize)?;
    Ok((bytes, parts))
}

/// The parts that can be mapped, in their order, if nothing else of the file lies in them.
fn large(headers: &[ProgramHeader]) -> Vec<Range<usize>> {
    let range =
        |header: &ProgramHeader| header.p_offset..header.p_offset.saturating_add(header.p_filesz);
    let is_large = |header: &&ProgramHeader| {
        let whole = [header.p_offset, header.p_vaddr, header.p_filesz];
        header.p_type == ph::PT_LOAD
            && !header.is_write()
            && header.p_filesz == header.p_memsz
            && header.p_filesz >= LEAST
            && header.p_filesz <= IMAGE_MAX
            && whole.iter().all(|value| value.is_multiple_of(PAGE_SIZE))
    };
    let touches =
        |one: &Range<u64>, other: &Range<u64>| one.start < other.end && other.start < one.end;
    let is_alone = |header: &&ProgramHeader| {
        let own = range(header);
        let touching = headers.iter().filter(|other| touches(&own, &range(other)));
        touching.count() == 1
    };
    let large = headers.iter().filter(is_large).filter(is_alone).map(range);
    let mut parts: Vec<_> = large
        .map(|part| part.start as usize..part.end as usize)
        .collect();
    parts.sort_by_key(|part| part.start);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u32, at: u64, len: u64) -> ProgramHeader {
        ProgramHeader {
            p_type: ph::PT_LOAD,
            p_flags: flags,
            p_offset: at,
            p_vaddr: at + PAGE_SIZE,
            p_paddr: at + PAGE_SIZE,
            p_filesz: len,
            p_memsz: len,
            p_align: PAGE_SIZE,
        }
    }

    #[test]
    fn large_segments_on_whole_pages_that_nobody_writes_are_mapped_and_no_others() {
        let (read, execute, write) = (ph::PF_R, ph::PF_R | ph::PF_X, ph::PF_R | ph::PF_W);
        let mapped = |headers: &[ProgramHeader]| large(headers).len();
        let good = segment(read, 0x1000, LEAST);
        let after = segment(execute, 0x1000 + LEAST, LEAST);
        assert_eq!(
            large(&[after.clone(), good.clone()]),
            [0x1000..0x10_1000, 0x10_1000..0x20_1000]
        );
        assert_eq!(mapped(&[segment(write, 0x1000, LEAST)]), 0);
        assert_eq!(mapped(&[segment(read, 0x1000, LEAST - PAGE_SIZE)]), 0);
        assert_eq!(mapped(&[segment(read, 0x1000, LEAST + 1)]), 0);
        assert_eq!(mapped(&[segment(read, 0x1001, LEAST)]), 0);
        let mut larger = good.clone();
        larger.p_memsz += PAGE_SIZE;
        assert_eq!(mapped(&[larger]), 0);
        // Nothing else may lie in it: it would not be read.
        let mut inside = segment(write, 0x2000, 16);
        assert_eq!(mapped(&[good.clone(), inside.clone()]), 0);
        inside.p_type = ph::PT_NOTE;
        assert_eq!(mapped(&[good, inside]), 0);
    }
}
