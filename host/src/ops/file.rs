//! Opening files, reading and writing them, and what else is done with an open one.
//!
//! A piece that is in the page cache is read on the spot: one system call, no copy besides the
//! kernel's own, no thread. Everything else is a blocking call ([`super::blocking`]).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use wakebox_abi::file::{FileStat, OpenFlags};
use wakebox_abi::op::{OpenFile, ReadFile, SetFileLength, StatFile, Sync, SyncFile, WriteFile};
use wakebox_abi::status::Status;

use super::path::{encode_stat, path};
use super::{End, Resources, Start, Started, status_of};
use crate::allowance::PIECE;
use crate::driver::handles::Resource;
use crate::limits::LimitKind;
use crate::signals;
use crate::tree::Place;
use crate::vm::memory::ArenaSlice;

/// Most bytes that one operation moves, so that a large one does not keep a thread from others.
const MOST: usize = 1 << 20;

/// Rights of a new file, less what the process's umask takes away.
const MODE: Mode = Mode::from_raw_mode(0o666);

impl Start for OpenFile {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let place = resources.tree.find(path(resources, self.path)?)?;
        let changes = OpenFlags::WRITE | OpenFlags::APPEND;
        let place = if self.flags.has(changes) {
            place.for_change()?
        } else {
            place
        };
        let flags = open_flags(self.flags);
        if !flags.intersects(OFlags::CREATE | OFlags::TRUNC)
            && let Some(opened) = place.open_cached(flags)
        {
            let file = regular(opened?.into(), &place)?;
            return Ok(Started::Done(End::Open(Resource::File(Arc::new(file)))));
        }
        Ok(resources.disk.start(None, move || {
            let mode = if flags.contains(OFlags::CREATE) {
                MODE
            } else {
                Mode::empty()
            };
            let file = regular(place.open(flags, mode)?.into(), &place)?;
            Ok(End::Open(Resource::File(Arc::new(file))))
        }))
    }
}

fn open_flags(flags: OpenFlags) -> OFlags {
    // Opening a pipe or a terminal by accident neither waits nor takes it over.
    let mut all = OFlags::NONBLOCK | OFlags::NOCTTY;
    all |= match (
        flags.has(OpenFlags::READ),
        flags.has(OpenFlags::WRITE | OpenFlags::APPEND),
    ) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (flag, meaning) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::CREATE_NEW, OFlags::CREATE.union(OFlags::EXCL)),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
    ] {
        if flags.has(flag) {
            all |= meaning;
        }
    }
    all
}

/// The file, if it is a regular one. Devices, pipes and sockets are not granted with the
/// directory in which they lie.
fn regular(file: File, place: &Place) -> Result<File, Status> {
    let stat = rustix::fs::fstat(&file).map_err(|error| status_of(&error.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(Status::IsADirectory),
        _ => Err(place.refuse()),
    }
}

/// A system call between a place in a file and at most so many bytes of a part of the arena.
type Transfer = fn(&File, &ArenaSlice, most: usize, offset: i64, flags: i32) -> io::Result<usize>;

fn read(file: &File, into: &ArenaSlice, most: usize, offset: i64, flags: i32) -> io::Result<usize> {
    into.in_kernel(most, |base, len| {
        let part = libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        };
        // SAFETY: the range lies in mapped guest memory, which `into` keeps mapped; the kernel
        // writes to it as a device would, and the host holds no reference into it.
        count(unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset, flags) })
    })
}

fn write(
    file: &File,
    from: &ArenaSlice,
    most: usize,
    offset: i64,
    flags: i32,
) -> io::Result<usize> {
    from.in_kernel(most, |base, len| {
        let part = libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        };
        signals::write(|| {
            // SAFETY: as in `read`; the kernel reads what the guest makes of the bytes meanwhile.
            count(unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, offset, flags) })
        })
    })
}

fn count(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// Tries without waiting for a disk if it is short enough for a turn of the driver, and else with.
fn transfer(
    resources: &mut Resources,
    handle: wakebox_abi::op::Handle,
    slice: ArenaSlice,
    offset: u64,
    kind: LimitKind,
) -> Result<Started, Status> {
    let call: Transfer = match kind {
        LimitKind::FilesOut => write,
        _ => read,
    };
    let file = resources.handles.file(handle)?.clone();
    let meter = resources.meter.clone();
    let offset = i64::try_from(offset).map_err(|_| Status::InvalidInput)?;
    let slice = slice.at_most(MOST);
    let part = slice.clone();
    let metered = move |flags| -> io::Result<usize> {
        let taken = meter.take(kind, part.len()).map_err(io::Error::other)?;
        let moved = call(&file, &part, taken.len(), offset, flags)?;
        taken.keep(moved);
        Ok(moved)
    };
    if slice.len() > PIECE {
        return Ok(resources.disk.start_transfer(handle, move || metered(0)));
    }
    match metered(libc::RWF_NOWAIT) {
        Ok(count) => Ok(Started::Done(End::bytes(count))),
        Err(error) => match error.raw_os_error() {
            // Not in memory, or a file system that cannot tell.
            Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::EINTR | libc::ENOSYS) => {
                Ok(resources.disk.start_transfer(handle, move || metered(0)))
            }
            _ => Err(status_of(&error)),
        },
    }
}

impl Start for ReadFile {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        transfer(resources, self.file, into, self.offset, LimitKind::FilesIn)
    }
}

impl Start for WriteFile {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let from = resources.slice(self.from)?;
        transfer(resources, self.file, from, self.offset, LimitKind::FilesOut)
    }
}

impl Start for StatFile {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if into.len() < FileStat::SIZE {
            return Err(Status::InvalidInput);
        }
        let file = resources.handles.file(self.file)?.clone();
        Ok(encode_stat(resources, Some(self.file), into, move || {
            Ok(file)
        }))
    }
}

impl Start for SetFileLength {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let file = resources.handles.file(self.file)?.clone();
        Ok(resources.disk.start(Some(self.file), move || {
            let done = signals::write(|| Ok(rustix::fs::ftruncate(&file, self.len)?));
            done.map_err(|error| status_of(&error))?;
            Ok(End::OK)
        }))
    }
}

impl Start for SyncFile {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let file = resources.handles.file(self.file)?.clone();
        Ok(resources.disk.start(Some(self.file), move || {
            let done = match self.what {
                Sync::Data => file.sync_data(),
                Sync::All => file.sync_all(),
            };
            done.map_err(|error| status_of(&error))?;
            Ok(End::OK)
        }))
    }
}
