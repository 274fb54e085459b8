//! What stands at the start of a template file.
//!
//! ```text
//! 8   magic
//! 4   version of the format
//! 4   bytes of the header, all that is listed here
//! 4   version of the guest's interface
//! 1   whether it is signed
//! 1   bytes of the build ID, which follows
//! 4   parts, then for each: kind (4), how it is stored (4), where it begins (8), bytes in the file (8),
//!     bytes (8), SHA-256 of the bytes in the file (32)
//! 1   whether the guest stands where it was parked; if so:
//!     mode of waking (4), how it was left (1), whether it tells the time by the counter (1),
//!     nanoseconds on its clock (8), operations in flight (4), `XCR0` (8),
//!     names of processor features (4, then each ended by a zero),
//!     memory (8), arena (8), stack (8), instance (8), operations in flight at most (4), slots of the
//!     trace ring (4); from version 2 on processors (4), at least two, and for each but the first how it was
//!     left (1); from version 3 on windows (4), at least one; first physical address (8), RAM (8), regions (4, then 8 and 8 for each)
//! 32  SHA-256 of all before
//! 32  if it is signed: HMAC-SHA-256 of all before
//! ```
//!
//! The parts follow, one right behind the other, and nothing behind them. What is signed is the header;
//! that has the hash of each part, so no byte of the file can be changed without the key.
//!
//! A file says the lowest version that can say what is in it: 1, or 2 if its guest has several processors, or 3 if it has
//! windows. Version 3 tells how many processors there are also if it is one.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_abi::wake::Mode;
use wakebox_abi::{ABI_OLDEST, ABI_VERSION};
use wakebox_vmm::plan::{Plan, Region, Sizes};

use super::fields::{Bytes, Fields};
use crate::error::TemplateFileError as E;
use crate::template::Left;

/// With what a template file begins.
pub(super) const MAGIC: [u8; 8] = *b"wakebox\x1a";
/// The versions of the format that are known.
pub(super) const VERSIONS: std::ops::RangeInclusive<u32> = 1..=WINDOWS;
/// The first that tells of several processors.
const SEVERAL: u32 = 2;
/// The first that tells of windows.
const WINDOWS: u32 = 3;
/// Bytes up to the length of the header.
pub(super) const PREFIX: usize = 16;
/// Most bytes of a header.
const MOST: u32 = 64 << 10;
/// Bytes of a hash, and of a signature.
pub(super) const HASH: usize = 32;
/// Most bytes of a build ID.
const BUILD_ID: usize = 64;
/// Longest time that a guest's clock may show: a hundred years.
const LONGEST: u64 = 100 * 366 * 24 * 3600 * 1_000_000_000;

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// The guest's ELF file.
    Guest = 1,
    /// Registers.
    Processor = 2,
    /// Where the host's side stood.
    Driver = 3,
    /// Where in memory the pages lie.
    Ranges = 4,
    /// The pages.
    Pages = 5,
    /// What lies in windows.
    Windows = 6,
}

/// What the part is called that has the state of each processor.
pub(super) const PROCESSOR: &str = "the processor's state";

/// What the part is called that has what lies in windows.
pub(super) const WINDOWS_PART: &str = "what lies in windows";

impl Kind {
    /// All of them, in the order in which they lie in a file. The first is in each, the others in that
    /// of a guest which was parked; the windows only if it has any.
    pub(super) const ALL: [Self; 6] = [
        Self::Guest,
        Self::Processor,
        Self::Driver,
        Self::Windows,
        Self::Ranges,
        Self::Pages,
    ];

    /// Those that are in a file.
    fn of(parked: Option<&Parked>) -> impl Iterator<Item = Self> {
        let has_windows = parked.is_some_and(|parked| parked.sizes.windows > 0);
        let is_parked = parked.is_some();
        Self::ALL.into_iter().filter(move |kind| match kind {
            Self::Guest => true,
            Self::Windows => has_windows,
            _ => is_parked,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Guest => "the guest's file",
            Self::Processor => PROCESSOR,
            Self::Driver => "what was in flight",
            Self::Ranges => "the list of pages",
            Self::Pages => "the memory",
            Self::Windows => WINDOWS_PART,
        }
    }
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) is_compressed: bool,
    /// Bytes from the start of the file.
    pub(super) offset: u64,
    /// Bytes in the file.
    pub(super) stored: u64,
    /// Bytes.
    pub(super) len: u64,
    /// Of the bytes in the file.
    pub(super) hash: [u8; HASH],
}

