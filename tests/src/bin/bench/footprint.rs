//! Host memory that a sandbox takes beyond its guest's RAM.
//!
//! `/proc/self/smaps` knows what each mapping has resident. Guest RAM is told from the
//! host's own memory by two marks: it is private anonymous memory without swap reservation
//! (`nr`), and a run of such mappings is at least as long as the RAM that was asked for.
//! Mappings of KVM's own pages (`anon_inode:kvm-vcpu`) belong to the kernel, as does
//! everything that it keeps for a VM and does not map: neither is counted.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use wakebox::{Policy, Sandbox, WakeMode};

use crate::table::{Bar, Row, Unit};

const SANDBOXES: u64 = 200;
const GUEST_RAM: u64 = 16 << 20;

/// Starts many sandboxes whose guests listen and wait, and sees by how much the process
/// has grown. Wants to come first: memory that was used before and is free again would
/// hide what a sandbox takes.
pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Row>> {
    let guest = wakebox_tests::guest("echo");
    let address = "127.0.0.1:0";
    runtime.block_on(async {
        let start = || {
            let mut sandbox = Sandbox::builder()
                .guest(&guest)
                .args([address])
                .policy(Policy::new().allow_listen(address.parse()?))
                .memory(GUEST_RAM)
                .wake(WakeMode::Out)
                .build()?;
            anyhow::Ok(tokio::spawn(async move { sandbox.run().await }))
        };
        // What the first one brings along for all (threads, handlers) is not counted.
        let first = start()?;
        settle().await;
        let before = resident_beyond_guests(GUEST_RAM)?;
        let runs = (0..SANDBOXES)
            .map(|_| start())
            .collect::<Result<Vec<_>>>()?;
        settle().await;
        let grown = resident_beyond_guests(GUEST_RAM)?.saturating_sub(before);
        for run in runs.iter().chain([&first]) {
            anyhow::ensure!(!run.is_finished(), "a guest that should sleep has ended");
            run.abort();
        }
        let row = Row::new(
            "host memory for a sandbox, beyond guest RAM",
            Unit::Bytes,
            grown as f64 / SANDBOXES as f64,
        );
        Ok(vec![row.bar(Bar::AtMost(256.0 * 1024.0))])
    })
}

/// Lets every guest run until it sleeps.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
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

/// Bytes that are resident in this process and are not guest RAM, if each guest has at
/// least `guest_ram` bytes of it.
///
/// # Errors
///
/// If `/proc/self/smaps` cannot be read.
fn resident_beyond_guests(guest_ram: u64) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps").context("/proc/self/smaps")?;
    let mappings = parse(&text);
    let mut total = 0;
    let mut rest = mappings.as_slice();
    while let Some(first) = rest.first() {
        let len = run_length(rest);
        let (run, others) = rest.split_at(len);
        rest = others;
        let length: u64 = run.iter().map(|mapping| mapping.end - mapping.start).sum();
        let is_guest = first.guest_like && length >= guest_ram;
        if !is_guest && !first.name.starts_with("anon_inode:kvm") {
            total += run.iter().map(|mapping| mapping.resident).sum::<u64>();
        }
    }
    Ok(total)
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
