//! Which granted directories lie in which others: by what they are, not by how they are called.
//!
//! A directory lies in another one if `..` leads from it to the other: the walk goes up from the open
//! directory, so that neither links nor `..` in the path that it was opened by make a difference. What
//! mounts add to that is in `changeable.rs`.
//!
//! What the walk finds holds as long as nobody moves a granted directory. Guests cannot: they change
//! what is beneath directories that are granted for writing, and there is none above one that is
//! granted for reading. What other programs of the host rename is for those who run them to know.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags, fstat, openat, statx};
use rustix::io::Errno;

use super::changeable::Changeable;
use super::{Mount, unopened};
use crate::error::{Error, Result};

/// Directories that a walk upwards passes at most; the kernel's paths have room for half as many.
const DEPTH: usize = 4096;

/// What tells a file from all others that there are at the same time, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of something open.
    pub(super) fn of(file: impl AsFd) -> Result<Self, Errno> {
        let stat = fstat(file)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

/// An identity, and the mount through which it was reached; zero where the kernel does not say
/// (before Linux 5.8).
fn identity_in_mount(file: impl AsFd) -> Result<(Identity, u64), Errno> {
    let stat = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok((Identity::of(file)?, stat.stx_mnt_id))
}

/// A directory and all those that it lies in.
///
/// # Errors
///
/// One of them may not be searched: then nothing is known of those above.
pub(super) fn ancestors(directory: impl AsFd) -> Result<BTreeSet<Identity>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(&directory, ".", flags, Mode::empty())?;
    let mut known = identity_in_mount(&at)?;
    let mut all = BTreeSet::from([known.0]);
    for _ in 0..DEPTH {
        let above = openat(&at, "..", flags, Mode::empty())?;
        let next = identity_in_mount(&above)?;
        if next == known {
            return Ok(all);
        }
        all.insert(next.0);
        (at, known) = (above, next);
    }
    Err(Errno::NAMETOOLONG)
}

/// Refuses grants whose rights would depend on the path that is taken.
///
/// # Errors
///
/// [`Error::Setting`], which names both; [`Error::Grant`] for one above which one cannot look.
pub(super) fn check(mounts: &[Mount], changeable: &Changeable) -> Result<()> {
    for inner in mounts {
        if !inner.grant.is_writable() {
            let around = changeable.around(&inner.root);
            let around = around.map_err(|error| unopened(&inner.grant, error))?;
            let outer = around.and_then(|within| {
                let mut all = mounts.iter();
                let outer = all.find(|outer| outer.identity == within.directory)?;
                Some((outer, within.is_mounted))
            });
            if let Some((outer, is_mounted)) = outer {
                return Err(Error::Setting(narrowed(inner, outer, is_mounted)));
            }
        }
        if let Some(covered) = covered(inner, mounts) {
            return Err(Error::Setting(covered));
        }
    }
    Ok(())
}

fn narrowed(inner: &Mount, outer: &Mount, is_mounted: bool) -> String {
    let (inner_host, outer_host) = (inner.grant.host().display(), outer.grant.host().display());
    let (seen, outer_seen) = (inner.grant.guest(), outer.grant.guest());
    if inner.identity == outer.identity {
        return format!(
            "one directory is granted twice: {inner_host} as {seen} for reading only, and \
             {outer_host} as {outer_seen} for writing, by which the guest could change it all the \
             same; leave one of the two out"
        );
    }
    if is_mounted {
        return format!(
            "{inner_host} is granted as {seen} for reading only, but what is there is mounted so that \
             it also lies in {outer_host}, which is granted as {outer_seen} for writing: by that path \
             the guest could change it all the same; leave one of the two out"
        );
    }
    format!(
        "{inner_host} is granted as {seen} for reading only, but lies in {outer_host}, which is \
         granted as {outer_seen} for writing: by another path, or after a rename, the guest could \
         change it all the same. Grant {outer_host} for reading only and what may be changed in it \
         by grants of its own, or keep {inner_host} outside of it"
    )
}

