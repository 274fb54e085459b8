//! An image of two: the runtime guest, and behind it the compiled component and the stacks of its fibers.
//!
//! From [`HEAD`] on, counted from where the image starts in a guest: a page that says what follows
//! (`r--`), the compiled file in its own three parts (`r--`, `r-x`, `r--`), then stacks (`rw-`, nothing
//! in the file), each with [`GUARD`] unmapped bytes below. Nothing is linked again.

use anyhow::{Context, Result, ensure};

use wakebox_abi::note;

use crate::Bounds;
use crate::head::{HEAD, Head, MAGIC, PAGE, WINDOWS};

const GUARD: u64 = 16 << 10;
const STACK: u64 = 384 << 10;
const STACKS: u64 = 16;

const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;

pub(crate) fn attach(runtime: &[u8], code: &[u8], bounds: Bounds) -> Result<Vec<u8>> {
    let own = program_headers(runtime).context("the runtime guest is damaged")?;
    let end = own
        .iter()
        .filter(|header| word32(header, 0) == Some(PT_LOAD));
    let end = end
        .filter_map(|h| Some(word(h, 16)? + word(h, 40)?))
        .max()
        .unwrap_or(0);
    ensure!(end < HEAD, "the runtime guest is too large");
    let text = text(code).context("the compiled code has another form than expected")?;

    let stacks = (PAGE + code.len() as u64).next_multiple_of(PAGE) + GUARD;
    let head = Head {
        magic: MAGIC,
        code: code.len() as u64,
        stacks,
        stack_size: STACK,
        guard: GUARD,
        stack_count: STACKS,
        pages: u64::from(bounds == Bounds::Pages),
    };
    let mut page = head.words().map(u64::to_le_bytes).concat();
    page.resize(PAGE as usize, 0);
    let mut image = Vec::with_capacity(runtime.len() + code.len() + 8 * PAGE as usize);
    image.extend(runtime);
    if bounds == Bounds::Pages {
        ask_for_windows(&mut image).context("the runtime guest has no note")?;
    }
    let head_at = append(&mut image, &page);
    // The code is last, on whole pages: it is mapped, and what is before it is read.
    let count = own.len() + 4 + STACKS as usize;
    let headers_at = append(&mut image, &vec![0; count * PROGRAM_HEADER]);
    let code_at = append(&mut image, code);
    image.resize(image.len().next_multiple_of(PAGE as usize), 0);
    let code_end = (code.len() as u64).next_multiple_of(PAGE);
    let text_end = text.1.next_multiple_of(PAGE).min(code_end);
    let parts = [
        (0, text.0, READ),
        (text.0, text_end, READ | EXECUTE),
        (text_end, code_end, READ),
    ];
    let mut headers: Vec<u8> = own.concat();
    headers.extend(segment(head_at, HEAD, PAGE, PAGE, READ));
    for (start, end, rights) in parts {
        if start < end {
            headers.extend(segment(
                code_at + start,
                HEAD + PAGE + start,
                end - start,
                end - start,
                rights,
            ));
        }
    }
    for index in 0..STACKS {
        let at = HEAD + stacks + index * (GUARD + STACK);
        headers.extend(segment(0, at, 0, STACK, READ | WRITE));
    }
    let at = headers_at as usize;
    image[at..at + headers.len()].copy_from_slice(&headers);
    image[32..40].copy_from_slice(&headers_at.to_le_bytes());
    let count = u16::try_from(headers.len() / PROGRAM_HEADER)?;
    image[56..58].copy_from_slice(&count.to_le_bytes());
    Ok(image)
}

/// Has the note of a guest ask for windows.
fn ask_for_windows(guest: &mut [u8]) -> Option<()> {
    let headers = program_headers(guest)?;
    let notes = headers
        .iter()
        .filter(|header| word32(header, 0) == Some(PT_NOTE));
    let at = notes
        .filter_map(|note| {
            let (at, len) = (word(note, 8)? as usize, word(note, 32)? as usize);
            let found = guest
                .get(at..at.checked_add(len)?)?
                .windows(note::NAME.len())
                .position(|name| name == note::NAME)?;
            Some(at + found + note::NAME.len() + note::DESC_LEAST)
        })
        .next()?;
    let place = guest.get_mut(at..at + 4)?;
    place.copy_from_slice(&WINDOWS.to_le_bytes());
    Some(())
}

/// Puts bytes on pages of their own, and gives where.
fn append(image: &mut Vec<u8>, bytes: &[u8]) -> u64 {
    image.resize(image.len().next_multiple_of(PAGE as usize), 0);
    let at = image.len() as u64;
    image.extend(bytes);
    at
}

fn segment(at: u64, address: u64, in_file: u64, in_memory: u64, rights: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(PROGRAM_HEADER);
    header.extend(PT_LOAD.to_le_bytes());
    header.extend(rights.to_le_bytes());
    for word in [at, address, address, in_file, in_memory, PAGE] {
        header.extend(word.to_le_bytes());
    }
    header
}

fn program_headers(elf: &[u8]) -> Option<Vec<&[u8]>> {
    let at = usize::try_from(word(elf, 32)?).ok()?;
    let size = usize::from(word16(elf, 54)?);
    let count = usize::from(word16(elf, 56)?);
    let headers = elf.get(at..at.checked_add(size.checked_mul(count)?)?)?;
    (size == PROGRAM_HEADER).then(|| headers.chunks_exact(size).collect())
}

/// Where the machine code lies in a compiled component: an ELF file whose section is `.text`.
fn text(code: &[u8]) -> Option<(u64, u64)> {
    let at = usize::try_from(word(code, 40)?).ok()?;
    let (size, count) = (
        usize::from(word16(code, 58)?),
        usize::from(word16(code, 60)?),
    );
    let names = usize::from(word16(code, 62)?);
    let section = |index: usize| code.get(at + index * size..at + (index + 1) * size);
    let names = usize::try_from(word(section(names)?, 24)?).ok()?;
    let text = (0..count).filter_map(section).find(|section| {
        let name = word32(section, 0).map(|name| names + name as usize);
        name.and_then(|name| code.get(name..))
            .is_some_and(|name| name.starts_with(b".text\0"))
    })?;
    let (start, length) = (word(text, 24)?, word(text, 32)?);
    (start % PAGE == 0).then_some((start, start + length))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
