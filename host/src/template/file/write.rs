//! A template on its way into a file.

use std::io::{self, Read as _, Write};

use sha2::{Digest as _, Sha256};
use wakebox_abi::ABI_VERSION;
use wakebox_vmm::frozen::Frozen;
use wakebox_vmm::system::System;
use wakebox_vmm::x86_64::features;
use wakebox_vmm::x86_64::user::UserState;

use super::fields::Bytes;
use super::header::{Header, Kind, Parked, Part, sizes_of};
use super::parts::{PIECE, Pages, Range, hash, packed};
use super::{FileOptions, stand};
use crate::elf::Elf;
use crate::error::{Error, Result};
use crate::loader::Image;
use crate::template::{DriverStand, Stand, Template};

/// A part that is ready to be written.
enum Body<'a> {
    Here(Vec<u8>),
    Pages(&'a Frozen, Vec<Range>),
}

/// What is written of a guest that was parked.
pub(super) struct Parts<'a> {
    pub(super) said: Parked,
    /// Of each processor that has begun.
    pub(super) users: Vec<Option<UserState>>,
    pub(super) memory: &'a Frozen,
    pub(super) driver: &'a DriverStand,
}

/// Writes a template.
pub(super) fn write(template: &Template, to: &mut impl Write, options: &FileOptions) -> Result<()> {
    let parked = match template.stand() {
        Some(stand) => Some(Parts {
            said: said_of(stand)?,
            users: users(stand)?,
            memory: &stand.memory,
            driver: &stand.driver,
        }),
        None => None,
    };
    assemble(template.image(), parked, to, options)
}

/// Writes a header and its parts.
pub(super) fn assemble(
    image: &Image,
    parked: Option<Parts<'_>>,
    to: &mut impl Write,
    options: &FileOptions,
) -> Result<()> {
    let is_compressed = options.is_compressed();
    let mut parts = vec![whole(Kind::Guest, image.file(), is_compressed)];
    let mut said = None;
    if let Some(parked) = parked {
        let ranges = ranges(parked.memory)?;
        let mut list = Bytes::default();
        list.count(ranges.len());
        for (start, len) in &ranges {
            list.u64(*start);
            list.u64(*len);
        }
        let processor = stand::write_processors(&parked.users);
        let driver = stand::write_driver(parked.driver);
        parts.push(whole(Kind::Processor, &processor, false));
        parts.push(whole(Kind::Driver, &driver, false));
        if parked.said.sizes.windows > 0 {
            let shown = parked.memory.shown()?;
            parts.push(whole(Kind::Windows, &stand::write_windows(&shown), false));
        }
        parts.push(whole(Kind::Ranges, &list.0, false));
        parts.push(pages(parked.memory, ranges, is_compressed)?);
        said = Some(parked.said);
    }
    let (parts, bodies): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let build_id = Elf::parse(image.file()).and_then(|elf| elf.build_id());
    let header = Header {
        interface: ABI_VERSION,
        is_signed: options.key.is_some(),
        build_id: super::read::known(build_id).to_vec(),
        parts,
        parked: said,
    };
    let failed = |source| Error::Save { source };
    to.write_all(&header.to_bytes(options.key.as_deref()))
        .map_err(failed)?;
    for body in bodies {
        match body {
            Body::Here(bytes) => to.write_all(&bytes).map_err(failed)?,
            Body::Pages(memory, ranges) => {
                let mut pages = Pages::new(memory, &ranges);
                each_piece(&mut pages, |piece| to.write_all(piece)).map_err(failed)?;
                pages.failed.map_or(Ok(()), Err)?;
            }
        }
    }
    to.flush().map_err(failed)
}

fn said_of(stand: &Stand) -> Result<Parked> {
    let cpuid = &System::get()?.cpuid;
    let plan = stand.memory.plan();
    Ok(Parked {
        mode: stand.mode,
        left: stand.left,
        others: stand.others.to_vec(),
        has_counter: stand.has_counter,
        elapsed: u64::try_from(stand.elapsed.as_nanos()).unwrap_or(u64::MAX),
        in_flight: stand.driver.in_flight.len() as u32,
        xcr0: features::extended_state(cpuid),
        features: features::names(cpuid)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        sizes: sizes_of(plan),
        base: plan.base,
        ram: plan.ram,
        regions: plan.regions(),
    })
}

/// What ring 3 sees of each processor that has begun.
fn users(stand: &Stand) -> Result<Vec<Option<UserState>>> {
    let user = |processor| stand.machine.user(processor, &stand.memory);
    let others = (1..).zip(&stand.others);
    let others = others.map(|(processor, left)| left.map(|_| user(processor)).transpose());
    let first = std::iter::once_with(|| user(0).map(Some));
    Ok(first
        .chain(others)
        .collect::<std::result::Result<_, wakebox_vmm::Error>>()?)
}

/// Where memory holds something that is the guest's: what is ring 0's is made anew.
fn ranges(memory: &Frozen) -> Result<Vec<Range>> {
    let mut ranges: Vec<Range> = memory
        .ranges()?
        .iter()
        .map(|range| (range.offset, range.len))
        .collect();
    for region in memory.plan().supervisor() {
        let end = region.offset + region.len;
        let outside = |(start, len): Range| {
            let before = (
                start,
                (start + len).min(region.offset).saturating_sub(start),
            );
            let from = start.max(end);
            let behind = (from, (start + len).saturating_sub(from));
            [before, behind]
        };
        ranges = ranges
            .into_iter()
            .flat_map(outside)
            .filter(|(_, len)| *len > 0)
            .collect();
    }
    Ok(ranges)
}

/// A part that lies in memory.
fn whole<'a>(kind: Kind, bytes: &[u8], is_compressed: bool) -> (Part, Body<'a>) {
    let len = bytes.len() as u64;
    let bytes = match is_compressed {
        true => packed(bytes),
        false => bytes.to_vec(),
    };
    let part = Part {
        kind,
        is_compressed,
        offset: 0,
        stored: bytes.len() as u64,
        len,
        hash: hash(&bytes),
    };
    (part, Body::Here(bytes))
}

/// The pages. Their hash comes before them, so they are read twice; nobody can change them meanwhile.
fn pages(memory: &Frozen, ranges: Vec<Range>, is_compressed: bool) -> Result<(Part, Body<'_>)> {
    let len = ranges.iter().map(|(_, len)| len).sum();
    let mut pages = Pages::new(memory, &ranges);
    let mut part = Part {
        kind: Kind::Pages,
        is_compressed,
        offset: 0,
        stored: len,
        len,
        hash: [0; 32],
    };
    let mut bytes = None;
    if is_compressed {
        let packed = packed(&mut pages);
        (part.stored, part.hash) = (packed.len() as u64, hash(&packed));
        bytes = Some(packed);
    } else {
        let mut hasher = Sha256::new();
        let hashed = each_piece(&mut pages, |piece| {
            hasher.update(piece);
            Ok(())
        });
        hashed.map_err(|source| Error::Save { source })?;
        part.hash = hasher.finalize().into();
    }
    pages.failed.take().map_or(Ok(()), Err)?;
    let body = bytes.map_or(Body::Pages(memory, ranges), Body::Here);
    Ok((part, body))
}

fn each_piece(
    pages: &mut Pages<'_>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match pages.read(&mut piece)? {
            0 => return Ok(()),
            len => each(&piece[..len])?,
        }
    }
}
