//! Faults in the way that its argument names.
#![no_std]
#![no_main]

use core::arch::asm;
use core::hint::black_box;

use wakebox_guest::{env, eprintln};

static CONSTANT: u64 = 7;

/// Uses stack until there is none.
#[inline(never)]
#[allow(unconditional_recursion, reason = "that is the fault")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[0]
}

#[wakebox_guest::main]
async fn main() -> i32 {
    let kind = env::args().next().unwrap_or_default();
    // SAFETY: none: each of these is wrong on purpose, and the machine is to catch it.
    unsafe {
        match kind {
            "null" => asm!("mov rax, [0]", out("rax") _),
            "write-rodata" => asm!("mov byte ptr [{}], 1", in(reg) &raw const CONSTANT),
            "exec-data" => {
                let code = black_box([0xC3_u8; 16]);
                asm!("call {}", in(reg) code.as_ptr());
            }
            "stack" => {
                black_box(recurse(0));
            }
            "div-zero" => asm!(
                "xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx",
                out("eax") _, out("ecx") _, out("edx") _,
            ),
            "ud2" => asm!("ud2"),
            "cli" => asm!("cli"),
            "port" => asm!("out dx, al", in("dx") 0x80_u16, in("al") 0_u8),
            "supervisor" => asm!("mov rax, [rdi]", in("rdi") 0x4000_0000_u64, out("rax") _),
            _ => {
                eprintln!(
                    "fault null | write-rodata | exec-data | stack | div-zero | ud2 | cli | port | supervisor"
                );
                return 2;
            }
        }
    }
    eprintln!("{kind} did not fault");
    1
}
