//! The directories that are granted, as the one tree that a guest sees.
//!
//! A path of the guest is absolute. The grant with the longest matching beginning counts, and the
//! rest of the path is resolved beneath its directory by the kernel: `openat2` with
//! `RESOLVE_BENEATH` refuses, in one step that nobody can race, whatever leads out of it, be it
//! `..`, an absolute symbolic link, or a directory that is swapped for a link meanwhile. Making,
//! renaming and removing act on the last part of a path, which they never follow, in a directory
//! that was opened in that way.
//!
//! The granted directories themselves are opened once, when the sandbox is built.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use wakebox_abi::status::Status;

use crate::error::{Error, Result};
use crate::ops::status_of;
use crate::policy::DirGrant;
use crate::policy::check::{Guard, Refusal};

/// How often the kernel is asked again when it could not say that a path stayed inside, because
/// something on the way was renamed at that moment.
const ATTEMPTS: u32 = 1000;

/// All granted directories.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Longest path of the guest first.
    mounts: Vec<Arc<Mount>>,
    guard: Arc<Guard>,
}

/// A granted directory.
#[derive(Debug)]
struct Mount {
    /// The parts of the guest's path for it.
    prefix: Vec<String>,
    root: OwnedFd,
    writable: bool,
}

impl Tree {
    /// Opens the directories that are granted.
    ///
    /// # Errors
    ///
    /// [`Error::Grant`] for the first that cannot be opened; grants that contradict each other.
    pub(crate) fn open(guard: &Arc<Guard>) -> Result<Self> {
        guard.policy().validate()?;
        let mut mounts = guard
            .policy()
            .dirs()
            .iter()
            .map(|grant| Mount::open(grant).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.prefix.len()));
        Ok(Self {
            mounts,
            guard: guard.clone(),
        })
    }

    /// Where a path of the guest leads to.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is not absolute, `PermissionDenied` if no grant covers it.
    pub(crate) fn find(&self, path: String) -> Result<Place, Status> {
        if !path.starts_with('/') {
            return Err(Status::InvalidInput);
        }
        for mount in &self.mounts {
            if let Some(rest) = rest(&path, &mount.prefix) {
                return Ok(Place {
                    mount: mount.clone(),
                    rest,
                    path,
                    guard: self.guard.clone(),
                });
            }
        }
        Err(self.guard.refuse(Refusal::File, path))
    }
}

/// What follows the parts of `prefix` in a path, if it begins with them: relative, without empty
/// parts, with a slash at its end if the path has one there.
fn rest(path: &str, prefix: &[String]) -> Option<String> {
    let mut parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    if !prefix
        .iter()
        .all(|part| parts.next() == Some(part.as_str()))
    {
        return None;
    }
    let mut rest = parts.collect::<Vec<_>>().join("/");
    if !rest.is_empty() && (path.ends_with('/') || path.ends_with("/.")) {
        rest.push('/');
    }
    Some(rest)
}

impl Mount {
    fn open(grant: &DirGrant) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, grant.host(), flags, Mode::empty()).and_then(|root| {
            // Asks at once whether this kernel knows how to stay inside (Linux 5.6).
            openat2(&root, ".", flags, Mode::empty(), ResolveFlags::BENEATH)?;
            Ok(root)
        });
        let root = opened.map_err(|error| Error::Grant {
            path: grant.host().into(),
            source: error.into(),
        })?;
        let parts = grant.prefix().split('/').filter(|part| !part.is_empty());
        Ok(Self {
            prefix: parts.map(String::from).collect(),
            root,
            writable: grant.is_writable(),
        })
    }

    /// Opens what is at a path beneath the directory.
    fn open_beneath(
        &self,
        rest: &str,
        flags: OFlags,
        mode: Mode,
        how: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let rest = if rest.is_empty() { "." } else { rest };
        let how = how | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, rest, flags | OFlags::CLOEXEC, mode, how)
    }
}

/// A path of the guest beneath a granted directory. What is there, if anything, is not known.
#[derive(Debug)]
pub(crate) struct Place {
    mount: Arc<Mount>,
    /// The path beneath the granted directory; empty for itself.
    rest: String,
    /// The guest's path.
    path: String,
    guard: Arc<Guard>,
}

impl Place {
    /// Refuses what the guest wants to do here.
    pub(crate) fn refuse(&self) -> Status {
        self.guard.refuse(Refusal::File, &self.path)
    }

    /// The place, if something may be changed there.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` in a directory that is granted for reading.
    pub(crate) fn for_change(self) -> Result<Self, Status> {
        if self.mount.writable {
            Ok(self)
        } else {
            Err(self.refuse())
        }
    }

    /// Opens what is here.
    ///
    /// # Errors
    ///
    /// Those of the kernel; `PermissionDenied` if the path leads out of the granted directory.
    pub(crate) fn open(&self, flags: OFlags, mode: Mode) -> Result<OwnedFd, Status> {
        self.beneath(&self.rest, flags, mode)
    }

    /// Opens what is here if that can be done without waiting for a disk; `None` if not.
    pub(crate) fn open_cached(&self, flags: OFlags) -> Option<Result<OwnedFd, Status>> {
        let cached = ResolveFlags::CACHED;
        match self
            .mount
            .open_beneath(&self.rest, flags, Mode::empty(), cached)
        {
            // Kernels before 5.12 do not know how to.
            Err(Errno::AGAIN | Errno::INVAL) => None,
            Err(error) => Some(Err(self.failed(error))),
            Ok(opened) => Some(Ok(opened)),
        }
    }

