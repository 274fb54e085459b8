//! Upcalls: from a completion to the first poll of an urgent task while another computes, and what the way
//! into one and back costs.

use std::arch::global_asm;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wakebox::trace::{EventKind, OpKind, Recording, TaskId};
use wakebox::{Sandbox, WakeMode};
use wakebox_abi::layout::{self, CONTROL, PAGE_SIZE};
use wakebox_abi::memory::{Control, Word};
use wakebox_abi::op::Opcode;
use wakebox_abi::port;
use wakebox_tests::{guest, runtime_of};
use wakebox_vmm::kick::Reasons;
use wakebox_vmm::machine::Machine;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::plan::{Pages, Plan, Sizes};
use wakebox_vmm::vcpu::{End, Exit};
use wakebox_vmm::x86_64::paging::Rights;

use crate::run::run;
use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 25;
/// Ways into ring 0 and back in a round.
const WAYS: u32 = 400;
/// Interrupts of the bare machine in a round.
const KICKS: usize = 40;
/// From one to the next.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes between two stubs.
const STUB: u64 = 32;
/// Where the guests below lie.
const START: u64 = layout::IMAGE_PIE_BASE;

global_asm!(
    ".pushsection .rodata.wakebox_bench_guests,\"a\",@progbits",
    ".balign 16",
    ".globl wakebox_bench_ways, wakebox_bench_plain, wakebox_bench_upcall, wakebox_bench_ways_end",
    ".hidden wakebox_bench_ways, wakebox_bench_plain, wakebox_bench_upcall, wakebox_bench_ways_end",
    // Into ring 0 and back, again and again, with AVX state in use.
    "wakebox_bench_ways:",
    "  vcmptrueps ymm0, ymm0, ymm0",
    "  vcmptrueps ymm15, ymm15, ymm15",
    "wakebox_bench_plain:",
    "  mov r12d, {ways}",
    "2:",
    "  int3",
    "  dec r12d",
    "  jnz 2b",
    "  out {exit}, al",
    // What a guest's upcall does, without its executor (guest/src/interrupt/upcall.rs).
    "wakebox_bench_upcall:",
    "  lea rsp, [rsp - 128]",
    "  push qword ptr [{interrupted}]",
    "  pushfq",
    "  push rax; push rcx; push rdx; push rbx; push rbp; push rsi; push rdi",
    "  push r8; push r9; push r10; push r11; push r12; push r13; push r14; push r15",
    "  cld",
    "  mov rbp, rsp",
    "  sub rsp, 2688",
    "  and rsp, -64",
    "  xor edx, edx",
    "  mov [rsp + 512], rdx; mov [rsp + 520], rdx; mov [rsp + 528], rdx; mov [rsp + 536], rdx",
    "  mov [rsp + 544], rdx; mov [rsp + 552], rdx; mov [rsp + 560], rdx; mov [rsp + 568], rdx",
    "  mov eax, 0xe7",
    "  xsave64 [rsp]",
    "  fninit",
    "  mov eax, 0xe7",
    "  xor edx, edx",
    "  xrstor64 [rsp]",
    "  mov rsp, rbp",
    "  pop r15; pop r14; pop r13; pop r12; pop r11; pop r10; pop r9; pop r8",
    "  pop rdi; pop rsi; pop rbp; pop rbx; pop rdx; pop rcx",
    "  lea rax, [rip + wakebox_bench_upcall]",
    "  mov dword ptr [{upcall}], eax",
    "  mov eax, 0",
    "  cmp eax, dword ptr [{interrupts}]",
    "  pop rax",
    "  popfq",
    "  ret 128",
    "wakebox_bench_ways_end:",
    ".balign 16",
    ".globl wakebox_bench_spin, wakebox_bench_spin_end",
    ".hidden wakebox_bench_spin, wakebox_bench_spin_end",
    // Computes, and shows how many interrupts it has seen.
    "wakebox_bench_spin:",
    "  mov eax, dword ptr [{interrupts}]",
    "  mov dword ptr [{code}], eax",
    "  jmp wakebox_bench_spin",
    "wakebox_bench_spin_end:",
    ".popsection",
    ways = const WAYS,
    interrupted = const CONTROL as i32 + Word::UpcallReturn.offset() as i32,
    upcall = const CONTROL as i32 + Word::Upcall.offset() as i32,
    interrupts = const CONTROL as i32 + Word::Interrupts.offset() as i32,
    code = const CONTROL as i32 + Word::ExitCode.offset() as i32,
    exit = const port::EXIT,
);

unsafe extern "C" {
    static wakebox_bench_ways: u8;
    static wakebox_bench_plain: u8;
    static wakebox_bench_upcall: u8;
    static wakebox_bench_ways_end: u8;
    static wakebox_bench_spin: u8;
    static wakebox_bench_spin_end: u8;
}

