//! What urgent tasks do, each under the name of a test: the first argument.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use wakebox_guest::interrupt::{self, Priority};
use wakebox_guest::time::{self, Duration, Instant};
use wakebox_guest::{env, println, process, stats, task};

/// What urgent tasks have done.
static TICKS: AtomicU32 = AtomicU32::new(0);
static CHANNEL: Channel<CriticalSectionRawMutex, u32, 4> = Channel::new();
static BACK: Channel<CriticalSectionRawMutex, u32, 4> = Channel::new();

/// Whether nobody interrupts here, so that who computes has to await now and then: the second argument.
fn is_awaiting() -> bool {
    env::args().nth(1) == Some("awaiting")
}

/// Gives way, where that is what urgent tasks need.
async fn give_way() {
    if is_awaiting() {
        time::sleep(Duration::from_micros(500)).await;
    }
}

#[wakebox_guest::main]
async fn main() {
    match env::args().next().unwrap_or_default() {
        "preempts" => preempts().await,
        "registers" => registers().await,
        "vectors" => vectors().await,
        "nests" => nests().await,
        "channels" => channels().await,
        "allocates" => allocates().await,
        "storm" => storm().await,
        "latency" => latency().await,
        "greedy" => greedy(),
        "fault" => {
            ends(|| {
                // SAFETY: nothing is there, which is the point.
                unsafe { asm!("mov byte ptr [8], 1", options(nostack)) }
            })
            .await
        }
        "panic" => ends(|| panic!("in an upcall")).await,
        "overflow" => {
            ends(|| {
                black_box(deeper(black_box(0)));
            })
            .await
        }
        "exit" => ends(|| process::exit(7)).await,
        "joins" => joins().await,
        "copied" => copied().await,
        "deadlock" => {
            drop(interrupt::spawn(Priority::Urgent, async || {
                core::future::pending::<()>().await
            }));
            drop(interrupt::spawn_named(
                Priority::Critical,
                "critical",
                async || core::future::pending::<()>().await,
            ));
            core::future::pending::<()>().await;
        }
        other => panic!("there is no test `{other}`"),
    }
}

