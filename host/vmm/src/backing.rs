//! What guest memory is made of.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals};
use vm_memory::{FileOffset, MmapRegion};

/// The file that is mapped, if there is one, and where in it the memory begins.
type Source<'a> = Option<(&'a Arc<File>, u64)>;

/// What the host may do with guest memory.
const RIGHTS: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

/// What guest memory is made of, from its first byte to its last.
///
/// A file is one of `memfd_create` that nobody can make shorter any more (`F_SEAL_SHRINK`): a page that is
/// mapped and no longer there would end the process that touches it, which the host does as well as the
/// guest. Offsets are whole pages.
#[derive(Clone, Debug, Default)]
pub enum Backing {
    /// Zeroes, for this guest alone, committed page by page as they are touched.
    #[default]
    Anonymous,
    /// Bytes of a file, for all who map it: each sees what the others write.
    File {
        /// The file.
        file: Arc<File>,
        /// Where in it the memory begins, in bytes.
        offset: u64,
    },
    /// Bytes of a file that nobody can write any more (`F_SEAL_WRITE`), for this guest alone: a page is
    /// copied when it is written for the first time.
    Template {
        /// The file.
        file: Arc<File>,
        /// Where in it the memory begins, in bytes.
        offset: u64,
    },
}

impl Backing {
    /// Maps so many bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the file is shorter, or is not sealed as it must be; what `mmap` says.
    pub(crate) fn map(&self, bytes: u64) -> io::Result<MmapRegion<()>> {
        let (file, flags) = self.source(bytes)?;
        let file = file.map(|(file, offset)| FileOffset::from_arc(file.clone(), offset));
        MmapRegion::build(file, bytes as usize, RIGHTS, flags).map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(error) => error,
            other => io::Error::other(other),
        })
    }

    /// The file that is mapped, and the flags of `mmap`.
    fn source(&self, bytes: u64) -> io::Result<(Source<'_>, libc::c_int)> {
        let (file, flags) = match self {
            Self::Anonymous => (None, libc::MAP_ANONYMOUS | libc::MAP_PRIVATE),
            Self::File { file, offset } => {
                check(file, *offset, bytes, SealFlags::SHRINK)?;
                (Some((file, *offset)), libc::MAP_SHARED)
            }
            Self::Template { file, offset } => {
                check(file, *offset, bytes, SealFlags::SHRINK | SealFlags::WRITE)?;
                (Some((file, *offset)), libc::MAP_PRIVATE)
            }
        };
        // Not reserved: a guest commits what it touches, not what it may have.
        Ok((file, flags | libc::MAP_NORESERVE))
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
        let (file, flags) = self.source(bytes)?;
        let (descriptor, offset) =
            file.map_or((-1, 0), |(file, offset)| (file.as_raw_fd(), offset));
        // SAFETY: the caller's promise.
        let mapped = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                bytes as usize,
                RIGHTS,
                flags | libc::MAP_FIXED,
                descriptor,
                offset as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Whether both are bytes of one file that nobody can change, from the same on.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Template { file, offset },
                Self::Template {
                    file: other_file,
                    offset: other_offset,
                },
            ) => Arc::ptr_eq(file, other_file) && offset == other_offset,
            _ => false,
        }
    }

    /// Whether huge pages may be asked for behind it.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// Sees that the memory lies in a file, and will.
fn check(file: &File, offset: u64, bytes: u64, wanted: SealFlags) -> io::Result<()> {
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    // Files that are not made by `memfd_create` know no seals, which is an error.
    let seals = fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    if !seals.contains(wanted) {
        return refused("the file of guest memory is not sealed");
    }
    let end = offset.checked_add(bytes);
    if end.is_none_or(|end| end > file.metadata().map_or(0, |metadata| metadata.len())) {
        return refused("the file of guest memory is too short");
    }
    Ok(())
}
