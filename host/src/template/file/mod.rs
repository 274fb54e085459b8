//! Templates in files.
//!
//! A file has a header, which says what lies in it, what the guest needs, and the hash of each part; the
//! guest's ELF file; and of a guest that was parked its registers, what was in flight, and the pages that
//! are not zeroes, one behind the other. The format has a version, and every number is little-endian.
//!
//! # What a file is trusted with
//!
//! With a key ([`FileOptions::key`]) a file is believed if it was made with that key, and nothing of it
//! is looked at before. Without one it may be anybody's, and then is at most a guest that may be
//! anybody's: it has a guest's memory and a guest's registers. What ring 3 may do is not in it: page
//! tables, descriptor tables, the stubs of ring 0 and its stacks, control and model-specific registers
//! are made here, as for a guest that begins. How much memory it takes is compared with a limit before
//! any is taken ([`FileOptions::most_memory`]). It carries no rights, as no template does.

mod fields;
mod header;
mod parts;
mod read;
mod stand;
mod write;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use wakebox_vmm::frozen::Frozen;
use wakebox_vmm::machine::MachineState;
use wakebox_vmm::system::System;
use wakebox_vmm::x86_64::features;
use wakebox_vmm::x86_64::user::UserState;

use self::header::Header;
use super::{DriverStand, Position, Stand, Template};
use crate::debug::symbols::Symbols;
use crate::error::{Error, Result, TemplateFileError};
use crate::loader::Image;

/// Least bytes of a key.
const LEAST_KEY: usize = 16;

/// How a template is written to a file, and read from one.
#[derive(Clone, Default)]
pub struct FileOptions {
    key: Option<Vec<u8>>,
    #[cfg(feature = "zstd")]
    is_compressed: bool,
    most_memory: Option<u64>,
}

impl std::fmt::Debug for FileOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A key is nobody's business.
        f.debug_struct("FileOptions")
            .field("has_key", &self.key.is_some())
            .field("most_memory", &self.most_memory)
            .finish_non_exhaustive()
    }
}

impl FileOptions {
    /// A file without a key, not compressed, that may want as much memory as this machine has.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Signs what is written with a key, and reads only what was signed with it (HMAC-SHA-256). It is
    /// best 32 random bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if it has fewer than 16 bytes.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Result<Self> {
        let key = key.into();
        if key.len() < LEAST_KEY {
            return Err(Error::Setting(format!(
                "a key of {} bytes is too short: take at least {LEAST_KEY}, best 32 random ones",
                key.len()
            )));
        }
        self.key = Some(key);
        Ok(self)
    }

    /// Compresses what is written (zstd). What is read may be compressed in any case.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn compressed(mut self) -> Self {
        self.is_compressed = true;
        self
    }

    /// How much memory the guest of a file may have, in bytes; that of this machine by default.
    #[must_use]
    pub fn most_memory(mut self, bytes: u64) -> Self {
        self.most_memory = Some(bytes);
        self
    }

    fn is_compressed(&self) -> bool {
        #[cfg(feature = "zstd")]
        return self.is_compressed;
        #[cfg(not(feature = "zstd"))]
        return false;
    }
}

/// What a template file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// The version of its format.
    pub format: u32,
    /// The version of the interface that its guest speaks.
    pub interface: u32,
    /// What the linker computed over the guest; empty if it did not.
    pub build_id: Vec<u8>,
    /// Whether it was signed with a key.
    pub is_signed: bool,
    /// Where its sandboxes begin.
    pub at: Position,
    /// Features that the processor must have, by name.
    pub features: Vec<String>,
    /// Those which this processor lacks; none is known where KVM cannot be used.
    pub lacking: Vec<String>,
    /// Its parts.
    pub parts: Vec<FilePart>,
}

/// A part of a template file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilePart {
    /// What it is.
    pub name: &'static str,
    /// Bytes in the file.
    pub stored: u64,
    /// Bytes.
    pub len: u64,
    /// SHA-256 of the bytes in the file.
    pub hash: [u8; 32],
}

/// What could not be done with a file.
#[derive(Debug)]
enum Failure {
    File(TemplateFileError),
    Host(Error),
}

impl From<TemplateFileError> for Failure {
    fn from(error: TemplateFileError) -> Self {
        Self::File(error)
    }
}