/// Says so when it is dropped.
struct Dropped(&'static AtomicU32);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Outputs and ends come from any priority to any other.
async fn joins() {
    static GONE: AtomicU32 = AtomicU32::new(0);
    // One that is over at once, and one that others wait for.
    let at_once = interrupt::spawn(Priority::Critical, async || Box::new(1));
    let sum = interrupt::spawn(Priority::Urgent, async move || {
        let later = interrupt::spawn(Priority::Critical, async || {
            time::sleep(Duration::from_millis(1)).await;
            Box::new(10)
        });
        *at_once.await.unwrap_or_default() + *later.await.unwrap_or_default()
    });
    println!("{:?}", sum.await);
    // What is aborted is dropped, whatever it waits for, and so is what nobody waits for any more.
    let waits = |priority| {
        interrupt::spawn(priority, async || {
            let _dropped = Dropped(&GONE);
            core::future::pending::<()>().await;
        })
    };
    for priority in [Priority::Urgent, Priority::Critical] {
        let waits = waits(priority);
        time::sleep(Duration::from_millis(1)).await;
        assert!(!waits.is_finished());
        waits.abort();
        println!("{:?}", waits.await);
    }
    drop(waits(Priority::Urgent));
    drop(interrupt::spawn(Priority::Urgent, async || Dropped(&GONE)).await);
    println!("{} dropped", GONE.load(Ordering::Relaxed));
}

static RESTORES: AtomicU32 = AtomicU32::new(0);

/// How many ticks there were, and how many restores urgent tasks have seen.
#[wakebox_guest::export]
async fn seen() -> (u32, u32) {
    (ticks(), RESTORES.load(Ordering::Relaxed))
}

/// Computes until there were more ticks, and says how many.
#[wakebox_guest::export]
async fn computed() -> u32 {
    let before = ticks();
    if is_awaiting() {
        while ticks() < before + 5 {
            give_way().await;
        }
    } else {
        compute(before + 5);
    }
    ticks() - before
}

/// Serves calls, with urgent tasks.
async fn copied() {
    // Longer than a guest watches its ring in mode `poll`: it is to sleep.
    tick(Priority::Urgent, Duration::from_millis(5));
    drop(interrupt::spawn(Priority::Critical, async || {
        loop {
            wakebox_guest::restored().await;
            RESTORES.fetch_add(1, Ordering::Relaxed);
        }
    }));
    wakebox_guest::serve().await;
}

/// Ticks every so often, for ever.
fn tick(priority: Priority, every: Duration) {
    interrupt::spawn(priority, async move || {
        loop {
            time::sleep(every).await;
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
}

fn ticks() -> u32 {
    TICKS.load(Ordering::Relaxed)
}

/// Whether it computes.
static COMPUTES: AtomicBool = AtomicBool::new(false);

/// Computes, awaiting nothing, until there have been so many ticks, or for two seconds.
fn compute(until: u32) {
    COMPUTES.store(true, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(2);
    while ticks() < until && Instant::now() < end {
        core::hint::spin_loop();
    }
}

/// Says how many ticks there were while an ordinary task computed.
async fn preempts() {
    tick(Priority::Urgent, Duration::from_millis(1));
    let before = ticks();
    compute(before + 20);
    let during = ticks() - before;
    println!(
        "{}",
        if during >= 20 {
            "preempted"
        } else {
            "not preempted"
        }
    );
    // In every mode it has its turn when the other awaits.
    let before = ticks();
    while ticks() == before {
        time::sleep(Duration::from_millis(2)).await;
    }
    println!("ticked; upcalls {}", stats().upcalls > 0);
}

/// Spoils what an interrupted computation might have in use: the urgent side of the two tests below.
fn spoil() {
    interrupt::spawn(Priority::Urgent, async || {
        loop {
            time::sleep(Duration::from_micros(300)).await;
            // SAFETY: all that is written is named.
            unsafe {
                asm!(
                    "fld1", "fldpi", "fstp st(0)", "fstp st(0)",
                    "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm7, xmm7",
                    "pcmpeqd xmm8, xmm8", "pcmpeqd xmm15, xmm15",
                    out("xmm0") _, out("xmm1") _, out("xmm7") _, out("xmm8") _, out("xmm15") _,
                    out("st(0)") _, out("st(1)") _,
                );
            }
            if has_avx() {
                // SAFETY: the processor has AVX.
                unsafe { spoil_avx() };
            }
            // Memory, and vector code of the compiler's.
            let mut words: Vec<u64> = (0..64).collect();
            words
                .iter_mut()
                .for_each(|word| *word = word.wrapping_mul(0x9e37_79b9));
            black_box(&words);
            TICKS.fetch_add(1, Ordering::Relaxed);
        }
    });
}

fn has_avx() -> bool {
    const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
    core::arch::x86_64::__cpuid(1).ecx & OSXSAVE_AND_AVX == OSXSAVE_AND_AVX
}

#[target_feature(enable = "avx")]
unsafe fn spoil_avx() {
    // SAFETY: all that is written is named.
    unsafe {
        asm!(
            "vcmptrueps ymm0, ymm0, ymm0", "vcmptrueps ymm7, ymm7, ymm7",
            "vcmptrueps ymm15, ymm15, ymm15",
            out("ymm0") _, out("ymm7") _, out("ymm15") _,
        );
    }
}

/// How long the loops below run before they look whether there were enough upcalls.
const ROUNDS: u32 = 200_000;

/// Upcalls that a computation survives.
fn enough() -> u32 {
    if is_awaiting() { 20 } else { 300 }
}

/// Every general register, the flags, and the red zone are live across upcalls.
async fn registers() {
    spoil();
    let mut wrong = 0_u64;
    while ticks() < enough() {
        let mut rounds = u64::from(ROUNDS);
        // A chain through all registers, whose sum is known; carry and direction are live, and
        // so are bytes below the stack pointer.
        // SAFETY: `rbx` and `rbp` are put back, and all else that is written is named.
        unsafe {
            asm!(
                "push rbx", "push rbp",
                "mov rax, 1", "mov rdx, 2", "mov rbx, 3", "mov rbp, 4", "mov rsi, 5", "mov r8, 6",
                "mov r9, 7", "mov r10, 8", "mov r11, 9", "mov r12, 10", "mov r13, 11", "mov r14, 12",
                "mov r15, 13", "xor edi, edi",
                "mov qword ptr [rsp - 8], 14", "mov qword ptr [rsp - 128], 15",
                "2:",
                // The carry goes through the whole round.
                "stc",
                "mov r15, rax", "adc r15, 12",
                "jnc 3f", "or rdi, 1", "3:",
                "cmp rdx, 2", "setne dil", "add r15, 0",
                "cmp rbx, 3", "jne 4f", "cmp rbp, 4", "jne 4f", "cmp rsi, 5", "jne 4f",
                "cmp r8, 6", "jne 4f", "cmp r9, 7", "jne 4f", "cmp r10, 8", "jne 4f",
                "cmp r11, 9", "jne 4f", "cmp r12, 10", "jne 4f", "cmp r13, 11", "jne 4f",
                "cmp r14, 12", "jne 4f", "cmp r15, 14", "jne 4f", "cmp rdi, 0", "jne 4f",
                "cmp qword ptr [rsp - 8], 14", "jne 4f", "cmp qword ptr [rsp - 128], 15", "jne 4f",
                "dec rcx", "jnz 2b",
                "4:",
                "pop rbp", "pop rbx",
                inout("rcx") rounds,
                out("rax") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
                out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            );
        }
        wrong += rounds;
        give_way().await;
    }
    tell(wrong == 0);
}

/// Says whether all was as it was.
fn tell(is_whole: bool) {
    println!("{}", if is_whole { "all as it was" } else { "changed" });
}

/// A polynomial over a field of 2^61 - 1 and sums of floats, as the compiler vectorizes them, and by hand in
/// SSE, AVX and x87: the same each time, with upcalls and without.
async fn vectors() {
    let expected = all_sums();
    spoil();
    let mut wrong = 0;
    while ticks() < enough() {
        wrong += u32::from(all_sums() != expected);
        give_way().await;
    }
    tell(wrong == 0);
}

fn all_sums() -> [u64; 4] {
    let avx = if has_avx() {
        // SAFETY: the processor has AVX.
        unsafe { sum_avx() }
    } else {
        0
    };
    [sum_sse().to_bits(), avx, sum_x87(), sum_integers()]
}

fn sum_sse() -> f64 {
    let mut sums = [0.0_f64; 8];
    for round in 0..4_000 {
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = *sum * 0.999 + f64::from(round) * (index as f64 + 0.25);
        }
    }
    black_box(sums).iter().sum()
}

#[target_feature(enable = "avx")]
unsafe fn sum_avx() -> u64 {
    let mut sums = [[0.0_f32; 8]; 8];
    for round in 0..4_000 {
        for (index, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
            *sum = *sum * 0.99 + round as f32 * (index as f32 + 0.5);
        }
    }
    let sums = black_box(sums);
    sums.as_flattened()
        .iter()
        .fold(0, |all, sum| all.rotate_left(7) ^ u64::from(sum.to_bits()))
}

fn sum_x87() -> u64 {
    let mut sum = 0.0_f64;
    // SAFETY: the stack of the x87 is as it was, and the memory is named.
    unsafe {
        asm!(
            "fldpi", "fld1", "fldz",
            "2:", "fadd st, st(2)", "fmul st, st(1)", "dec ecx", "jnz 2b",
            "fstp qword ptr [{sum}]", "fstp st(0)", "fstp st(0)",
            sum = in(reg) &raw mut sum, inout("ecx") 4_000 => _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _,
        );
    }
    sum.to_bits()
}

fn sum_integers() -> u64 {
    let words: [u64; 32] = core::array::from_fn(|index| index as u64);
    let mut words = black_box(words);
    for round in 0..2_000 {
        for word in &mut words {
            *word = word.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round;
        }
    }
    words.iter().fold(0, |all, word| all.wrapping_add(*word))
}

/// A critical task interrupts an urgent one, which interrupts an ordinary one; and not the other way.
async fn nests() {
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static URGENT: AtomicU32 = AtomicU32::new(0);
    interrupt::spawn_named(Priority::Critical, "critical", async || {
        let mut every = Duration::from_micros(200);
        let (mut in_vain, mut last) = (0, 0);
        loop {
            time::sleep(every).await;
            SEEN.fetch_or(1 << DEPTH.load(Ordering::Relaxed), Ordering::Relaxed);
            TICKS.fetch_add(1, Ordering::Relaxed);
            // Where an upcall takes longer than that, nothing else would get on.
            let urgent = URGENT.load(Ordering::Relaxed);
            in_vain = if urgent == last { in_vain + 1 } else { 0 };
            last = urgent;
            if in_vain == 16 {
                (every, in_vain) = (every * 2, 0);
            }
        }
    });
    interrupt::spawn_named(Priority::Urgent, "urgent", async || {
        loop {
            time::sleep(Duration::from_millis(1)).await;
            DEPTH.store(2, Ordering::Relaxed);
            let before = ticks();
            // Computes until the critical one has come.
            let end = Instant::now() + Duration::from_secs(2);
            while ticks() == before && Instant::now() < end {
                core::hint::spin_loop();
            }
            DEPTH.store(1, Ordering::Relaxed);
            URGENT.fetch_add(1, Ordering::Relaxed);
        }
    });
    DEPTH.store(1, Ordering::Relaxed);
    let mut ordinary = 0_u64;
    while URGENT.load(Ordering::Relaxed) < 20 {
        ordinary += 1;
        core::hint::spin_loop();
    }
    DEPTH.store(0, Ordering::Relaxed);
    assert!(black_box(ordinary) > 0);
    // It came over an ordinary computation, and over an urgent one.
    println!("over {:#b}", SEEN.load(Ordering::Relaxed) & 0b110);
    println!("in task {}", task::name());
}

/// What one priority sends, the other gets, in order.
async fn channels() {
    const COUNT: u32 = 2_000;
    interrupt::spawn(Priority::Urgent, async || {
        loop {
            let number = CHANNEL.receive().await;
            BACK.send(number * 2).await;
        }
    });
    let reader = task::spawn(async {
        let mut sum = 0_u64;
        for number in 0..COUNT {
            let back = BACK.receive().await;
            assert_eq!(back, number * 2);
            sum += u64::from(back);
        }
        sum
    });
    for number in 0..COUNT {
        CHANNEL.send(number).await;
    }
    println!("sum {}", reader.await.unwrap());
}

/// Every priority allocates, frees, sets timers and spawns, at once: the heap and the runtime stay whole.
async fn allocates() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    async fn churn(seed: u64, rounds: u32) {
        let mut state = seed;
        let mut kept: Vec<Vec<u64>> = Vec::new();
        for _ in 0..rounds {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let len = (state >> 58) as usize + 1;
            kept.push((0..len as u64).map(|word| word ^ state).collect());
            if kept.len() > 32 {
                let gone = kept.swap_remove((state >> 40) as usize % 32);
                let first = gone[0];
                assert!(
                    gone.iter()
                        .enumerate()
                        .all(|(index, word)| *word == first ^ index as u64)
                );
            }
            match state >> 60 {
                0 => time::sleep(Duration::from_micros(50)).await,
                1 => task::spawn(async move { Box::new(state) })
                    .await
                    .map(drop)
                    .unwrap(),
                2 => task::yield_now().await,
                _ => {}
            }
        }
        DONE.fetch_add(1, Ordering::Relaxed);
    }
    for seed in 1..=2 {
        interrupt::spawn(Priority::Urgent, async move || churn(seed, 3_000).await);
        interrupt::spawn(Priority::Critical, async move || {
            churn(seed + 10, 3_000).await
        });
        task::spawn(churn(seed + 20, 30_000));
    }
    while DONE.load(Ordering::Relaxed) < 6 {
        time::sleep(Duration::from_millis(1)).await;
    }
    println!("whole");
}

/// An urgent timer each millisecond over a computation, with something in all vector registers: for the
/// benchmark, which looks at the trace.
async fn latency() {
    tick(Priority::Urgent, Duration::from_millis(1));
    while ticks() < 50 {
        black_box(all_sums());
    }
}

/// Timers of two hundred urgent tasks: what is ordinary gets what they leave, and gets on.
async fn storm() {
    for task in 0..100 {
        tick(Priority::Urgent, Duration::from_micros(3_000 + task * 7));
        tick(Priority::Critical, Duration::from_micros(3_000 + task * 11));
    }
    let mut sum = 0_u64;
    for _ in 0..20 {
        for round in 0..100_000_u64 {
            sum = black_box(sum.rotate_left(3) ^ round);
        }
        give_way().await;
    }
    while ticks() < 1_000 {
        give_way().await;
    }
    println!("got on: {sum:#x}");
}

/// An urgent task that wakes itself for ever keeps the processor.
fn greedy() {
    static ROUNDS: AtomicU64 = AtomicU64::new(0);
    interrupt::spawn(Priority::Urgent, async || {
        loop {
            ROUNDS.fetch_add(1, Ordering::Relaxed);
            task::yield_now().await;
        }
    });
    println!("not reached");
}

/// Does something in an upcall, over a computation.
async fn ends(how: fn()) {
    interrupt::spawn_named(Priority::Urgent, "the one that ends it", async move || {
        // The first time may be over before this function goes on.
        while !COMPUTES.load(Ordering::Relaxed) {
            time::sleep(Duration::from_millis(1)).await;
        }
        how();
    });
    if is_awaiting() {
        COMPUTES.store(true, Ordering::Relaxed);
        time::sleep(Duration::from_secs(1)).await;
    } else {
        compute(u32::MAX);
    }
    println!("not interrupted");
}

#[allow(unconditional_recursion, reason = "it ends at the guard page")]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    deeper(depth + 1) + frame[1]
}
