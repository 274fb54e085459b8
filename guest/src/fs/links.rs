//! Links.

use alloc::string::String;

use wakebox_abi::file::PATH_MAX;
use wakebox_abi::op::{HardLink, ReadLink, SymbolicLink};
use wakebox_abi::status::Status;

use super::with_paths;
use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::op::Op;

/// Gives a file a second name, in the same file system of the host. A symbolic link is not followed: it is
/// the link that gets a name. Not cancel-safe: it may have happened if the future was dropped.
///
/// # Errors
///
/// `NotFound`, `AlreadyExists`, `CrossesDevices`, `PermissionDenied` for a directory and where either may
/// not be changed, and others of the host.
pub async fn hard_link(from: impl AsRef<str>, to: impl AsRef<str>) -> Result<()> {
    let act = |from, to| HardLink { from, to };
    with_paths(["link", "to"], from.as_ref(), to.as_ref(), act).await
}

/// Makes a symbolic link at `path` that leads to `target`, a relative path from where the link lies, at which
/// there need not be anything. Not cancel-safe: it may have happened if the future was dropped.
///
/// # Errors
///
/// `AlreadyExists`, `NotFound`, `PermissionDenied` if the policy does not grant making symbolic links or the target is an
/// absolute path, and others of the host.
pub async fn symlink(target: impl AsRef<str>, path: impl AsRef<str>) -> Result<()> {
    let act = |target, path| SymbolicLink { target, path };
    with_paths(["link to", "at"], target.as_ref(), path.as_ref(), act).await
}

/// Where a symbolic link leads to. Cancel-safe.
///
/// # Errors
///
/// `NotFound`, `InvalidInput` for what is no symbolic link, `PermissionDenied` for one that leads to an absolute
/// path of the host, `InvalidData` if it is not UTF-8, and others of the host.
pub async fn read_link(path: impl AsRef<str>) -> Result<String> {
    let path = path.as_ref();
    let failed = |status| Error::new(status, alloc::format!("read the link {path}"));
    let mut buf = IoBuf::with_capacity(PATH_MAX.max(path.len())).await?;
    buf.extend_from_slice(path.as_bytes());
    // The host has read the path before it writes.
    let operation = ReadLink {
        path: buf.filled(),
        into: buf.whole(),
    };
    let (outcome, buf) = Op::with_buf(operation, buf).await;
    let count = outcome.map_err(failed)? as usize;
    let mut buf = buf.unwrap_or_else(|| unreachable!("a link is read into a buffer"));
    buf.set_len(count.min(buf.capacity()));
    let target = core::str::from_utf8(&buf).map_err(|_| failed(Status::InvalidData))?;
    Ok(target.into())
}
