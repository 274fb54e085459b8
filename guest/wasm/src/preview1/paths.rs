//! `path_*`: what is done beneath directories.

use wakebox_guest::io::Status;

use super::descriptors::{Descriptor, OpenFile};
use super::files::{APPEND, SYNC_ALL, SYNC_DATA, SYNC_READS, filestat, times};
use super::{Errno, Outcome, Process};
use crate::files::{How, Synced};

/// Whether a link at the end of a path is followed.
const FOLLOW: u32 = 1;

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

/// Rights of reading: a file, and a directory.
const READS: u64 = 1 << 1 | 1 << 14;
/// The right of writing. Go asks for that of setting the size for whatever it opens.
const WRITES: u64 = 1 << 6;

#[allow(clippy::unused_async, reason = "the functions are called alike")]
#[allow(clippy::too_many_arguments, reason = "the specification's")]
impl Process<'_> {
    pub(super) async fn path_create_directory(
        &mut self,
        fd: u32,
        path: u32,
        count: u32,
    ) -> Outcome {
        let path = self.text(path, count)?;
        Ok(self.open(fd)?.create_directory(&path).await?)
    }

    pub(super) async fn path_remove_directory(
        &mut self,
        fd: u32,
        path: u32,
        count: u32,
    ) -> Outcome {
        let path = self.text(path, count)?;
        Ok(self.open(fd)?.remove_directory(&path).await?)
    }

    pub(super) async fn path_unlink_file(&mut self, fd: u32, path: u32, count: u32) -> Outcome {
        let path = self.text(path, count)?;
        Ok(self.open(fd)?.remove_file(&path).await?)
    }

    pub(super) async fn path_rename(
        &mut self,
        fd: u32,
        path: u32,
        count: u32,
        to: u32,
        name: u32,
        length: u32,
    ) -> Outcome {
        let (path, name) = (self.text(path, count)?, self.text(name, length)?);
        let (from, to) = (self.open(fd)?, self.open(to)?);
        Ok(from.rename(&path, &to, &name).await?)
    }

    pub(super) async fn path_filestat_get(
        &mut self,
        fd: u32,
        flags: u32,
        path: u32,
        count: u32,
        into: u32,
    ) -> Outcome {
        let path = self.text(path, count)?;
        let open = self.open(fd)?;
        let found = open.metadata_at(&path, flags & FOLLOW != 0).await?;
        self.put(into, &filestat(&found))
    }

    pub(super) async fn path_open(
        &mut self,
        fd: u32,
        flags: u32,
        path: u32,
        count: u32,
        how: u32,
        base: u64,
        _inheriting: u64,
        mode: u32,
        into: u32,
    ) -> Outcome {
        let path = self.text(path, count)?;
        if mode & SYNC_READS != 0 {
            return Err(Errno::Notsup);
        }
        let how = How {
            follow: flags & FOLLOW != 0,
            create: how & CREATE != 0,
            directory: how & DIRECTORY != 0,
            exclusive: how & EXCLUSIVE != 0,
            truncate: how & TRUNCATE != 0,
            reads: base & READS != 0,
            writes: base & WRITES != 0,
            mutates: true,
            synced: Synced::of(mode & SYNC_DATA != 0, mode & SYNC_ALL != 0),
        };
        let within = self.open(fd)?;
        let open = match within.open(&path, how).await {
            // Rights are those that a descriptor may have: a directory is nothing that one writes.
            Err(Status::IsADirectory) if !how.create && !how.truncate => {
                let how = How {
                    writes: false,
                    ..how
                };
                within.open(&path, how).await?
            }
            opened => opened?,
        };
        let mut file = OpenFile::new(open);
        file.appending = OpenFile::appends(&file.open, mode & APPEND != 0).await?;
        let fd = self.descriptors().add(Descriptor::File(file))?;
        self.put_u32(into, fd)
    }

    pub(super) async fn path_filestat_set_times(
        &mut self,
        fd: u32,
        flags: u32,
        path: u32,
        count: u32,
        accessed: u64,
        modified: u64,
        set: u32,
    ) -> Outcome {
        let path = self.text(path, count)?;
        let (accessed, modified) = times(accessed, modified, set)?;
        let (open, follow) = (self.open(fd)?, flags & FOLLOW != 0);
        Ok(open.set_times_at(&path, follow, accessed, modified).await?)
    }

    pub(super) async fn path_link(
        &mut self,
        fd: u32,
        flags: u32,
        path: u32,
        count: u32,
        to: u32,
        name: u32,
        length: u32,
    ) -> Outcome {
        let (path, name) = (self.text(path, count)?, self.text(name, length)?);
        if flags & FOLLOW != 0 {
            // A link itself gets a name, and not what it leads to.
            return Err(Errno::Inval);
        }
        let (from, to) = (self.open(fd)?, self.open(to)?);
        Ok(from.link(&path, &to, &name).await?)
    }

    pub(super) async fn path_readlink(
        &mut self,
        fd: u32,
        path: u32,
        count: u32,
        at: u32,
        room: u32,
        into: u32,
    ) -> Outcome {
        let path = self.text(path, count)?;
        let target = self.open(fd)?.read_link(&path).await?;
        let part = target.as_bytes();
        let part = part.get(..room as usize).unwrap_or(part);
        self.put(at, part)?;
        self.put_u32(into, part.len() as u32)
    }

    pub(super) async fn path_symlink(
        &mut self,
        target: u32,
        count: u32,
        fd: u32,
        name: u32,
        length: u32,
    ) -> Outcome {
        let (target, name) = (self.text(target, count)?, self.text(name, length)?);
        Ok(self.open(fd)?.symlink(&target, &name).await?)
    }
}
