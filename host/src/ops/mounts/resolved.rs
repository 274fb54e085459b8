//! A path of the guest beneath a granted directory, and how what is there is opened.
//!
//! # Files
//!
//! Opening something may have an effect on others: a process that waits to write to a pipe goes on
//! when it is opened for reading, a device may do anything. So what a path leads to is first opened
//! as a mere reference (`O_PATH`), which has no effect; if it is a regular file, that very file is
//! opened, whatever the path leads to by then. New files are made with `O_EXCL`, which opens
//! nothing that was there.
//!
//! # Names
//!
//! Making, renaming and removing act on the last part of a path in the directory that the others
//! lead to. The kernel is given that part as the guest wrote it, with slashes at its end, and gives
//! the answer that it gives to everybody: it follows it nowhere, neither `..` nor a link.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, readlinkat};
use rustix::io::Errno;
use wakebox_abi::status::Status;

use super::overlap::Identity;
use super::{ATTEMPTS, Mount};
use crate::allowance::{CALL, spend};
use crate::ops::status_of;
use crate::policy::check::{Guard, Refusal};

/// Links that a path may lead through at its end to a file that is to be made, as in the kernel.
const LINKS: u32 = 40;

/// Parts of a path that is looked up in a turn of the driver, at most. The kernel needs a tenth of a
/// microsecond for each, and a path has room for two thousand.
const SHORT: usize = 32;

/// The price of telling what is there and of opening the file there.
const REOPEN: usize = 4 * CALL;

/// Rights of a new file, less what the process's umask takes away.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// A path of the guest beneath a granted directory. What is there, if anything, is not known.
#[derive(Debug)]
pub(crate) struct ResolvedPath {
    mount: Arc<Mount>,
    /// The path beneath the granted directory; empty for itself.
    rest: String,
    /// The guest's path.
    path: String,
    guard: Arc<Guard>,
}

/// A regular file, and whether it was made.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) is_new: bool,
}

impl ResolvedPath {
    pub(super) fn new(mount: Arc<Mount>, rest: String, path: String, guard: Arc<Guard>) -> Self {
        Self {
            mount,
            rest,
            path,
            guard,
        }
    }

    /// Refuses what the guest wants to do here.
    pub(crate) fn refuse(&self) -> Status {
        self.guard.refuse(Refusal::File, &self.path)
    }

    /// The path, if something may be changed there.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` in a directory that is granted for reading.
    pub(crate) fn for_change(self) -> Result<Self, Status> {
        if self.is_writable() {
            Ok(self)
        } else {
            Err(self.refuse())
        }
    }

    /// The path, if a symbolic link may be made there.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` in a directory that is granted without.
    pub(crate) fn for_links(self) -> Result<Self, Status> {
        if self.mount.grant.has_links() {
            Ok(self)
        } else {
            Err(self.refuse())
        }
    }

    /// Whether something may be changed there.
    pub(crate) fn is_writable(&self) -> bool {
        self.mount.grant.is_writable()
    }

    /// Whether it is the granted directory itself.
    pub(crate) fn is_root(&self) -> bool {
        self.rest.is_empty()
    }

    /// Opens what is here, with flags that have no effect on it: `O_PATH`, or `O_DIRECTORY`, with
    /// which the kernel opens nothing else.
    ///
    /// # Errors
    ///
    /// Those of the kernel; `PermissionDenied` if the path leads out of the granted directory.
    pub(crate) fn open(&self, flags: OFlags) -> Result<OwnedFd, Status> {
        debug_assert!(flags.intersects(OFlags::PATH | OFlags::DIRECTORY));
        let opened = self.beneath(&self.rest, flags, Mode::empty());
        opened.map_err(|error| self.failed(error))
    }

