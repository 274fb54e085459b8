//! Files and directories of the host, as far as the sandbox's policy grants them.
//!
//! Paths are absolute, in the tree that the grants make up: a guest that was started with
//! `--dir ./site:/www` finds `index.html` of that directory as `/www/index.html`. No path leads out
//! of a granted directory. What is not granted, or is written to in a directory that is granted
//! for reading, is `PermissionDenied`.
//!
//! Each operation says whether it is *cancel-safe*: whether its future may be dropped before it is
//! ready without losing or doubling anything. An operation that changes something may have
//! happened although its future was dropped.

mod directory;
mod file;
mod links;
mod metadata;
mod mounts;
mod options;
mod times;

use alloc::string::String;
use alloc::vec::Vec;

use wakebox_abi::file::FileStat;
use wakebox_abi::op::{
    Buf, CreateDirectory, Follow, Operation, RemoveDirectory, RemoveFile, Rename, StatPath,
};
use wakebox_abi::status::Status;

pub use self::directory::{DirEntry, ReadDir, read_dir};
pub use self::file::{File, SeekFrom};
pub use self::links::{hard_link, read_link, symlink};
pub use self::metadata::Metadata;
pub use self::mounts::mounts;
pub use self::options::OpenOptions;
pub use self::times::{set_symlink_times, set_times};
pub use wakebox_abi::file::{FileKind, FileTime};

use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::op::Op;

/// Reads a whole file. Cancel-safe.
///
/// # Errors
///
/// `NotFound`, `IsADirectory`, `PermissionDenied`, and others of the host.
pub async fn read(path: impl AsRef<str>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).await?.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Reads a whole file that is text. Cancel-safe.
///
/// # Errors
///
/// As [`read()`]; `InvalidData` if it is not UTF-8.
pub async fn read_to_string(path: impl AsRef<str>) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read(path).await?)
        .map_err(|_| Error::new(Status::InvalidData, alloc::format!("read {path}")))
}

/// Writes a file, which is made if it does not exist and replaced if it does. Not cancel-safe:
/// any part may have been written.
///
/// # Errors
///
/// Those of [`File::create`] and [`File::write_all`].
pub async fn write(path: impl AsRef<str>, bytes: impl AsRef<[u8]>) -> Result<()> {
    File::create(path).await?.write_all(bytes.as_ref()).await
}

/// What is at a path; a symbolic link at its end is followed. Cancel-safe.
///
/// # Errors
///
/// `NotFound`, `PermissionDenied`, and others of the host.
pub async fn metadata(path: impl AsRef<str>) -> Result<Metadata> {
    stat(path.as_ref(), Follow::Yes).await
}

/// What is at a path, which may be a symbolic link. Cancel-safe.
///
/// # Errors
///
/// As [`metadata`].
pub async fn symlink_metadata(path: impl AsRef<str>) -> Result<Metadata> {
    stat(path.as_ref(), Follow::No).await
}

