//! Loops without end. The wall clock ends these.

use core::arch::asm;

use wakebox_abi::entry::Token;
use wakebox_abi::memory::Word;
use wakebox_abi::op::{self, Buf, Operation};
use wakebox_abi::status::Status;
use wakebox_abi::{layout, port};

use crate::case::{Args, Case, End, Expect, Modes, Trap};
use crate::guest::Guest;

macro_rules! endless {
    ($visit:ident; $($name:literal [$($asm:literal),* $(,)?] => $expect:expr;)*) => {$(
        $visit(Case::new("loops", $name, |_, _| {
            // SAFETY: never comes back; what it touches is the guest's own.
            unsafe { asm!("2:", $($asm,)* "jmp 2b", clobber_abi("sysv64")) }
        }, $expect).modes(Modes::All));
    )*};
}

fn doorbell(guest: &mut Guest, _: Args) {
    loop {
        guest.ring(port::SUBMIT);
    }
}

fn wait_with_a_lie(guest: &mut Guest, _: Args) {
    guest.set(Word::Seen, 7);
    loop {
        guest.ring(port::WAIT);
    }
}

fn operations(guest: &mut Guest, _: Args) {
    loop {
        assert_eq!(guest.call(op::Nop {}).0, Status::Ok);
    }
}

fn full_batches(guest: &mut Guest, _: Args) {
    loop {
        for slot in 0..Guest::RING {
            let token = guest.token(slot);
            guest.publish_quietly(wakebox_abi::entry::Entry::to_words(
                op::Nop {}.submission(token),
            ));
        }
        guest.ring_if_needed();
        for _ in 0..Guest::RING {
            guest.wait();
        }
    }
}

fn cancellations(guest: &mut Guest, _: Args) {
    loop {
        let target = Token::from_word(u64::MAX);
        guest.submit(&[op::Cancel { target }.submission(Token::from_word(0)); 32]);
    }
}

fn deadlines(guest: &mut Guest, _: Args) {
    loop {
        assert_eq!(guest.call(op::Deadline { at_ns: 0 }).0, Status::Ok);
    }
}

fn sleeps(guest: &mut Guest, _: Args) {
    guest.call(op::Deadline { at_ns: u64::MAX });
}

fn never_answered(guest: &mut Guest, _: Args) {
    let into = Buf {
        offset: 0x1000,
        len: 64,
    };
    let stream = crate::handles::Kind::Stream.open(guest);
    guest.call(op::ReadStream { stream, into });
}

fn console(guest: &mut Guest, _: Args) {
    let from = Buf { offset: 0, len: 64 };
    loop {
        let stream = op::Stream::Out;
        assert_eq!(guest.call(op::WriteConsole { stream, from }).0, Status::Ok);
    }
}

fn open_and_close(guest: &mut Guest, _: Args) {
    loop {
        let handle = crate::handles::Kind::Udp.open(guest);
        assert_eq!(guest.call(op::Close { handle }).0, Status::Ok);
    }
}

fn touch(guest: &mut Guest, _: Args) {
    let heap = guest.boot.heap;
    loop {
        for at in (heap.start..heap.end()).step_by(64) {
            // SAFETY: the heap is the guest's, and nothing uses it.
            unsafe { (at as *mut u64).write_volatile(at) };
        }
    }
}

fn copy(_: &mut Guest, _: Args) {
    loop {
        // SAFETY: both lie in the arena.
        unsafe {
            asm!("rep movsb", inout("rcx") 0x1_0000_u64 => _, inout("rsi") layout::ARENA => _,
                inout("rdi") layout::ARENA + 0x8000 => _);
        }
    }
}

fn out_strings(_: &mut Guest, _: Args) {
    loop {
        // SAFETY: the bytes lie in the arena.
        unsafe {
            asm!("rep outsb", in("dx") port::SUBMIT, inout("rcx") 0x1_0000_u64 => _,
                inout("rsi") layout::ARENA => _);
        }
    }
}

/// `cli` and `sti` want an I/O privilege level that ring 3 has in QEMU's emulation alone.
fn endless_in_qemu() -> Expect {
    Expect::from(Trap::Protection).qemu(End::WallClock)
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    endless! { visit;
        "spin" [] => End::WallClock;
        "pause" ["pause"] => End::WallClock;
        "cpuid" ["mov r8, rbx", "cpuid", "mov rbx, r8"] => End::WallClock;
        "rdtsc" ["rdtsc"] => End::WallClock;
        "int3" ["mov eax, -1", "int3"] => End::WallClock;
        "mov-ss" ["mov eax, ss", "mov ss, eax"] => End::WallClock;
        "sti" ["sti"] => endless_in_qemu();
        "popf" ["pushfq", "popfq"] => End::WallClock;
        "fences" ["mfence"] => End::WallClock;
        "flush" ["clflush [rsp]"] => End::WallClock;
        "locked" ["lock inc qword ptr [rsp - 256]"] => End::WallClock;
        "x87" ["fninit", "fldpi", "fsin", "fstp st(0)"] => End::WallClock;
    }
    let acts: [(&str, crate::Act); 15] = [
        ("doorbell", doorbell),
        ("wait-with-a-lie", wait_with_a_lie),
        ("operations", operations),
        ("full-batches", full_batches),
        ("cancellations", cancellations),
        ("deadlines", deadlines),
        ("sleeps", sleeps),
        ("never-answered", never_answered),
        ("console", console),
        ("open-and-close", open_and_close),
        ("touch", touch),
        ("faults-again", crate::windows::faults_again),
        ("copy", copy),
        ("out-strings", out_strings),
        ("interrupts-off", |_, _| {
            // SAFETY: nothing needs interrupts.
            unsafe { asm!("cli", "2:", "jmp 2b") }
        }),
    ];
    for (name, act) in acts {
        let ends = match name {
            "interrupts-off" => endless_in_qemu(),
            _ => End::WallClock.into(),
        };
        visit(Case::new("loops", name, act, ends).modes(Modes::All));
    }
}
