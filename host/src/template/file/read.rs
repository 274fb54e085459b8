//! A template on its way out of a file, which may be anybody's.

use std::io::{ErrorKind, Read};

use wakebox_abi::layout::PAGE_SIZE;
use wakebox_abi::window::Request;
use wakebox_vmm::frozen::Frozen;
use wakebox_vmm::plan::Plan;

use super::fields::Fields;
use super::header::{self, Header, PREFIX, Parked, Part};
use super::parts::{PIECE, Range, Reading, fill, unpack, unpacked, unpacked_to_end};
use super::{Content, Failure, FileOptions, stand};
use crate::elf::Elf;
use crate::elf::fuel::Fuel;
use crate::error::TemplateFileError as E;
use crate::limits::memory_of_the_machine;
use crate::loader::Image;

/// Longest build ID that is kept: linkers write 20 bytes, or 32.
const BUILD_ID: usize = 64;

/// The build ID of a guest as a file has it.
pub(super) fn known(build_id: Option<&[u8]>) -> &[u8] {
    build_id
        .filter(|id| id.len() <= BUILD_ID)
        .unwrap_or_default()
}

/// Reads all of a file, and checks all that can be checked without a machine.
pub(super) fn read(from: &mut impl Read, options: &FileOptions) -> Result<Content, Failure> {
    let most = options.most_memory.unwrap_or_else(memory_of_the_machine);
    let header = header(from, options.key.as_deref())?;
    let mut parts = header.parts.iter();
    let mut next = || {
        parts
            .next()
            .ok_or_else(|| E::Damaged("it lacks a part".into()))
    };
    let file = Reading::new(from, next()?).whole(most)?;
    let image = guest(file, &header.build_id)?;
    let Some(parked) = &header.parked else {
        end(from)?;
        return Ok(Content {
            header,
            image,
            parked: None,
        });
    };
    let plan = plan(&image, parked, most)?;
    let processors = plan.processors();
    let most = stand::MOST_OF_PROCESSOR * u64::from(processors);
    let states = Reading::new(from, next()?).whole(most)?;
    let begun = parked.others.iter().map(Option::is_some);
    let users = stand::read_processors(&states, std::iter::once(true).chain(begun))?;
    for user in users.iter().flatten() {
        user.check(|address| plan.is_code(address))
            .map_err(|unfit| E::Damaged(format!("its guest cannot go on: {unfit}")))?;
    }
    let slots = plan.completion_entries;
    let driver = Reading::new(from, next()?).whole(stand::most_of_driver(processors, slots))?;
    let driver = stand::read_driver(&driver, processors, slots)?;
    if driver.in_flight.len() != parked.in_flight as usize {
        return Err(E::Damaged("not as much was in flight as it says".into()).into());
    }
    let mut shown = Vec::new();
    if plan.window_count > 0 {
        let most = stand::most_of_windows(plan.windows.len);
        shown = stand::read_windows(&Reading::new(from, next()?).whole(most)?)?;
    }
    // Each range takes sixteen bytes, and no two touch the same page.
    let list = Reading::new(from, next()?).whole(4 + plan.ram / PAGE_SIZE * 16)?;
    let ranges = ranges(&list, &plan)?;
    let memory = pages(from, next()?, &ranges, plan, &shown)?;
    end(from)?;
    Ok(Content {
        header,
        image,
        parked: Some((memory, users, driver)),
    })
}

fn header(from: &mut impl Read, key: Option<&[u8]>) -> Result<Header, E> {
    let mut prefix = [0; PREFIX];
    let mut len = 0;
    // What is shorter than any header is most likely something else.
    while len < PREFIX {
        match from.read(&mut prefix[len..]) {
            Ok(0) if header::MAGIC.starts_with(&prefix[..len.min(8)]) && len > 0 => {
                return Err(E::Truncated("the header"));
            }
            Ok(0) => return Err(E::NotATemplate),
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(E::Read(error)),
        }
    }
    let mut bytes = vec![0; header::length(&prefix)?];
    bytes[..PREFIX].copy_from_slice(&prefix);
    fill(from, &mut bytes[PREFIX..], "the header")?;
    Header::parse(&bytes, key)
}

