//! Images that are kept, so that a component is compiled once.
//!
//! A file has the name of what it is the image of: a hash of the component, of the runtime guest, of all settings, of the
//! compiler's version and of what the code may use of a processor. It ends with a checksum of the rest.
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
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::{Bounds, RUNTIME, compile, known};

/// Bytes of all files, beyond which those go that were used longest ago.
const MOST: u64 = 1 << 30;

/// What is behind an image.
type Sum = [u8; 32];

/// A folder of images.
#[derive(Debug)]
pub struct Cache {
    folder: OwnedFd,
    path: PathBuf,
    bounds: Bounds,
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
        known::path(|name| std::env::var_os(name))
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
            known::ensure_own(&fstat(&folder)?)?;
            Ok(folder)
        };
        Ok(Self {
            folder: own().with_context(|| format!("{} is no cache", path.display()))?,
            path: path.into(),
            bounds: Bounds::default(),
        })
    }

    /// Has code from now on that sees to bounds so.
    #[must_use]
    pub fn bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// As [`image`](crate::image()), with code that is here, or else will be. `note` is told what keeps it
    /// from being so: that is no reason not to compile.
    ///
    /// # Errors
    ///
    /// Those of [`image`](crate::image()).
    pub fn image(&self, component: &[u8], note: impl FnMut(anyhow::Error)) -> Result<Vec<u8>> {
        self.named_image(component, note).map(|(image, _)| image)
    }

    fn named_image(
        &self,
        component: &[u8],
        mut note: impl FnMut(anyhow::Error),
    ) -> Result<(Vec<u8>, String)> {
        let name = name(component, self.bounds)?;
        let at = || format!("{}/{name}", self.path.display());
        match self.load(&name) {
            Ok(Some(image)) => return Ok((image, name)),
            Ok(None) => {}
            Err(error) => note(error.context(format!("{} is not used", at()))),
        }
        let image = crate::image_with(component, self.bounds)?;
        if let Err(error) = self.store(&name, &image).and_then(|()| self.trim(&name)) {
            note(error.context(format!("the compiled code is not kept as {}", at())));
        }
        Ok((image, name))
    }

    /// As [`image`](Self::image), of a file. Where it is known that it was not changed since, `wakebox run` finds the
    /// image without this program from now on.
    ///
    /// # Errors
    ///
    /// Those of [`image`](crate::image()), and of reading the file.
    pub fn image_of(
        &self,
        mut component: File,
        note: impl FnMut(anyhow::Error),
    ) -> Result<Vec<u8>> {
        let before = fstat(&component)?;
        let is_settled = known::age(&before) >= known::SETTLED;
        let bytes = read_component(&mut component)?;
        let (image, name) = self.named_image(&bytes, note)?;
        let same = known::stamp(&fstat(&component)?) == known::stamp(&before);
        // Who does not ask this program asks for no other bounds.
        let is_usual = self.bounds == Bounds::default();
        if is_usual && is_settled && same && before.st_size as u64 == bytes.len() as u64 {
            // It is found all the same if it cannot be written down.
            let _ = self.remember(&before, &name);
        }
        Ok(image)
    }

    /// Writes down which image is that of a component.
    fn remember(&self, component: &Stat, image: &str) -> Result<()> {
        let compiler = fstat(File::open("/proc/self/exe")?)?;
        let Some((_, mut stat)) = known::file(&self.folder, image)? else {
            return Ok(());
        };
        // Once for each that was compiled.
        if known::age(&stat) < known::SETTLED {
            std::thread::sleep(known::SETTLED);
            let Some((_, settled)) = known::file(&self.folder, image)? else {
                return Ok(());
            };
            stat = settled;
        }
        ensure!(
            known::age(&stat) >= known::SETTLED,
            "it was changed only now"
        );
        let text = format!("{image} {}\n", known::stamp(&stat));
        self.put(&known::name(component, &compiler), &[text.as_bytes()])
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
        let Some((file, stat)) = known::file(&self.folder, name)? else {
            return Ok(None);
        };
        let mut image = Vec::with_capacity(usize::try_from(stat.st_size)?);
        (&file).take(MOST).read_to_end(&mut image)?;
        let own = image.len().checked_sub(size_of::<Sum>());
        let sum = own.map(|own| image.split_off(own));
        ensure!(
            sum.is_some_and(|sum| sum == checksum(name, &image)),
            "it was altered"
        );
        known::touch(&file);
        Ok(Some(image))
    }

    fn store(&self, name: &str, image: &[u8]) -> Result<()> {
        if image.len() as u64 > MOST {
            bail!("it has {} bytes", image.len());
        }
        self.put(name, &[image, &checksum(name, image)])
    }

    /// Puts a file into its place, whole.
    fn put(&self, name: &str, parts: &[&[u8]]) -> Result<()> {
        // The name of one writer.
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let new = format!(".new-{}-{writer}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // What a process left that had this number, and was ended.
        let _ = unlinkat(&self.folder, &*new, AtFlags::empty());
        let write = || -> Result<()> {
            let file = openat(&self.folder, &*new, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(file);
            for part in parts {
                file.write_all(part)?;
            }
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
        if bytes <= MOST {
            return Ok(());
        }
        self.date_by_use(&mut files);
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

    /// An image is used when what is written down of it is.
    fn date_by_use(&self, files: &mut [(std::ffi::CString, Stat)]) {
        let known = files.iter().filter_map(|(name, stat)| {
            let name = name
                .to_str()
                .ok()
                .filter(|name| name.starts_with(known::PREFIX))?;
            let (image, _) = known::read(&self.folder, name)?;
            Some((image, (stat.st_mtime, stat.st_mtime_nsec)))
        });
        let known: Vec<_> = known.collect();
        for (name, stat) in files {
            let own = known
                .iter()
                .filter(|(image, _)| image.as_bytes() == name.as_bytes());
            let last = own.map(|(_, used)| *used).max();
            if let Some(last) = last.filter(|last| *last > (stat.st_mtime, stat.st_mtime_nsec)) {
                (stat.st_mtime, stat.st_mtime_nsec) = last;
            }
        }
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

/// Most bytes of a component.
const COMPONENT_MAX: u64 = 256 << 20;

/// The bytes of a component's file.
///
/// # Errors
///
/// Those of reading; if it has more bytes than any component.
pub fn read_component(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(COMPONENT_MAX + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= COMPONENT_MAX,
        "it is larger than {COMPONENT_MAX} bytes"
    );
    Ok(bytes)
}

/// What the image of a component is called.
fn name(component: &[u8], bounds: Bounds) -> Result<String> {
    let mut sums = Sums(Sha256::new());
    compile::engine(bounds)?
        .precompile_compatibility_hash()
        .hash(&mut sums);
    RUNTIME.hash(&mut sums);
    component.hash(&mut sums);
    let bytes = sums.0.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn checksum(name: &str, code: &[u8]) -> Sum {
    let sum = Sha256::new().chain_update(name).chain_update(code);
    sum.finalize().into()
}
