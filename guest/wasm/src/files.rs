//! What is open of the directories that the policy grants, for both versions of WASI.
//!
//! A directory that is open is its path in the sandbox's tree: the host resolves it each time, beneath
//! what is granted, and keeps nothing for it.

use alloc::string::String;
use alloc::vec::Vec;

use wakebox_guest::fs::{self, File, FileKind, FileTime, Metadata, OpenOptions};
use wakebox_guest::io::Status;

pub(crate) use crate::flight::Result;

/// Most bytes that one call reads or writes.
pub(crate) const CHUNK: usize = 256 << 10;

/// Something that is open.
pub(crate) struct Open {
    path: String,
    /// The file, or nothing for a directory.
    file: Option<File>,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) synced: Synced,
}

/// What of a write has to be on the disk before it is done.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Synced {
    #[default]
    Nothing,
    Data,
    All,
}

impl Synced {
    pub(crate) fn of(data: bool, all: bool) -> Self {
        match (data, all) {
            (_, true) => Self::All,
            (true, false) => Self::Data,
            (false, false) => Self::Nothing,
        }
    }

    fn of_writes(self, options: OpenOptions) -> OpenOptions {
        options.synced(self != Self::Nothing, self == Self::All)
    }
}

/// How something is opened. The words are POSIX's.
#[derive(Clone, Copy, Default)]
pub(crate) struct How {
    pub(crate) follow: bool,
    pub(crate) create: bool,
    pub(crate) directory: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// Whether what is in it may be changed, if it is a directory.
    pub(crate) mutates: bool,
    pub(crate) synced: Synced,
}

/// The status of an error.
pub(crate) fn status(error: wakebox_guest::io::Error) -> Status {
    error.status()
}

/// The granted directories.
pub(crate) async fn granted() -> Result<Vec<Open>> {
    let paths = fs::mounts().await.map_err(status)?;
    Ok(paths
        .into_iter()
        .map(|path| Open::directory(path, true))
        .collect())
}

impl Open {
    fn directory(path: String, writes: bool) -> Self {
        Self {
            path,
            file: None,
            reads: true,
            writes,
            synced: Synced::Nothing,
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.file.is_none()
    }

    fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or(Status::IsADirectory)
    }

    /// The path of something beneath a directory. Whoever has a directory does not come out of it by
    /// `..` or by an absolute path; where links lead is the host's to say, which knows what is granted.
    pub(crate) fn beneath(&self, path: &str) -> Result<String> {
        if !self.is_directory() {
            return Err(Status::NotADirectory);
        }
        if path.is_empty() {
            return Err(Status::NotFound);
        }
        let mut depth = 0_usize;
        for part in path.split('/') {
            depth = match part {
                "" | "." => depth,
                ".." => depth.checked_sub(1).ok_or(Status::PermissionDenied)?,
                _ => depth + 1,
            };
        }
        if path.starts_with('/') {
            return Err(Status::PermissionDenied);
        }
        let base = self.path.trim_end_matches('/');
        Ok(alloc::format!("{base}/{path}"))
    }

    /// Opens something beneath a directory.
    pub(crate) async fn open(&self, path: &str, how: How) -> Result<Self> {
        let at = self.beneath(path)?;
        if !how.follow && !how.exclusive && is_link(&at).await {
            return Err(Status::TooManyLinks);
        }
        if how.directory {
            if how.create || how.exclusive || how.truncate {
                return Err(Status::InvalidInput);
            }
            let found = fs::metadata(&at).await.map_err(status)?;
            return match found.is_dir() {
                true => Ok(Self::directory(at, how.mutates)),
                false => Err(Status::NotADirectory),
            };
        }
        if how.create && !how.exclusive && !how.truncate && !how.writes {
            // Making it takes a right that reading does not.
            match Self::open_file(
                at.clone(),
                How {
                    create: false,
                    ..how
                },
            )
            .await
            {
                Err(Status::NotFound) => {}
                opened => return opened,
            }
        }
        Self::open_file(at, how).await
    }

    async fn open_file(at: String, how: How) -> Result<Self> {
        let changes = how.writes || how.create || how.truncate;
        let options = OpenOptions::new()
            .read(how.reads || !changes)
            .write(changes)
            .create(how.create)
            .create_new(how.create && how.exclusive)
            .truncate(how.truncate);
        let options = match changes {
            true => how.synced.of_writes(options),
            false => options,
        };
        match options.open(&at).await.map_err(status) {
            Ok(file) => Ok(Self {
                path: at,
                file: Some(file),
                reads: how.reads,
                writes: how.writes,
                synced: how.synced,
            }),
            Err(Status::IsADirectory) if !changes => Ok(Self::directory(at, how.mutates)),
            Err(status) => Err(status),
        }
    }

