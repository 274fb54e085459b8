//! The directories that are granted, as the one tree that a guest sees.
//!
//! A path of the guest is absolute. The grant with the longest matching beginning counts, and the
//! rest of the path goes to the kernel as it is, beneath that directory: `openat2` with
//! `RESOLVE_BENEATH` refuses, in one step that nobody can race, whatever leads out of it, be it
//! `..`, an absolute symbolic link, or a directory that is swapped for a link meanwhile. How things
//! are opened there is `resolved.rs`.
//!
//! # Rights
//!
//! What a guest may do with a file depends on the grant by whose path it comes, and one file may
//! have many paths: through links, through `..`, under a new name after a folder above it was
//! renamed. So rights must not depend on which of them it takes. Grants only add: what can be
//! changed through any of them can be changed. A grant that could only take away, because the
//! directory lies in another one that may be changed, is refused when the sandbox is built
//! (`overlap.rs`), also if it does so by a mount (`changeable.rs`); so is one that would cover files
//! without hiding them. With those gone, nothing that is granted for reading lies where the guest
//! could rename, replace or change it: it may move and remove what lies beneath a directory that is
//! granted for writing, and nothing else. A file with a name in either (a hard link) is granted for
//! writing by the one; no guest makes such a name, for both of a new one's have to be where it may write.
//!
//! The granted directories themselves are opened once, when the sandbox is built.

mod changeable;
pub(crate) mod overlap;
mod resolved;
pub(crate) mod socket;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use wakebox_abi::file::PATH_MAX;
use wakebox_abi::status::Status;

use self::changeable::Changeable;
use self::overlap::Identity;
pub(crate) use self::resolved::{Opened, ResolvedPath};
use crate::allowance::spend;
use crate::error::{Error, Result};
use crate::policy::check::{Guard, Refusal};
use crate::policy::{DirGrant, Policy};

/// How often the kernel is asked again when it could not say that a path stayed inside, or found
/// something else there than a moment before, because something on the way was renamed then.
const ATTEMPTS: u32 = 1000;

/// The price of looking at a byte of a path.
const SKIP: usize = 16;

/// All granted directories.
#[derive(Debug)]
pub(crate) struct Mounts {
    /// Longest path of the guest first.
    mounts: Vec<Arc<Mount>>,
    changeable: Arc<Changeable>,
    guard: Arc<Guard>,
}

/// A granted directory.
#[derive(Debug)]
struct Mount {
    grant: DirGrant,
    /// The parts of the guest's path for it.
    prefix: Vec<String>,
    root: OwnedFd,
    identity: Identity,
}

impl Mounts {
    /// Opens the directories that are granted.
    ///
    /// # Errors
    ///
    /// [`Error::Grant`] for the first that cannot be opened; [`Error::Setting`] for grants that
    /// contradict each other.
    pub(crate) fn open(guard: &Arc<Guard>) -> Result<Self> {
        let (mounts, changeable) = Mount::open_all(guard.policy())?;
        Ok(Self {
            mounts: mounts.into_iter().map(Arc::new).collect(),
            changeable: Arc::new(changeable),
            guard: guard.clone(),
        })
    }

    /// What the guest may change.
    pub(crate) fn changeable(&self) -> Arc<Changeable> {
        self.changeable.clone()
    }

    /// The paths of the guest for the directories, as far as it can name them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> {
        let paths = self.mounts.iter();
        let paths = paths.map(|mount| format!("/{}", mount.prefix.join("/")));
        paths.filter(|path| path.len() <= PATH_MAX)
    }

    /// Where a path of the guest leads to.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is not absolute, `PermissionDenied` if no grant covers it.
    pub(crate) fn resolve(&self, path: String) -> Result<ResolvedPath, Status> {
        if !path.starts_with('/') {
            return Err(Status::InvalidInput);
        }
        for mount in &self.mounts {
            // Most of it may be `./`, which is skipped part by part.
            spend(SKIP * path.len());
            if let Some(rest) = rest(&path, &mount.prefix) {
                let rest = rest.into();
                return Ok(ResolvedPath::new(
                    mount.clone(),
                    rest,
                    path,
                    self.guard.clone(),
                ));
            }
        }
        Err(self.guard.refuse(Refusal::File, path))
    }
}

