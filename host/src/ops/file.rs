//! Opening files, reading and writing them, and what else is done with an open one.
//!
//! A piece that is in the page cache is read on the spot: one system call, no copy besides the
//! kernel's own, no thread. Everything else is a blocking call ([`super::blocking`]), or of a transfer an entry in a
//! ring ([`super::uring`]), where the embedder wants that.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use wakebox_abi::file::{FileStat, OpenFlags};
use wakebox_abi::op::{
    Handle, OpenFile, ReadFile, SetFileLength, StatFile, Sync, SyncFile, WriteFile,
};
use wakebox_abi::status::Status;

use super::blocking::Reach;
use super::handles::{Resource, Vacancy};
use super::mounts::Opened;
use super::path::{encode_stat, path};
use super::regular::{ENTRY, Regular};
use super::uring::Entry;
use super::{End, Start, Started, TokioBackend, status_of};
use crate::allowance::REACH;
use crate::arena::ArenaSlice;
use crate::later::Later;
use crate::limits::LimitKind;
use crate::meter::Meter;
use crate::signals;

/// Most bytes that one operation moves, so that a large one does not keep a thread from others.
const MOST: usize = 1 << 20;

impl Start for OpenFile {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let resolved = resources.mounts.resolve(path(resources, self.path)?)?;
        let changes = OpenFlags::WRITE | OpenFlags::APPEND;
        let resolved = if self.flags.has(changes) {
            resolved.for_change()?
        } else {
            resolved
        };
        // Before a file is made or emptied that could not be opened.
        let vacancy = resources.vacancy()?;
        let flags = open_flags(self.flags);
        let may_change = resolved.is_writable();
        let open = move |opened, vacancy| open(opened, flags, may_change, vacancy);
        if !flags.intersects(OFlags::CREATE | OFlags::TRUNC)
            && let Some(opened) = resolved.open_file_cached(flags)
        {
            return Ok(Started::Done(open(opened?, vacancy)));
        }
        let meter = resources.meter.clone();
        Ok(resources.disk.start(None, move || {
            if !flags.contains(OFlags::CREATE) {
                return Ok(open(resolved.open_file(flags)?, vacancy));
            }
            let opened = match meter.take_whole(LimitKind::FilesOut, ENTRY) {
                Ok(entry) => {
                    let opened = resolved.open_file(flags)?;
                    entry.keep(if opened.is_new { ENTRY } else { 0 });
                    opened
                }
                Err(full) if flags.contains(OFlags::EXCL) => return Err(full),
                // What is there already costs nothing.
                Err(full) => match resolved.open_file(flags - OFlags::CREATE) {
                    Err(Status::NotFound) => return Err(full),
                    opened => opened?,
                },
            };
            Ok(open(opened, vacancy))
        }))
    }
}

fn open(opened: Opened, flags: OFlags, may_change: bool, vacancy: Vacancy) -> End {
    let file = Regular::new(opened.file, flags, opened.is_new, may_change);
    let file = Later::new(file);
    End::Open(Resource::File(Arc::new(file)), vacancy)
}

fn open_flags(flags: OpenFlags) -> OFlags {
    // Only regular files are opened; if the kernel should see something else, it neither waits for it
    // nor takes it over.
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
        (OpenFlags::SYNC_DATA, OFlags::DSYNC),
        (OpenFlags::SYNC_ALL, OFlags::SYNC),
    ] {
        if flags.has(flag) {
            all |= meaning;
        }
    }
    all
}

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

/// Moves `len` bytes without waiting for a disk, if those are no more than a system call moves in a turn of the driver:
/// `transfer` is called with the kernel's flags. `None` if they are, or that would wait.
fn on_the_spot(
    file: &Regular,
    len: usize,
    transfer: impl Fn(i32) -> io::Result<usize>,
) -> Result<Option<Started>, Status> {
    if len > REACH || file.synced {
        return Ok(None);
    }
    match transfer(libc::RWF_NOWAIT) {
        Ok(count) => Ok(Some(Started::Done(End::bytes(count)))),
        Err(error) => match error.raw_os_error() {
            // Not in memory, or a file system that cannot tell.
            Some(libc::EAGAIN | libc::EOPNOTSUPP | libc::EINTR | libc::ENOSYS) => Ok(None),
            _ => Err(status_of(&error)),
        },
    }
}

/// Moves bytes that may have to be waited for: in the sandbox's ring, if it has one, and else by `call`, with the kernel's
/// flags, on a thread for blocking calls.
fn wait_for<F>(
    resources: &mut TokioBackend,
    handle: Handle,
    call: impl Fn(i32) -> io::Result<usize> + Send + 'static,
    in_ring: impl FnOnce(Entry) -> F + Send + 'static,
) -> Started
where
    F: Future<Output = Result<io::Result<usize>, Status>> + Send + 'static,
{
    let disk = resources.disk.clone();
    let Some(ring) = resources.files.ring() else {
        return disk.start_transfer(handle, move || call(0));
    };
    let reach = Reach::default();
    let begun = reach.clone();
    reach.holds(handle, async move {
        let entry = ring.entry(&begun).await;
        let moved = match in_ring(entry).await {
            Ok(moved) => moved,
            Err(status) => return status.into(),
        };
        match moved {
            Ok(moved) => End::bytes(moved),
            // It was not begun, for the kernel's own reasons: the thread has ended that had asked.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                disk.transfer(&begun, move || call(0)).await
            }
            Err(error) => error.into(),
        }
    })
}

