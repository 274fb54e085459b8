//! The page tables of windows ([`wakebox_abi::window`]): the only ones that change while a guest runs.
//!
//! ```text
//! the root of each processor
//!   for each half tebibyte: a table of the third level      the first pages of the region
//!     for each gibibyte in use: one of the second           taken one after the other,
//!       for each 2 MiB in use: one of the first             and never given back
//! ```
//!
//! An entry is written where there was none, which no processor has kept, nor KVM where it shadows tables: it looks
//! again whenever there is nothing. An entry is taken away together with the page: what the kernel gives back, KVM forgets
//! wherever it was mapped, and tells the processors. A table leads to the same tables for as long as the
//! machine lives, and a machine in which something was changed serves no other guest.
//!
//! Ring 3 cannot write here; what is read here was written by the host.

use wakebox_abi::layout::{
    HEAP, LARGE_PAGE_SIZE, PAGE_SIZE, WINDOW_SPACE, WINDOWS, WINDOWS_MAX, window_of,
};
use wakebox_abi::window::{Answer, LEN, Request};

use super::paging::{index, led_to, to_page, to_table};

/// Entries of a table.
const ENTRIES: u64 = 512;
/// What a table of the third level is for, in bytes.
const THIRD: u64 = 1 << 39;
const GIB: u64 = 1 << 30;

/// How many windows a guest has that asks for so many, and has so much memory.
pub(crate) fn count(asked: u32, memory: u64) -> u32 {
    match HEAP + memory <= WINDOWS {
        true => asked.min(WINDOWS_MAX),
        false => 0,
    }
}

/// Tables of the third level for so many windows.
fn thirds(count: u32) -> u64 {
    (u64::from(count) * WINDOW_SPACE).div_ceil(THIRD)
}

/// Windows that have something in them at once, at least.
const AT_ONCE: u32 = 64;

/// Pages of tables for so many windows of a guest with so much memory: enough if each page lies in one window, and no
/// window has more than one table of the first level that is not full; and if there are many, not all have something in them.
pub(crate) fn most_pages(count: u32, memory: u64) -> u64 {
    match count {
        0 => 0,
        count => thirds(count) + memory / LARGE_PAGE_SIZE + 2 * u64::from(count.min(AT_ONCE)),
    }
}

/// Where the tables of a guest's windows lie, and what may lie in those.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// How many windows there are.
    pub count: u32,
    /// Guest-physical address of the tables.
    pub tables: u64,
    /// Bytes of them.
    pub len: u64,
    /// Guest-physical address of the heap.
    pub heap: u64,
    /// Bytes of it.
    pub heap_len: u64,
}

impl Place {
    /// What the root leads to: first addresses, and where the table for each lies.
    pub(crate) fn roots(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let table = self.tables;
        (0..thirds(self.count))
            .map(move |third| (WINDOWS + third * THIRD, table + third * PAGE_SIZE))
    }
}

/// Entries of the tables, counted from the first.
pub(crate) trait Entries {
    fn get(&self, at: u64) -> u64;
    fn set(&mut self, at: u64, entry: u64);
}

impl Entries for Vec<u64> {
    fn get(&self, at: u64) -> u64 {
        self[at as usize]
    }

    fn set(&mut self, at: u64, entry: u64) {
        self[at as usize] = entry;
    }
}

/// The tables.
pub(crate) struct Tables<E> {
    place: Place,
    entries: E,
    /// How many are in use.
    pub(crate) used: u64,
}

impl<E: Entries> Tables<E> {
    /// Those that somebody has begun. `used` of them are in use, if that is known.
    pub(crate) fn new(place: Place, entries: E, used: Option<u64>) -> Self {
        let mut tables = Self {
            place,
            entries,
            used: 0,
        };
        tables.used = used.unwrap_or_else(|| tables.in_use());
        tables
    }

    fn in_use(&self) -> u64 {
        let thirds = thirds(self.place.count);
        let below = |table: u64| {
            let entries = (0..ENTRIES).map(move |entry| table * ENTRIES + entry);
            entries.filter_map(|at| self.table(at))
        };
        let seconds = || (0..thirds).flat_map(below);
        let firsts = seconds().flat_map(below).count();
        thirds + seconds().count() as u64 + firsts as u64
    }

    /// Which table an entry leads to.
    fn table(&self, at: u64) -> Option<u64> {
        led_to(self.entries.get(at)).map(|led| (led - self.place.tables) / PAGE_SIZE)
    }

    /// The entry for a page of a window, if there is a table for it.
    fn leaf(&self, address: u64) -> Option<u64> {
        let third = (address - WINDOWS) / THIRD;
        let second = self.table(third * ENTRIES + index(address, 2) as u64)?;
        let first = self.table(second * ENTRIES + index(address, 1) as u64)?;
        Some(first * ENTRIES + index(address, 0) as u64)
    }