/// What is said of a guest that was parked.
#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub(super) mode: Mode,
    pub(super) left: Left,
    /// How each further processor was left that had begun.
    pub(super) others: Vec<Option<Left>>,
    pub(super) has_counter: bool,
    /// Nanoseconds on its clock.
    pub(super) elapsed: u64,
    pub(super) in_flight: u32,
    pub(super) xcr0: u64,
    pub(super) features: Vec<String>,
    pub(super) sizes: Sizes,
    pub(super) base: u64,
    pub(super) ram: u64,
    pub(super) regions: Vec<Region>,
}

/// What stands at the start of a file.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) interface: u32,
    pub(super) is_signed: bool,
    pub(super) build_id: Vec<u8>,
    pub(super) parts: Vec<Part>,
    pub(super) parked: Option<Parked>,
}

/// The sizes with which a plan like this one is made.
pub(super) fn sizes_of(plan: &Plan) -> Sizes {
    Sizes {
        memory: plan.memory,
        arena: plan.arena.len,
        stack: plan.stack.len,
        in_flight: plan.completion_entries,
        instance: plan.instance.len,
        trace_records: plan.trace_records,
        windows: plan.window_count,
        processors: plan.processors(),
    }
}

/// Whether a plan of these sizes can be, as far as they say; the memory is another matter.
fn can_be(sizes: &Sizes) -> bool {
    let pages = |bytes: u64, most: u64| {
        bytes.is_multiple_of(PAGE_SIZE) && (PAGE_SIZE..=most).contains(&bytes)
    };
    let slots = sizes.trace_records;
    pages(sizes.arena, layout::ARENA_MAX)
        && pages(sizes.stack, layout::stack_max(sizes.processors))
        && pages(
            sizes.instance,
            layout::INSTANCE_MAX.next_multiple_of(PAGE_SIZE),
        )
        && sizes.in_flight.is_power_of_two()
        && (64..=layout::COMPLETIONS_MAX).contains(&sizes.in_flight)
        && (slots == 0
            || slots.is_power_of_two() && (64..=layout::TRACE_RECORDS_MAX).contains(&slots))
}

/// Looks at the first bytes of a file: how long its header is.
pub(super) fn length(prefix: &[u8; PREFIX]) -> Result<usize, E> {
    if prefix[..8] != MAGIC {
        return Err(E::NotATemplate);
    }
    let mut fields = Fields::new("the header", &prefix[8..]);
    let (file, host) = (fields.u32()?, *VERSIONS.end());
    if file < *VERSIONS.start() {
        return Err(E::Older { file, host });
    }
    if file > host {
        return Err(E::Newer { file, host });
    }
    let length = fields.u32()?;
    match length {
        // It holds at least its hash.
        _ if (length as usize) < PREFIX + HASH => Err(fields.damaged("is shorter than any")),
        _ if length > MOST => Err(fields.damaged("is longer than any")),
        length => Ok(length as usize),
    }
}

fn hmac(key: &[u8], bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::new_from_slice(key).expect("a key may have any length");
    mac.update(bytes);
    mac
}

