//! Windows: pages that are not the guest's, laid where none may lie, and faults that go on where none should.

use core::arch::{asm, global_asm};
use core::ptr::with_exposed_provenance_mut;

use wakebox_abi::layout::{self, CONTROL, PAGE_SIZE, WINDOW_SPACE, WINDOWS};
use wakebox_abi::memory::Word;
use wakebox_abi::port;
use wakebox_abi::window::{Answer, LEN, MOST};

use crate::case::{Args, Case, End, Expect, Trap};
use crate::guest::Guest;

global_asm!(
    ".pushsection .text.hostile_windows,\"ax\",@progbits",
    ".globl hostile_again, hostile_nested_fault",
    ".hidden hostile_again, hostile_nested_fault",
    // Wants the next, and returns to what has faulted.
    "hostile_again:",
    "  lea rsp, [rsp - 128]",
    "  push rax",
    "  lea rax, [rip + hostile_again]",
    "  mov dword ptr [{entry}], eax",
    "  pop rax",
    "  lea rsp, [rsp + 128]",
    "  jmp qword ptr [{at}]",
    // Wants the next, and faults itself, with less stack each time.
    "hostile_nested_fault:",
    "  lea rax, [rip + hostile_nested_fault]",
    "  mov dword ptr [{entry}], eax",
    "  push rax",
    "  ud2",
    ".popsection",
    entry = const CONTROL as i32 + Word::FaultEntry.offset() as i32,
    at = const CONTROL as i32 + Word::FaultAt.offset() as i32,
);

unsafe extern "C" {
    static hostile_again: u8;
    static hostile_nested_fault: u8;
}

/// How many windows the guest asks for (`main.rs`).
const COUNT: u64 = 2;

fn ask(guest: &Guest, page: u64, from: u64, count: u64) -> u32 {
    guest.set(Word::WindowPage, page as u32);
    guest.set(Word::WindowFrom, from as u32);
    guest.set(Word::WindowCount, count as u32);
    guest.ring(port::MAP);
    guest.get(Word::WindowAnswer)
}

fn touch(at: u64) {
    // SAFETY: wrong on purpose, or laid there before.
    unsafe { with_exposed_provenance_mut::<u8>(at as usize).write_volatile(1) };
}

/// Asks for this, which is refused, and touches the page all the same.
fn refused(guest: &mut Guest, [page, from, count, answer]: Args) {
    // The last page of the first window lies there already.
    let last = WINDOWS + LEN - PAGE_SIZE;
    assert_eq!(
        ask(guest, last / PAGE_SIZE, layout::HEAP / PAGE_SIZE, 1),
        Answer::Done as u32
    );
    let from = match from {
        // Counted from the end of the heap.
        END.. => (guest.boot.heap.start + guest.boot.heap.len) / PAGE_SIZE + (from - END) - 8,
        from => from,
    };
    assert_eq!(u64::from(ask(guest, page, from, count)), answer);
    touch(page * PAGE_SIZE);
}

/// More than any number of a page: from here on they are counted from eight pages before the end of the heap.
const END: u64 = 1 << 40;

/// Has pages come and go without end, and anything be asked for.
fn asks_for_anything(guest: &mut Guest, [seed, ..]: Args) {
    let mut random = seed | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..5_000 {
        let first = WINDOWS / PAGE_SIZE;
        let (page, from) = match next() % 4 {
            0 => (next(), next()),
            1 => (first + next() % (COUNT * WINDOW_SPACE / PAGE_SIZE), 0),
            _ => (
                first + next() % 4096,
                layout::HEAP / PAGE_SIZE + next() % 64,
            ),
        };
        let count = next() % (u64::from(MOST) + 2);
        assert!(ask(guest, page, from, count) <= Answer::NoRoom as u32);
    }
}

