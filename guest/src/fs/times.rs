//! Setting times.

use wakebox_abi::file::FileTime;
use wakebox_abi::op::{Follow, SetPathTimes};

use super::with_path;
use crate::io::Result;

/// Sets the times of what is at a path; a symbolic link at its end is followed. Not cancel-safe: it may have
/// happened if the future was dropped.
///
/// # Errors
///
/// `NotFound`, `PermissionDenied`, and others of the host.
pub async fn set_times(
    path: impl AsRef<str>,
    accessed: FileTime,
    modified: FileTime,
) -> Result<()> {
    set(path.as_ref(), Follow::Yes, accessed, modified).await
}

/// As [`set_times`], of a symbolic link itself if there is one.
///
/// # Errors
///
/// As [`set_times`].
pub async fn set_symlink_times(
    path: impl AsRef<str>,
    accessed: FileTime,
    modified: FileTime,
) -> Result<()> {
    set(path.as_ref(), Follow::No, accessed, modified).await
}

async fn set(path: &str, follow: Follow, accessed: FileTime, modified: FileTime) -> Result<()> {
    let act = |path| SetPathTimes {
        path,
        follow,
        accessed,
        modified,
    };
    with_path("set the times of", path, act).await
}
