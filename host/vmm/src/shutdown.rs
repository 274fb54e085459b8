//! What is found out about a processor that gave up.
//!
//! A processor delivers exceptions by its control registers, the descriptor tables, the stubs and the
//! page tables. The host writes all of that before the start; ring 3 may write none of it and has no
//! instruction that loads those registers. So if a processor can deliver none, either something of it
//! has changed, and a guest may have found a way to it; or nothing has, and KVM or the machine below
//! has failed.

use kvm_bindings::{kvm_regs, kvm_sregs};

use crate::error::{Error, Result};
use crate::memory::GuestMemory;
use crate::plan::{Plan, Region};
use crate::vcpu::Vcpu;
use crate::x86_64::registers::Registers;
use crate::x86_64::shutdown::{ExceptionFrame, Shutdown, Stack};
use crate::x86_64::{descriptors, paging, stubs};

/// Most frames of one stack.
const MOST_FRAMES: usize = 4;

impl Vcpu {
    /// What [`End::Shutdown`](crate::vcpu::End::Shutdown) left behind: the registers, which are zero if
    /// KVM has [reset](Shutdown::reset) them, and what had changed.
    ///
    /// # Errors
    ///
    /// [`Error::KvmStopped`] if nothing has changed by which exceptions are delivered: then it is the
    /// host's fault. Besides, what KVM could not do.
    pub fn shut_down(&self) -> Result<(Registers, Shutdown)> {
        let reading = "read the registers of a guest that faulted";
        let regs = self.general().map_err(Error::kvm(reading))?;
        let sregs = self.special().map_err(Error::kvm(reading))?;
        let memory = self.memory();
        let memory = &*memory;
        let mut shutdown = Shutdown {
            reset: is_reset(&regs, &sregs),
            frames: frames(memory, self.number()),
            ..Shutdown::default()
        };
        let mut registers = Registers::default();
        if !shutdown.reset {
            registers = self.registers()?;
            compare_registers(&self.start_registers()?, &sregs, &mut shutdown);
        }
        for (region, written, name) in written(memory.plan(), self.number()) {
            compare_memory(memory, region, &written, name, &mut shutdown);
        }
        if shutdown.changed.is_empty() {
            return Err(Error::KvmStopped(stopped(&registers, &shutdown)));
        }
        Ok((registers, shutdown))
    }
}

/// Whether this is how a processor is switched on (Intel SDM vol. 3A, 10.1.1; AMD APM vol. 2,
/// 14.1.3): KVM for AMD-V leaves it so.
fn is_reset(regs: &kvm_regs, sregs: &kvm_sregs) -> bool {
    const PROTECTED_MODE: u64 = 1;
    regs.rip == 0xfff0 && sregs.cs.selector == 0xf000 && sregs.cr0 & PROTECTED_MODE == 0
}

fn compare_registers(was: &kvm_sregs, is: &kvm_sregs, shutdown: &mut Shutdown) {
    let tables = |sregs: &kvm_sregs| {
        [
            ("CR0", sregs.cr0),
            ("CR3", sregs.cr3),
            ("CR4", sregs.cr4),
            ("EFER", sregs.efer),
            ("the base of the GDT", sregs.gdt.base),
            ("the limit of the GDT", sregs.gdt.limit.into()),
            ("the base of the IDT", sregs.idt.base),
            ("the limit of the IDT", sregs.idt.limit.into()),
            ("the base of the TSS", sregs.tr.base),
            ("the limit of the TSS", sregs.tr.limit.into()),
        ]
    };
    for ((name, was), (_, is)) in tables(was).into_iter().zip(tables(is)) {
        shutdown.compare(was, is, || name.to_owned());
    }
}

/// A region of memory, what the host wrote there, and what lies at an offset in it, in words.
type Written = (Region, Vec<u8>, fn(usize) -> String);

/// What the host wrote before the start, where, and what a byte of it is called.
fn written(plan: &Plan, processor: u32) -> [Written; 3] {
    let own = plan.own(processor);
    let tables = plan.tables_of(processor).to_bytes();
    [
        (
            own.descriptors,
            descriptors::page().to_vec(),
            descriptors::name,
        ),
        (plan.stubs, stubs::code().to_vec(), stubs::name),
        (own.tables, tables, paging::name),
    ]
}