/// Looks whether what a policy grants of files and sockets can be granted on this machine as it is
/// now.
fn try_grants(policy: &Policy) -> Result<()> {
    Mount::open_all(policy).map(|_| ())
}

impl Policy {
    /// What could not be granted on this machine as it is now, in sentences.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = self
            .dirs()
            .iter()
            .filter_map(|dir| {
                let why = match std::fs::metadata(dir.host()) {
                    Ok(found) if found.is_dir() => return None,
                    Ok(_) => "it is not a directory".into(),
                    Err(error) => error.to_string(),
                };
                Some(format!("{} cannot be granted: {why}", dir.host().display()))
            })
            .collect();
        if troubles.is_empty() {
            // What a sandbox would be told that is built with it.
            if let Err(error) = try_grants(self) {
                let why = std::error::Error::source(&error);
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                troubles.push(format!("{error}{why}"));
            }
        }
        troubles.extend(self.environment().err().map(|error| error.to_string()));
        troubles
    }
}

/// What follows the parts of `prefix` in a path, if it begins with them: relative, and as it was
/// written.
fn rest<'a>(path: &'a str, prefix: &[String]) -> Option<&'a str> {
    let mut rest = path.trim_start_matches('/');
    for expected in prefix {
        loop {
            let (part, behind) = rest.split_once('/').unwrap_or((rest, ""));
            rest = behind.trim_start_matches('/');
            if part == expected {
                break;
            }
            if part != "." {
                return None;
            }
        }
    }
    Some(rest)
}

