//! The files that the command writes: a trace, a report, a page, a crash dump.
//!
//! This is the one door to them. A file is opened before anything is done, so that a path that cannot
//! be written is told before the guest runs, and before the jail, in which none can be opened. It
//! lies under another name beside its place, and takes its place ([`Keeper`]) when it is whole; a trace
//! and its page, which are of use also if they were cut off, when their first byte is written, as the
//! guest begins to run. Until then what was there before is as it was, and if nothing is written, it
//! stays. What is no regular file (a pipe, a terminal, `/dev/stdout`) is written as it comes, and so is
//! a file in a folder in which no other can be made.
//!
//! No output is one of the inputs, another output, or where standard input or output lead, whatever
//! names they have: files are compared, not their paths.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read as _, Seek as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, openat};

use super::keeper::{Beside, Do, Keeper};
use super::streams::is_standard;

/// Who may read a file that the command makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Whom the umask leaves; who could before, if the file was there.
    Usual,
    /// The owner alone, whatever was there before: it may hold secrets.
    Owner,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::Usual => 0o666,
            Self::Owner => 0o600,
        }
    }
}

/// Which file something is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// One that is there, by device and inode.
    There(u64, u64),
    /// One that is not, by its folder's and its name.
    NotYet(u64, u64, std::ffi::OsString),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self::There(metadata.dev(), metadata.ino())
    }
}

/// What is open there. By its descriptor: a system need not have a name for it.
fn open_file(stream: impl AsFd) -> io::Result<Metadata> {
    File::from(stream.as_fd().try_clone_to_owned()?).metadata()
}

/// The files of one command.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    taken: Vec<(Identity, String)>,
    /// What goes to standard output.
    stdout: Option<&'static str>,
    beside: Vec<Beside>,
    keeper: Arc<OnceLock<Keeper>>,
}

