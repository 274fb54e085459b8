//! Runs the hostile case that its first argument names.
#![no_std]
#![no_main]

use core::arch::naked_asm;
use core::fmt::Write;
use core::panic::PanicInfo;

use wakebox_abi::boot::Boot;
use wakebox_abi::note::Note;
use wakebox_abi::{layout, port, report};
use wakebox_hostile::{Entered, Guest};

/// Tells the host that this is a guest, and of which version.
#[used]
#[unsafe(link_section = ".note.wakebox")]
static NOTE: Note = Note::new(0).windows(2);

static mut ENTERED: Entered = Entered {
    legacy: [0; 512],
    registers: [0; 8],
};

/// What the C compiler's start file calls: notes what the processor holds, before anything has
/// changed it.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_start_main() -> ! {
    naked_asm!(
        "lea rdi, [rip + {entered}]",
        "fxsave64 [rdi]",
        "mov [rdi + 512], rax",
        "mov [rdi + 520], rbx",
        "mov [rdi + 528], r10",
        "mov [rdi + 536], r11",
        "mov [rdi + 544], r12",
        "mov [rdi + 552], r13",
        "mov [rdi + 560], r14",
        "mov [rdi + 568], r15",
        "and rsp, -16",
        "call {run}",
        "ud2",
        entered = sym ENTERED,
        run = sym run,
    )
}

/// What the start file passes to the function above, which does not care.
#[unsafe(no_mangle)]
extern "C" fn main() {}

extern "C" fn run() -> ! {
    // SAFETY: the program runs as a guest, once; nobody writes to the static any more; the
    // arguments lie behind the instance page, as no template is made of this guest, each ended by a NUL.
    let (entered, args) = unsafe {
        let args = Boot::get().args;
        let args = core::slice::from_raw_parts(args.start as *const u8, args.len as usize);
        let entered = &raw const ENTERED;
        (&*entered, args)
    };
    let mut args = args
        .split(|byte| *byte == 0)
        .map(|word| core::str::from_utf8(word).unwrap_or_default());
    let name = args.next().unwrap_or_default();
    // SAFETY: as above.
    let mut guest = unsafe { Guest::new(entered, args.next().unwrap_or_default()) };
    let Some(case) = wakebox_hostile::find(name) else {
        panic!("there is no case `{name}`");
    };
    (case.act)(&mut guest, case.args);
    guest.exit(0)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // SAFETY: the page is mapped for ever, and nothing else uses it any more.
    let page = unsafe { &mut *(layout::REPORT as *mut [u8; report::SIZE]) };
    let mut writer = report::Writer::new(page);
    if let Some(location) = info.location() {
        writer.location(location.file(), location.line(), location.column());
    }
    let _ = write!(writer, "{}", info.message());
    // SAFETY: the program runs as a guest.
    unsafe { port::ring(port::ABORT) };
    loop {
        core::hint::spin_loop();
    }
}

/// The precompiled `core` names these; without unwinding nobody calls them.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() {}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(_to: *mut u8, _from: *const u8, _len: usize) -> *mut u8 {
    naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret")
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(_to: *mut u8, _from: *const u8, _len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdx",
        "mov r8, rdi",
        "sub r8, rsi",
        "cmp r8, rdx",
        "jb 2f",
        "rep movsb",
        "ret",
        // The target begins inside the source: backwards.
        "2:",
        "lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
    )
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(_to: *mut u8, _byte: i32, _len: usize) -> *mut u8 {
    naked_asm!(
        "mov r8, rdi",
        "mov eax, esi",
        "mov rcx, rdx",
        "rep stosb",
        "mov rax, r8",
        "ret",
    )
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(_a: *const u8, _b: *const u8, _len: usize) -> i32 {
    naked_asm!(
        "xor eax, eax",
        "xor r8d, r8d",
        "2:",
        "cmp r8, rdx",
        "je 3f",
        "movzx eax, byte ptr [rdi + r8]",
        "movzx ecx, byte ptr [rsi + r8]",
        "inc r8",
        "sub eax, ecx",
        "je 2b",
        "3: ret",
    )
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(_a: *const u8, _b: *const u8, _len: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(_text: *const u8) -> usize {
    naked_asm!(
        "xor eax, eax",
        "2:",
        "cmp byte ptr [rdi + rax], 0",
        "je 3f",
        "inc rax",
        "jmp 2b",
        "3: ret",
    )
}