/// Has pages come and go in ever other tables, until there is room for none.
fn uses_up_tables(guest: &mut Guest, _: Args) {
    for round in 0_u64.. {
        let page = (WINDOWS + round * (2 << 20)) / PAGE_SIZE;
        let answer = ask(guest, page, layout::HEAP / PAGE_SIZE, 1);
        if answer != Answer::Done as u32 {
            assert_eq!(answer, Answer::NoRoom as u32);
            return;
        }
        assert_eq!(ask(guest, page, 0, 1), Answer::Done as u32);
    }
}

/// Executes what lies in a window, which it can write.
fn executes(guest: &mut Guest, _: Args) {
    let page = WINDOWS / PAGE_SIZE;
    assert_eq!(ask(guest, page, layout::HEAP / PAGE_SIZE, 1), 0);
    touch(WINDOWS);
    // SAFETY: wrong on purpose.
    unsafe { asm!("jmp {}", in(reg) WINDOWS, options(noreturn)) };
}

/// What it has hidden is not there any more, also where it was touched just before.
fn touches_what_is_hidden(guest: &mut Guest, _: Args) {
    let page = WINDOWS / PAGE_SIZE;
    for _ in 0..100 {
        assert_eq!(ask(guest, page, layout::HEAP / PAGE_SIZE, 2), 0);
        touch(WINDOWS);
        touch(WINDOWS + PAGE_SIZE);
        assert_eq!(ask(guest, page, 0, 2), 0);
    }
    touch(WINDOWS + PAGE_SIZE);
}

/// Has a fault in a window go on at an address.
fn goes_to(guest: &mut Guest, [at, ..]: Args) {
    guest.set(Word::FaultEntry, at as u32);
    touch(WINDOWS);
}

/// Has the same fault go on for ever.
pub(crate) fn faults_again(guest: &mut Guest, _: Args) {
    guest.set(Word::FaultEntry, (&raw const hostile_again) as u32);
    touch(WINDOWS);
}

/// Has faults within faults, until the stack ends.
fn nests(guest: &mut Guest, _: Args) {
    guest.set(Word::FaultEntry, (&raw const hostile_nested_fault) as u32);
    touch(WINDOWS);
}

/// Has a fault go on where no stack is.
fn without_stack(guest: &mut Guest, _: Args) {
    guest.set(Word::FaultEntry, (&raw const hostile_nested_fault) as u32);
    // SAFETY: wrong on purpose; it does not go on behind this.
    unsafe { asm!("mov rsp, 0x30000000", "ud2", options(noreturn)) };
}