/// The guest of a file.
fn guest(file: Vec<u8>, build_id: &[u8]) -> Result<Image, E> {
    let fuel = Fuel::for_file(file.len());
    let image = Image::parse("guest", file, &fuel).map_err(E::Guest)?;
    let own = Elf::parse(image.file()).and_then(|elf| elf.build_id());
    if known(own) != build_id {
        return Err(E::Damaged(
            "its guest has another build ID than it says".into(),
        ));
    }
    Ok(image)
}

/// Where everything lies in the guest's memory. None has been taken yet.
fn plan(image: &Image, parked: &Parked, most: u64) -> Result<Plan, Failure> {
    let asked = parked.sizes.memory;
    if asked > most {
        return Err(E::TooLarge { asked, most }.into());
    }
    let plan = Plan::new(&image.pages(), &parked.sizes)?;
    if !parked.is_laid_out_as(&plan) {
        return Err(E::OtherLayout.into());
    }
    Ok(plan)
}

/// The list of pages: in their order, inside the memory, and none that is ring 0's.
fn ranges(list: &[u8], plan: &Plan) -> Result<Vec<Range>, E> {
    let mut fields = Fields::new("the list of pages", list);
    let count = fields.count(16)?;
    let mut ranges = Vec::with_capacity(count);
    let mut behind = 0;
    let supervisor = plan.supervisor();
    for _ in 0..count {
        let (start, len) = (fields.u64()?, fields.u64()?);
        let pages = start.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE) && len > 0;
        let end = start.checked_add(len).filter(|end| *end <= plan.ram);
        let Some(end) = end.filter(|_| pages && start >= behind) else {
            return Err(fields.damaged("has pages that are not the guest's"));
        };
        // The first of them, in their order, that does not end before it.
        let next = supervisor.partition_point(|region| region.offset + region.len <= start);
        if supervisor
            .get(next)
            .is_some_and(|region| region.offset < end)
        {
            return Err(fields.damaged("has pages that are not the guest's"));
        }
        ranges.push((start, len));
        behind = end;
    }
    fields.end()?;
    Ok(ranges)
}

/// The guest's memory: its pages, and those of ring 0 as they are made here.
fn pages(
    from: &mut impl Read,
    part: &Part,
    ranges: &[Range],
    plan: Plan,
    shown: &[Request],
) -> Result<Frozen, Failure> {
    let what = part.kind.name();
    let (len, most) = (ranges.iter().map(|(_, len)| len).sum::<u64>(), plan.ram);
    if part.len != len {
        return Err(E::Damaged(format!("{what} is not as long as its list says")).into());
    }
    let mut memory = Frozen::new(plan)?;
    let mut reading = Reading::new(from, part);
    if part.is_compressed {
        let stored = reading.stored(most)?;
        let mut unpacked = unpacked(&stored, what)?;
        each_piece(&mut memory, ranges, |piece| {
            unpack(&mut unpacked, piece, what)
        })?;
        unpacked_to_end(&mut unpacked, what)?;
    } else {
        each_piece(&mut memory, ranges, |piece| reading.fill(piece))?;
        reading.end()?;
    }
    memory.write_tables()?;
    memory.show(shown)?.map_err(|(request, answer)| {
        let page = u64::from(request.page) * PAGE_SIZE;
        E::Damaged(format!(
            "it says that pages lie at {page:#x}, which cannot be ({answer:?})"
        ))
    })?;
    memory.seal()?;
    Ok(memory)
}

fn each_piece(
    memory: &mut Frozen,
    ranges: &[Range],
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE];
    for (start, len) in ranges {
        let mut done = 0;
        while done < *len {
            let piece = &mut piece[..(len - done).min(PIECE as u64) as usize];
            fill(piece)?;
            memory.write(start + done, piece)?;
            done += piece.len() as u64;
        }
    }
    Ok(())
}

/// Nothing lies behind the last part.
fn end(from: &mut impl Read) -> Result<(), E> {
    loop {
        match from.read(&mut [0]) {
            Ok(0) => return Ok(()),
            Ok(_) => return Err(E::TooLong),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(E::Read(error)),
        }
    }
}
