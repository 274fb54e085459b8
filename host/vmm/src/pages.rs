//! Which pages of a private mapping are the process's own: those that differ from what is mapped.
//!
//! The kernel is asked with `PAGEMAP_SCAN` (Linux 6.7, `include/uapi/linux/fs.h`), which goes past what
//! was never touched at once, or else by reading an entry for each page
//! (`Documentation/admin-guide/mm/pagemap.rst`). Pages that are swapped out are the process's own as
//! much as those that are present. KVM's log of dirty pages is no help: it does not see what the host
//! writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use wakebox_abi::layout::PAGE_SIZE;

use crate::ioctl::{self, PageRegion, ScanPages};
use crate::process::PerProcess;

/// A range of a mapping, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// Ranges that are asked for in one call.
const RANGES: usize = 256;

/// Entries that are read in one call, eight bytes each.
const ENTRIES: usize = 4096;

/// The process's own pages in the mapping of `len` bytes at `start`, as ranges in their order.
///
/// # Errors
///
/// What the kernel says: `/proc` is not there or may not be read.
pub(crate) fn own(start: u64, len: u64) -> io::Result<Vec<Range>> {
    let mut ranges = Vec::new();
    let pagemap = pagemap()?;
    match scan(pagemap, start, len, &mut ranges) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
            read(pagemap, start, len, &mut ranges)?;
        }
        scanned => scanned?,
    }
    Ok(ranges)
}

/// Where the kernel tells of this process's pages, opened at the first call.
///
/// # Errors
///
/// As [`own`].
pub(crate) fn pagemap() -> io::Result<&'static File> {
    // The file is about the process that has opened it.
    static PAGEMAP: PerProcess<std::sync::OnceLock<File>> = PerProcess::new();
    let pagemap = PAGEMAP.get_or_init(Default::default);
    match pagemap.get() {
        Some(file) => Ok(file),
        None => {
            let file = File::open("/proc/self/pagemap")?;
            Ok(pagemap.get_or_init(|| file))
        }
    }
}

/// Adds a range that lies behind all others.
pub(crate) fn add(ranges: &mut Vec<Range>, offset: u64, len: u64) {
    match ranges.last_mut() {
        Some(last) if last.offset + last.len == offset => last.len += len,
        _ => ranges.push(Range { offset, len }),
    }
}

/// Where a file has data in its first `len` bytes.
pub(crate) fn data(file: &File, len: u64) -> io::Result<Vec<Range>> {
    use rustix::fs::{SeekFrom, seek};
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < len {
        let from = match seek(file, SeekFrom::Data(at)) {
            Ok(from) => from,
            // Nothing but a hole is left.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let to = seek(file, SeekFrom::Hole(from))?.min(len);
        if to > from {
            ranges.push(Range {
                offset: from,
                len: to - from,
            });
        }
        at = to.max(from + PAGE_SIZE);
    }
    Ok(ranges)
}

fn scan(pagemap: &File, start: u64, len: u64, ranges: &mut Vec<Range>) -> io::Result<()> {
    let mut found = [PageRegion::default(); RANGES];
    let mut from = start;
    while from < start + len {
        let mut call = ScanPages::own(from, start + len, &mut found);
        let count = ioctl::scan_pages(pagemap, &mut call)?;
        let walked = call.walk_end();
        for region in &found[..count.min(RANGES)] {
            add(ranges, region.start - start, region.end - region.start);
        }
        if walked <= from {
            break;
        }
        from = walked;
    }
    Ok(())
}

fn read(pagemap: &File, start: u64, len: u64, ranges: &mut Vec<Range>) -> io::Result<()> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_A_FILE: u64 = 1 << 61;
    let mut bytes = vec![0; ENTRIES * 8];
    let pages = len / PAGE_SIZE;
    let mut page = 0;
    while page < pages {
        let count = (pages - page).min(ENTRIES as u64);
        let into = &mut bytes[..count as usize * 8];
        pagemap.read_exact_at(into, (start / PAGE_SIZE + page) * 8)?;
        let (entries, _) = into.as_chunks::<8>();
        for (at, entry) in (page..).zip(entries) {
            let entry = u64::from_ne_bytes(*entry);
            if entry & (PRESENT | SWAPPED) != 0 && entry & OF_A_FILE == 0 {
                add(ranges, at * PAGE_SIZE, PAGE_SIZE);
            }
        }
        page += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pages: u64) -> vm_memory::MmapRegion<()> {
        vm_memory::MmapRegion::new((pages * PAGE_SIZE) as usize).unwrap()
    }

    fn touch(mapping: &vm_memory::MmapRegion<()>, page: u64) {
        use vm_memory::VolatileMemory;
        mapping
            .get_slice((page * PAGE_SIZE) as usize, 1)
            .unwrap()
            .copy_from(b"x");
    }

    #[test]
    fn what_was_written_is_found_whichever_way_the_kernel_is_asked() {
        let pages = 3 * ENTRIES as u64;
        let mapping = mapping(pages);
        // More ranges than one call tells, the first and the last page among them.
        let touched: Vec<u64> = (0..pages).step_by(16).chain([pages - 1]).collect();
        for page in &touched {
            touch(&mapping, *page);
        }
        let (start, len) = (mapping.as_ptr() as u64, pages * PAGE_SIZE);
        let expected: Vec<Range> = touched
            .iter()
            .map(|page| Range {
                offset: page * PAGE_SIZE,
                len: PAGE_SIZE,
            })
            .collect();
        assert!(expected.len() > RANGES);
        assert_eq!(own(start, len).unwrap(), expected);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let mut ranges = Vec::new();
        read(&pagemap, start, len, &mut ranges).unwrap();
        assert_eq!(ranges, expected);
    }
}
