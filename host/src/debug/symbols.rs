//! From addresses to functions, files and lines.

use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use super::backtrace::{Frame, mark_runtime};
use super::dwarf::{SourceLocation, locations};
use crate::elf::Elf;
use crate::elf::fuel::{Fuel, limits};
use crate::error::{Error, Result};
use crate::interned::interned;
use crate::loader::{Image, read_file};
use crate::text::printable_line;

/// Longest name of a function that is shown, in bytes.
const LONGEST_NAME: usize = 400;
/// Longest mangled name that is read, in bytes. What it stands for may be long, and is cut off; its
/// nesting is bounded by the library.
const LONGEST_MANGLED: usize = 4096;

/// Most frames of one backtrace. One location may have tens of them, and a function that calls itself
/// has it over and over; beyond, functions that are inlined there are left out.
const MOST_FRAMES: usize = 2048;

/// Where the names of a guest's functions are found.
pub(crate) struct Symbols {
    /// The guest's ELF file, and a file of its own for the debug information.
    image: Arc<Vec<u8>>,
    separate: Option<Arc<Vec<u8>>>,
    /// How far above its link-time addresses the guest is loaded.
    bias: u64,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols").finish_non_exhaustive()
    }
}

impl Symbols {
    /// Those of a guest, and of the file of its debug information if there is one.
    ///
    /// # Errors
    ///
    /// That file cannot be read, has no symbols, or belongs to another guest.
    pub(crate) fn of(image: &Image, separate: Option<&Path>) -> Result<Self> {
        let separate = match separate {
            None => None,
            Some(path) => {
                let bytes = interned(read_file(path)?);
                check(path, &bytes, image.file())?;
                Some(bytes)
            }
        };
        Ok(Self {
            image: image.file().clone(),
            separate,
            bias: image.bias(),
        })
    }

    /// The guest's file.
    pub(crate) fn elf(&self) -> Option<Elf<'_>> {
        Elf::parse(&self.image)
    }

    /// How far above its link-time addresses the guest is loaded.
    pub(crate) fn bias(&self) -> u64 {
        self.bias
    }

    /// The frames at these addresses, of which all but the first are return addresses. An
    /// address has several if functions are inlined there, the innermost first.
    pub(crate) fn resolve(&self, addresses: &[u64]) -> Vec<Vec<Frame>> {
        // The libraries do not panic that we know of; a hostile file must not be what finds it out.
        let resolve = || self.resolve_with(&Fuel::new(limits::SYMBOLS), addresses);
        catch_unwind(AssertUnwindSafe(resolve)).unwrap_or_else(|_| {
            let plain = |address: &u64| vec![Frame::at(*address, None)];
            addresses.iter().map(plain).collect()
        })
    }

    /// The same, with so much fuel.
    pub(crate) fn resolve_with(&self, fuel: &Fuel, addresses: &[u64]) -> Vec<Vec<Frame>> {
        let image = self.elf();
        let separate = self.separate.as_ref().and_then(|file| Elf::parse(file));
        let source = separate.as_ref().or(image.as_ref());
        let linked = |address: u64| address.wrapping_sub(self.bias);
        // All but the first are return addresses: the call lies before them.
        let lookups: Vec<Option<u64>> = addresses
            .iter()
            .enumerate()
            .map(|(index, address)| {
                let is_code = image
                    .as_ref()
                    .is_some_and(|elf| elf.is_code(linked(*address)));
                is_code.then(|| linked(*address).saturating_sub(u64::from(index > 0)))
            })
            .collect();
        let mut wanted: Vec<u64> = lookups.iter().copied().flatten().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let names = source
            .map(|elf| elf.names_at(&wanted, fuel))
            .unwrap_or_default();
        let locations = source
            .map(|elf| locations(elf, &wanted, fuel))
            .unwrap_or_default();
        let mut room = MOST_FRAMES.saturating_sub(addresses.len());
        let mut resolved: Vec<_> = addresses
            .iter()
            .zip(lookups)
            .map(|(&address, lookup)| {
                let Some(lookup) = lookup else {
                    return vec![Frame::at(address, None)];
                };
                let index = wanted.binary_search(&lookup).ok();
                let found = index.and_then(|index| locations.get(index));
                let found = found.map(Vec::as_slice).unwrap_or_default();
                let inlined = found.len().saturating_sub(1);
                // The last is the function that the others are inlined into.
                let left_out = if inlined > room { inlined } else { 0 };
                room -= inlined - left_out;
                let mut frames: Vec<_> = found[left_out..].iter().map(frame).collect();
                if frames.is_empty() {
                    frames.push(Frame::default());
                }
                name_futures(&mut frames);
                // The symbol table has the name in full; debug information often leaves the path out.
                let last = frames.len() - 1;
                if let Some(Some(name)) = index.and_then(|index| names.get(index)) {
                    frames[last].function = Some(demangle(&String::from_utf8_lossy(name)));
                }
                for (index, frame) in frames.iter_mut().enumerate() {
                    frame.address = address;
                    frame.offset = Some(linked(address));
                    frame.inlined = index < last;
                }
                frames
            })
            .collect();
        mark_runtime(&mut resolved);
        resolved
    }
}

