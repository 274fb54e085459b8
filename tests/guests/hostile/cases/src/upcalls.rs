//! Upcalls to where none should go, that are never masked, that never return, and guests that lie about
//! where they are.

use core::arch::{asm, global_asm};

use wakebox_abi::layout::{self, CONTROL, PAGE_SIZE};
use wakebox_abi::memory::Word;
use wakebox_abi::op::{self, Operation};
use wakebox_abi::port;
use wakebox_abi::status::Status;

use crate::case::{Args, Case, End, Expect, Modes, Trap};
use crate::guest::Guest;

global_asm!(
    ".pushsection .text.hostile_upcalls,\"ax\",@progbits",
    ".globl hostile_upcall, hostile_nested",
    ".hidden hostile_upcall, hostile_nested",
    // Returns as it should, but is never masked.
    "hostile_upcall:",
    "  lea rsp, [rsp - 128]",
    "  push qword ptr [{interrupted}]",
    "  pushfq",
    "  push rax",
    "  lea rax, [rip + hostile_upcall]",
    "  mov dword ptr [{upcall}], eax",
    "  pop rax",
    "  popfq",
    "  ret 128",
    // Asks for the next within each, and never returns. An entry of zeroes is a no-op.
    "hostile_nested:",
    "  lea rsp, [rsp - 128]",
    "  push qword ptr [{interrupted}]",
    "  pushfq",
    "  lea rax, [rip + hostile_nested]",
    "  mov dword ptr [{upcall}], eax",
    "  add dword ptr [{head}], 1",
    "  add dword ptr [{tail}], 1",
    "  out {submit}, al",
    "2:",
    "  jmp 2b",
    ".popsection",
    interrupted = const CONTROL as i32 + Word::UpcallReturn.offset() as i32,
    upcall = const CONTROL as i32 + Word::Upcall.offset() as i32,
    head = const CONTROL as i32 + Word::CompletionHead.offset() as i32,
    tail = const CONTROL as i32 + Word::SubmissionTail.offset() as i32,
    submit = const port::SUBMIT,
);

unsafe extern "C" {
    static hostile_upcall: u8;
    static hostile_nested: u8;
}

/// Where the upcall that returns lies.
fn returning() -> u32 {
    (&raw const hostile_upcall) as u32
}

fn nop(guest: &mut Guest) {
    let token = guest.token(0);
    guest.submit(&[op::Nop {}.submission(token)]);
}

/// Wants upcalls at an address, and has one come.
fn goes_to(guest: &mut Guest, [at, ..]: Args) {
    guest.set(Word::Upcall, at as u32);
    nop(guest);
    loop {
        core::hint::spin_loop();
    }
}

/// Has upcalls come one within the other, until the stack ends.
fn nests(guest: &mut Guest, _: Args) {
    guest.set(Word::Upcall, (&raw const hostile_nested) as u32);
    nop(guest);
    loop {
        core::hint::spin_loop();
    }
}

/// Has an upcall come where no stack is.
fn without_stack(guest: &mut Guest, _: Args) {
    guest.set(Word::Upcall, returning());
    let at_ns = 1;
    let token = guest.token(1);
    guest.publish_quietly(wakebox_abi::entry::Entry::to_words(
        op::Deadline { at_ns }.submission(token),
    ));
    // SAFETY: wrong on purpose; it does not go on behind this.
    unsafe {
        asm!("mov rsp, 0x1000", "out {submit}, al", "2:", "jmp 2b", submit = const port::SUBMIT, options(noreturn));
    }
}

/// Never masks them, and has many come.
fn never_masks(guest: &mut Guest, _: Args) {
    for _ in 0..2_000 {
        guest.set(Word::Upcall, returning());
        let (status, _) = guest.call(op::Nop {});
        assert_eq!(status, Status::Ok);
    }
    guest.set(Word::Upcall, 0);
}

/// Says that it wants upcalls, and halts in ring 0.
fn halts(guest: &mut Guest, [at, ..]: Args) {
    let at = if at == 0 { returning() } else { at as u32 };
    for _ in 0..200 {
        let token = guest.token(1);
        guest.publish_quietly(wakebox_abi::entry::Entry::to_words(
            op::Nop {}.submission(token),
        ));
        let seen = guest.consumed();
        guest.set(Word::Seen, seen);
        guest.set(Word::Upcall, at);
        // SAFETY: the host wakes who halts, if only because the no-op is done.
        unsafe { port::halt(seen) };
        guest.set(Word::Upcall, 0);
        assert_eq!(guest.wait().token, token);
    }
}

/// Writes to the words that are the host's and the stub's, all the time.
fn writes_all(guest: &mut Guest, [value, ..]: Args) {
    for _ in 0..500 {
        for word in [
            Word::UpcallReturn,
            Word::UpcallTarget,
            Word::UpcallTargetHigh,
        ] {
            guest.set(word, value as u32);
        }
        guest.set(Word::Upcall, returning());
        guest.set(Word::UpcallTargetHigh, value as u32);
        let (status, _) = guest.call(op::Nop {});
        assert_eq!(status, Status::Ok);
    }
    guest.set(Word::Upcall, 0);
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let mut case = |name: &str, act: crate::Act, arg: u64, expect: Expect| {
        let case = Case::new("upcalls", name, act, expect).with([arg, 0, 0, 0]);
        visit(case.modes(Modes::Irq));
    };
    for (name, at) in [
        ("to-one", 1),
        ("to-where-nothing-is", layout::IMAGE_MAX - PAGE_SIZE),
        ("to-ring-0", layout::SUPERVISOR + PAGE_SIZE),
        ("to-the-control-page", layout::CONTROL),
        ("to-the-stack", layout::STACK),
        ("to-the-arena", layout::ARENA),
        ("to-the-last-address", u64::from(u32::MAX)),
    ] {
        case(name, goes_to, at, Expect::from(Trap::Execute(at)));
    }
    let guard = Trap::WriteWithin(layout::STACK - PAGE_SIZE, layout::STACK);
    case("nested-without-end", nests, 0, guard.into());
    let below = 0x1000 - 128 - 8;
    case(
        "without-a-stack",
        without_stack,
        0,
        Trap::Write(below).into(),
    );
    case("never-masked", never_masks, 0, End::Exit(0).into());
    case("halts-and-wants-them", halts, 0, End::Exit(0).into());
    case(
        "halts-and-wants-them-in-ring-0",
        halts,
        layout::SUPERVISOR,
        // One may come while it is still in ring 3.
        Expect::from(End::Exit(0)).or(Trap::Execute(layout::SUPERVISOR)),
    );
    for (name, value) in [
        ("words-zero", 0),
        ("words-one", 1),
        ("words-max", u64::from(u32::MAX)),
    ] {
        case(name, writes_all, value, End::Exit(0).into());
    }
}
