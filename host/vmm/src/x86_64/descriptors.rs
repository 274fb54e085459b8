//! GDT, IDT and TSS: the least that lets ring 3 run and ring 0 catch what it throws.
//!
//! All three lie in one page that is read-only even to ring 0: descriptors are marked
//! accessed, and the TSS busy, from the start, so that the processor has nothing to write.
//! (Intel SDM vol. 3A, 3.4.5, 6.14, 8.7; AMD APM vol. 2, 4.8, 8.9, 12.2.)

use kvm_bindings::{kvm_dtable, kvm_segment};
use wakebox_abi::port;

use super::stubs;
use super::{RING0_STACK, descriptors_at, fault_stack_at, ring0_stack_at};

const RING0_CODE: u16 = 0x08;
const RING0_DATA: u16 = 0x10;
/// Selector of the data and stack segment of ring 3.
pub const RING3_DATA: u16 = 0x18 | 3;
/// Selector of the code segment of ring 3.
pub const RING3_CODE: u16 = 0x20 | 3;
const TASK: u16 = 0x28;

const GDT: usize = 0x000;
const GDT_LEN: usize = 0x38;
const TSS: usize = 0x100;
const IDT: usize = 0x400;
/// Vectors 0 to 31 are exceptions, 32 and 33 are the interrupts that the host injects.
const VECTORS: usize = 34;

/// Where the I/O permission bitmap starts in the TSS.
const BITMAP: usize = 104;
/// One bit a port up to 0xFF; ports past the TSS's limit are denied.
const BITMAP_LEN: usize = 32;
/// The bitmap must be followed by a byte of ones (SDM vol. 1, 19.5.2).
const TSS_LEN: usize = BITMAP + BITMAP_LEN + 1;

/// Interrupt stack table entry for the exceptions that may come while ring 0 has no good stack.
const FAULT_STACK: u8 = 1;

const NMI: usize = 2;
const BREAKPOINT: usize = 3;
const DOUBLE_FAULT: usize = 8;
const MACHINE_CHECK: usize = 18;

/// The page's bytes.
pub(crate) fn page() -> [u8; 4096] {
    let mut page = [0; 4096];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);

    let task = task_descriptor();
    let gdt = [
        0,
        0x00af_9b00_0000_ffff, // 0x08 ring 0, 64-bit code
        0x00cf_9300_0000_ffff, // 0x10 ring 0, data
        0x00cf_f300_0000_ffff, // 0x18 ring 3, data
        0x00af_fb00_0000_ffff, // 0x20 ring 3, 64-bit code
        task as u64,
        (task >> 64) as u64,
    ];
    for (index, descriptor) in gdt.into_iter().enumerate() {
        put(GDT + index * 8, &u64::to_le_bytes(descriptor));
    }

    put(TSS + 4, &(ring0_stack_at() + RING0_STACK).to_le_bytes()); // RSP0
    put(TSS + 36, &(fault_stack_at() + RING0_STACK).to_le_bytes()); // IST1
    put(TSS + 102, &(BITMAP as u16).to_le_bytes());
    let mut bitmap = [0xff_u8; BITMAP_LEN + 1];
    for port in port::ALLOWED {
        bitmap[port as usize / 8] &= !(1 << (port % 8));
    }
    put(TSS + BITMAP, &bitmap);

    for vector in 0..VECTORS {
        put(IDT + vector * 16, &gate(vector).to_le_bytes());
    }
    page
}

/// What lies at a byte of the page.
pub(crate) fn name(at: usize) -> String {
    match at {
        GDT..TSS => format!("the descriptor {:#x} of the GDT", at - GDT),
        TSS..IDT => format!("byte {} of the TSS", at - TSS),
        _ => format!("the gate of vector {}", (at - IDT) / 16),
    }
}

