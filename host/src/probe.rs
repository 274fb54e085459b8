//! A guest of a few instructions, built from nothing, to see and measure what KVM does here.

use std::time::{Duration, Instant};

use wakebox_abi::note::Note;
use wakebox_abi::{layout, port};
use wakebox_vmm::clock::Clocks;
use wakebox_vmm::machine::Machine;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::plan::{Plan, Sizes};
use wakebox_vmm::system::System;
use wakebox_vmm::vcpu::Exit;

use crate::error::{Error, Result};
use crate::loader::Image;

/// Whether this machine is itself emulated by QEMU, instruction by instruction: nothing that is
/// measured here says anything about another one. `false` where KVM cannot be used.
#[must_use]
pub fn is_emulated() -> bool {
    System::get().is_ok_and(|system| system.is_qemu)
}

/// Whether a processor forgets what it has learned of branches before its machine serves another guest
/// (`IA32_PRED_CMD`). `false` where KVM cannot be used.
#[must_use]
pub fn has_branch_barrier() -> bool {
    System::get().is_ok_and(System::has_branch_barrier)
}

/// What things cost here.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// From nothing to the first exit of a machine.
    pub create: Duration,
    /// Closing a machine.
    pub close: Duration,
    /// From one exit to the next.
    pub round_trip: Duration,
}

/// Whether the kernel gives rings of io_uring(7) to this process.
///
/// # Errors
///
/// What it says to who asks for one: see [`Io::Uring`](crate::Io::Uring).
pub fn io_uring() -> std::io::Result<()> {
    crate::ops::uring::make().map(drop)
}

/// A machine whose guest does nothing but ring [`port::SUBMIT`].
#[derive(Debug)]
pub struct Probe {
    machine: Machine,
    has_counter: bool,
}

impl Probe {
    /// Makes the machine and runs it to its first exit.
    ///
    /// # Errors
    ///
    /// What KVM could not do, or that it did something else.
    pub fn new() -> Result<Self> {
        let image = Image::from_bytes(program())?;
        let sizes = Sizes {
            memory: 2 << 20,
            arena: layout::PAGE_SIZE,
            stack: layout::PAGE_SIZE,
            in_flight: 64,
            instance: layout::PAGE_SIZE,
            trace_records: 0,
            windows: 0,
            processors: 1,
        };
        let memory = GuestMemory::new(Plan::new(&image.pages(), &sizes)?)?;
        let mut machine = Machine::new(&memory)?;
        machine.start(image.entry(), memory.plan().stack_range().end())?;
        memory.write_tables();
        image.load(&memory)?;
        let has_counter = Clocks::new(machine.vcpu()).has_counter();
        let mut probe = Self {
            machine,
            has_counter,
        };
        probe.ring()?;
        Ok(probe)
    }

    /// Whether guests can tell the time by the time-stamp counter.
    #[must_use]
    pub fn has_counter(&self) -> bool {
        self.has_counter
    }

    fn ring(&mut self) -> Result<()> {
        match self.machine.vcpu_mut().enter(Duration::from_secs(1))? {
            Exit::Submit | Exit::Interrupted(_) => Ok(()),
            other => Err(Error::KvmUnsuitable(format!(
                "a guest in ring 3 that rings a doorbell ended otherwise: {other:?}"
            ))),
        }
    }

    /// Measures for about as long as it is told.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn measure(&mut self, time: Duration) -> Result<Costs> {
        let start = Instant::now();
        let mut round_trips = Vec::new();
        while start.elapsed() < time / 2 {
            let before = Instant::now();
            self.ring()?;
            round_trips.push(before.elapsed());
        }
        let (mut creates, mut closes) = (Vec::new(), Vec::new());
        while start.elapsed() < time || creates.len() < 3 {
            let before = Instant::now();
            let probe = Self::new()?;
            creates.push(before.elapsed());
            let before = Instant::now();
            drop(probe);
            closes.push(before.elapsed());
        }
        Ok(Costs {
            create: median(creates),
            close: median(closes),
            round_trip: median(round_trips),
        })
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The ELF file of a guest: `1: out SUBMIT, al; jmp 1b`.
pub(crate) fn program() -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    const NOTE: u64 = HEADERS.next_multiple_of(16);
    const CODE: u64 = NOTE + size_of::<Note>() as u64;
    let code = [0xe6, port::SUBMIT as u8, 0xeb, 0xfc];
    let len = CODE + code.len() as u64;
    let at = layout::IMAGE_PIE_BASE;

    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut half = |values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    half(&[2, 62, 1, 0]); // ET_EXEC, EM_X86_64, version 1
    let words = |file: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    };
    words(&mut file, &[at + CODE, 64, 0]); // entry, program headers, no sections
    file.extend(0_u32.to_le_bytes());
    for value in [64_u16, 56, 2, 0, 0, 0] {
        file.extend(value.to_le_bytes());
    }
    let header = |file: &mut Vec<u8>, kind: u32, flags: u32, offset: u64, size: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        words(file, &[offset, at + offset, at + offset, size, size, 4]);
    };
    header(&mut file, 1, 5, 0, len); // PT_LOAD, readable and executable
    header(&mut file, 4, 4, NOTE, size_of::<Note>() as u64); // PT_NOTE
    file.resize(NOTE as usize, 0);
    file.extend(Note::new(0).as_bytes());
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_guest_is_one() {
        let image = Image::from_bytes(program()).unwrap();
        assert_eq!(image.segments().len(), 1);
        assert_eq!(image.segments()[0].letters, "r-x");
    }
}