impl Outputs {
    /// For a command that reads these files: `(path, what it is)`.
    pub(super) fn besides<'a>(inputs: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Self {
        let mut outputs = Self::default();
        let streams = [
            (open_file(io::stdin()), "standard input"),
            (open_file(io::stdout()), "standard output"),
            (open_file(io::stderr()), "standard error"),
        ];
        let streams = streams.map(|(stream, what)| (stream, what.to_owned()));
        let inputs = inputs.into_iter().map(|(path, what)| {
            let what = format!("{what} {}", path.display());
            (fs::metadata(path), what)
        });
        for (metadata, what) in inputs.chain(streams) {
            // What is not there cannot be written over.
            if let Ok(metadata) = metadata
                && metadata.is_file()
            {
                outputs.taken.push((Identity::of(&metadata), what));
            }
        }
        outputs
    }

    /// Opens a file to write `what` to.
    ///
    /// # Errors
    ///
    /// It cannot be written, or is one that this command reads or writes otherwise.
    pub(super) fn open(
        &mut self,
        path: &Path,
        readers: Readers,
        what: &'static str,
    ) -> Result<OutputFile> {
        let unwritten = || format!("cannot write {what} {}", path.display());
        if is_standard(path) {
            return self.standard(what);
        }
        let is_stream = path.starts_with("/dev") || path.starts_with("/proc");
        let resolved = resolve(path).with_context(unwritten)?;
        let there = match fs::metadata(&resolved) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(unwritten),
        };
        let is_regular = there.as_ref().is_none_or(Metadata::is_file);
        let (file, place) = if is_stream || !is_regular {
            let file = direct(path, there.as_ref()).with_context(unwritten)?;
            (file, Place::Direct)
        } else {
            let identity = match &there {
                Some(metadata) => Identity::of(metadata),
                None => not_yet(&resolved).with_context(unwritten)?,
            };
            if let Some((_, other)) = self.taken.iter().find(|(taken, _)| *taken == identity) {
                bail!(
                    "{}: that is {other} as well; name another file",
                    unwritten()
                );
            }
            let described = format!("{what} {}", path.display());
            self.taken.push((identity, described));
            self.regular(&resolved, readers, there.as_ref())
                .with_context(unwritten)?
        };
        Ok(OutputFile {
            path: path.to_owned(),
            what,
            file,
            place,
            keeper: self.keeper.clone(),
        })
    }

    /// Nothing but `what` goes to standard output.
    pub(super) fn take_stdout(&mut self, what: &'static str) {
        self.stdout = Some(what);
    }

    /// Whether something of this command's own goes to standard output.
    pub(super) fn use_stdout(&self) -> bool {
        self.stdout.is_some()
    }

    /// Standard output, for one of them.
    fn standard(&mut self, what: &'static str) -> Result<OutputFile> {
        if let Some(other) = self.stdout.replace(what) {
            bail!("cannot write {what} to standard output: {other} goes there; name a file");
        }
        let own = rustix::stdio::stdout().try_clone_to_owned();
        let file = own.with_context(|| format!("cannot write {what} to standard output"))?;
        Ok(OutputFile {
            path: PathBuf::from("-"),
            what,
            file: file.into(),
            place: Place::Direct,
            keeper: self.keeper.clone(),
        })
    }

    /// A regular file: what is written, and where it goes then.
    fn regular(
        &mut self,
        path: &Path,
        readers: Readers,
        there: Option<&Metadata>,
    ) -> io::Result<(File, Place)> {
        // A file that may not be written is not replaced either.
        let old = match there {
            Some(_) => Some(File::options().write(true).open(path)?),
            None => None,
        };
        let folder = folder_of(path)?;
        let temporary = format!(".wakebox-{:016x}", random()?);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = openat(
            &folder,
            &temporary,
            flags,
            Mode::from_raw_mode(readers.mode()),
        );
        let file = match (made, old) {
            (Ok(file), old) => {
                let file = File::from(file);
                let index = self.beside.len() as u8;
                let beside = Beside {
                    folder,
                    temporary,
                    name: path.file_name().unwrap_or_default().to_owned(),
                };
                self.beside.push(beside);
                if readers == Readers::Usual
                    && let Some(there) = there
                {
                    file.set_permissions(fs::Permissions::from_mode(there.mode() & 0o777))?;
                }
                (file, Place::Beside { index, old })
            }
            // In this folder no file can be made.
            (Err(_), Some(old)) => {
                if readers == Readers::Owner {
                    old.set_permissions(fs::Permissions::from_mode(readers.mode()))?;
                }
                (old, Place::There)
            }
            (Err(error), None) => return Err(error.into()),
        };
        Ok(file)
    }

    /// All are open. To be called while there is one thread, and before the jail.
    ///
    /// # Errors
    ///
    /// There can be no process that puts them into place.
    pub(super) fn seal(self) -> Result<()> {
        if self.beside.is_empty() {
            return Ok(());
        }
        let keeper = Keeper::start(&self.beside)
            .context("no process can be made that puts files into their place")?;
        self.keeper.set(keeper).expect("it is sealed once");
        Ok(())
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        if self.keeper.get().is_none() {
            for file in &self.beside {
                // Nobody would miss it.
                let _ = file.remove();
            }
        }
    }
}

/// The file that a path names, at the end of all links; it may be none yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    /// As many as the kernel follows (path_resolution(7)).
    const LINKS: u32 = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.file_type().is_symlink() => {
                let target = fs::read_link(&path)?;
                path = match path.parent() {
                    Some(folder) => folder.join(target),
                    None => target,
                };
            }
            _ => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// The folder in which a path's last name is.
fn folder_of(path: &Path) -> io::Result<OwnedFd> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(folder)?;
    Ok(folder.into())
}