impl Header {
    /// The header in these bytes. With a key, nothing is believed before the signature.
    pub(super) fn parse(bytes: &[u8], key: Option<&[u8]>) -> Result<Self, E> {
        if let Some(key) = key {
            let (signed, mac) = bytes.split_last_chunk::<HASH>().ok_or(E::WrongKey)?;
            if hmac(key, signed).verify_slice(mac).is_err() {
                // Whether it has one at all is told only to say what is the matter.
                return Err(match Self::parse(bytes, None) {
                    Ok(header) if !header.is_signed => E::NoKey,
                    _ => E::WrongKey,
                });
            }
        }
        let mut fields = Fields::new("the header", bytes);
        fields.bytes(MAGIC.len())?;
        let version = fields.u32()?;
        fields.bytes(PREFIX - MAGIC.len() - 4)?;
        let interface = fields.u32()?;
        let is_signed = fields.flag()?;
        let end = bytes.len().checked_sub(if is_signed { HASH } else { 0 });
        let hashed = end.and_then(|end| bytes[..end].split_last_chunk::<HASH>());
        let (hashed, hash) = hashed.ok_or_else(|| fields.damaged("is shorter than any"))?;
        if Sha256::digest(hashed)[..] != *hash {
            return Err(E::Altered("the header"));
        }
        let mut fields = Fields::new("the header", &hashed[PREFIX + 5..]);
        let len = fields.u8()? as usize;
        if len > BUILD_ID {
            return Err(fields.damaged("has a build ID that is longer than any"));
        }
        let build_id = fields.bytes(len)?.to_vec();
        let parts = parts(&mut fields, bytes.len() as u64)?;
        let parked = match fields.flag()? {
            true => Some(Parked::parse(&mut fields, version)?),
            false => None,
        };
        fields.end()?;
        if version != version_of(parked.as_ref()) {
            return Err(E::Damaged(
                "the header is not of the version that tells least".into(),
            ));
        }
        let kinds = Kind::of(parked.as_ref());
        if !parts.iter().map(|part| part.kind).eq(kinds) {
            return Err(E::Damaged(
                "the header does not list the parts that there are".into(),
            ));
        }
        if !(ABI_OLDEST..=ABI_VERSION).contains(&interface) {
            return Err(E::OtherInterface {
                file: interface,
                host: ABI_VERSION,
            });
        }
        Ok(Self {
            interface,
            is_signed,
            build_id,
            parts,
            parked,
        })
    }

    /// The version that it is written in.
    pub(super) fn version(&self) -> u32 {
        version_of(self.parked.as_ref())
    }

    /// Its bytes. The parts begin where they lie behind it, whatever they say.
    pub(super) fn to_bytes(&self, key: Option<&[u8]>) -> Vec<u8> {
        let fields = |begin: u64| {
            let mut to = Bytes::default();
            to.bytes(&MAGIC);
            to.u32(self.version());
            to.u32(begin as u32);
            to.u32(self.interface);
            to.u8(key.is_some().into());
            to.u8(self.build_id.len() as u8);
            to.bytes(&self.build_id);
            to.count(self.parts.len());
            let mut offset = begin;
            for part in &self.parts {
                to.u32(part.kind as u32);
                to.u32(part.is_compressed.into());
                to.u64(offset);
                to.u64(part.stored);
                to.u64(part.len);
                to.bytes(&part.hash);
                offset += part.stored;
            }
            to.u8(self.parked.is_some().into());
            if let Some(parked) = &self.parked {
                parked.append(&mut to);
            }
            to.0
        };
        let signature = if key.is_some() { HASH } else { 0 };
        let length = fields(0).len() + HASH + signature;
        let mut bytes = fields(length as u64);
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        if let Some(key) = key {
            let mac = hmac(key, &bytes).finalize().into_bytes();
            bytes.extend_from_slice(&mac);
        }
        bytes
    }
}

/// The lowest version that can tell this of a guest.
fn version_of(parked: Option<&Parked>) -> u32 {
    match parked {
        Some(parked) if parked.sizes.windows > 0 => WINDOWS,
        Some(parked) if parked.sizes.processors > 1 => SEVERAL,
        _ => *VERSIONS.start(),
    }
}

/// How a processor was left, as it is written.
fn left(code: u8) -> Option<Left> {
    match code {
        0 => Some(Left::Wait),
        1 => Some(Left::Halt),
        _ => None,
    }
}

/// How a further processor was left that has not begun.
const NOT_BEGUN: u8 = 2;

/// The parts, which lie one right behind the other from `offset` on.
fn parts(fields: &mut Fields<'_>, mut offset: u64) -> Result<Vec<Part>, E> {
    let count = fields.count(64)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = fields.u32()?;
        let kind = Kind::ALL.into_iter().find(|known| *known as u32 == kind);
        let part = Part {
            kind: kind.ok_or_else(|| fields.damaged("lists a part that is of no kind"))?,
            is_compressed: match fields.u32()? {
                0 => false,
                1 => true,
                _ => return Err(fields.damaged("lists a part that is stored in no known way")),
            },
            offset: fields.u64()?,
            stored: fields.u64()?,
            len: fields.u64()?,
            hash: fields.array()?,
        };
        let end = offset.checked_add(part.stored);
        if part.offset != offset || end.is_none() || !part.is_compressed && part.len != part.stored
        {
            return Err(fields.damaged("lists parts that do not lie one behind the other"));
        }
        offset += part.stored;
        parts.push(part);
    }
    Ok(parts)
}