impl From<wakebox_vmm::Error> for Failure {
    fn from(error: wakebox_vmm::Error) -> Self {
        Self::Host(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

impl Failure {
    fn of(self, name: Option<&Path>) -> Error {
        match self {
            Self::Host(error) => error,
            Self::File(source) => Error::Template {
                name: name.map_or("the file".into(), |name| name.display().to_string()),
                source,
            },
        }
    }
}

/// What was read from a file, and checked as far as that can be without a machine.
pub(crate) struct Content {
    header: Header,
    image: Image,
    /// With a state of each processor that has begun.
    parked: Option<(Frozen, Vec<Option<UserState>>, DriverStand)>,
}

impl Template {
    /// Whether these are the first bytes of a template file, of which eight are enough.
    #[must_use]
    pub fn is_file(start: &[u8]) -> bool {
        start.starts_with(&header::MAGIC)
    }

    /// Writes it to a file. It takes about as long as the memory that it [holds](Position::Parked) takes
    /// to be read twice, and blocks the thread.
    ///
    /// # Errors
    ///
    /// [`Error::Save`], or what KVM could not do.
    pub fn save(&self, to: &mut impl Write) -> Result<()> {
        self.save_with(to, &FileOptions::new())
    }

    /// The same, with options.
    ///
    /// # Errors
    ///
    /// As [`Self::save`].
    pub fn save_with(&self, to: &mut impl Write, options: &FileOptions) -> Result<()> {
        write::write(self, to, options)
    }

    /// Reads a template from a file, to its end. It blocks the thread.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if it is none, or cannot be used here; what the host could not do.
    pub fn load(from: &mut impl Read) -> Result<Self> {
        Self::load_with(from, &FileOptions::new())
    }

    /// The same, with options.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_with(from: &mut impl Read, options: &FileOptions) -> Result<Self> {
        let content = read::read(from, options).map_err(|failure| failure.of(None))?;
        settle(content, None).map_err(|failure| failure.of(None))
    }

    /// Reads the template in a file, by whose path it is then known.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn from_file(path: impl AsRef<Path>, options: &FileOptions) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let content = read_file(path, options);
        let settled = content.and_then(|content| settle(content, Some(name)));
        settled.map_err(|failure| failure.of(Some(path)))
    }

    /// What the template in a file says of itself, after all of it has been checked.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], but it does not matter whether this processor has what the guest needs.
    pub fn inspect_file(path: impl AsRef<Path>, options: &FileOptions) -> Result<FileInfo> {
        let path = path.as_ref();
        let content = read_file(path, options).map_err(|failure| failure.of(Some(path)))?;
        Ok(info(&content))
    }
}

/// Reads a file by its path, and checks it as [`read::read`] does.
fn read_file(path: &Path, options: &FileOptions) -> Result<Content, Failure> {
    let mut file = File::open(path).map_err(TemplateFileError::Read)?;
    let kind = file.metadata().map_err(TemplateFileError::Read)?;
    if kind.is_dir() {
        let error = io::Error::from_raw_os_error(libc::EISDIR);
        return Err(TemplateFileError::Read(error).into());
    }
    read::read(&mut file, options)
}

/// What the guest needs and this processor lacks, by name.
fn lacking(parked: &header::Parked, system: &System) -> Vec<String> {
    let here = features::names(&system.cpuid);
    let is_here = |name: &&String| here.contains(&name.as_str());
    let mut lacking: Vec<_> = parked
        .features
        .iter()
        .filter(|name| !is_here(name))
        .cloned()
        .collect();
    let parts = parked.xcr0 & !features::extended_state(&system.cpuid);
    let bits = (0..u64::BITS).filter(|bit| parts >> bit & 1 != 0);
    lacking.extend(bits.map(|bit| format!("part {bit} of the extended state")));
    lacking
}

/// Makes a template of what was read.
fn settle(content: Content, name: Option<String>) -> Result<Template, Failure> {
    let Content {
        header,
        image,
        parked,
    } = content;
    let (Some(said), Some((memory, users, driver))) = (header.parked, parked) else {
        return Ok(Template::at_entry(name, image));
    };
    let system = System::get()?;
    let lacking = lacking(&said, system);
    if !lacking.is_empty() {
        return Err(TemplateFileError::OtherMachine(lacking).into());
    }
    for user in users.iter().flatten() {
        user.fits(&system.cpuid)
            .map_err(|unfit| TemplateFileError::OtherMachine(vec![unfit.to_string()]))?;
    }
    let symbols = Symbols::of(&image, None)?;
    let stand = Stand {
        machine: MachineState::of_users(memory.plan(), &users)?,
        left: said.left,
        others: said.others.into(),
        mode: said.mode,
        has_counter: said.has_counter,
        elapsed: std::time::Duration::from_nanos(said.elapsed),
        driver,
        memory,
    };
    Ok(Template::standing(name, image, symbols.into(), stand))
}

fn info(content: &Content) -> FileInfo {
    let header = &content.header;
    let at = match (&header.parked, &content.parked) {
        (Some(said), Some((memory, ..))) => Position::Parked {
            ram: memory.plan().ram,
            held: memory.kept(),
            mode: said.mode,
            in_flight: said.in_flight as usize,
            elapsed: std::time::Duration::from_nanos(said.elapsed),
        },
        _ => Position::Entry,
    };
    let parked = header.parked.as_ref();
    let system = System::get().ok();
    let part = |part: &header::Part| FilePart {
        name: part.kind.name(),
        stored: part.stored,
        len: part.len,
        hash: part.hash,
    };
    FileInfo {
        format: header.version(),
        interface: header.interface,
        build_id: header.build_id.clone(),
        is_signed: header.is_signed,
        at,
        features: parked.map_or_else(Vec::new, |said| said.features.clone()),
        lacking: parked
            .zip(system)
            .map_or_else(Vec::new, |(said, system)| lacking(said, system)),
        parts: header.parts.iter().map(part).collect(),
    }
}

/// What models and fuzzers get hold of.
#[cfg(any(test, feature = "proof"))]
pub mod proof;

#[cfg(test)]
mod tests;
