//! A guest with windows: memory that faults behind its end, and faults that go on. The tests find lines by their `MARK`
//! comments.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{Layout, alloc_zeroed};
use core::arch::naked_asm;
use core::cell::Cell;
use core::hint::black_box;
use core::ptr::null_mut;

use wakebox_guest::window::{self, Answer, Fault, PAGE, catch, fault, hide, show};
use wakebox_guest::{env, eprintln, export, println, snapshot};

/// What the handler was told last.
struct Told(Cell<Option<Fault>>, Cell<usize>);

// SAFETY: there is one flow of control, and faults of it.
unsafe impl Sync for Told {}

static TOLD: Told = Told(Cell::new(None), Cell::new(0));
/// The stack pointer of the attempt that is under way.
static mut STACK: usize = 0;

/// Reads, or writes, so many bytes at an address, or divides there, or does what there is not. Returns zero if it could, and
/// one if it has faulted.
#[unsafe(naked)]
extern "C" fn attempt(_at: *mut u8, _how: usize) -> usize {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rip + {stack}], rsp",
        "mov ebp, 0x5eed",
        "cmp esi, 1",
        "je 21f",
        "cmp esi, 2",
        "je 22f",
        "cmp esi, 4",
        "je 24f",
        "cmp esi, 8",
        "je 28f",
        "cmp esi, 16",
        "je 26f",
        "cmp esi, 32",
        "je 23f",
        "cmp esi, 33",
        "je 25f",
        "ud2",
        "21: mov al, [rdi]",
        "jmp 3f",
        "22: mov ax, [rdi]",
        "jmp 3f",
        "24: mov eax, [rdi]",
        "jmp 3f",
        "28: mov rax, [rdi]",
        "jmp 3f",
        "26: movups xmm0, [rdi]",
        "jmp 3f",
        "23: mov byte ptr [rdi], 1",
        "jmp 3f",
        "25: xor edx, edx",
        "div edx",
        "3: xor eax, eax",
        ".globl attempted",
        ".hidden attempted",
        "attempted:",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        stack = sym STACK,
    )
}

const WRITE: usize = 32;
const DIVIDE: usize = 33;
const INVALID: usize = 34;

/// Goes on behind the attempt, with one.
#[unsafe(naked)]
extern "C" fn failed() -> ! {
    naked_asm!("mov rsp, [rip + {stack}]", "mov eax, 1", "jmp attempted", stack = sym STACK)
}

extern "C" fn handler(fault: &Fault, frame: usize) {
    TOLD.0.set(Some(*fault));
    TOLD.1.set(frame);
    failed()
}

extern "C" fn returns(_: &Fault, _: usize) {}

extern "C" fn faults(_: &Fault, _: usize) {
    catch(false);
    touch(window::start(0)); // MARK handler
}

/// What an attempt faults with.
fn faulted(at: *mut u8, how: usize) -> Option<Fault> {
    catch(true);
    let failed = attempt(at, how) != 0;
    catch(false);
    let told = TOLD.0.take().filter(|_| failed);
    assert_eq!(told.is_some(), failed, "it is told of its fault");
    if failed {
        assert_eq!(TOLD.1.get(), 0x5eed, "the frame pointer is that of then");
    }
    told
}

/// Pages of the heap, zeroed.
fn pages(count: usize) -> *mut u8 {
    let layout = Layout::from_size_align(count * PAGE, PAGE).unwrap();
    // SAFETY: it is not empty.
    unsafe { alloc_zeroed(layout) }
}

fn handled(handler: window::Handler) {
    // SAFETY: what faults is in assembly, or ends the guest.
    unsafe { window::on_fault(handler) };
}

fn lay(at: *mut u8, heap: *mut u8, count: usize) -> Result<(), Answer> {
    // SAFETY: the heap's pages are this function's callers', and are never released.
    unsafe { show(at, heap, count * PAGE) }
}

fn unlay(at: *mut u8, count: usize) -> Result<(), Answer> {
    // SAFETY: nobody uses them.
    unsafe { hide(at, count * PAGE) }
}

