//! Where the memory of this process is.
//!
//! `/proc/self/smaps` knows what each mapping has resident. Guest RAM is told from the host's own
//! memory by two marks: it is private anonymous memory without swap reservation (`nr`), and a run
//! of such mappings is at least as long as the RAM that was asked for. Mappings of KVM's own pages
//! (`anon_inode:kvm-vcpu`) belong to the kernel, as does everything that it keeps for a VM, a
//! socket or a timer and does not map: neither is counted.

use anyhow::{Context, Result};

/// Bytes that this process has in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Its own: all but guest RAM.
    pub host: u64,
    /// RAM of guests that they have touched.
    pub guest: u64,
}

impl Resident {
    /// As it is now, if each guest has at least `guest_ram` bytes of RAM.
    ///
    /// # Errors
    ///
    /// If `/proc/self/smaps` cannot be read.
    pub fn now(guest_ram: u64) -> Result<Self> {
        let text = std::fs::read_to_string("/proc/self/smaps").context("/proc/self/smaps")?;
        let mappings = parse(&text);
        let mut resident = Self::default();
        let mut rest = mappings.as_slice();
        while let Some(first) = rest.first() {
            let len = run_length(rest);
            let (run, others) = rest.split_at(len);
            rest = others;
            let length: u64 = run.iter().map(|mapping| mapping.end - mapping.start).sum();
            let bytes = run.iter().map(|mapping| mapping.resident).sum::<u64>();
            if first.guest_like && length >= guest_ram {
                resident.guest += bytes;
            } else if !first.name.starts_with("anon_inode:kvm") {
                resident.host += bytes;
            }
        }
        Ok(resident)
    }
}

/// Bytes of the heap that are in use: what was allocated and not freed.
pub fn heap_in_use() -> u64 {
    // SAFETY: it reads counters of the allocator.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

/// One mapping of this process.
#[derive(Clone, Debug, Default)]
struct Mapping {
    start: u64,
    end: u64,
    name: String,
    resident: u64,
    guest_like: bool,
}

/// How many mappings from the first on adjoin and look like guest RAM; at least one.
fn run_length(mappings: &[Mapping]) -> usize {
    let adjoin =
        |pair: &[Mapping]| pair[0].guest_like && pair[1].guest_like && pair[0].end == pair[1].start;
    1 + mappings.windows(2).take_while(|pair| adjoin(pair)).count()
}

fn parse(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, end)) = range(first) {
            let words: Vec<&str> = words.collect();
            let name = words.get(4..).unwrap_or_default().join(" ");
            mappings.push(Mapping {
                start,
                end,
                guest_like: name.is_empty() && words.first() == Some(&"rw-p"),
                name,
                resident: 0,
            });
        } else if let Some(mapping) = mappings.last_mut() {
            match first {
                "Rss:" => {
                    let kib: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                    mapping.resident = kib * 1024;
                }
                "VmFlags:" => mapping.guest_like &= words.any(|flag| flag == "nr"),
                _ => {}
            }
        }
    }
    mappings
}

/// `start-end` in hexadecimal.
fn range(word: &str) -> Option<(u64, u64)> {
    let (start, end) = word.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(start)?, hex(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-2000 rw-p 00000000 00:00 0
Rss:                   4 kB
VmFlags: rd wr mr
2000-4000 rw-p 00000000 00:00 0
Rss:                   8 kB
VmFlags: rd wr mr nr
4000-9000 rw-p 00000000 00:00 0
Rss:                  12 kB
VmFlags: rd wr mr nr hg
9000-a000 rw-s 00000000 00:0e 9 anon_inode:kvm-vcpu:0
Rss:                   4 kB
VmFlags: rd wr sh
";

    #[test]
    fn adjoining_mappings_without_reservation_are_one_guest() {
        let mappings = parse(SMAPS);
        let likely: Vec<bool> = mappings.iter().map(|mapping| mapping.guest_like).collect();
        assert_eq!(likely, [false, true, true, false]);
        assert_eq!(run_length(&mappings[1..]), 2);
        assert_eq!(mappings[3].name, "anon_inode:kvm-vcpu:0");
        assert_eq!(mappings[2].resident, 12 * 1024);
    }
}