fn check(path: &Path, bytes: &[u8], guest: &[u8]) -> Result<()> {
    let refuse = |why: &str| Err(Error::Symbols(path.into(), why.into()));
    let Some(elf) = Elf::parse(bytes) else {
        return refuse("it is not a 64-bit ELF file");
    };
    if !elf.has_symbols() {
        return refuse("it has neither debug information nor a symbol table");
    }
    let guest = Elf::parse(guest);
    let guest_id = guest.as_ref().and_then(Elf::build_id);
    match (elf.build_id(), guest_id) {
        (Some(own), Some(guests)) if own != guests => {
            refuse("it belongs to another build of the guest (the build IDs differ)")
        }
        _ => Ok(()),
    }
}

/// A location in the guest's source, fit to be shown.
fn frame(location: &SourceLocation) -> Frame {
    Frame {
        function: location.function.as_deref().map(demangle),
        file: location.file.as_deref().map(printable_line),
        line: location.line,
        column: location.column,
        ..Frame::default()
    }
}

/// Gives futures their full names where they are inlined into what polls them: there, debug
/// information may call them `{async_fn#0}`, but it has the type of what is polled,
/// `poll<krate::main::{async_fn_env#0}>`.
fn name_futures(frames: &mut [Frame]) {
    for index in 1..frames.len() {
        let (inner, outer) = frames.split_at_mut(index);
        let (Some(future), Some(poll)) = (&mut inner[index - 1].function, &outer[0].function)
        else {
            continue;
        };
        let polled = poll
            .strip_prefix("poll<")
            .and_then(|rest| rest.strip_suffix('>'));
        let Some(polled) = polled.map(|path| path.replace("_env#", "#")) else {
            continue;
        };
        if future.starts_with("{async") && polled.ends_with(future.as_str()) {
            *future = polled;
        }
    }
}

/// A name as it stands in the source, without the hash behind it.
fn demangle(name: &str) -> String {
    struct Bounded(String);
    impl Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = LONGEST_NAME - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() > room {
                Err(fmt::Error)
            } else {
                Ok(())
            }
        }
    }
    let mut text = Bounded(String::new());
    let name = &name[..name.floor_char_boundary(LONGEST_MANGLED)];
    if write!(text, "{:#}", rustc_demangle::demangle(name)).is_err() {
        text.0.push('…');
    }
    printable_line(&text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_in_the_source_and_of_bounded_length() {
        assert_eq!(
            demangle("_ZN6probes4main28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE"),
            "probes::main::{{closure}}"
        );
        assert_eq!(demangle("plain\x1b[2J"), "plain\\u{1b}[2J");
        let long = demangle(&"x".repeat(100_000));
        assert!(
            long.len() < LONGEST_NAME + 8 && long.ends_with('…'),
            "{long}"
        );
        // A short name with a very long meaning: each back reference doubles it.
        let mut bomb = String::from("_RMC0");
        bomb.push_str(&"TB5_".repeat(40));
        assert!(demangle(&bomb).len() <= 1000);
    }

    #[test]
    fn a_future_is_named_by_what_polls_it() {
        let frame = |name: &str| Frame {
            function: Some(name.into()),
            ..Frame::default()
        };
        let mut frames = [
            frame("{async_fn#0}"),
            frame("poll<krate::main::{async_fn_env#0}>"),
            frame("{async_block#1}"),
            frame("poll<other>"),
        ];
        name_futures(&mut frames);
        let names = frames.map(|frame| frame.function.unwrap());
        assert_eq!(names[0], "krate::main::{async_fn#0}");
        assert_eq!(names[2], "{async_block#1}");
    }

    #[test]
    fn ones_own_lines_are_found() {
        let file = Arc::new(std::fs::read("/proc/self/exe").unwrap());
        let elf = Elf::parse(&file).unwrap();
        let own = elf.functions().find(|symbol| {
            demangle(&String::from_utf8_lossy(symbol.name())).ends_with("debug::symbols::demangle")
        });
        let at = own.unwrap().addresses.start;
        let symbols = Symbols {
            image: file.clone(),
            separate: None,
            bias: 0x1000,
        };
        let frames = symbols.resolve(&[at + 0x1000, 7]);
        let frame = frames[0].last().unwrap();
        assert!(
            frame.file.as_ref().unwrap().ends_with("debug/symbols.rs"),
            "{frame:?}"
        );
        assert_eq!(frame.offset, Some(at));
        assert_eq!(frames[1], [Frame::at(7, None)]);
    }
}
