//! A process that waits outside the jail until a file is whole.
//!
//! What the command writes lies beside its place, under another name, until it is whole, and takes
//! its place then. A process in the jail can neither rename nor remove, and is not to: that would
//! take the right to do so with everything in that folder. So a child that was made before does it.
//! It is told which of the names that it knows to put into place, or to drop, and nothing else. When
//! the command ends, however it does, what was not whole is removed.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use rustix::fs::{AtFlags, renameat, unlinkat};

/// A file under the name that it has until it is whole.
#[derive(Debug)]
pub(super) struct Beside {
    /// The folder in which both names are.
    pub(super) folder: OwnedFd,
    pub(super) temporary: String,
    pub(super) name: std::ffi::OsString,
}

impl Beside {
    fn keep(&self) -> io::Result<()> {
        Ok(renameat(
            &self.folder,
            &self.temporary,
            &self.folder,
            &self.name,
        )?)
    }

    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn remove(&self) -> io::Result<()> {
        Ok(unlinkat(&self.folder, &self.temporary, AtFlags::empty())?)
    }
}

/// The way to the child.
#[derive(Debug)]
pub(super) struct Keeper(Mutex<UnixStream>);

/// What it can be told to do with a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Do {
    /// Put it into its place.
    Keep = 0,
    /// Remove it.
    Remove = 1,
}

impl Keeper {
    /// Makes the child, which knows these files by their index. To be called while there is one
    /// thread, and before the jail.
    ///
    /// # Errors
    ///
    /// There can be no process more.
    pub(super) fn start(files: &[Beside]) -> io::Result<Self> {
        let (own, childs) = UnixStream::pair()?;
        // SAFETY: there is one thread, so the child finds every lock free and every structure whole;
        // it ends without running what belongs to its parent.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let mut kept: Vec<RawFd> =
                    files.iter().map(|file| file.folder.as_raw_fd()).collect();
                kept.push(childs.as_raw_fd());
                stand_alone(&mut kept);
                serve(childs, files);
                // SAFETY: it ends the process.
                unsafe { libc::_exit(0) }
            }
            _ => Ok(Self(Mutex::new(own))),
        }
    }

    /// Has it done, and waits for that.
    ///
    /// # Errors
    ///
    /// What the kernel said to the child, or that there is none any more.
    pub(super) fn tell(&self, index: u8, what: Do) -> io::Result<()> {
        let mut child = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        child.write_all(&[index, what as u8])?;
        let mut answer = [0];
        child.read_exact(&mut answer)?;
        match answer {
            [0] => Ok(()),
            [error] => Err(io::Error::from_raw_os_error(error.into())),
        }
    }
}

/// Leaves everything that the child has from its parent, but these descriptors: nobody waits for the
/// end of a pipe that it has, and the terminal's signals are not for it.
fn stand_alone(kept: &mut [RawFd]) {
    kept.sort_unstable();
    // SAFETY: calls on numbers; no Rust value owns the descriptors that are closed, except values
    // of the parent, which this process does not touch again.
    unsafe {
        for signal in [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGTSTP,
        ] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::prctl(libc::PR_SET_NAME, c"wakebox-keeper".as_ptr());
        let mut next: libc::c_uint = 0;
        for kept in kept {
            let kept = kept.cast_unsigned();
            if next < kept {
                libc::syscall(libc::SYS_close_range, next, kept - 1, 0);
            }
            next = kept + 1;
        }
        libc::syscall(libc::SYS_close_range, next, libc::c_uint::MAX, 0);
    }
}

/// Does what it is told until its parent ends.
fn serve(mut parent: UnixStream, files: &[Beside]) {
    let mut is_done = vec![false; files.len()];
    let mut told = [0; 2];
    while parent.read_exact(&mut told).is_ok() {
        let [index, what] = told;
        let index = usize::from(index);
        let Some(file) = files.get(index).filter(|_| !is_done[index]) else {
            break;
        };
        let done = match what {
            0 => file.keep(),
            _ => file.remove(),
        };
        is_done[index] = done.is_ok();
        let answer = done.map_or_else(
            |error| error.raw_os_error().unwrap_or(libc::EIO) as u8,
            |()| 0,
        );
        if parent.write_all(&[answer]).is_err() {
            break;
        }
    }
    for (file, _) in files.iter().zip(is_done).filter(|(_, is_done)| !is_done) {
        // It may be gone.
        let _ = file.remove();
    }
}