    /// Opens the directory in which this is, and tells the name that it has there.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; `PermissionDenied` for the granted directory itself, and
    /// `InvalidInput` for a path that ends with `..`.
    pub(crate) fn open_parent(&self) -> Result<(OwnedFd, &str), Status> {
        let path = self.rest.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match name {
            "" => Err(self.refuse()),
            ".." => Err(Status::InvalidInput),
            _ => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                Ok((self.beneath(parent, flags, Mode::empty())?, name))
            }
        }
    }

    fn beneath(&self, rest: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Status> {
        for _ in 0..ATTEMPTS {
            match self
                .mount
                .open_beneath(rest, flags, mode, ResolveFlags::empty())
            {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(self.failed(error)),
                Ok(opened) => return Ok(opened),
            }
        }
        Err(Status::Busy)
    }

    fn failed(&self, error: Errno) -> Status {
        match error {
            // `openat2` says so of what is not beneath; no other error of it is named that.
            Errno::XDEV => self.refuse(),
            error => status_of(&io::Error::from(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree(grants: &[String]) -> Tree {
        let policy = grants.iter().fold(Policy::new(), |policy, grant| {
            policy.allow_dir(grant.parse().unwrap())
        });
        Tree::open(&Arc::new(Guard::new(policy))).unwrap()
    }

    /// What reading the file at a path of the guest gives.
    fn read(tree: &Tree, path: &str) -> Result<String, Status> {
        let place = tree.find(path.into())?;
        let opened = place.open(OFlags::RDONLY, Mode::empty())?;
        let text = io::read_to_string(fs::File::from(opened));
        text.map_err(|error| status_of(&error))
    }

    #[test]
    fn what_follows_a_prefix_is_relative_and_plain() {
        let prefix = |text: &str| -> Vec<String> {
            let parts = text.split('/').filter(|part| !part.is_empty());
            parts.map(String::from).collect()
        };
        for (path, of, expected) in [
            ("/data", "/data", Some("")),
            ("/data/", "/data", Some("")),
            ("//data//./a///b", "/data", Some("a/b")),
            ("/data/a/", "/data", Some("a/")),
            ("/data/a/.", "/data", Some("a/")),
            ("/data/../x", "/data", Some("../x")),
            ("/database", "/data", None),
            ("/dat", "/data", None),
            ("/../data", "/data", None),
            ("/x/../data", "/data", None),
            ("/a/b", "", Some("a/b")),
            ("/", "", Some("")),
        ] {
            let found = rest(path, &prefix(of));
            assert_eq!(found.as_deref(), expected, "{path} in {of}");
        }
    }

    #[test]
    fn the_longest_path_wins() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["outer", "inner"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), name).unwrap();
        }
        let at = dir.path().display();
        let tree = tree(&[
            format!("{at}/outer:/data"),
            format!("{at}/inner:/data/inner:ro"),
        ]);
        assert_eq!(read(&tree, "/data/file").as_deref(), Ok("outer"));
        assert_eq!(read(&tree, "/data/inner/file").as_deref(), Ok("inner"));
        assert_eq!(read(&tree, "/data/inner2/file"), Err(Status::NotFound));
        let write = |path: &str| tree.find(path.into()).unwrap().for_change().map(|_| ());
        assert_eq!(write("/data/new"), Ok(()));
        assert_eq!(write("/data/inner/new"), Err(Status::PermissionDenied));
    }

    #[test]
    fn nothing_leads_out_of_a_granted_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(root.join("sub/file"), "inside").unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("sub/../../secret", root.join("winding")).unwrap();
        symlink("..", root.join("parent")).unwrap();
        symlink("sub", root.join("inside")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let tree = tree(&[format!("{}:/data", root.display())]);

        assert_eq!(read(&tree, "/data/inside/file").as_deref(), Ok("inside"));
        assert_eq!(
            read(&tree, "/data/sub/../sub/file").as_deref(),
            Ok("inside")
        );
        for path in [
            "/data/../secret",
            "/data/sub/../../secret",
            "/data/up",
            "/data/absolute",
            "/data/winding",
            "/data/parent/secret",
            "/data/magic/etc/passwd",
            "/secret",
            "/",
        ] {
            assert_eq!(read(&tree, path), Err(Status::PermissionDenied), "{path}");
        }
        assert_eq!(tree.guard.refusals(), [("file", 9)]);
        assert_eq!(read(&tree, "/data/loop"), Err(Status::TooManyLinks));
        assert_eq!(read(&tree, "data/sub/file"), Err(Status::InvalidInput));
        for path in ["/data/parent/x", "/data/../x", "/data"] {
            let place = tree.find(path.into()).unwrap();
            assert_eq!(
                place.open_parent().err(),
                Some(Status::PermissionDenied),
                "{path}"
            );
        }
        let dots = tree.find("/data/sub/..".into()).unwrap();
        assert_eq!(dots.open_parent().err(), Some(Status::InvalidInput));
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_granted() {
        let policy = Policy::new().allow_dir("/nonexistent/dir:/data".parse().unwrap());
        let error = Tree::open(&Arc::new(Guard::new(policy))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/dir"), "{error}");
    }
}