impl Mount {
    /// Opens the directories that a policy grants, those with the longest path of the guest first, and
    /// says what can be changed by way of them.
    fn open_all(policy: &Policy) -> Result<(Vec<Self>, Changeable)> {
        policy.validate()?;
        let mounts = policy.dirs().iter().map(Self::open);
        let mut mounts = mounts.collect::<Result<Vec<_>>>()?;
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.prefix.len()));
        let changeable = Changeable::of(&mounts);
        overlap::check(&mounts, &changeable)?;
        socket::check(policy.unix(), &mounts, &changeable)?;
        Ok((mounts, changeable))
    }

    fn open(grant: &DirGrant) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, grant.host(), flags, Mode::empty()).and_then(|root| {
            // Asks at once whether this kernel knows how to stay inside (Linux 5.6).
            openat2(&root, ".", flags, Mode::empty(), ResolveFlags::BENEATH)?;
            let identity = Identity::of(&root)?;
            Ok((root, identity))
        });
        let (root, identity) = opened.map_err(|error| unopened(grant, error))?;
        let parts = grant.prefix().split('/').filter(|part| !part.is_empty());
        Ok(Self {
            grant: grant.clone(),
            prefix: parts.map(String::from).collect(),
            root,
            identity,
        })
    }

    /// Opens what is at a path beneath the directory, asking again while something on the way is
    /// being renamed.
    fn beneath(&self, rest: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        for _ in 0..ATTEMPTS {
            match self.open_beneath(rest, flags, mode, ResolveFlags::empty()) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
        Err(Errno::BUSY)
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

/// The error of a directory that cannot be granted.
fn unopened(grant: &DirGrant, error: Errno) -> Error {
    Error::Grant {
        path: grant.host().into(),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status_of;
    use std::os::unix::fs::symlink;
    use std::{fs, io};

    fn mounts(grants: &[String]) -> Mounts {
        let policy = grants.iter().fold(Policy::new(), |policy, grant| {
            policy.allow_dir(grant.parse().unwrap())
        });
        Mounts::open(&Arc::new(Guard::new(policy))).unwrap()
    }

    /// What reading the file at a path of the guest gives.
    fn read(mounts: &Mounts, path: &str) -> Result<String, Status> {
        let resolved = mounts.resolve(path.into())?;
        let text = io::read_to_string(resolved.open_file(OFlags::RDONLY)?.file);
        text.map_err(|error| status_of(&error))
    }

    #[test]
    fn what_follows_a_prefix_is_relative_and_as_it_was_written() {
        let prefix = |text: &str| -> Vec<String> {
            let parts = text.split('/').filter(|part| !part.is_empty());
            parts.map(String::from).collect()
        };
        for (path, of, expected) in [
            ("/data", "/data", Some("")),
            ("/data/", "/data", Some("")),
            ("//data//./a///b", "/data", Some("./a///b")),
            ("/data/a/", "/data", Some("a/")),
            ("/data/a/.", "/data", Some("a/.")),
            ("/data/.", "/data", Some(".")),
            ("/./data/./x/../sub//f/", "/data/sub", None),
            ("/./data/.//sub/", "/data/sub", Some("")),
            ("/data/../x", "/data", Some("../x")),
            ("/database", "/data", None),
            ("/dat", "/data", None),
            ("/../data", "/data", None),
            ("/x/../data", "/data", None),
            ("/a/b", "", Some("a/b")),
            ("/", "", Some("")),
        ] {
            let found = rest(path, &prefix(of));
            assert_eq!(found, expected, "{path} in {of}");
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
        let mounts = mounts(&[
            format!("{at}/outer:/data"),
            format!("{at}/inner:/data/inner:ro"),
        ]);
        assert_eq!(read(&mounts, "/data/file").as_deref(), Ok("outer"));
        assert_eq!(read(&mounts, "/data/inner/file").as_deref(), Ok("inner"));
        assert_eq!(read(&mounts, "/data/inner2/file"), Err(Status::NotFound));
        let write = |path: &str| {
            mounts
                .resolve(path.into())
                .unwrap()
                .for_change()
                .map(|_| ())
        };
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
        let mounts = mounts(&[format!("{}:/data", root.display())]);

        assert_eq!(read(&mounts, "/data/inside/file").as_deref(), Ok("inside"));
        assert_eq!(
            read(&mounts, "/data/sub/../sub/file").as_deref(),
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
            assert_eq!(read(&mounts, path), Err(Status::PermissionDenied), "{path}");
        }
        assert_eq!(mounts.guard.refusals(), [("file", 9)]);
        assert_eq!(read(&mounts, "/data/loop"), Err(Status::TooManyLinks));
        assert_eq!(read(&mounts, "data/sub/file"), Err(Status::InvalidInput));
        for path in ["/data/parent/x", "/data/../x", "/data"] {
            let resolved = mounts.resolve(path.into()).unwrap();
            assert_eq!(
                resolved.open_parent().err(),
                Some(Status::PermissionDenied),
                "{path}"
            );
        }
        // Names that lead nowhere: the kernel is told them as they are, and follows none.
        for (path, expected) in [
            ("/data/sub/..", ".."),
            ("/data/..", ".."),
            ("/data/sub/.//", ".//"),
            ("/data/up/", "up/"),
        ] {
            let resolved = mounts.resolve(path.into()).unwrap();
            let (_, name) = resolved.open_parent().unwrap();
            assert_eq!(name, expected, "{path}");
        }
    }

    #[test]
    fn what_takes_the_kernel_long_to_look_up_is_not_looked_up_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "text").unwrap();
        symlink("sub", dir.path().join("link")).unwrap();
        symlink("sub/file", dir.path().join("name")).unwrap();
        let mounts = mounts(&[format!("{}:/data", dir.path().display())]);
        assert_eq!(read(&mounts, "/data/sub/file").as_deref(), Ok("text"));
        let at_once = |path: &str| {
            let resolved = mounts.resolve(path.into()).unwrap();
            assert!(resolved.open_file(OFlags::RDONLY).is_ok(), "{path}");
            resolved.open_file_cached(OFlags::RDONLY).is_some()
        };
        for path in [
            "/data/link/file".into(),
            "/data/name".into(),
            format!("/data/{}sub/file", "./".repeat(2_000)),
            format!("/data/{}sub/file", "sub/../".repeat(100)),
            format!("/data/sub{}file", "/".repeat(2_000)),
        ] {
            assert!(!at_once(&path), "{path}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_granted() {
        let policy = Policy::new().allow_dir("/nonexistent/dir:/data".parse().unwrap());
        let error = Mounts::open(&Arc::new(Guard::new(policy))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/dir"), "{error}");
    }
}