/// Every byte around the end of what lies there, by loads of every size.
fn bytes_around(end: *mut u8) {
    for size in [1, 2, 4, 8, 16] {
        for back in 0..=24_usize {
            let at = end.wrapping_sub(back);
            let fits = back >= size;
            let told = faulted(at, size);
            assert_eq!(told.is_none(), fits, "{size} bytes, {back} before the end");
            if let Some(told) = told {
                assert_eq!(told.kind, fault::PAGE);
                let first = (at as usize).max(end as usize);
                assert_eq!(
                    told.address, first as u64,
                    "{size} bytes, {back} before the end"
                );
            }
        }
        for ahead in [1, 100, PAGE, 1 << 20, 1 << 30, 1 << 32, (8 << 30) - 16] {
            let far = window::start(0).wrapping_add(ahead);
            if far >= end {
                assert!(faulted(far, size).is_some(), "{size} bytes, {ahead} in");
            }
        }
    }
    assert!(faulted(end, WRITE).is_some());
    assert!(faulted(end.wrapping_sub(1), WRITE).is_none());
}

fn bytes() {
    handled(handler);
    assert_eq!(window::count(), 2);
    let (first, second) = (window::start(0), window::start(1));
    assert!(faulted(first, 1).is_some());
    let heap = pages(1300);
    let mut shown = 0;
    // Up to beyond a table, and in more than one.
    for more in [1, 2, 500, 14, 700] {
        let at = first.wrapping_add(shown * PAGE);
        // SAFETY: it is inside.
        lay(at, unsafe { heap.add(shown * PAGE) }, more).unwrap();
        shown += more;
        bytes_around(first.wrapping_add(shown * PAGE));
    }
    for page in 0..shown {
        // SAFETY: both lie there.
        unsafe {
            first
                .add(page * PAGE)
                .cast::<u64>()
                .write_volatile(page as u64 + 1)
        };
        let heap = heap.wrapping_add(page * PAGE).cast::<u64>();
        // SAFETY: as above.
        assert_eq!(unsafe { heap.read_volatile() }, page as u64 + 1);
    }
    // What is hidden is gone at once, and its neighbours stay.
    unlay(first.wrapping_add(PAGE), shown - 2).unwrap();
    assert!(faulted(first.wrapping_add(PAGE - 1), 1).is_none());
    bytes_around(first.wrapping_add(PAGE));
    assert!(faulted(first.wrapping_add((shown - 1) * PAGE - 1), 1).is_some());
    assert!(faulted(first.wrapping_add((shown - 1) * PAGE), 1).is_none());
    bytes_around(first.wrapping_add(shown * PAGE));
    // Its pages lie elsewhere next, and others where it lay.
    lay(second, heap.wrapping_add(PAGE), 1).unwrap();
    lay(first.wrapping_add(PAGE), heap.wrapping_add(2 * PAGE), 1).unwrap();
    // SAFETY: all lie there.
    unsafe {
        second.write_volatile(1);
        first.add(PAGE).write_volatile(2);
        assert_eq!(heap.add(PAGE).read_volatile(), 1);
        assert_eq!(heap.add(2 * PAGE).read_volatile(), 2);
    }
    bytes_around(first.wrapping_add(2 * PAGE));
    println!("{shown} pages");
}

