//! Ports: those that are no doorbells, and doorbells rung in other ways than by `out dx, al`.

use core::arch::asm;

use wakebox_abi::memory::Word;
use wakebox_abi::{layout, port};

use crate::case::{Args, Case, End, Expect, Modes, Trap, Violated};
use crate::guest::Guest;

fn out(_: &mut Guest, [at, width, ..]: Args) {
    // SAFETY: faults, or is served and comes back.
    unsafe {
        match width {
            1 => asm!("out dx, al", in("dx") at as u16, in("al") 0xFF_u8),
            2 => asm!("out dx, ax", in("dx") at as u16, in("ax") u16::MAX),
            _ => asm!("out dx, eax", in("dx") at as u16, in("eax") u32::MAX),
        }
    }
}

fn input(_: &mut Guest, [at, width, ..]: Args) {
    // SAFETY: as above.
    unsafe {
        match width {
            1 => asm!("in al, dx", in("dx") at as u16, out("al") _),
            2 => asm!("in ax, dx", in("dx") at as u16, out("ax") _),
            _ => asm!("in eax, dx", in("dx") at as u16, out("eax") _),
        }
    }
}

/// `rep outs` of so many units from the arena.
fn out_string(_: &mut Guest, [at, width, count, from]: Args) {
    // SAFETY: as above.
    unsafe {
        match width {
            1 => {
                asm!("rep outsb", in("dx") at as u16, inout("rcx") count => _, inout("rsi") from => _)
            }
            2 => {
                asm!("rep outsw", in("dx") at as u16, inout("rcx") count => _, inout("rsi") from => _)
            }
            _ => {
                asm!("rep outsd", in("dx") at as u16, inout("rcx") count => _, inout("rsi") from => _)
            }
        }
    }
}

fn in_string(_: &mut Guest, [at, width, count, to]: Args) {
    // SAFETY: as above.
    unsafe {
        match width {
            1 => {
                asm!("rep insb", in("dx") at as u16, inout("rcx") count => _, inout("rdi") to => _)
            }
            2 => {
                asm!("rep insw", in("dx") at as u16, inout("rcx") count => _, inout("rdi") to => _)
            }
            _ => {
                asm!("rep insd", in("dx") at as u16, inout("rcx") count => _, inout("rdi") to => _)
            }
        }
    }
}

/// `out` with the port in the instruction.
fn out_immediate(_: &mut Guest, [which, ..]: Args) {
    // SAFETY: as above.
    unsafe {
        match which {
            0 => asm!("out 0xB0, al"),
            1 => asm!("out 0xBF, al"),
            _ => asm!("out 0x80, al"),
        }
    }
}

/// What becomes of a port that ring 3 may not use: an exception. In QEMU's emulation it may, and
/// the host is told.
fn forbidden(told: End) -> Expect {
    Expect::from(Trap::Protection).qemu(told)
}

/// What the host says of a port that was read.
const READ: End = End::Violation(Violated::PortRead);
/// What it says of one that was written and is no doorbell.
const WRITTEN: End = End::Violation(Violated::PortWritten);

/// What it says of a guest that rings the stubs' own doorbell.
const RUNG_ITSELF: End = End::Violation(Violated::StubDoorbell);

/// Rings a doorbell a thousand times.
fn ring_often(guest: &mut Guest, [at, ..]: Args) {
    for _ in 0..1000 {
        guest.ring(at as u16);
    }
}

/// Rings for a processor that is not there.
fn ring_for(guest: &mut Guest, [at, target, ..]: Args) {
    guest.set(Word::Target, target as u32);
    guest.ring(at as u16);
}

/// Ports of devices that a machine might have, and the neighbours of the doorbells.
const OTHERS: &[u16] = &[
    0x00, 0x08, 0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xA0, 0xA1, 0xA8,
    0xAE, 0xAF, 0xB7, 0xB8, 0xBE, 0xC0, 0xE9, 0xF4, 0xFE, 0xFF, 0x100, 0x107, 0x108, 0x10F, 0x110,
    0x1CE, 0x1F0, 0x2F8, 0x3C0, 0x3F8, 0x402, 0x505, 0x510, 0x511, 0x604, 0xCF8, 0xCF9, 0xCFC,
    0x5658, 0x5659, 0xB004, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF,
];

