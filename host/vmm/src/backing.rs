//! What guest memory is made of.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals};
use vm_memory::{FileOffset, MmapRegion};

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
        let file = file.map(|(file, offset)| FileOffset::from_arc(file.clone(), offset));
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // Not reserved: a guest commits what it touches, not what it may have.
        MmapRegion::build(file, bytes as usize, rights, flags | libc::MAP_NORESERVE).map_err(
            |error| match error {
                vm_memory::mmap::MmapRegionError::Mmap(error) => error,
                other => io::Error::other(other),
            },
        )
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
