//! What a guest may change: the directories that are granted for writing, with all that is beneath
//! them, wherever else that is mounted.
//!
//! A directory lies in such a one if `..` leads from it there. It also does if a bind mount shows it
//! there, or shows what is there elsewhere: then no `..` leads from one to the other, but in the file
//! system that both are of, the one lies in the other. Where a directory lies in its file system, the
//! kernel tells with the table of mounts (`/proc/thread-self/mountinfo`); a mount that lies beneath
//! a granted directory is as much within reach of the guest as the directory itself.
//!
//! The table is read once, when the sandbox is built. Where there is no `/proc`, and where a file
//! system shows what another one has (an overlay, an export over a network), the kernel does not tell.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, readlinkat, statx};
use rustix::io::Errno;

use super::Mount;
use super::overlap::{Identity, ancestors};

/// Where a directory lies in its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Its file system, as the table of mounts calls it.
    device: String,
    path: PathBuf,
}

impl Place {
    fn lies_in(&self, other: &Self) -> bool {
        self.device == other.device && self.path.starts_with(&other.path)
    }
}

/// A row of the table of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    id: u64,
    /// What is mounted.
    what: Place,
    /// Where.
    at: PathBuf,
    /// Whether it can be written through at all.
    is_writable: bool,
}

impl Row {
    /// The row in a line: number, parent's number, device, root, mount point, options, and more.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let id = text()?.parse().ok()?;
        text()?;
        let device = text()?.to_owned();
        let mut path = || fields.next().map(unescaped);
        let what = Place {
            device,
            path: path()?,
        };
        let at = path()?;
        let mut options = fields.next()?.split(|byte| *byte == b',');
        Some(Self {
            id,
            what,
            at,
            is_writable: !options.any(|option| option == b"ro"),
        })
    }
}

/// A path of the table, in which white space and backslashes are three octal digits each.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = byte.map_or(behind, |_| &behind[3..]);
    }
    OsString::from_vec(bytes).into()
}

/// The mounts of this process.
#[derive(Clone, Debug, Default)]
struct Table(Vec<Row>);

impl Table {
    /// As it is now; empty where the kernel does not tell.
    fn read() -> Self {
        Self::parse(&fs::read("/proc/thread-self/mountinfo").unwrap_or_default())
    }

    fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        Self(lines.filter_map(Row::parse).collect())
    }

    /// Where something open is, by its path and in its file system.
    fn find(&self, directory: impl AsFd) -> Option<(PathBuf, &Row, Place)> {
        let stat = statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        let row = self.0.iter().find(|row| row.id == stat.stx_mnt_id)?;
        let link = format!("/proc/thread-self/fd/{}", directory.as_fd().as_raw_fd());
        let path = readlinkat(CWD, link, Vec::new()).ok()?.into_bytes();
        let path = PathBuf::from(OsString::from_vec(path));
        let within = path.strip_prefix(&row.at).ok()?;
        let place = Place {
            device: row.what.device.clone(),
            path: joined(&row.what.path, within),
        };
        Some((path, row, place))
    }

    /// All that can be changed by way of a directory: what lies in it, and what is mounted there.
    fn reaches(&self, directory: impl AsFd) -> Vec<Place> {
        let Some((path, row, place)) = self.find(directory) else {
            return Vec::new();
        };
        let own = row.is_writable.then_some(place);
        let beneath = self.0.iter().filter(|row| row.at.starts_with(&path));
        let mounted = beneath.filter(|row| row.is_writable);
        own.into_iter()
            .chain(mounted.map(|row| row.what.clone()))
            .collect()
    }
}

/// `Path::join` adds a slash if there is nothing to add.
fn joined(path: &Path, more: &Path) -> PathBuf {
    path.components().chain(more.components()).collect()
}

/// A directory that is granted for writing.
#[derive(Clone, Debug)]
struct Writable {
    identity: Identity,
    reaches: Vec<Place>,
}

/// How something lies where the guest may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Within {
    /// The granted directory.
    pub(super) directory: Identity,
    /// Whether only a mount leads from one to the other.
    pub(super) is_mounted: bool,
}