/// How a doorbell ends a guest that was not ready to ring it.
fn rung(at: u16) -> End {
    match at {
        port::SUBMIT => End::Exit(0),
        port::WAIT => End::Deadlock,
        port::EXIT => End::Exit(0),
        port::ABORT => End::Panic(""),
        // The one that rings.
        port::START => End::Violation(Violated::ProcessorRuns),
        port::NUDGE | port::MAP => End::Exit(0),
        _ => RUNG_ITSELF,
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (index, at) in OTHERS.iter().enumerate() {
        let width = [1, 2, 4][index % 3];
        let args = [u64::from(*at), width, 0, 0];
        for (what, act, told) in [("out", out as crate::Act, WRITTEN), ("in", input, READ)] {
            let name = format_args!("{what}{}-{at:#06x}", width * 8);
            visit(Case::new("ports", name, act, forbidden(told)).with(args));
        }
    }
    for at in port::ALLOWED.into_iter().chain([port::FAULT]) {
        doorbell(at, visit);
    }
    for (at, name) in [(port::START, "start"), (port::NUDGE, "nudge")] {
        for target in [1, 2, 63, 64, u32::MAX] {
            let name = format_args!("{name}-processor-{target}");
            let end = End::Violation(Violated::NoSuchProcessor);
            let case = Case::new("ports", name, ring_for, end);
            visit(
                case.with([at.into(), target.into(), 0, 0])
                    .modes(Modes::All),
            );
        }
    }
    for (number, name, end) in [
        (0, "submit", End::Exit(0).into()),
        (1, "fault", forbidden(RUNG_ITSELF)),
        (2, "0x80", forbidden(WRITTEN)),
    ] {
        let name = format_args!("out-immediate-{name}");
        visit(Case::new("ports", name, out_immediate, end).with([number, 0, 0, 0]));
    }
    let submit = u64::from(port::SUBMIT);
    let case = Case::new("ports", "submit-a-thousand-times", ring_often, End::Exit(0));
    visit(case.with([submit, 0, 0, 0]).modes(Modes::All));
    let below = layout::ARENA - 16;
    let case = Case::new("ports", "outs-from-nowhere", out_string, Trap::Read(below));
    visit(case.with([submit, 1, 8, below]));
    let end = layout::ARENA + crate::machine::ARENA;
    let case = Case::new("ports", "outs-over-the-end", out_string, Trap::Read(end));
    visit(case.with([submit, 1, 64, end - 32]));
    let case = Case::new(
        "ports",
        "outs-of-supervisor",
        out_string,
        Trap::Read(layout::SUPERVISOR),
    );
    visit(case.with([submit, 1, 64, layout::SUPERVISOR]));
    let case = Case::new("ports", "outs-of-nothing", out_string, End::Exit(0));
    visit(case.with([submit, 1, 0, layout::ARENA]));
}

fn doorbell(at: u16, visit: &mut dyn FnMut(Case)) {
    let name = match at {
        port::SUBMIT => "submit",
        port::WAIT => "wait",
        port::EXIT => "exit",
        port::ABORT => "abort",
        port::START => "start",
        port::NUDGE => "nudge",
        port::MAP => "map",
        _ => "fault",
    };
    let allowed = |width: u64| {
        let mut ports = u64::from(at)..u64::from(at) + width;
        ports.all(|port| port::ALLOWED.map(u64::from).contains(&port))
    };
    for width in [1, 2, 4] {
        let bits = width * 8;
        let ends = |end: End| match allowed(width) {
            true => Expect::from(end),
            false => forbidden(end),
        };
        let mut case = |what, act, args, expect| {
            let name = format_args!("{what}{bits}-{name}");
            visit(
                Case::new("ports", name, act, expect)
                    .with(args)
                    .modes(Modes::All),
            );
        };
        let at64 = u64::from(at);
        case(
            "out",
            out as crate::Act,
            [at64, width, 0, 0],
            ends(rung(at)),
        );
        case("in", input, [at64, width, 0, 0], ends(READ));
        case(
            "rep-outs",
            out_string,
            [at64, width, 700, layout::ARENA],
            ends(rung(at)),
        );
        case(
            "rep-ins",
            in_string,
            [at64, width, 700, layout::ARENA],
            ends(READ),
        );
    }
}