    /// The same, with tables that are made for it. `None` if there is no room.
    fn made(&mut self, address: u64) -> Option<u64> {
        let mut table = (address - WINDOWS) / THIRD;
        for level in [2, 1] {
            let at = table * ENTRIES + index(address, level) as u64;
            table = match self.table(at) {
                Some(table) => table,
                None if self.used * PAGE_SIZE < self.place.len => {
                    let made = self.used;
                    self.used += 1;
                    let physical = self.place.tables + made * PAGE_SIZE;
                    self.entries.set(at, to_table(physical));
                    made
                }
                None => return None,
            };
        }
        Some(table * ENTRIES + index(address, 0) as u64)
    }

    /// Has pages of the heap appear in a window. If it is refused, nothing appears.
    pub(crate) fn show(&mut self, request: &Request) -> Result<(), Answer> {
        let place = self.place;
        if !request.fits(place.count) {
            return Err(Answer::NoWindow);
        }
        let len = u64::from(request.count) * PAGE_SIZE;
        let from = (u64::from(request.from) * PAGE_SIZE)
            .checked_sub(HEAP)
            .filter(|from| from + len <= place.heap_len)
            .ok_or(Answer::NotHeap)?;
        for (address, _) in each(request) {
            let at = self.made(address).ok_or(Answer::NoRoom)?;
            if led_to(self.entries.get(at)).is_some() {
                return Err(Answer::Taken);
            }
        }
        for (address, offset) in each(request) {
            let page = to_page(place.heap + from + offset);
            if let Some(at) = self.leaf(address) {
                self.entries.set(at, page);
            }
        }
        Ok(())
    }

    /// Has pages of a window be there no longer. Gives what lay there: ranges of the heap, from its first byte on, and
    /// their lengths.
    pub(crate) fn hide(&mut self, request: &Request) -> Result<Vec<(u64, u64)>, Answer> {
        if !request.fits(self.place.count) {
            return Err(Answer::NoWindow);
        }
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (address, _) in each(request) {
            let entry = self.leaf(address).map(|at| (at, self.entries.get(at)));
            if let Some((at, Some(led))) = entry.map(|(at, entry)| (at, led_to(entry))) {
                self.entries.set(at, 0);
                let start = led - self.place.heap;
                match ranges.last_mut() {
                    Some((last, len)) if *last + *len == start => *len += PAGE_SIZE,
                    _ => ranges.push((start, PAGE_SIZE)),
                }
            }
        }
        Ok(ranges)
    }

    /// What lies in windows, in the order of their addresses.
    fn shown(&self) -> Vec<Request> {
        let mut all: Vec<Request> = Vec::new();
        let heap = self.place.heap;
        let gibs = (0..self.place.count)
            .flat_map(|window| (0..LEN / GIB).map(move |gib| window_of(window) + gib * GIB));
        // Where the second level has nothing, nothing is looked at below.
        let of_gib = |address: u64| {
            let third = (address - WINDOWS) / THIRD;
            let second = self.table(third * ENTRIES + index(address, 2) as u64)?;
            let firsts = (0..ENTRIES).filter_map(move |entry| {
                let first = self.table(second * ENTRIES + entry)?;
                Some((address + entry * LARGE_PAGE_SIZE, first))
            });
            Some(firsts)
        };
        for (address, first) in gibs.filter_map(of_gib).flatten() {
            for entry in 0..ENTRIES {
                let Some(led) = led_to(self.entries.get(first * ENTRIES + entry)) else {
                    continue;
                };
                let page = ((address + entry * PAGE_SIZE) / PAGE_SIZE) as u32;
                let from = ((HEAP + led - heap) / PAGE_SIZE) as u32;
                match all.last_mut() {
                    Some(last)
                        if last.page + last.count == page
                            && last.from + last.count == from
                            && last.count < wakebox_abi::window::MOST =>
                    {
                        last.count += 1;
                    }
                    _ => all.push(Request {
                        page,
                        from,
                        count: 1,
                    }),
                }
            }
        }
        all
    }
}

/// Addresses of the pages that are asked for, and how far each is from the first.
fn each(request: &Request) -> impl Iterator<Item = (u64, u64)> + use<> {
    let start = u64::from(request.page) * PAGE_SIZE;
    (0..u64::from(request.count)).map(move |page| (start + page * PAGE_SIZE, page * PAGE_SIZE))
}

/// What lies in windows, if that is what lies in the region of their tables.
#[must_use]
pub fn shown(place: Place, region: &[u8]) -> Vec<Request> {
    let (words, _) = region.as_chunks::<8>();
    let entries: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    Tables::new(place, entries, None).shown()
}

/// What lies in the region of the tables of windows in which this lies.
///
/// # Errors
///
/// What of it cannot be, and why.
pub fn tables(place: Place, shown: &[Request]) -> Result<Vec<u8>, (Request, Answer)> {
    let entries = vec![0; (place.len / 8) as usize];
    let mut tables = Tables::new(place, entries, None);
    for request in shown {
        tables.show(request).map_err(|answer| (*request, answer))?;
    }
    let bytes = tables.entries.iter().flat_map(|entry| entry.to_le_bytes());
    Ok(bytes.collect())
}

#[cfg(test)]
mod tests;