/// Reads into a part of the arena, as much of it as the quota has left.
fn metered_read(
    file: &Regular,
    meter: &Meter,
    into: &ArenaSlice,
    offset: i64,
    flags: i32,
) -> io::Result<usize> {
    let taken = meter.take(LimitKind::FilesIn, into.len());
    let taken = taken.map_err(io::Error::other)?;
    let moved = read(&file.file, into, taken.len(), offset, flags)?;
    taken.keep(moved);
    Ok(moved)
}

/// Writes from a part of the arena, likewise; the quota pays for what the file grows by besides.
fn metered_write(
    file: &Regular,
    meter: &Meter,
    from: &ArenaSlice,
    offset: i64,
    flags: i32,
) -> io::Result<usize> {
    let paid = file.pay(meter, gap(file, from, offset)?, from.len());
    let paid = paid.map_err(io::Error::other)?;
    let moved = write(&file.file, from, paid.len(), offset, flags)?;
    if moved > 0 {
        paid.keep(moved);
    }
    Ok(moved)
}

/// By how much a file grows besides what is written at an offset.
fn gap(file: &Regular, from: &ArenaSlice, offset: i64) -> io::Result<u64> {
    match from.len() {
        0 => Ok(0),
        _ => file.gap_before(offset.unsigned_abs()),
    }
}

impl Start for ReadFile {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?.at_most(MOST);
        let file = resources.handles.file(self.file)?;
        let meter = &resources.meter;
        let offset = i64::try_from(self.offset).map_err(|_| Status::InvalidInput)?;
        let read = |flags| metered_read(file, meter, &into, offset, flags);
        if let Some(started) = on_the_spot(file, into.len(), read)? {
            return Ok(started);
        }
        let (file, meter) = (file.clone(), meter.clone());
        let call = {
            let (into, file, meter) = (into.clone(), file.clone(), meter.clone());
            move |flags| metered_read(&file, &meter, &into, offset, flags)
        };
        let in_ring = async move |entry: Entry| {
            let taken = meter.take(LimitKind::FilesIn, into.len())?;
            let moved = entry.read(file, into, taken.len(), self.offset).await;
            taken.keep(*moved.as_ref().unwrap_or(&0));
            Ok(moved)
        };
        Ok(wait_for(resources, self.file, call, in_ring))
    }
}

impl Start for WriteFile {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let from = resources.slice(self.from)?.at_most(MOST);
        let file = resources.handles.file(self.file)?;
        let meter = &resources.meter;
        let offset = i64::try_from(self.offset).map_err(|_| Status::InvalidInput)?;
        let write = |flags| metered_write(file, meter, &from, offset, flags);
        if let Some(started) = on_the_spot(file, from.len(), write)? {
            return Ok(started);
        }
        let (file, meter) = (file.clone(), meter.clone());
        let call = {
            let (from, file, meter) = (from.clone(), file.clone(), meter.clone());
            move |flags| metered_write(&file, &meter, &from, offset, flags)
        };
        let in_ring = async move |entry: Entry| {
            let gap = gap(&file, &from, offset).map_err(|error| status_of(&error))?;
            let paid = file.pay(&meter, gap, from.len())?;
            let moved = entry
                .write(file.clone(), from, paid.len(), self.offset)
                .await;
            if let Ok(moved @ 1..) = moved {
                paid.keep(moved);
            }
            Ok(moved)
        };
        Ok(wait_for(resources, self.file, call, in_ring))
    }
}

impl Start for StatFile {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if into.len() < FileStat::LEAST {
            return Err(Status::InvalidInput);
        }
        let file = resources.handles.file(self.file)?.clone();
        Ok(encode_stat(resources, Some(self.file), into, move || {
            Ok(file)
        }))
    }
}

impl Start for SetFileLength {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let file = resources.handles.file(self.file)?.clone();
        let meter = resources.meter.clone();
        if i64::try_from(self.len).is_err() {
            return Err(Status::InvalidInput);
        }
        Ok(resources.disk.start(Some(self.file), move || {
            let failed = |error: io::Error| status_of(&error);
            let gap = file.growth_to(self.len).map_err(failed)?;
            let paid = file.pay(&meter, gap, 0)?;
            let done = signals::write(|| Ok(rustix::fs::ftruncate(&file, self.len)?));
            done.map_err(failed)?;
            paid.keep(0);
            Ok(End::OK)
        }))
    }
}

impl Start for SyncFile {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let file = resources.handles.file(self.file)?.clone();
        Ok(resources.disk.start(Some(self.file), move || {
            let done = match self.what {
                Sync::Data => file.file.sync_data(),
                Sync::All => file.file.sync_all(),
            };
            done.map_err(|error| status_of(&error))?;
            Ok(End::OK)
        }))
    }
}