/// Whether these segments are those of a frame that the processor pushes when it turns to ring 0. In
/// ring 0 it has no stack segment if it came there from ring 3 (Intel SDM vol. 3A, 6.14.4).
pub(crate) fn is_frame_of(cs: u64, ss: u64) -> bool {
    let [user_code, user_data] = [RING3_CODE, RING3_DATA].map(u64::from);
    let [code, data] = [RING0_CODE, RING0_DATA].map(u64::from);
    (cs, ss) == (user_code, user_data) || cs == code && (ss == 0 || ss == data)
}

/// A 16-byte descriptor of the TSS: type 11, present, already busy.
fn task_descriptor() -> u128 {
    let base = u128::from(descriptors_at() + TSS as u64);
    let limit = TSS_LEN as u128 - 1;
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | 0x8b << 40
        | (base >> 24 & 0xff) << 56
        | (base >> 32) << 64
}

/// A 16-byte interrupt gate: interrupts are off in the stub.
fn gate(vector: usize) -> u128 {
    let target = u128::from(stubs::address(vector));
    let stack = match vector {
        NMI | DOUBLE_FAULT | MACHINE_CHECK => FAULT_STACK,
        _ => 0,
    };
    // Ring 3 may raise the breakpoint, which is the way into the halt stub, and nothing else.
    let kind: u128 = if vector == BREAKPOINT { 0xee } else { 0x8e };
    target & 0xffff
        | u128::from(RING0_CODE) << 16
        | u128::from(stack) << 32
        | kind << 40
        | (target >> 16 & 0xffff) << 48
        | (target >> 32) << 64
}

/// The GDT register.
pub(crate) fn gdt() -> kvm_dtable {
    kvm_dtable {
        base: descriptors_at() + GDT as u64,
        limit: GDT_LEN as u16 - 1,
        ..Default::default()
    }
}

/// The IDT register.
pub(crate) fn idt() -> kvm_dtable {
    kvm_dtable {
        base: descriptors_at() + IDT as u64,
        limit: (VECTORS * 16) as u16 - 1,
        ..Default::default()
    }
}

/// The code segment of ring 3.
pub(crate) fn ring3_code() -> kvm_segment {
    kvm_segment {
        selector: RING3_CODE,
        type_: 0xb,
        l: 1,
        ..segment()
    }
}

/// The data and stack segment of ring 3.
pub(crate) fn ring3_data() -> kvm_segment {
    kvm_segment {
        selector: RING3_DATA,
        type_: 0x3,
        db: 1,
        ..segment()
    }
}

fn segment() -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        present: 1,
        dpl: 3,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// The task register.
pub(crate) fn task() -> kvm_segment {
    kvm_segment {
        base: descriptors_at() + TSS as u64,
        limit: TSS_LEN as u32 - 1,
        selector: TASK,
        type_: 0xb,
        present: 1,
        ..Default::default()
    }
}

/// No local descriptor table: a selector in it is a general protection fault. The processor's reset
/// state has one of 64 KiB at address zero.
pub(crate) fn no_local_table() -> kvm_segment {
    kvm_segment {
        type_: 2,
        unusable: 1,
        ..Default::default()
    }
}

const _: () = assert!(
    GDT + GDT_LEN <= TSS
        && TSS + TSS_LEN <= IDT
        && IDT + VECTORS * 16 <= 4096
        && RING0_DATA == 0x10
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_3_may_use_the_doorbells_and_no_other_port() {
        let page = page();
        for candidate in 0..=u16::MAX {
            let byte = BITMAP + candidate as usize / 8;
            // The processor reads two bytes, both within the limit (SDM vol. 1, 19.5.2).
            let allowed = byte + 1 < TSS_LEN && page[TSS + byte] & 1 << (candidate % 8) == 0;
            assert_eq!(
                allowed,
                port::ALLOWED.contains(&candidate),
                "port {candidate:#x}"
            );
        }
        assert_eq!(page[TSS + TSS_LEN - 1], 0xff);
    }

    #[test]
    fn only_the_breakpoint_can_be_raised_from_ring_3() {
        for vector in 0..VECTORS {
            let privilege = gate(vector) >> 45 & 3;
            assert_eq!(privilege == 3, vector == BREAKPOINT, "vector {vector}");
        }
    }
}