/// The directories in which a guest may change what there is, with all that is beneath them.
#[derive(Debug)]
pub(crate) struct Changeable {
    directories: Vec<Writable>,
    table: Table,
}

impl Changeable {
    /// Of these grants.
    pub(super) fn of(mounts: &[Mount]) -> Self {
        let mut writable = mounts
            .iter()
            .filter(|mount| mount.grant.is_writable())
            .peekable();
        let table = match writable.peek() {
            Some(_) => Table::read(),
            None => Table::default(),
        };
        let directories = writable.map(|mount| Writable {
            identity: mount.identity,
            reaches: table.reaches(&mount.root),
        });
        Self {
            directories: directories.collect(),
            table,
        }
    }

    /// Whether there is none: then nothing has to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// The first of them in which a directory lies. May wait for a disk.
    ///
    /// # Errors
    ///
    /// As [`ancestors`].
    pub(super) fn around(&self, directory: impl AsFd) -> Result<Option<Within>, Errno> {
        if self.is_empty() {
            return Ok(None);
        }
        let above = ancestors(&directory)?;
        let mut all = self.directories.iter();
        if let Some(outer) = all.find(|outer| above.contains(&outer.identity)) {
            return Ok(Some(Within {
                directory: outer.identity,
                is_mounted: false,
            }));
        }
        let Some((_, _, place)) = self.table.find(directory) else {
            return Ok(None);
        };
        let reached = |outer: &&Writable| outer.reaches.iter().any(|reach| place.lies_in(reach));
        Ok(self.directories.iter().find(reached).map(|outer| Within {
            directory: outer.identity,
            is_mounted: true,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, openat};

    const TEXT: &[u8] = b"\
        21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        22 21 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw\n\
        40 21 8:1 /srv/a\\040b /mnt/a\\011b\\134 ro,relatime - ext4 /dev/sda1 rw\n\
        41 21 8:1 /srv /work/in rw - ext4 /dev/sda1 rw\n\
        half a line";

    #[test]
    fn the_table_of_mounts_is_read_with_whatever_paths() {
        let Table(rows) = Table::parse(TEXT);
        let expected = [
            (21, "8:1", "/", "/", true),
            (22, "0:5", "/", "/dev", true),
            (40, "8:1", "/srv/a b", "/mnt/a\tb\\", false),
            (41, "8:1", "/srv", "/work/in", true),
        ];
        assert_eq!(rows.len(), expected.len());
        for (row, (id, device, what, at, is_writable)) in rows.iter().zip(expected) {
            let what = Place {
                device: device.into(),
                path: what.into(),
            };
            let at = at.into();
            assert_eq!(
                row,
                &Row {
                    id,
                    what,
                    at,
                    is_writable
                }
            );
        }
    }

    #[test]
    fn a_place_lies_in_another_of_its_file_system_by_whole_names() {
        let place = |device: &str, path: &str| Place {
            device: device.into(),
            path: path.into(),
        };
        let inner = place("8:1", "/srv/data/x");
        for (device, path, lies) in [
            ("8:1", "/", true),
            ("8:1", "/srv/data", true),
            ("8:1", "/srv/data/x", true),
            ("8:1", "/srv/dat", false),
            ("8:1", "/srv/data/x/y", false),
            ("8:2", "/srv", false),
        ] {
            assert_eq!(inner.lies_in(&place(device, path)), lies, "{device} {path}");
        }
    }

    #[test]
    fn where_an_open_directory_lies_is_found_in_the_table_of_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a b");
        fs::create_dir(&inner).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = |path: &Path| openat(CWD, path, flags, Mode::empty()).unwrap();
        let table = Table::read();
        let (path, _, place) = table.find(open(&inner)).expect("there is a `/proc`");
        assert_eq!(path, fs::canonicalize(&inner).unwrap());
        let reaches = table.reaches(open(dir.path()));
        assert!(place.lies_in(&reaches[0]), "{place:?} {reaches:?}");
        let (_, _, outer) = table.find(open(dir.path())).unwrap();
        assert!(!outer.lies_in(&place), "{outer:?} {place:?}");
    }
}