    /// As [`Self::open`], if that can be done at once: without waiting for a disk, and for a path that
    /// is short and leads through no links, which may be as long again as they please; `None` if not.
    pub(crate) fn open_cached(&self, flags: OFlags) -> Option<Result<OwnedFd, Status>> {
        debug_assert!(flags.intersects(OFlags::PATH | OFlags::DIRECTORY));
        if self.rest.split('/').nth(SHORT).is_some() {
            return None;
        }
        spend(CALL);
        let how = ResolveFlags::CACHED | ResolveFlags::NO_SYMLINKS;
        match self
            .mount
            .open_beneath(&self.rest, flags, Mode::empty(), how)
        {
            // Not in memory, or a link; kernels before 5.12 do not know how to look.
            Err(Errno::AGAIN | Errno::LOOP | Errno::INVAL) => None,
            Err(error) => Some(Err(self.failed(error))),
            Ok(opened) => Some(Ok(opened)),
        }
    }

    /// Opens the regular file that is here, and makes it if `flags` say so.
    ///
    /// # Errors
    ///
    /// Those of the kernel; `PermissionDenied` if the path leads out of the granted directory, or to
    /// something that is neither a file nor a directory: devices, pipes and sockets are not granted
    /// with the directory in which they lie.
    pub(crate) fn open_file(&self, flags: OFlags) -> Result<Opened, Status> {
        if self.is_root() && flags.contains(OFlags::CREATE) && self.path.ends_with('/') {
            // As the kernel says of every name with a slash at its end; the root has none here.
            return Err(Status::IsADirectory);
        }
        self.open_file_at(&self.rest, flags)
    }

    /// As [`Self::open_file`], with flags that neither make nor empty it, if that can be done without
    /// waiting for a disk; `None` if not.
    pub(crate) fn open_file_cached(&self, flags: OFlags) -> Option<Result<Opened, Status>> {
        let pinned = match self.open_cached(OFlags::PATH)? {
            Ok(pinned) => self.regular(pinned),
            Err(status) => Err(status),
        };
        spend(REOPEN);
        let file = match pinned {
            Ok(pinned) => self.reopen(&pinned, &self.rest, flags),
            Err(status) => return Some(Err(status)),
        };
        match file {
            // Something else lies there by now.
            Err(Errno::STALE) => None,
            Err(error) => Some(Err(self.failed(error))),
            Ok(file) => Some(Ok(Opened::old(file))),
        }
    }

    fn open_file_at(&self, rest: &str, flags: OFlags) -> Result<Opened, Status> {
        let failed = |error| self.failed(error);
        if !flags.contains(OFlags::CREATE) {
            return self.open_existing(rest, flags).map(Opened::old);
        }
        let exclusive = flags.contains(OFlags::EXCL);
        let existing = flags - OFlags::CREATE - OFlags::EXCL;
        let mut rest = rest.to_owned();
        let mut links = 0;
        for _ in 0..ATTEMPTS {
            match self.beneath(&rest, flags | OFlags::EXCL, MODE) {
                Err(Errno::EXIST) if !exclusive => {}
                made => return made.map(Opened::new).map_err(failed),
            }
            match self.open_existing(&rest, existing) {
                // Removed meanwhile, or a link to where nothing is yet, or to `name/`, which is an
                // error of its own for something that is to be made, also if it leads round.
                Err(Status::NotFound | Status::NotADirectory | Status::TooManyLinks) => {}
                opened => return opened.map(Opened::old),
            }
            if let Some(target) = self.link_at(&rest).map_err(failed)? {
                if links == LINKS {
                    return Err(Status::TooManyLinks);
                }
                links += 1;
                let directory = rest.rfind('/').map_or(0, |slash| slash + 1);
                rest.truncate(directory);
                if target.starts_with('/') {
                    return Err(self.refuse());
                }
                rest.push_str(&target);
            }
        }
        Err(Status::Busy)
    }