/// What is refused, and changes nothing.
fn refused() {
    handled(handler);
    let (first, heap) = (window::start(0), pages(4));
    for at in [
        null_mut(),
        heap,
        first.wrapping_sub(PAGE),
        first.wrapping_add(window::LEN as usize),
        first.wrapping_add(window::LEN as usize - PAGE),
        window::start(1).wrapping_add(8 << 30),
    ] {
        assert_eq!(lay(at, heap, 2), Err(Answer::NoWindow), "{at:?}");
        assert_eq!(unlay(at, 2), Err(Answer::NoWindow), "{at:?}");
    }
    for from in [1 << 12, 0x4000_0000, 0x5000_0000, first as usize] {
        let from = core::ptr::with_exposed_provenance_mut(from);
        assert_eq!(lay(first, from, 1), Err(Answer::NotHeap), "{from:?}");
    }
    lay(first.wrapping_add(PAGE), heap, 1).unwrap();
    assert_eq!(lay(first, heap, 2), Err(Answer::Taken));
    assert!(faulted(first, 1).is_some());
    // Tables end, and what was there before is still there.
    let mut far = 0;
    let refused = loop {
        far += 2 << 20;
        if let Err(answer) = lay(window::start(1).wrapping_add(far), heap, 1) {
            break answer;
        }
    };
    assert_eq!(refused, Answer::NoRoom);
    assert!(faulted(first.wrapping_add(PAGE), 1).is_none());
}

/// Faults that are none of memory.
fn kinds() {
    handled(handler);
    for at in [0, PAGE - 1, 0xFFF0] {
        let told = faulted(core::ptr::without_provenance_mut(at), 8).unwrap();
        assert_eq!((told.kind, told.address), (fault::PAGE, at as u64));
    }
    for (how, kind) in [(DIVIDE, fault::DIVIDE), (INVALID, fault::INVALID)] {
        for _ in 0..100 {
            let told = faulted(null_mut(), how).unwrap();
            assert_eq!((told.kind, told.address), (kind, 0));
        }
    }
}

#[inline(never)]
fn touch(at: *mut u8) {
    // SAFETY: none: it is to fault.
    unsafe { at.write_volatile(1) }; // MARK touch
}

/// Pages that are shown in the first window.
static SHOWN: Told = Told(Cell::new(None), Cell::new(0));

/// Shows so many pages more, and returns how many there are now.
#[export]
async fn grow(more: usize) -> usize {
    let shown = SHOWN.1.get();
    let at = window::start(0).wrapping_add(shown * PAGE);
    lay(at, pages(more), more).unwrap();
    for page in shown..shown + more {
        // SAFETY: it lies there.
        unsafe {
            window::start(0)
                .add(page * PAGE)
                .cast::<u64>()
                .write(page as u64)
        };
    }
    SHOWN.1.set(shown + more);
    shown + more
}

/// Sees that so many pages are shown, and nothing behind them, and that they hold what was written.
#[export]
async fn check() -> usize {
    let (shown, first) = (SHOWN.1.get(), window::start(0));
    for page in 0..shown {
        // SAFETY: it lies there.
        let value = unsafe { first.add(page * PAGE).cast::<u64>().read_volatile() };
        assert_eq!(value, page as u64);
    }
    for behind in 0..64 {
        let at = first.wrapping_add((shown + behind) * PAGE);
        assert!(faulted(at, 1).is_some(), "page {behind} behind {shown}");
    }
    shown
}

/// Hides the last pages.
#[export]
async fn shrink(less: usize) -> usize {
    let shown = SHOWN.1.get() - less;
    unlay(window::start(0).wrapping_add(shown * PAGE), less).unwrap();
    SHOWN.1.set(shown);
    shown
}

#[wakebox_guest::main(windows = 2)]
async fn main() -> i32 {
    let case = env::args().next().unwrap_or_default();
    let first = window::start(0);
    match case {
        "bytes" => bytes(),
        "refused" => refused(),
        "kinds" => kinds(),
        "serve" => {
            handled(handler);
            grow(3).await;
            let _ = snapshot().await;
            wakebox_guest::serve().await;
        }
        "uncaught" => touch(first),
        "declined" => {
            handled(returns);
            catch(true);
            touch(first);
        }
        "elsewhere" => {
            handled(handler);
            catch(true);
            touch(black_box(core::ptr::without_provenance_mut(0x3000_0000)));
        }
        "within" => {
            handled(faults);
            catch(true);
            touch(first);
        }
        "once" => {
            handled(handler);
            catch(true);
            attempt(first, 1);
            touch(first);
        }
        _ => {
            eprintln!("{case}: no such case");
            return 2;
        }
    }
    0
}
