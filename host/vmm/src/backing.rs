//! What guest memory is made of.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals};
use vm_memory::MmapRegion;
use wakebox_abi::layout::PAGE_SIZE;

use crate::hot::Hot;

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
        if let Self::Template(_) = self {
            // SAFETY: the mapping was made here.
            unsafe { self.map_over(mapped.as_ptr() as u64, bytes) }?;
        }
        Ok(mapped)
    }

    /// The file of which the first of so many bytes are made, and how many of them.
    fn in_file(&self, bytes: u64) -> io::Result<Option<(&Arc<File>, u64)>> {
        match self {
            Self::Anonymous => Ok(None),
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
        let over = |start: u64, bytes: u64, file: Option<&Arc<File>>| {
            let kind = file.map_or(libc::MAP_ANONYMOUS, |_| 0);
            // SAFETY: the caller's promise: the range is a part of the one there.
            let mapped = unsafe {
                libc::mmap(
                    start as *mut libc::c_void,
                    bytes as usize,
                    RIGHTS,
                    FLAGS | libc::MAP_FIXED | kind,
                    file.map_or(-1, AsRawFd::as_raw_fd),
                    0,
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
            over(start, len, Some(file))?;
        }
        if len < bytes {
            over(start + len, bytes - len, None)?;
        }
        Ok(())
    }

    /// Whether both are zeroes, or of one file that nobody can change.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Template(one), Self::Template(other)) => Arc::ptr_eq(&one.file, &other.file),
            _ => false,
        }
    }
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