fn not_yet(path: &Path) -> io::Result<Identity> {
    let folder = File::from(folder_of(path)?).metadata()?;
    let Some(name) = path.file_name().filter(|_| !ends_with_slash(path)) else {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    };
    Ok(Identity::NotYet(folder.dev(), folder.ino(), name.into()))
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// Opens what is no regular file; a stream of this process's own is what it is, not opened anew.
fn direct(path: &Path, there: Option<&Metadata>) -> io::Result<File> {
    let number = [
        (OsStr::new("/dev/stdout"), 1),
        (OsStr::new("/dev/fd/1"), 1),
        (OsStr::new("/proc/self/fd/1"), 1),
        (OsStr::new("/dev/stderr"), 2),
        (OsStr::new("/dev/fd/2"), 2),
        (OsStr::new("/proc/self/fd/2"), 2),
    ];
    let number = number.iter().find(|(name, _)| path.as_os_str() == *name);
    match number {
        Some((_, 1)) => return Ok(rustix::stdio::stdout().as_fd().try_clone_to_owned()?.into()),
        Some(_) => return Ok(rustix::stdio::stderr().as_fd().try_clone_to_owned()?.into()),
        None => {}
    }
    if there.is_some_and(|there| there.file_type().is_socket()) {
        return Err(io::Error::from_raw_os_error(libc::ENXIO));
    }
    File::options().write(true).open(path)
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Where what is written goes.
#[derive(Debug)]
enum Place {
    /// There, as it comes.
    Direct,
    /// There, once all that was there before has been removed.
    There,
    /// Beside it, and there when it is put there. What was there before, if anything was.
    Beside { index: u8, old: Option<File> },
}

/// A file that the command may write. If it is dropped before, nothing is there but what was there
/// before.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    what: &'static str,
    file: File,
    place: Place,
    keeper: Arc<OnceLock<Keeper>>,
}

impl OutputFile {
    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of it, and then puts it into its place.
    ///
    /// # Errors
    ///
    /// It could not be written.
    pub(super) fn write(mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        let written = self.begin().and_then(|()| write(&mut self.file));
        let put = written.and_then(|()| self.put());
        put.with_context(|| self.unwritten())
    }

    /// The same for a text.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub(super) fn write_text(self, text: &str) -> Result<()> {
        self.write(|file| write_all(file, text.as_bytes()))
    }

    /// What is written while the guest runs: it is put into its place before its first byte, and is
    /// there to its last one, however the command ends.
    pub(super) fn stream(self) -> BufWriter<Stream> {
        let stream = Stream {
            output: self,
            is_begun: false,
        };
        BufWriter::with_capacity(1 << 16, stream)
    }

    fn begin(&mut self) -> io::Result<()> {
        match &self.place {
            Place::There => self.file.set_len(0),
            _ => Ok(()),
        }
    }

    fn put(&mut self) -> io::Result<()> {
        let Place::Beside { index, old } = std::mem::replace(&mut self.place, Place::Direct) else {
            return Ok(());
        };
        let Some(keeper) = self.keeper.get() else {
            return Err(io::Error::other("its place was not prepared"));
        };
        match (keeper.tell(index, Do::Keep), old) {
            (Ok(()), _) => Ok(()),
            // It cannot be replaced: something is mounted there, for instance.
            (Err(_), Some(mut old)) => {
                let copied = copy(&mut self.file, &mut old);
                self.file = old;
                keeper.tell(index, Do::Remove).and(copied)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn unwritten(&self) -> String {
        format!("cannot write {} {}", self.what, self.path.display())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let (Place::Beside { index, .. }, Some(keeper)) = (&self.place, self.keeper.get()) {
            // Else it goes when the command does.
            let _ = keeper.tell(*index, Do::Remove);
        }
    }
}

fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    from.rewind()?;
    to.set_len(0)?;
    let mut bytes = vec![0; 1 << 16];
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(()),
            count => to.write_all(&bytes[..count])?,
        }
    }
}

/// A file that is written piece by piece.
#[derive(Debug)]
pub(super) struct Stream {
    output: OutputFile,
    is_begun: bool,
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_begun {
            self.output.put()?;
            self.output.begin()?;
            self.is_begun = true;
        }
        write_all(&mut self.output.file, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of it, also to what asks to be waited for (`O_NONBLOCK`).
///
/// # Errors
///
/// What the kernel says.
pub(super) fn write_all(to: &mut (impl Write + AsFd), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(to)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until something can be written.
///
/// # Errors
///
/// What the kernel says.
fn wait(to: &impl AsFd) -> io::Result<()> {
    let mut waiting = [PollFd::new(to, PollFlags::OUT)];
    match poll(&mut waiting, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