/// Whether there is something at a path. Cancel-safe.
///
/// # Errors
///
/// Those of [`metadata`], other than `NotFound`.
pub async fn try_exists(path: impl AsRef<str>) -> Result<bool> {
    match metadata(path).await {
        Ok(_) => Ok(true),
        Err(error) if error.status() == Status::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives something another path, perhaps in another directory of the same file system of the host,
/// and replaces what is there. Not cancel-safe: it may have happened if the future was dropped.
///
/// # Errors
///
/// `NotFound`, `PermissionDenied`, `IsADirectory`, `NotADirectory`, `DirectoryNotEmpty`,
/// `CrossesDevices`, and others of the host.
pub async fn rename(from: impl AsRef<str>, to: impl AsRef<str>) -> Result<()> {
    let act = |from, to| Rename { from, to };
    with_paths(["rename", "to"], from.as_ref(), to.as_ref(), act).await
}

/// Removes a file or a symbolic link. Not cancel-safe: it may have happened if the future was
/// dropped.
///
/// # Errors
///
/// `NotFound`, `IsADirectory`, `PermissionDenied`, and others of the host.
pub async fn remove_file(path: impl AsRef<str>) -> Result<()> {
    let act = |path| RemoveFile { path };
    with_path("remove", path.as_ref(), act).await
}

/// Removes an empty directory. Not cancel-safe: it may have happened if the future was dropped.
///
/// # Errors
///
/// `NotFound`, `NotADirectory`, `DirectoryNotEmpty`, `PermissionDenied`, and others of the host.
pub async fn remove_dir(path: impl AsRef<str>) -> Result<()> {
    let act = |path| RemoveDirectory { path };
    with_path("remove the directory", path.as_ref(), act).await
}

/// Makes a directory. Not cancel-safe: it may have happened if the future was dropped.
///
/// # Errors
///
/// `AlreadyExists`, `NotFound` if the directory in which it is to lie does not exist,
/// `PermissionDenied`, and others of the host.
pub async fn create_dir(path: impl AsRef<str>) -> Result<()> {
    let act = |path| CreateDirectory { path };
    with_path("make the directory", path.as_ref(), act).await
}

/// Makes a directory and all those in which it is to lie, if they do not exist. Not cancel-safe:
/// any of it may have happened if the future was dropped.
///
/// # Errors
///
/// As [`create_dir`]; `AlreadyExists` only if there is something that is not a directory.
pub async fn create_dir_all(path: impl AsRef<str>) -> Result<()> {
    let path = path.as_ref().trim_end_matches('/');
    // Up to the deepest that can be made, and down again.
    let mut missing = path;
    loop {
        match create_dir(missing).await {
            Ok(()) => break,
            Err(error) if error.status() == Status::AlreadyExists => {
                if metadata(missing).await?.is_dir() {
                    break;
                }
                return Err(error);
            }
            Err(error) if error.status() == Status::NotFound => match missing.rsplit_once('/') {
                Some((parent, _)) if !parent.is_empty() => missing = parent,
                _ => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    while missing.len() < path.len() {
        let rest = &path[missing.len() + 1..];
        let next = rest.find('/').unwrap_or(rest.len());
        missing = &path[..missing.len() + 1 + next];
        match create_dir(missing).await {
            Err(error) if error.status() != Status::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Does something that takes one path.
async fn with_path<O: Operation>(
    what: &str,
    path: &str,
    operation: impl FnOnce(Buf) -> O,
) -> Result<()> {
    let buf = IoBuf::copy_of(path.as_bytes()).await?;
    let (outcome, _) = Op::with_buf(operation(buf.filled()), buf).await;
    let failed = |status| Error::new(status, alloc::format!("{what} {path}"));
    outcome.map(|_| ()).map_err(failed)
}

/// Does something that takes two paths. The words stand before them if it fails.
async fn with_paths<O: Operation>(
    what: [&str; 2],
    first: &str,
    second: &str,
    operation: impl FnOnce(Buf, Buf) -> O,
) -> Result<()> {
    let mut buf = IoBuf::with_capacity(first.len() + second.len()).await?;
    buf.extend_from_slice(first.as_bytes());
    let before = buf.filled();
    buf.extend_from_slice(second.as_bytes());
    let operation = operation(before, buf.filled().behind(first.len()));
    let (outcome, _) = Op::with_buf(operation, buf).await;
    let [what, then] = what;
    let failed = |status| Error::new(status, alloc::format!("{what} {first} {then} {second}"));
    outcome.map(|_| ()).map_err(failed)
}

async fn stat(path: &str, follow: Follow) -> Result<Metadata> {
    let mut buf = IoBuf::with_capacity(FileStat::SIZE + path.len()).await?;
    buf.set_len(FileStat::SIZE);
    let into = buf.filled();
    buf.extend_from_slice(path.as_bytes());
    let path_buf = Buf {
        offset: into.offset + into.len,
        len: path.len() as u32,
    };
    let operation = StatPath {
        path: path_buf,
        follow,
        into,
    };
    let (outcome, buf) = Op::with_buf(operation, buf).await;
    outcome.map_err(|status| Error::new(status, alloc::format!("look at {path}")))?;
    Metadata::decode(buf.as_deref())
}
