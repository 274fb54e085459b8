//! Unix sockets that are granted by their paths, where a guest may rename what lies on the way.
//!
//! A guest that may write to a directory can move what is in it: also another socket to the path of
//! one that is granted. So no part of a granted path may be looked up in a directory that the guest
//! may change. The path is walked as the kernel walks it, link by link, when the sandbox is built and
//! before each connection; what the guest cannot change between the walk and the connection stays as
//! it was found.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

use super::Mount;
use super::changeable::Changeable;
use super::overlap::Identity;
use crate::error::{Error, Result};

/// Links that a path may lead through, as in the kernel.
const LINKS: u32 = 40;

impl Changeable {
    /// The first of them in which a part of this absolute path is looked up, as far as the path leads
    /// to something. May wait for a disk.
    ///
    /// # Errors
    ///
    /// Those of the kernel, if it could not be found out.
    pub(crate) fn on_the_way_to(&self, path: &str) -> Result<Option<Identity>, Errno> {
        if self.is_empty() {
            return Ok(None);
        }
        let root = || openat(CWD, "/", directory(), Mode::empty());
        let mut at = root()?;
        let mut links = 0;
        // The next part is the last.
        let mut parts = reversed(path);
        while let Some(part) = parts.pop() {
            if let Some(within) = self.around(&at)? {
                return Ok(Some(within.directory));
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match openat(&at, &*part, flags, Mode::empty()) {
                // Nothing is there, or it cannot be got at: who connects is told so.
                Err(
                    Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG,
                ) => return Ok(None),
                found => found?,
            };
            match FileType::from_raw_mode(fstat(&found)?.st_mode) {
                FileType::Directory => at = found,
                FileType::Symlink => {
                    links += 1;
                    let target = link(&found)?;
                    if links > LINKS || target.is_empty() {
                        return Ok(None);
                    }
                    if target.starts_with('/') {
                        at = root()?;
                    }
                    parts.extend(reversed(&target));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn directory() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// The parts of a path, the last first.
fn reversed(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.rev().map(String::from).collect()
}

fn link(link: &OwnedFd) -> Result<String, Errno> {
    let target = readlinkat(link, "", Vec::new())?;
    target.into_string().map_err(|_| Errno::ILSEQ)
}

/// Refuses sockets in whose place a guest could put another one.
///
/// # Errors
///
/// [`Error::Setting`], which names the socket and the directory; [`Error::Grant`] for a path that
/// cannot be looked at.
pub(super) fn check(sockets: &[PathBuf], mounts: &[Mount], changeable: &Changeable) -> Result<()> {
    for path in sockets {
        // `Policy::validate` has seen to it that it is text.
        let text = path.to_str().unwrap_or_default();
        let found = changeable.on_the_way_to(text);
        let found = found.map_err(|error| Error::Grant {
            path: path.clone(),
            source: error.into(),
        })?;
        let outer = mounts
            .iter()
            .find(|mount| found.is_some_and(|found| found == mount.identity));
        if let Some(outer) = outer {
            let (host, seen) = (outer.grant.host().display(), outer.grant.guest());
            return Err(Error::Setting(format!(
                "the Unix socket {text} is granted, but the way to it leads through {host}, which is \
                 granted as {seen} for writing: the guest could put another socket in its place. Keep \
                 the socket outside of {host}, or grant that for reading only"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::try_grants;
    use crate::policy::Policy;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_is_not_granted_where_the_guest_could_put_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap();
        for path in ["work/run", "safe"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let _sockets = ["work/run/a.sock", "safe/a.sock"]
            .map(|path| UnixListener::bind(dir.path().join(path)).unwrap());
        symlink("../safe", dir.path().join("work/out")).unwrap();
        symlink(format!("{at}/work/run"), dir.path().join("safe/in")).unwrap();
        symlink("/", dir.path().join("safe/root")).unwrap();
        let policy = |end: &str, socket: &str| {
            let grant = format!("{at}/work:/data{end}");
            let policy = Policy::new().allow_dir(grant.parse().unwrap());
            policy.allow_unix(format!("{at}/{socket}"))
        };
        for socket in [
            "work/run/a.sock",
            "work/run/none",
            "work/none/a.sock",
            "work/out/a.sock",
            "safe/in/a.sock",
        ] {
            let error = try_grants(&policy("", socket)).unwrap_err().to_string();
            for word in [socket, "/work, which is granted as /data"] {
                assert!(error.contains(word), "{word}: {error}");
            }
            assert!(try_grants(&policy(":ro", socket)).is_ok(), "{socket}");
        }
        let rooted = format!("safe/root{at}/safe/a.sock");
        for socket in [
            "safe/a.sock",
            "safe/none",
            "none/a.sock",
            "safe/a.sock/x",
            &rooted,
        ] {
            let granted = try_grants(&policy("", socket));
            assert!(granted.is_ok(), "{socket}: {granted:?}");
        }
        let rooted = format!("safe/root{at}/work/run/a.sock");
        assert!(try_grants(&policy("", &rooted)).is_err());
    }
}