fn compare_memory(
    memory: &GuestMemory,
    region: Region,
    written: &[u8],
    name: fn(usize) -> String,
    shutdown: &mut Shutdown,
) {
    let mut found = vec![0; written.len()];
    memory.read(region.offset, &mut found);
    for (index, (was, is)) in words(written).zip(words(&found)).enumerate() {
        shutdown.compare(was, is, || name(index * 8));
    }
}

fn words(bytes: &[u8]) -> impl DoubleEndedIterator<Item = u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

/// What the processor pushed when it turned to ring 0, as far as it is still there.
fn frames(memory: &GuestMemory, processor: u32) -> Vec<ExceptionFrame> {
    let own = memory.plan().own(processor);
    let stacks = [
        (Stack::Ring0, own.ring0_stack),
        (Stack::DoubleFault, own.fault_stack),
    ];
    let frames = stacks.map(|(stack, region)| {
        let mut bytes = vec![0; region.len as usize];
        memory.read(region.offset, &mut bytes);
        find_frames(stack, &words(&bytes).rev().collect::<Vec<_>>())
    });
    frames.concat()
}

/// Finds frames in the words of a stack, from the upper end down: `ss`, `rsp`, `rflags`, `cs`, `rip`
/// (Intel SDM vol. 3A, 6.14.2).
fn find_frames(stack: Stack, mut words: &[u64]) -> Vec<ExceptionFrame> {
    let mut frames = Vec::new();
    while let [ss, rsp, rflags, cs, rip, below @ ..] = words
        && frames.len() < MOST_FRAMES
    {
        if !descriptors::is_frame_of(*cs, *ss) {
            words = &words[1..];
            continue;
        }
        let (rip, cs, rflags, rsp, ss) = (*rip, *cs, *rflags, *rsp, *ss);
        frames.push(ExceptionFrame {
            stack,
            rip,
            cs,
            rflags,
            rsp,
            ss,
        });
        words = below;
    }
    frames
}

/// What KVM did, and what to do.
fn stopped(registers: &Registers, shutdown: &Shutdown) -> String {
    let place = match shutdown.reset {
        true => "at a place that is not known, for it has reset the processor".to_owned(),
        false => format!("at {:#x}", registers.rip),
    };
    let mut text = format!(
        "it reports a triple fault {place}, and all by which exceptions are delivered, descriptor \
         tables, stubs and page tables, is as it was written. So the host's KVM has failed, or the \
         machine that it runs on, and not the guest: run it again, look at `dmesg`, and if it comes \
         back, try another kernel"
    );
    for frame in &shutdown.frames {
        text += &format!("; {frame}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_from_the_upper_end_of_a_stack() {
        let user = [0x1b, 0x7000, 0x202, 0x23, 0x1234];
        let nested = [0x0, 0x6000, 0x2, 0x8, 0x5678];
        // An error code and a vector lie between.
        let words = [&user[..], &[0, 6], &nested[..], &[0; 8]].concat();
        let frames = find_frames(Stack::Ring0, &words);
        let places: Vec<_> = frames.iter().map(|frame| (frame.rip, frame.rsp)).collect();
        assert_eq!(places, [(0x1234, 0x7000), (0x5678, 0x6000)]);
        assert_eq!(find_frames(Stack::Ring0, &[0; 512]), []);
    }

    #[test]
    fn a_stack_full_of_frames_tells_a_few() {
        let words: Vec<u64> = [0x1b, 0x7000, 0x202, 0x23, 0x1234].repeat(100);
        assert_eq!(find_frames(Stack::Ring0, &words).len(), MOST_FRAMES);
    }

    #[test]
    fn a_processor_is_reset_if_it_stands_where_machines_start() {
        let mut regs = kvm_regs {
            rip: 0xfff0,
            ..Default::default()
        };
        let mut sregs = kvm_sregs::default();
        sregs.cs.selector = 0xf000;
        assert!(is_reset(&regs, &sregs));
        sregs.cr0 = 1;
        assert!(!is_reset(&regs, &sregs));
        (sregs.cr0, regs.rip) = (0, 0x20_0000);
        assert!(!is_reset(&regs, &sregs));
    }
}
