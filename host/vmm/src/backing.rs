//! What guest memory is made of.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals};
use vm_memory::MmapRegion;
use wakebox_abi::layout::PAGE_SIZE;

use crate::hot::Hot;
use crate::pages::{Range, data};

/// What the host may do with guest memory.
const RIGHTS: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

/// Not reserved: a guest commits what it touches, not what it may have.
const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_NORESERVE;

/// What guest memory is made of, from its first byte to its last.
///
/// A file is one of `memfd_create` that nobody can make shorter any more (`F_SEAL_SHRINK`): a page that is
/// mapped and no longer there would end the process that touches it, which the host does as well as the
/// guest.
#[derive(Clone, Debug, Default)]
pub enum Backing {
    /// Zeroes, for this guest alone, committed page by page as they are touched.
    #[default]
    Anonymous,
    /// Bytes of a file that nobody can write any more (`F_SEAL_WRITE`), for this guest alone: a page is
    /// copied when it is written for the first time.
    Template(Template),
    /// Zeroes, with parts of a file in between that this guest and others share until one of them writes.
    Parts(Parts),
}

/// Parts of a file, and where they lie in guest memory.
///
/// Nobody may make the file shorter, as with a template, or write into it: but here that is the word of who
/// has made it, as only files of `memfd_create` can be sealed.
#[derive(Clone, Debug)]
pub struct Parts {
    file: Arc<File>,
    list: Arc<[Part]>,
}

/// A part of a file: whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it lies in guest memory.
    pub offset: u64,
    /// Where it lies in the file.
    pub at: u64,
    /// Bytes of it.
    pub len: u64,
}

impl Parts {
    /// Parts that do not overlap.
    #[must_use]
    pub fn new(file: Arc<File>, list: impl Into<Arc<[Part]>>) -> Self {
        let list = list.into();
        Self { file, list }
    }

    /// The ranges of guest memory that they take.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.list.iter().map(|part| Range {
            offset: part.offset,
            len: part.len,
        })
    }

    /// Sees that they are whole pages of so many bytes of memory, and in the file.
    fn check(&self, bytes: u64) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        let fits = |at: u64, part: &Part, end: u64| {
            at.is_multiple_of(PAGE_SIZE) && at.checked_add(part.len).is_some_and(|to| to <= end)
        };
        let is_whole = |part: &Part| part.len.is_multiple_of(PAGE_SIZE) && part.len > 0;
        let all = self.list.iter().all(|part| {
            is_whole(part) && fits(part.offset, part, bytes) && fits(part.at, part, len)
        });
        all.then_some(()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a part of guest memory is not in its file",
            )
        })
    }
}

/// A file from whose beginning on guest memory is made.
#[derive(Clone, Debug)]
pub struct Template {
    file: Arc<File>,
    pub(crate) hot: Hot,
}

impl Template {
    /// Of a file of which nothing is known yet.
    #[must_use]
    pub fn new(file: Arc<File>) -> Self {
        Self {
            file,
            hot: Hot::default(),
        }
    }

    /// What is mapped.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }
}

impl Backing {
    /// Maps so many bytes. Behind the end of a file lie zeroes, for this guest alone.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the file does not end with a page, or is not sealed as it must be; what `mmap`
    /// says.
    pub(crate) fn map(&self, bytes: u64) -> io::Result<MmapRegion<()>> {
        let mapped = MmapRegion::build(None, bytes as usize, RIGHTS, FLAGS | libc::MAP_ANONYMOUS);
        let mapped = mapped.map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(error) => error,
            other => io::Error::other(other),
        })?;
        if !matches!(self, Self::Anonymous) {
            // SAFETY: the mapping was made here.
            unsafe { self.map_over(mapped.as_ptr() as u64, bytes) }?;
        }
        Ok(mapped)
    }

    /// The file of which the first of so many bytes are made, and how many of them.
    fn in_file(&self, bytes: u64) -> io::Result<Option<(&Arc<File>, u64)>> {
        match self {
            Self::Anonymous | Self::Parts(_) => Ok(None),
            Self::Template(Template { file, .. }) => Ok(Some((file, check(file)?.min(bytes)))),
        }
    }

    /// Maps it in place of what is mapped there, of which nothing is left.
    ///
    /// # Errors
    ///
    /// As [`Self::map`]. It may be that nothing is mapped there then.
    ///
    /// # Safety
    ///
    /// The range is a mapping that the caller owns alone.
    pub(crate) unsafe fn map_over(&self, start: u64, bytes: u64) -> io::Result<()> {
        let over = |start: u64, bytes: u64, file: Option<&Arc<File>>, at: u64| {
            let kind = file.map_or(libc::MAP_ANONYMOUS, |_| 0);
            // SAFETY: the caller's promise: the range is a part of the one there.
            let mapped = unsafe {
                libc::mmap(
                    start as *mut libc::c_void,
                    bytes as usize,
                    RIGHTS,
                    FLAGS | libc::MAP_FIXED | kind,
                    file.map_or(-1, AsRawFd::as_raw_fd),
                    at as libc::off_t,
                )
            };
            match mapped {
                libc::MAP_FAILED => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        let of_file = self.in_file(bytes)?;
        let len = of_file.map_or(0, |(_, len)| len);
        if let Some((file, len)) = of_file {
            over(start, len, Some(file), 0)?;
        }
        if len < bytes {
            over(start + len, bytes - len, None, 0)?;
        }
        if let Self::Parts(parts) = self {
            parts.check(bytes)?;
            for part in &*parts.list {
                over(start + part.offset, part.len, Some(&parts.file), part.at)?;
            }
        }
        Ok(())
    }

    /// The ranges of so many bytes of memory that may hold something that is no zero before anybody writes.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(crate) fn data(&self, bytes: u64) -> io::Result<Vec<Range>> {
        match self {
            Self::Anonymous => Ok(Vec::new()),
            Self::Template(template) => data(&template.file, bytes),
            Self::Parts(parts) => Ok(parts.ranges().collect()),
        }
    }

    /// What lies at an offset in memory that nobody has written to; zeroes behind the end of a file.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        match self {
            Self::Anonymous => Ok(()),
            Self::Template(template) => read(&template.file, offset, bytes),
            Self::Parts(parts) => {
                let end = offset + bytes.len() as u64;
                for part in &*parts.list {
                    let from = part.offset.max(offset);
                    let to = (part.offset + part.len).min(end);
                    if from < to {
                        let into = &mut bytes[(from - offset) as usize..(to - offset) as usize];
                        read(&parts.file, part.at + (from - part.offset), into)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether both are zeroes, or of one file that nobody can change.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Template(one), Self::Template(other)) => Arc::ptr_eq(&one.file, &other.file),
            (Self::Parts(one), Self::Parts(other)) => {
                Arc::ptr_eq(&one.file, &other.file) && one.list == other.list
            }
            _ => false,
        }
    }
}

/// Reads what lies at an offset in a file; what is behind its end stays as it was.
fn read(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sees that what lies in a file stays there, and returns how many bytes that are: whole pages.
fn check(file: &File) -> io::Result<u64> {
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    // Files that are not made by `memfd_create` know no seals, which is an error.
    let seals = fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    if !seals.contains(SealFlags::SHRINK | SealFlags::WRITE) {
        return refused("the file of guest memory is not sealed");
    }
    let len = file.metadata()?.len();
    if len == 0 || !len.is_multiple_of(PAGE_SIZE) {
        return refused("the file of guest memory does not end with a page");
    }
    Ok(len)
}