    /// Where the link that is here leads to.
    ///
    /// # Errors
    ///
    /// Those of the kernel, `InvalidInput` for what is no link; `PermissionDenied` for one whose target is an
    /// absolute path: that is one of the host's, and nothing that a guest could follow.
    pub(crate) fn read_link(&self) -> Result<Vec<u8>, Status> {
        let target = self.target(&self.rest);
        let target = target.map_err(|error| self.failed(error))?;
        let target = target.ok_or(Status::InvalidInput)?.into_bytes();
        if target.starts_with(b"/") {
            return Err(self.refuse());
        }
        Ok(target)
    }

    /// Where the link at the end of a path leads to, if there is one.
    fn link_at(&self, rest: &str) -> Result<Option<String>, Errno> {
        match self.target(rest) {
            Ok(Some(target)) => target.into_string().map(Some).map_err(|_| Errno::ILSEQ),
            Ok(None) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is in the link at the end of a path, if it is one.
    fn target(&self, rest: &str) -> Result<Option<CString>, Errno> {
        let link = self.beneath(rest, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&link)?.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        readlinkat(&link, "", Vec::new()).map(Some)
    }

    /// Opens the regular file at a path.
    fn open_existing(&self, rest: &str, flags: OFlags) -> Result<File, Status> {
        for _ in 0..ATTEMPTS {
            let pinned = self.beneath(rest, OFlags::PATH, Mode::empty());
            let pinned = self.regular(pinned.map_err(|error| self.failed(error))?)?;
            match self.reopen(&pinned, rest, flags) {
                Err(Errno::STALE) => {}
                Err(error) => return Err(self.failed(error)),
                Ok(file) => return Ok(file),
            }
        }
        Err(Status::Busy)
    }

    /// What is open, if it is a regular file.
    fn regular(&self, pinned: OwnedFd) -> Result<OwnedFd, Status> {
        let stat = fstat(&pinned).map_err(|error| self.failed(error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(pinned),
            FileType::Directory => Err(Status::IsADirectory),
            _ => Err(self.refuse()),
        }
    }

    /// Opens the file that a reference stands for. Where there is no `/proc`, by its path once more,
    /// which is `STALE` if something else is there now.
    fn reopen(&self, pinned: &OwnedFd, rest: &str, flags: OFlags) -> Result<File, Errno> {
        // The table of open files of this very thread.
        let link = format!("/proc/thread-self/fd/{}", pinned.as_raw_fd());
        let file = match openat(CWD, link, flags | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => self.beneath(rest, flags, Mode::empty())?,
            file => file?,
        };
        if Identity::of(&file)? == Identity::of(pinned)? {
            Ok(file.into())
        } else {
            Err(Errno::STALE)
        }
    }

    /// Opens the directory in which this is, and tells the name that it has there, as the guest wrote
    /// it: perhaps `.` or `..`, perhaps with slashes at its end.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; `PermissionDenied` for the granted directory itself.
    pub(crate) fn open_parent(&self) -> Result<(OwnedFd, &str), Status> {
        let trimmed = self.rest.trim_end_matches('/');
        if trimmed.is_empty() {
            return Err(self.refuse());
        }
        let name = trimmed.rfind('/').map_or(0, |slash| slash + 1);
        let (parent, name) = self.rest.split_at(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = self.beneath(parent, flags, Mode::empty());
        Ok((parent.map_err(|error| self.failed(error))?, name))
    }

    fn beneath(&self, rest: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        self.mount.beneath(rest, flags, mode)
    }

    fn failed(&self, error: Errno) -> Status {
        match error {
            // `openat2` says so of what is not beneath; no other error of it is named that.
            Errno::XDEV => self.refuse(),
            error => status_of(&io::Error::from(error)),
        }
    }
}

impl Opened {
    fn old(file: impl Into<File>) -> Self {
        Self {
            file: file.into(),
            is_new: false,
        }
    }

    fn new(file: OwnedFd) -> Self {
        Self {
            file: file.into(),
            is_new: true,
        }
    }
}
