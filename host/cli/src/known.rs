//! Which file of the cache is the image of a component, found without a look into either.
//!
//! What a component is, and that nobody has altered its image, hashes say; to hash both takes a fifth of a second
//! for Python. So it is done once, and written down with where both files lie, how long they are, and when
//! they were last changed, to the nanosecond, which nobody can set. All is in the cache, into which nobody may write but the
//! user whose code it is. A change that follows another closely may have the same time: who was changed only just
//! now is not written down.
//!
//! `wakebox-wasm`, which writes it down, compiles this very file.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, fstat, futimens, openat,
};
use rustix::process::geteuid;

/// With which the names of what is written down begin.
pub(crate) const PREFIX: &str = "known-";

/// Longer than the kernel's clock stands still.
#[allow(dead_code, reason = "who reads does not write")]
pub(crate) const SETTLED: Duration = Duration::from_millis(50);

/// Which file this is, and what was in it, in characters that a name of a file may have.
pub(crate) fn stamp(stat: &Stat) -> String {
    format!(
        "{:x}.{:x}.{:x}.{:x}.{:x}.{:x}",
        stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_ctime, stat.st_ctime_nsec
    )
}

/// Time since a file was changed.
#[allow(dead_code, reason = "who reads does not write")]
pub(crate) fn age(stat: &Stat) -> Duration {
    let seconds = u64::try_from(stat.st_ctime).unwrap_or(u64::MAX);
    let changed = Duration::new(seconds, stat.st_ctime_nsec as u32);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(changed)
}

/// The name under which it is written down what a compiler made of a component.
pub(crate) fn name(component: &Stat, compiler: &Stat) -> String {
    format!("{PREFIX}{}-{}", stamp(component), stamp(compiler))
}

/// Where the cache lies: `wakebox/components` in `$XDG_CACHE_HOME`, or else in `~/.cache`.
pub(crate) fn path(var: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let var = |name| {
        var(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")));
    let base = base.context("neither XDG_CACHE_HOME nor HOME is an absolute path")?;
    Ok(base.join("wakebox/components"))
}

/// That nobody else may write to something.
pub(crate) fn ensure_own(stat: &Stat) -> Result<()> {
    let mode = stat.st_mode & 0o7777;
    ensure!(
        stat.st_uid == geteuid().as_raw(),
        "it belongs to another user ({})",
        stat.st_uid
    );
    ensure!(
        mode & 0o022 == 0,
        "other users may write to it (its mode is {mode:o}): see what is in it, and `chmod go-w` it"
    );
    Ok(())
}

/// Opens a file of the cache, if it is one that nobody else may write to.
pub(crate) fn file(folder: &OwnedFd, name: &str) -> Result<Option<(File, Stat)>> {
    // What is no regular file shall not be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        file => file?,
    };
    let stat = fstat(&file)?;
    ensure!(
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
        "it is not a file"
    );
    ensure_own(&stat)?;
    Ok(Some((file.into(), stat)))
}

/// What is written down under a name: the name of an image, and its stamp.
pub(crate) fn read(folder: &OwnedFd, name: &str) -> Option<(String, String)> {
    let (file, _) = file(folder, name).ok()??;
    let mut text = String::new();
    (&file).take(1024).read_to_string(&mut text).ok()?;
    let (image, stamp) = text.trim_end().split_once(' ')?;
    let is_name = image.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name.then(|| (image.into(), stamp.into()))
}

/// Says that a file is used, so that what is stays longest. What cannot be said is not.
pub(crate) fn touch(file: &File) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW as _,
    };
    let _ = futimens(
        file,
        &Timestamps {
            last_access: now,
            last_modification: now,
        },
    );
}

/// The image of a component, if it is known and as it was.
#[allow(dead_code, reason = "who writes does not look it up")]
pub(crate) fn image(folder: &OwnedFd, name: &str) -> Option<File> {
    let (image, was) = read(folder, name)?;
    let (image, stat) = file(folder, &image).ok()??;
    // What it says of the image is about times, too: only what says it is touched.
    let (known, _) = file(folder, name).ok()??;
    touch(&known);
    (stamp(&stat) == was).then_some(image)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// A cache with an image, and a line that says so.
    fn cache(folder: &Path) -> OwnedFd {
        fs::write(folder.join("ab01"), "image").unwrap();
        let stat = rustix::fs::stat(folder.join("ab01")).unwrap();
        fs::write(folder.join("known-x"), format!("ab01 {}\n", stamp(&stat))).unwrap();
        File::open(folder).unwrap().into()
    }

    #[test]
    fn an_image_is_known_while_it_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let open = cache(folder.path());
        let mut text = String::new();
        let found = image(&open, "known-x").unwrap();
        (&found).read_to_string(&mut text).unwrap();
        assert_eq!(text, "image");
        // Finding it does not change it.
        assert!(image(&open, "known-x").is_some());
        assert!(image(&open, "known-y").is_none());
        fs::write(folder.path().join("ab01"), "imagined").unwrap();
        assert!(image(&open, "known-x").is_none());
        fs::remove_file(folder.path().join("ab01")).unwrap();
        assert!(image(&open, "known-x").is_none());
    }

    #[test]
    fn what_others_may_write_to_and_what_lies_elsewhere_is_not_known() {
        for (name, mode) in [("ab01", 0o620), ("known-x", 0o602)] {
            let folder = tempfile::tempdir().unwrap();
            let open = cache(folder.path());
            fs::set_permissions(folder.path().join(name), Permissions::from_mode(mode)).unwrap();
            if name == "ab01" {
                // The line is right: it is the mode that counts.
                let stat = rustix::fs::stat(folder.path().join(name)).unwrap();
                let line = format!("ab01 {}\n", stamp(&stat));
                fs::write(folder.path().join("known-x"), line).unwrap();
            }
            assert!(image(&open, "known-x").is_none(), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let open = cache(folder.path());
        for line in ["../x 1", "ab01", "", "/etc/passwd 1"] {
            fs::write(folder.path().join("known-x"), line).unwrap();
            assert!(read(&open, "known-x").is_none(), "{line}");
        }
    }
}
