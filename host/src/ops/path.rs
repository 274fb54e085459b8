//! What is done with paths: telling what is there, renaming, removing, making directories.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, makedev, mkdirat, renameat,
    statx, unlinkat,
};
use rustix::io::Errno;
use wakebox_abi::file::{FileKind, FileStat, PATH_MAX};
use wakebox_abi::op::{
    Buf, CreateDirectory, Follow, Handle, RemoveDirectory, RemoveFile, Rename, StatPath,
};
use wakebox_abi::status::Status;

use super::regular::ENTRY;
use super::{End, Start, Started, TokioBackend, status_of};
use crate::arena::ArenaSlice;
use crate::limits::LimitKind;

/// Rights of a new directory, less what the process's umask takes away.
const MODE: Mode = Mode::from_raw_mode(0o777);

/// The path that a buffer holds.
///
/// # Errors
///
/// `InvalidInput` if it is longer than a path can be, is not UTF-8, or has a NUL.
pub(super) fn path(resources: &TokioBackend, buf: Buf) -> Result<String, Status> {
    // What the operation keeps of it is charged where operations are started.
    let path = resources.text(buf, PATH_MAX)?.hand_over();
    if path.contains('\0') {
        return Err(Status::InvalidInput);
    }
    Ok(path)
}

pub(super) fn failed(error: Errno) -> Status {
    status_of(&error.into())
}

/// What a kind of file is called on the other side.
pub(super) fn kind_of(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn tell(stat: &Statx) -> FileStat {
    let ns = |time: StatxTimestamp| {
        let whole = time.tv_sec.saturating_mul(1_000_000_000);
        whole.saturating_add(time.tv_nsec.into())
    };
    let mode = stat.stx_mode.into();
    FileStat {
        kind: kind_of(FileType::from_raw_mode(mode)),
        permissions: mode & 0o7777,
        links: stat.stx_nlink,
        device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        len: stat.stx_size,
        modified_ns: ns(stat.stx_mtime),
        accessed_ns: ns(stat.stx_atime),
        created_ns: ns(stat.stx_btime),
        changed_ns: ns(stat.stx_ctime),
    }
}

/// Tells what an open file is, into a buffer that is large enough.
pub(super) fn encode_stat<F: AsFd>(
    resources: &TokioBackend,
    handle: Option<Handle>,
    into: ArenaSlice,
    open: impl FnOnce() -> Result<F, Status> + Send + 'static,
) -> Started {
    let disk = resources.disk.clone();
    let stat = async move {
        let call = move || {
            let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
            statx(open()?, "", AtFlags::EMPTY_PATH, wanted).map_err(failed)
        };
        match disk.run(call).await.flatten() {
            Ok(stat) => End::bytes(into.fill(&tell(&stat).to_bytes())),
            Err(status) => status.into(),
        }
    };
    Started::boxed(handle, Box::pin(stat))
}

impl Start for StatPath {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        if into.len() < FileStat::LEAST {
            return Err(Status::InvalidInput);
        }
        let resolved = resources.mounts.resolve(path(resources, self.path)?)?;
        let flags = match self.follow {
            Follow::Yes => OFlags::PATH,
            Follow::No => OFlags::PATH | OFlags::NOFOLLOW,
        };
        let open = move || resolved.open(flags);
        Ok(encode_stat(resources, None, into, open))
    }
}

impl Start for Rename {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let from = resources.mounts.resolve(path(resources, self.from)?)?;
        let to = resources.mounts.resolve(path(resources, self.to)?)?;
        let (from, to) = (from.for_change()?, to.for_change()?);
        Ok(resources.disk.start(None, move || {
            let (old, old_name) = from.open_parent()?;
            let (new, new_name) = to.open_parent()?;
            renameat(old, old_name, new, new_name).map_err(failed)?;
            Ok(End::OK)
        }))
    }
}

impl Start for RemoveFile {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        remove(resources, self.path, AtFlags::empty())
    }
}

impl Start for RemoveDirectory {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        remove(resources, self.path, AtFlags::REMOVEDIR)
    }
}

fn remove(resources: &TokioBackend, buf: Buf, flags: AtFlags) -> Result<Started, Status> {
    let resolved = resources
        .mounts
        .resolve(path(resources, buf)?)?
        .for_change()?;
    Ok(resources.disk.start(None, move || {
        let (parent, name) = resolved.open_parent()?;
        unlinkat(parent, name, flags).map_err(failed)?;
        Ok(End::OK)
    }))
}

impl Start for CreateDirectory {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let resolved = resources
            .mounts
            .resolve(path(resources, self.path)?)?
            .for_change()?;
        if resolved.is_root() {
            return Err(Status::AlreadyExists);
        }
        let meter = resources.meter.clone();
        Ok(resources.disk.start(None, move || {
            let (parent, name) = resolved.open_parent()?;
            let entry = meter.take_whole(LimitKind::FilesOut, ENTRY)?;
            mkdirat(parent, name, MODE).map_err(failed)?;
            entry.keep(ENTRY);
            Ok(End::OK)
        }))
    }
}