/// Would have a fault that is none of those go on.
fn catches_others(guest: &mut Guest, [at, ..]: Args) {
    guest.set(Word::FaultEntry, (&raw const hostile_again) as u32);
    touch(at);
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let first = WINDOWS / PAGE_SIZE;
    let heap = layout::HEAP / PAGE_SIZE;
    let window = WINDOW_SPACE / PAGE_SIZE;
    let most = u64::from(MOST);
    let max = u64::from(u32::MAX);
    use Answer::{NoWindow, NotHeap, Taken};
    for (name, page, from, count, answer) in [
        ("none", first, heap, 0, NoWindow),
        ("one-too-many", first, heap, most + 1, NoWindow),
        ("max", first, heap, max, NoWindow),
        ("hides-too-many", first, 0, max, NoWindow),
        ("before-the-first", first - 1, heap, 1, NoWindow),
        ("into-the-first", first - 1, heap, 2, NoWindow),
        ("behind-the-last", first + COUNT * window, heap, 1, NoWindow),
        (
            "out-of-the-first",
            first + window / 2 - 2,
            heap,
            3,
            NoWindow,
        ),
        ("in-the-guard", first + window / 2, heap, 1, NoWindow),
        ("over-the-heap", heap + 1_000_000, heap, 1, NoWindow),
        (
            "over-code",
            layout::IMAGE_MIN / PAGE_SIZE - 1,
            heap,
            1,
            NoWindow,
        ),
        ("at-null", 0, heap, 1, NoWindow),
        ("the-last-page", max, heap, 1, NoWindow),
        ("from-the-first-page", first, 1, 1, NotHeap),
        (
            "from-ring-0",
            first,
            layout::SUPERVISOR / PAGE_SIZE,
            1,
            NotHeap,
        ),
        (
            "from-the-boot-page",
            first,
            layout::BOOT / PAGE_SIZE,
            1,
            NotHeap,
        ),
        (
            "from-the-instance-page",
            first,
            layout::INSTANCE / PAGE_SIZE,
            1,
            NotHeap,
        ),
        (
            "from-the-control-page",
            first,
            layout::CONTROL / PAGE_SIZE,
            1,
            NotHeap,
        ),
        (
            "from-code",
            first,
            layout::IMAGE_PIE_BASE / PAGE_SIZE,
            1,
            NotHeap,
        ),
        (
            "from-the-arena",
            first,
            layout::ARENA / PAGE_SIZE,
            1,
            NotHeap,
        ),
        ("from-a-window", first, first + window / 2 - 1, 1, NotHeap),
        ("from-before-the-heap", first, heap - 1, 2, NotHeap),
        ("from-behind-the-heap", first, END + 8, 1, NotHeap),
        ("over-the-end-of-the-heap", first, END + 7, 2, NotHeap),
        ("from-the-last-page", first, max, 1, NotHeap),
        ("wraps-around", first, max, most, NotHeap),
        (
            "over-what-lies-there",
            first + window / 2 - 4,
            heap,
            4,
            Taken,
        ),
    ] {
        let trap = Trap::Write((page & max) * PAGE_SIZE);
        let args = [page, from, count, answer as u64];
        visit(Case::new("windows", name, refused, trap).with(args));
    }
    for seed in 1..=4 {
        let name = format_args!("anything-{seed}");
        visit(
            Case::new("windows", name, asks_for_anything, End::Exit(0))
                .with([seed * 0x9e37_79b9; 4]),
        );
    }
    let mut case = |name: &str, act: crate::Act, arg: u64, expect: Expect| {
        visit(Case::new("windows", name, act, expect).with([arg, 0, 0, 0]));
    };
    case("uses-up-tables", uses_up_tables, 0, End::Exit(0).into());
    case("executes", executes, 0, Trap::Execute(WINDOWS).into());
    let hidden = Trap::Write(WINDOWS + PAGE_SIZE);
    case(
        "touches-what-is-hidden",
        touches_what_is_hidden,
        0,
        hidden.into(),
    );
    for (name, at) in [
        ("goes-to-one", 1),
        ("goes-to-where-nothing-is", layout::IMAGE_MAX - PAGE_SIZE),
        ("goes-to-ring-0", layout::SUPERVISOR + PAGE_SIZE),
        ("goes-to-the-control-page", layout::CONTROL),
        ("goes-to-the-stack", layout::STACK),
        ("goes-to-the-last-address", u64::from(u32::MAX)),
    ] {
        case(name, goes_to, at, Trap::Execute(at).into());
    }
    case("goes-to-nothing", goes_to, 0, Trap::Write(WINDOWS).into());
    case(
        "nested-without-end",
        nests,
        0,
        Trap::WriteWithin(layout::STACK - PAGE_SIZE, layout::STACK).into(),
    );
    case(
        "without-a-stack",
        without_stack,
        0,
        Trap::Write(0x3000_0000 - 8).into(),
    );
    for (name, at) in [
        ("catches-an-unmapped-page", layout::IMAGE_MIN),
        ("catches-ring-0", layout::SUPERVISOR),
        ("catches-behind-the-last", WINDOWS + COUNT * WINDOW_SPACE),
        ("catches-before-the-first", WINDOWS - 1),
    ] {
        case(name, catches_others, at, Trap::Write(at).into());
    }
}