/// The sizes that a header of this version tells.
fn sizes(fields: &mut Fields<'_>, version: u32) -> Result<Sizes, E> {
    let mut sizes = Sizes {
        memory: fields.u64()?,
        arena: fields.u64()?,
        stack: fields.u64()?,
        instance: fields.u64()?,
        in_flight: fields.u32()?,
        trace_records: fields.u32()?,
        windows: 0,
        processors: 1,
    };
    if version >= SEVERAL {
        sizes.processors = fields.u32()?;
        if !(1..=layout::PROCESSORS_MAX).contains(&sizes.processors) {
            return Err(fields.damaged("has as many processors as no guest has"));
        }
    }
    if !can_be(&sizes) {
        return Err(fields.damaged("has sizes of memory that no guest has"));
    }
    Ok(sizes)
}

impl Parked {
    fn parse(fields: &mut Fields<'_>, version: u32) -> Result<Self, E> {
        let code = fields.u32()?;
        let mode = Mode::from_code(code);
        if mode as u32 != code {
            return Err(fields.damaged("has a mode of waking that there is not"));
        }
        let as_none =
            |fields: &Fields<'_>| fields.damaged("says of its guest that it was left as none is");
        let first = left(fields.u8()?).ok_or_else(|| as_none(fields))?;
        let has_counter = fields.flag()?;
        let elapsed = fields.u64()?;
        if elapsed > LONGEST {
            return Err(fields.damaged("has a clock that has run for too long"));
        }
        let (in_flight, xcr0) = (fields.u32()?, fields.u64()?);
        let len = fields.count(1)?;
        let names = std::str::from_utf8(fields.bytes(len)?);
        let names = names.map_err(|_| fields.damaged("names features in no text"))?;
        let features = names.split_terminator('\0');
        let features = features.map(crate::text::printable_line).collect();
        let mut sizes = sizes(fields, version)?;
        let other = |_| match fields.u8()? {
            NOT_BEGUN => Ok(None),
            code => left(code).map(Some).ok_or_else(|| as_none(fields)),
        };
        let others = (1..sizes.processors).map(other).collect::<Result<_, E>>()?;
        if version >= WINDOWS {
            sizes.windows = fields.u32()?;
            if !(1..=layout::WINDOWS_MAX).contains(&sizes.windows) {
                return Err(fields.damaged("has as many windows as no guest has"));
            }
        }
        let (base, ram) = (fields.u64()?, fields.u64()?);
        let count = fields.count(16)?;
        let region = |_| {
            Ok(Region {
                offset: fields.u64()?,
                len: fields.u64()?,
            })
        };
        let regions = (0..count).map(region).collect::<Result<_, E>>()?;
        Ok(Self {
            mode,
            left: first,
            others,
            has_counter,
            elapsed,
            in_flight,
            xcr0,
            features,
            sizes,
            base,
            ram,
            regions,
        })
    }

    fn append(&self, to: &mut Bytes) {
        to.u32(self.mode as u32);
        to.u8((self.left == Left::Halt).into());
        to.u8(self.has_counter.into());
        to.u64(self.elapsed);
        to.u32(self.in_flight);
        to.u64(self.xcr0);
        let names: String = self.features.iter().flat_map(|name| [name, "\0"]).collect();
        to.count(names.len());
        to.bytes(names.as_bytes());
        to.u64(self.sizes.memory);
        to.u64(self.sizes.arena);
        to.u64(self.sizes.stack);
        to.u64(self.sizes.instance);
        to.u32(self.sizes.in_flight);
        to.u32(self.sizes.trace_records);
        if self.sizes.processors > 1 || self.sizes.windows > 0 {
            to.u32(self.sizes.processors);
            for other in &self.others {
                to.u8(other.map_or(NOT_BEGUN, |left| (left == Left::Halt).into()));
            }
        }
        if self.sizes.windows > 0 {
            to.u32(self.sizes.windows);
        }
        to.u64(self.base);
        to.u64(self.ram);
        to.count(self.regions.len());
        for region in &self.regions {
            to.u64(region.offset);
            to.u64(region.len);
        }
    }

    /// Whether memory is laid out so in a plan.
    pub(super) fn is_laid_out_as(&self, plan: &Plan) -> bool {
        (self.base, self.ram) == (plan.base, plan.ram) && self.regions == plan.regions()
    }
}
