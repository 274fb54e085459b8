//! Compiled code that is kept, so that a component is compiled once.
//!
//! A file has the name of what it is the code of: a hash of the component, of all settings, of the
//! compiler's version and of what the code may use of a processor. It begins with a checksum of the rest.
//! It comes whole into its place, or not at all. What belongs to anybody else, or may be written by
//! anybody else, is not used: it would be their code that runs.

use std::fs::{DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timestamps, UTIME_NOW, fstat, futimens,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use crate::{RUNTIME, attach, compile};

/// Bytes of all files, beyond which those go that were used longest ago.
const MOST: u64 = 1 << 30;

/// What is before the code.
type Sum = [u8; 32];

/// A folder of compiled code.
#[derive(Debug)]
pub struct Cache {
    folder: OwnedFd,
    path: PathBuf,
}

/// What is hashed goes into the sum.
struct Sums(Sha256);

impl Hasher for Sums {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(&self) -> u64 {
        0
    }
}

impl Cache {
    /// Where the user's lies: `wakebox/components` in `$XDG_CACHE_HOME`, or else in `~/.cache`.
    ///
    /// # Errors
    ///
    /// If the environment has neither that nor `HOME`.
    pub fn path() -> Result<PathBuf> {
        let var = |name| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let base = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")));
        let base = base.context("neither XDG_CACHE_HOME nor HOME is an absolute path")?;
        Ok(base.join("wakebox/components"))
    }

    /// Opens a folder, which is made if there is none.
    ///
    /// # Errors
    ///
    /// Those of the system; if another user owns it or may write to it.
    pub fn open(path: &Path) -> Result<Self> {
        let own = || -> Result<OwnedFd> {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(CWD, path, flags, Mode::empty())?;
            ensure_own(&fstat(&folder)?)?;
            Ok(folder)
        };
        Ok(Self {
            folder: own().with_context(|| format!("{} is no cache", path.display()))?,
            path: path.into(),
        })
    }

    /// As [`image`](crate::image()), with code that is here, or else will be. `note` is told what keeps it
    /// from being so: that is no reason not to compile.
    ///
    /// # Errors
    ///
    /// Those of [`image`](crate::image()).
    pub fn image(&self, component: &[u8], mut note: impl FnMut(anyhow::Error)) -> Result<Vec<u8>> {
        let name = name(component)?;
        let at = || format!("{}/{name}", self.path.display());
        match self.load(&name) {
            Ok(Some(code)) => return attach::attach(RUNTIME, &code),
            Ok(None) => {}
            Err(error) => note(error.context(format!("{} is not used", at()))),
        }
        let code = compile(component)?;
        if let Err(error) = self.store(&name, &code).and_then(|()| self.trim(&name)) {
            note(error.context(format!("the compiled code is not kept as {}", at())));
        }
        attach::attach(RUNTIME, &code)
    }

    /// Removes all that is here, and gives the number of bytes that it had.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn clear(&self) -> Result<u64> {
        let mut bytes = 0;
        for (name, stat) in self.files()? {
            unlinkat(&self.folder, &*name, AtFlags::empty())?;
            bytes += stat.st_size as u64;
        }
        Ok(bytes)
    }

    fn load(&self, name: &str) -> Result<Option<Vec<u8>>> {
        // What is no regular file shall not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            file => file?,
        };
        let stat = fstat(&file)?;
        ensure!(
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            "it is not a file"
        );
        ensure_own(&stat)?;
        let mut sum = Sum::default();
        let mut code = Vec::with_capacity(usize::try_from(stat.st_size)?.saturating_sub(sum.len()));
        let mut file = File::from(file);
        let read = file.read_exact(&mut sum);
        read.and_then(|()| (&file).take(MOST).read_to_end(&mut code))?;
        ensure!(sum == checksum(name, &code), "it was altered");
        // Only so that what is used stays longest.
        let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW as _,
        };
        let _ = futimens(
            &file,
            &Timestamps {
                last_access: now,
                last_modification: now,
            },
        );
        Ok(Some(code))
    }

    fn store(&self, name: &str, code: &[u8]) -> Result<()> {
        if code.len() as u64 > MOST {
            bail!("it has {} bytes", code.len());
        }
        // The name of one writer.
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let new = format!(".{name}-{}-{writer}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // What a process left that had this number, and was ended.
        let _ = unlinkat(&self.folder, &*new, AtFlags::empty());
        let write = || -> Result<()> {
            let file = openat(&self.folder, &*new, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(file);
            file.write_all(&checksum(name, code))?;
            file.write_all(code)?;
            Ok(renameat(&self.folder, &*new, &self.folder, name)?)
        };
        write().inspect_err(|_| {
            let _ = unlinkat(&self.folder, &*new, AtFlags::empty());
        })
    }

    /// Removes what was used longest ago, while all that is here is more than it may be.
    fn trim(&self, but: &str) -> Result<()> {
        let mut files = self.files()?;
        let mut bytes: u64 = files.iter().map(|(_, stat)| stat.st_size as u64).sum();
        files.sort_by_key(|(_, stat)| (stat.st_mtime, stat.st_mtime_nsec));
        for (name, stat) in files
            .iter()
            .filter(|(name, _)| name.as_bytes() != but.as_bytes())
        {
            if bytes <= MOST {
                break;
            }
            unlinkat(&self.folder, &**name, AtFlags::empty())?;
            bytes -= stat.st_size as u64;
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<(std::ffi::CString, Stat)>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let name = entry?.file_name().to_owned();
            match statat(&self.folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                // Another process removed it.
                Err(Errno::NOENT) => {}
                stat => {
                    let stat = stat?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                        files.push((name, stat));
                    }
                }
            }
        }
        Ok(files)
    }
}

/// That nobody else may write to something.
fn ensure_own(stat: &Stat) -> Result<()> {
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

/// What the code of a component is called.
fn name(component: &[u8]) -> Result<String> {
    let mut sums = Sums(Sha256::new());
    compile::engine()?
        .precompile_compatibility_hash()
        .hash(&mut sums);
    component.hash(&mut sums);
    let bytes = sums.0.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn checksum(name: &str, code: &[u8]) -> Sum {
    let sum = Sha256::new().chain_update(name).chain_update(code);
    sum.finalize().into()
}
