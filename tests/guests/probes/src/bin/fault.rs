//! Faults in the way that its argument names. The tests find the lines by their `MARK` comments.
#![no_std]
#![no_main]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each is wrong on purpose, and the machine is to catch it"
)]

use core::arch::asm;
use core::hint::black_box;

use wakebox_guest::task::spawn_named;
use wakebox_guest::{env, eprintln};

static CONSTANT: u64 = 7;

#[inline(never)]
fn null() -> u64 {
    let pointer = black_box(core::ptr::null::<u64>());
    unsafe { pointer.read_volatile() } // MARK null
}

#[inline(never)]
fn null_call() {
    unsafe { asm!("xor eax, eax", "call rax", clobber_abi("C")) }; // MARK null-call
}

#[inline(never)]
fn write_rodata() {
    let pointer = black_box((&raw const CONSTANT).cast_mut());
    unsafe { pointer.write_volatile(8) }; // MARK write-rodata
}

#[inline(never)]
fn exec_data() {
    let code = black_box([0xC3_u8; 16]);
    unsafe { asm!("call {}", in(reg) code.as_ptr(), clobber_abi("C")) }; // MARK exec-data
}

#[inline(never)]
fn unmapped() -> u64 {
    let pointer = black_box(0x3000_0000 as *const u64);
    unsafe { pointer.read_volatile() } // MARK unmapped
}

#[inline(never)]
fn supervisor() -> u64 {
    let pointer = black_box(0x4000_0000 as *const u64);
    unsafe { pointer.read_volatile() } // MARK supervisor
}

/// Uses stack until there is none.
#[inline(never)]
#[allow(unconditional_recursion, reason = "that is the fault")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[0] // MARK stack
}

/// Goes down that many calls, then uses a null pointer.
#[inline(never)]
fn deep(depth: u64) -> u64 {
    if depth == 0 {
        return null();
    }
    deep(black_box(depth - 1)) + 1 // MARK deep
}

#[inline(never)]
fn div_zero() {
    unsafe {
        asm!("xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx", // MARK div-zero
            out("eax") _, out("ecx") _, out("edx") _);
    }
}

#[inline(never)]
fn ud2() {
    unsafe { asm!("ud2") }; // MARK ud2
}

#[inline(never)]
fn cli() {
    unsafe { asm!("cli") }; // MARK cli
}

#[inline(never)]
fn port() {
    unsafe { asm!("out dx, al", in("dx") 0x80_u16, in("al") 0_u8) }; // MARK port
}

#[inline(never)]
fn not_canonical() -> u64 {
    let pointer = black_box(0x8000_0000_0000_0000 as *const u64);
    unsafe { pointer.read_volatile() } // MARK not-canonical
}

#[inline(never)]
fn trap() {
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop") }; // MARK trap
}

#[inline(never)]
fn x87() {
    // Unmasks division by zero, divides one by zero, and waits for the exception.
    unsafe {
        asm!("push 0x037b", "fldcw word ptr [rsp]", "fld1", "fldz", "fdivp", "fwait", "pop rax", // MARK x87
            out("rax") _);
    }
}

#[inline(never)]
fn simd() {
    // Unmasks division by zero and divides one by zero.
    unsafe {
        asm!("push 0x1d80", "ldmxcsr dword ptr [rsp]", "mov eax, 1", "cvtsi2sd xmm0, eax", "xorpd xmm1, xmm1", "divsd xmm0, xmm1", "pop rax", // MARK simd
            out("rax") _, out("xmm0") _, out("xmm1") _);
    }
}

/// Faults in a function that is inlined into another.
#[inline(never)]
fn outer() {
    inner(); // MARK inlined-into
}

#[inline(always)]
fn inner() {
    // Not the same as another function, or the two would become one.
    unsafe { asm!("nop", "ud2") }; // MARK inlined
}

/// Leaves nothing that a stack could be walked by.
#[inline(never)]
fn no_stack() {
    unsafe { asm!("mov rsp, 0x123456789", "mov rbp, rsp", "ud2") }; // MARK no-stack
}

/// Leaves a frame pointer that points at itself, and return addresses into this very function.
#[rustfmt::skip] // The mark belongs to the line with which the assembly begins.
#[inline(never)]
fn looped_stack() {
    unsafe {
        asm!( // MARK looped-stack
            "lea rax, [rip]",
            "mov rcx, 4096",
            "2: push rax",
            "loop 2b",
            "mov [rsp], rsp",
            "mov rbp, rsp",
            "ud2",
            options(noreturn)
        );
    }
}

#[wakebox_guest::main]
async fn main() -> i32 {
    let mut args = env::args();
    let kind = args.next().unwrap_or_default();
    match kind {
        "null" => drop(black_box(null())),
        "null-call" => null_call(),
        "write-rodata" => write_rodata(),
        "exec-data" => exec_data(),
        "unmapped" => drop(black_box(unmapped())),
        "supervisor" => drop(black_box(supervisor())),
        "stack" => drop(black_box(recurse(0))),
        "deep" => drop(black_box(deep(2000))),
        "div-zero" => div_zero(),
        "ud2" => ud2(),
        "cli" => cli(),
        "port" => port(),
        "not-canonical" => drop(black_box(not_canonical())),
        "trap" => trap(),
        "x87" => x87(),
        "simd" => simd(),
        "inlined" => outer(),
        "no-stack" => no_stack(),
        "looped-stack" => looped_stack(),
        "task" => {
            let _ = spawn_named("doomed", in_a_task()).await;
        }
        _ => {
            eprintln!("{kind}: no such fault");
            return 2;
        }
    }
    eprintln!("{kind} did not fault");
    1
}

async fn in_a_task() {
    null(); // MARK task
}