/// A sentence if a grant lies at a path of the guest where another one has something else, which
/// links and `..` would still lead to. An empty directory there is a place to put the grant.
fn covered(inner: &Mount, mounts: &[Mount]) -> Option<String> {
    // Those with the longest path come first.
    let outer = mounts.iter().find(|outer| {
        outer.prefix.len() < inner.prefix.len() && inner.prefix.starts_with(&outer.prefix)
    })?;
    let place = inner.prefix[outer.prefix.len()..].join("/");
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    // Else nothing is there, or nothing that the guest could get to.
    let found = outer.beneath(&place, flags, Mode::empty()).ok()?;
    if Identity::of(&found).is_ok_and(|found| found == inner.identity) || is_empty(&found) {
        return None;
    }
    let (inner_host, outer_host) = (inner.grant.host().display(), outer.grant.host().display());
    let (seen, outer_seen) = (inner.grant.guest(), outer.grant.guest());
    Some(format!(
        "{inner_host} is granted as {seen}, where {outer_host}, which is granted as {outer_seen}, has \
         `{place}` already: covering hides nothing, the guest could get there by another path. Grant \
         {inner_host} under another path, or what it should see of {outer_host} by grants of their own"
    ))
}

/// Whether it is a directory with nothing in it.
fn is_empty(found: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(found, ".", flags, Mode::empty()) else {
        return false;
    };
    let mut space = Vec::with_capacity(1024);
    let mut entries = RawDir::new(directory, space.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::try_grants;
    use crate::policy::Policy;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// What is said of grants, each with `@` for a directory.
    fn said(at: &Path, grants: &[&str]) -> Option<String> {
        let policy = grants.iter().fold(Policy::new(), |policy, grant| {
            let grant = grant.replace('@', at.to_str().unwrap());
            policy.allow_dir(grant.parse().unwrap())
        });
        try_grants(&policy).err().map(|error| error.to_string())
    }

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["work/keep/deep", "work/empty", "other", "workshop"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("work/keep/f"), "original").unwrap();
        symlink("work", dir.path().join("link")).unwrap();
        symlink("work/keep/deep", dir.path().join("into")).unwrap();
        dir
    }

    #[test]
    fn a_folder_is_not_for_reading_in_one_for_writing() {
        let dir = directory();
        for grants in [
            ["@/work:/data", "@/work/keep:/data/keep:ro"],
            ["@/work/keep:/data/keep:ro", "@/work:/data"],
            ["@/work:/data", "@/work/keep/deep:/elsewhere:ro"],
            ["@/link:/data", "@/work/../work/keep:/keep:ro"],
            ["@/work:/data", "@/into:/keep:ro"],
            ["/:/all", "@/into:/keep:ro"],
            ["@/work:/a", "@/link:/b:ro"],
            ["@/work:/a:ro", "@/work:/b"],
        ] {
            let said = said(dir.path(), &grants).expect("they overlap");
            assert!(said.contains("for reading only"), "{said}");
            for grant in grants {
                let grant = grant.replace('@', dir.path().to_str().unwrap());
                let host = grant.split(':').next().unwrap();
                assert!(said.contains(host), "{host}: {said}");
            }
        }
    }

    #[test]
    fn a_folder_may_be_for_writing_in_one_for_reading_and_the_same_twice() {
        let dir = directory();
        for grants in [
            ["@/work:/data:ro", "@/work/keep:/data/keep"],
            ["@/work:/data:ro", "@/work/keep:/keep"],
            ["@/work:/data", "@/work/keep:/data/keep"],
            ["@/work:/data:ro", "@/work/keep:/data/keep:ro"],
            ["@/work:/a", "@/work:/b"],
            ["@/work:/a", "@/workshop:/b:ro"],
            ["@/work:/a", "@/other:/a/b:ro"],
            ["@/work:/a", "@/other:/a/empty:ro"],
        ] {
            assert_eq!(said(dir.path(), &grants), None, "{grants:?}");
        }
    }

    #[test]
    fn a_grant_does_not_cover_what_another_one_has_there() {
        let dir = directory();
        for grants in [
            ["@/work:/data", "@/other:/data/keep"],
            ["@/work:/data:ro", "@/other:/data/keep:ro"],
            ["@/work:/", "@/other:/keep/f"],
            ["@:/data", "@/other:/data/link"],
        ] {
            let said = said(dir.path(), &grants).expect("one covers the other");
            assert!(said.contains("already"), "{said}");
        }
    }
}