    /// Reads; no bytes are the end.
    pub(crate) async fn read(&self, length: u64, offset: u64) -> Result<Vec<u8>> {
        let file = self.file()?;
        if !self.reads {
            return Err(Status::BadHandle);
        }
        let most = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
        let mut bytes = alloc::vec![0; most];
        let count = file.read_at(&mut bytes, offset).await.map_err(status)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Writes a part, which may be all.
    pub(crate) async fn write(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        let file = self.for_change()?;
        file.write_at(bytes, offset).await.map_err(status)
    }

    /// Writes all.
    pub(crate) async fn write_all(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes, offset).await? {
                0 => return Err(Status::StorageFull),
                count => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }

    /// The same file, of which whatever is written goes to the end.
    pub(crate) async fn appending(&self) -> Result<Self> {
        self.for_change()?;
        let options = self.synced.of_writes(OpenOptions::new().append(true));
        Ok(Self {
            path: self.path.clone(),
            file: Some(options.open(&self.path).await.map_err(status)?),
            reads: false,
            writes: true,
            synced: self.synced,
        })
    }

    pub(crate) async fn set_length(&self, length: u64) -> Result<()> {
        self.for_change()?.set_len(length).await.map_err(status)
    }

    fn for_change(&self) -> Result<&File> {
        let file = self.file()?;
        if self.writes {
            Ok(file)
        } else {
            Err(Status::BadHandle)
        }
    }

    /// Waits until what was written is on the disk.
    pub(crate) async fn sync(&self, only_data: bool) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let synced = match only_data {
            true => file.sync_data().await,
            false => file.sync_all().await,
        };
        synced.map_err(status)
    }

    pub(crate) async fn metadata(&self) -> Result<Metadata> {
        let metadata = match &self.file {
            Some(file) => file.metadata().await,
            None => fs::metadata(&self.path).await,
        };
        metadata.map_err(status)
    }

    /// What is beneath a directory.
    pub(crate) async fn metadata_at(&self, path: &str, follow: bool) -> Result<Metadata> {
        let at = self.beneath(path)?;
        let metadata = match follow {
            true => fs::metadata(at).await,
            false => fs::symlink_metadata(at).await,
        };
        metadata.map_err(status)
    }

    pub(crate) async fn list(&self) -> Result<fs::ReadDir> {
        match self.file {
            None => fs::read_dir(&self.path).await.map_err(status),
            Some(_) => Err(Status::NotADirectory),
        }
    }

    pub(crate) async fn create_directory(&self, path: &str) -> Result<()> {
        fs::create_dir(self.beneath(path)?).await.map_err(status)
    }

    pub(crate) async fn remove_directory(&self, path: &str) -> Result<()> {
        fs::remove_dir(self.beneath(path)?).await.map_err(status)
    }

    pub(crate) async fn remove_file(&self, path: &str) -> Result<()> {
        fs::remove_file(self.beneath(path)?).await.map_err(status)
    }

    pub(crate) async fn rename(&self, from: &str, to: &Self, name: &str) -> Result<()> {
        fs::rename(self.beneath(from)?, to.beneath(name)?)
            .await
            .map_err(status)
    }

    pub(crate) async fn set_times(&self, accessed: FileTime, modified: FileTime) -> Result<()> {
        let set = match &self.file {
            Some(file) => file.set_times(accessed, modified).await,
            None => fs::set_times(&self.path, accessed, modified).await,
        };
        set.map_err(status)
    }

    pub(crate) async fn set_times_at(
        &self,
        path: &str,
        follow: bool,
        accessed: FileTime,
        modified: FileTime,
    ) -> Result<()> {
        let at = self.beneath(path)?;
        let set = match follow {
            true => fs::set_times(at, accessed, modified).await,
            false => fs::set_symlink_times(at, accessed, modified).await,
        };
        set.map_err(status)
    }

    pub(crate) async fn link(&self, from: &str, to: &Self, name: &str) -> Result<()> {
        let linked = fs::hard_link(self.beneath(from)?, to.beneath(name)?).await;
        match linked.map_err(status) {
            Err(error) => Err(match self.metadata_at(from, false).await {
                // It has one name.
                Ok(found) if found.is_dir() => Status::PermissionDenied,
                _ => error,
            }),
            done => done,
        }
    }

    pub(crate) async fn symlink(&self, target: &str, path: &str) -> Result<()> {
        fs::symlink(target, self.beneath(path)?)
            .await
            .map_err(status)
    }

    pub(crate) async fn read_link(&self, path: &str) -> Result<String> {
        fs::read_link(self.beneath(path)?).await.map_err(status)
    }
}

async fn is_link(path: &str) -> bool {
    let found = fs::symlink_metadata(path).await;
    found.is_ok_and(|found| found.kind() == FileKind::Symlink)
}