/// The code between two symbols.
fn code(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: the assembly above defines the code, read-only, with its end behind it.
    unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// A machine that begins at an offset of this code, and its memory.
fn machine(code: &[u8], offset: usize) -> Result<(Machine, Arc<GuestMemory>)> {
    let pages = Pages {
        start: START,
        len: PAGE_SIZE,
        rights: Rights::EXECUTE,
    };
    let sizes = Sizes {
        memory: 2 << 20,
        arena: PAGE_SIZE,
        stack: 4 * PAGE_SIZE,
        in_flight: 64,
        instance: PAGE_SIZE,
        trace_records: 0,
        windows: 0,
        processors: 1,
    };
    let memory = GuestMemory::new(Plan::new(&[pages], &sizes)?)?;
    memory.write_tables();
    memory.write(memory.plan().image_offset(START), code);
    let mut machine = Machine::new(&memory)?;
    let stack = memory.plan().stack_range().end() - 64;
    machine.start(START + offset as u64, stack)?;
    Ok((machine, memory))
}

/// The rows.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let (mut bare, mut upcalls) = (Vec::new(), Vec::new());
    let (mut kicks, mut polls) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(ways(u64::from(port::IRQ_VECTOR))?);
        upcalls.push(ways(u64::from(port::UPCALL_VECTOR))?);
        kicks.extend(raw_interrupts()?);
        polls.extend(first_polls()?);
    }
    let ns = Unit::Nanoseconds;
    let row = |what: &str, ours: Vec<f64>, floor: Vec<f64>| {
        Row::new(what, ns, median(ours)).floor(median(floor))
    };
    let what = "upcall and return, with AVX state, beside the bare stub";
    let cost = median(upcalls.clone());
    Ok(vec![
        row(what, upcalls, bare).bar(Bar::Ratio(1.3)),
        Row::new("    as such", ns, cost).bar(Bar::AtMost(10_000.0)),
        row(
            "completion to the first poll of an urgent task, beside a kick and an interrupt",
            polls,
            kicks,
        )
        .bar(Bar::Ratio(1.3)),
    ])
}

/// Nanoseconds of a way into ring 0, through the stub of this vector, and back: `int3` leads to it here, so
/// that there is no host in it.
fn ways(vector: u64) -> Result<f64> {
    let (first, end) = (
        &raw const wakebox_bench_ways,
        &raw const wakebox_bench_ways_end,
    );
    let code = code(first, end);
    let offset = |symbol: *const u8| symbol.addr() - first.addr();
    let entry = match is_x86_feature_detected!("avx") {
        true => 0,
        false => offset(&raw const wakebox_bench_plain),
    };
    let (mut machine, memory) = machine(code, entry)?;
    let target = START as u32 + offset(&raw const wakebox_bench_upcall) as u32;
    memory
        .control()
        .store(Word::UpcallTarget, target, Ordering::Relaxed);
    let stubs = memory.plan().stubs.offset;
    let mut stub = [0; STUB as usize];
    memory.read(stubs + vector * STUB, &mut stub);
    memory.write(stubs + 3 * STUB, &stub);
    let start = Instant::now();
    loop {
        match machine.vcpu_mut().enter(Duration::from_secs(1))? {
            Exit::Interrupted(_) => {}
            Exit::End(End::Exit) => break,
            other => bail!("the guest ended so: {other:?}"),
        }
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(WAYS))
}

/// Nanoseconds from a kick by another thread until a guest that computes has seen its interrupt.
fn raw_interrupts() -> Result<Vec<f64>> {
    let code = code(
        &raw const wakebox_bench_spin,
        &raw const wakebox_bench_spin_end,
    );
    let (mut machine, memory) = machine(code, 0)?;
    let kick = machine.vcpu().kick().clone();
    let kicker = thread::spawn(move || {
        let control = memory.control();
        let mut times = Vec::new();
        for seen in 1..=KICKS as u32 {
            thread::sleep(PAUSE);
            let start = Instant::now();
            kick.kick(Reasons::COMPLETION);
            while control.load(Word::ExitCode, Ordering::Relaxed) < seen {
                std::hint::spin_loop();
            }
            times.push(start.elapsed().as_nanos() as f64);
        }
        kick.kick(Reasons::STOP);
        times
    });
    loop {
        match machine.vcpu_mut().enter(Duration::from_secs(1))? {
            Exit::Interrupted(reasons) if reasons.has(Reasons::STOP) => break,
            Exit::Interrupted(reasons) => {
                if reasons.has(Reasons::COMPLETION) {
                    machine.vcpu_mut().interrupt();
                }
                machine.vcpu_mut().inject()?;
            }
            other => bail!("the guest ended so: {other:?}"),
        }
    }
    kicker.join().ok().context("the kicker panicked")
}

/// Nanoseconds from when the host's timer has told of its end, on another thread than the guest's, until the
/// urgent task that waits for it is polled, over a computation.
fn first_polls() -> Result<Vec<f64>> {
    let recording = Recording::new();
    let probe = Sandbox::builder()
        .guest(guest("urgent"))
        .args(["latency"])
        .wake(WakeMode::Irq)
        .trace(recording.clone());
    run(&runtime_of(2), probe)?;
    let (mut times, mut ready) = (Vec::new(), None);
    let deadline = OpKind(Opcode::Deadline as u16);
    let mut deadlines = Vec::new();
    for event in recording.events() {
        match event.kind {
            EventKind::OpBegins { op, what, .. } if what == deadline => deadlines.push(op),
            EventKind::OpReady { op } if deadlines.contains(&op) => ready = Some(event.time),
            EventKind::PollBegin { task } if task != TaskId(1) => {
                times.extend(ready.take().map(|ready| (event.time - ready) as f64));
            }
            _ => {}
        }
    }
    ensure!(
        times.len() > 20,
        "the urgent task was polled {} times",
        times.len()
    );
    Ok(times)
}
