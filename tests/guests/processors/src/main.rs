//! What a guest with several processors can do, without a library: the first argument says what.
//!
//! Each processor finds its own rings and control page at the same addresses, so what a processor does
//! needs no number but where it means another.
#![no_std]
#![no_main]

mod own;

use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU32, Ordering};

use wakebox_abi::boot::{Boot, Instance};
use wakebox_abi::entry::Token;
use wakebox_abi::memory::Word;
use wakebox_abi::op::{Cancel, Deadline, Nop, Operation};
use wakebox_abi::status::Status;
use wakebox_abi::wake::Mode;
use wakebox_abi::{layout, port};

use own::{Own, Program, boot, count, number, of, ring, set, start, start_at, word};

ground::rung!(main);

/// The argument of this number; empty if there is none.
fn arg(index: usize) -> &'static str {
    let args = boot().args;
    // SAFETY: the arguments lie there for ever, and nobody writes to them.
    let bytes = unsafe { core::slice::from_raw_parts(args.start as *const u8, args.len as usize) };
    let word = bytes.split(|byte| *byte == 0).nth(index);
    core::str::from_utf8(word.unwrap_or_default()).unwrap_or_default()
}

fn main() {
    let mut own = Own::new();
    match arg(0) {
        "never" => {}
        "turns" => turns(&mut own),
        "tokens" => tokens(&mut own),
        "operations" => operations(&mut own),
        "cancel" => cancel(&mut own),
        "interrupt" => interrupt(&mut own),
        "sleep" => {
            start_all(asleep);
            asleep(&mut own);
        }
        "chunks" => chunks(&mut own),
        "end" => end(&mut own),
        "start-self" => start(0, asleep),
        "start-twice" => {
            start(1, asleep);
            start(1, asleep);
        }
        "start-missing" => {
            set(Word::Target, count());
            ring(port::START);
        }
        "start-nowhere" => start_at(1, 0xdead_beef_0000_0000),
        "start-in-data" => start_at(1, boot().heap.start),
        "nudge-missing" => {
            set(Word::Target, u32::MAX);
            ring(port::NUDGE);
        }
        "nudge-anybody" => {
            for target in (0..count()).cycle().take(100) {
                set(Word::Target, target);
                ring(port::NUDGE);
            }
        }
        "lies" => lies(&mut own),
        "upcalls" => upcalls(&mut own),
        "nonsense" => nonsense(&mut own),
        other => panic!("no such case: {other}"),
    }
    own::exit(0)
}

fn start_all(program: Program) {
    for processor in 1..count() {
        start(processor, program);
    }
}

/// Whoever is done with what all do.
static DONE: AtomicU32 = AtomicU32::new(0);

fn done(own: &mut Own) -> ! {
    DONE.fetch_add(1, Ordering::SeqCst);
    own.post(0);
    asleep(own)
}

/// Waits until all others are done.
fn wait_for_others(own: &mut Own) {
    own.sleep_until(|_| DONE.load(Ordering::SeqCst) == count() - 1);
}

/// Sleeps for ever.
fn asleep(own: &mut Own) -> ! {
    loop {
        own.sleep_until(|_| false);
    }
}

static TURN: AtomicU32 = AtomicU32::new(0);
const ROUNDS: u32 = 500;

/// A turn goes around: whoever has it wakes the next.
fn turns(own: &mut Own) {
    start_all(|own| {
        take_turns(own);
        done(own)
    });
    take_turns(own);
    wait_for_others(own);
    assert_eq!(TURN.load(Ordering::SeqCst), ROUNDS * count());
}

fn take_turns(own: &mut Own) {
    for round in 0..ROUNDS {
        let mine = round * count() + number();
        own.sleep_until(|_| TURN.load(Ordering::SeqCst) == mine);
        TURN.store(mine + 1, Ordering::SeqCst);
        own.post((number() + 1) % count());
    }
}

/// How many tokens a processor has.
static HAS: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];
static PASSED: AtomicU32 = AtomicU32::new(0);

/// `tokens N`: as many tokens as there are processors are passed on so many times, to anybody and at any time. If a
/// wake is lost, those that wait for each other are stuck.
fn tokens(own: &mut Own) {
    for has in &HAS[..count() as usize] {
        has.store(1, Ordering::SeqCst);
    }
    start_all(|own| {
        pass_tokens(own);
        done(own)
    });
    pass_tokens(own);
    wait_for_others(own);
    let left: u32 = HAS.iter().map(|has| has.load(Ordering::SeqCst)).sum();
    assert_eq!(left, count(), "none is lost");
}

fn pass_tokens(own: &mut Own) {
    let most: u32 = arg(1).parse().unwrap_or(0);
    let is_over = || PASSED.load(Ordering::SeqCst) >= most;
    let mine = &HAS[number() as usize];
    let mut random = ground::now_ns() as u32 ^ (number() + 1).wrapping_mul(0x9E37_79B9) | 1;
    loop {
        own.sleep_until(|_| is_over() || mine.load(Ordering::SeqCst) > 0);
        if is_over() {
            (0..count()).for_each(|processor| own.post(processor));
            return;
        }
        mine.fetch_sub(1, Ordering::SeqCst);
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        match random >> 20 & 31 {
            0 => {
                let at_ns = ground::now_ns() + u64::from(random % 100_000);
                own.submit(Deadline { at_ns }.submission(token(0, random)));
                while own.wait().token.generation != random {}
            }
            1..8 => {
                for turn in 0..random % 5_000 {
                    black_box(turn);
                }
            }
            _ => {}
        }
        PASSED.fetch_add(1, Ordering::SeqCst);
        let next = random % count();
        HAS[next as usize].fetch_add(1, Ordering::SeqCst);
        own.post(next);
    }
}

/// All have operations done at once, by the same tokens.
fn operations(own: &mut Own) {
    start_all(|own| {
        operate(own);
        done(own)
    });
    operate(own);
    wait_for_others(own);
}

fn operate(own: &mut Own) {
    for round in 0..50 {
        for slot in 0..8 {
            own.submit(Nop {}.submission(token(slot, round)));
        }
        let at_ns = ground::now_ns() + u64::from(round % 4) * 300_000;
        own.submit(Deadline { at_ns }.submission(token(8, round)));
        let mut seen = [false; 9];
        for _ in 0..9 {
            let completion = own.wait();
            assert_eq!(completion.status, Status::Ok);
            assert_eq!(completion.token.generation, round);
            let slot = completion.token.slot as usize;
            assert!(!core::mem::replace(&mut seen[slot], true), "twice");
        }
    }
}

fn token(slot: u32, generation: u32) -> Token {
    Token { slot, generation }
}

const FAR: Deadline = Deadline { at_ns: u64::MAX };

/// A processor cancels its own operations, and nobody else's of the same name.
fn cancel(own: &mut Own) {
    own.submit(FAR.submission(token(3, 7)));
    start_all(|own| {
        let target = token(3, 7);
        own.submit(Cancel { target }.submission(token(0, 0)));
        own.submit(Nop {}.submission(token(3, 7)));
        assert_eq!(own.wait().status, Status::Ok);
        done(own)
    });
    wait_for_others(own);
    assert!(own.take().is_none(), "another has cancelled it");
    let target = token(3, 7);
    own.submit(Cancel { target }.submission(token(0, 0)));
    assert_eq!(own.wait().status, Status::Cancelled);
}

static LEFT: AtomicU32 = AtomicU32::new(0);

/// `chunks N`: so many pieces of work, of the same length, which whoever is free takes.
fn chunks(own: &mut Own) {
    LEFT.store(arg(1).parse().unwrap_or(0), Ordering::SeqCst);
    start_all(|own| {
        take_chunks();
        done(own)
    });
    take_chunks();
    wait_for_others(own);
}

fn take_chunks() {
    let less = |left: u32| left.checked_sub(1);
    while LEFT
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
    {
        // Some 100 us.
        for turn in 0..100_000_u64 {
            black_box(turn);
        }
    }
}

static BEGUN: AtomicU32 = AtomicU32::new(0);

/// One that computes is interrupted for what others leave for it.
fn interrupt(own: &mut Own) {
    start_all(|own| {
        let before = word(Word::Interrupts);
        BEGUN.fetch_add(1, Ordering::SeqCst);
        while word(Word::Interrupts) == before {
            spin_loop();
        }
        done(own)
    });
    for processor in 1..count() {
        while BEGUN.load(Ordering::SeqCst) < count() - 1 {
            own.nap();
        }
        of(processor, Word::Posts).fetch_add(1, Ordering::SeqCst);
        set(Word::Target, processor);
        ring(port::NUDGE);
    }
    wait_for_others(own);
}

/// `end WHO HOW OTHERS`: one ends, while the others do something else.
fn end(own: &mut Own) {
    start_all(|own| one_of_those(own));
    one_of_those(own);
}

fn one_of_those(own: &mut Own) -> ! {
    // All of them are there.
    BEGUN.fetch_add(1, Ordering::SeqCst);
    while BEGUN.load(Ordering::SeqCst) < count() {
        own.nap();
    }
    let who: u32 = arg(1).parse().unwrap_or(u32::MAX);
    if who != number() {
        match arg(3) {
            "compute" => loop {
                spin_loop();
            },
            "work" => loop {
                own.submit(Nop {}.submission(token(0, 0)));
                own.wait();
            },
            // Something is in flight, so that nobody is stuck.
            _ => {
                own.submit(FAR.submission(token(0, 0)));
                asleep(own);
            }
        }
    }
    own.nap();
    match arg(2) {
        "panic" => panic!("processor {} has panicked", number()),
        "exit" => own::exit(40 + number()),
        // SAFETY: wrong on purpose.
        "fault" => unsafe { core::arch::asm!("ud2", options(noreturn)) },
        "overflow" => {
            black_box(overflow(1));
        }
        "violation" => {
            set(Word::SubmissionTail, 1 << 20);
            ring(port::SUBMIT);
        }
        "compute" => loop {
            spin_loop();
        },
        _ => {}
    }
    asleep(own)
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    overflow(depth + 1) + frame[depth as usize % 64]
}

/// `lies WHAT`: the second sleeps, has told nonsense before, and has something in flight by which that is found out, or
/// nothing that anybody believes. Restored, whoever is let go on ends the guest.
fn lies(own: &mut Own) {
    start(1, |own| {
        own.submit(FAR.submission(token(0, 0)));
        // The lie is not to be found out by whoever takes it.
        while word(Word::SubmissionHead) == 0 {
            own.nap();
        }
        let instance = instance();
        match arg(1) {
            "head" => set(Word::CompletionHead, 1 << 20),
            _ => {
                for lie in [
                    Word::Target,
                    Word::Processor,
                    Word::DriverPolls,
                    Word::Local,
                ] {
                    set(lie, u32::MAX);
                }
                of(2, Word::StartEntryHigh).store(u32::MAX, Ordering::SeqCst);
                of(2, Word::Sleep).store(u32::MAX, Ordering::SeqCst);
            }
        }
        own.sleep_until(|_| self::instance() != instance);
        own::exit(0)
    });
    own.submit(FAR.submission(token(0, 0)));
    asleep(own);
}

/// What tells one sandbox of a template from another.
fn instance() -> u64 {
    // SAFETY: this is a guest.
    unsafe { Instance::get() }.mark()
}

core::arch::global_asm!(
    ".pushsection .text.upcall,\"ax\",@progbits",
    ".globl processors_upcall",
    ".hidden processors_upcall",
    // Goes back at once, masked.
    "processors_upcall:",
    "  lea rsp, [rsp - 128]",
    "  push qword ptr [{interrupted}]",
    "  ret 128",
    ".popsection",
    interrupted = const layout::CONTROL as i32 + Word::UpcallReturn.offset() as i32,
);

unsafe extern "C" {
    static processors_upcall: u8;
}

/// `upcalls HIGH`: the first has one upcall come after the other, while the second writes so into what the host says of
/// where they go on.
fn upcalls(own: &mut Own) -> ! {
    start(1, |_| {
        let high: u32 = arg(1).parse().unwrap_or(0);
        BEGUN.store(1, Ordering::SeqCst);
        loop {
            of(0, Word::UpcallTargetHigh).store(high, Ordering::Relaxed);
        }
    });
    while BEGUN.load(Ordering::SeqCst) == 0 {
        own.nap();
    }
    loop {
        set(Word::Upcall, (&raw const processors_upcall) as u32);
        own.submit(Nop {}.submission(token(0, 0)));
        while own.take().is_none() {
            spin_loop();
        }
    }
}

/// All write nonsense into all that others read of them, at once.
fn nonsense(own: &mut Own) {
    start_all(|own| talk_nonsense(own));
    talk_nonsense(own);
}

fn talk_nonsense(own: &mut Own) -> ! {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    while BEGUN.load(Ordering::SeqCst) < count() {
        own.nap();
    }
    let mut random = 0x9E37_79B9_u32.wrapping_mul(number() + 1);
    for _ in 0..20_000 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        // Neither may the host believe a word, nor any other processor.
        let target = random >> 8 & 3;
        let wild = [Word::Posts, Word::PostsSeen, Word::Sleep, Word::Seen];
        of(target % count(), wild[(random & 3) as usize]).store(random, Ordering::SeqCst);
        if random & 15 == 0 {
            set(Word::Target, target % count());
            ring(port::NUDGE);
        }
        if random & 31 == 0 {
            ring(port::SUBMIT);
        }
        own.put_nonsense(random);
    }
    set(Word::SubmissionTail, random | 1 << 24);
    ring(port::SUBMIT);
    loop {
        ring(port::WAIT);
    }
}

/// Whether a processor that watches its completion ring will see it filled.
fn watches() -> bool {
    matches!(Boot::mode(boot()), Mode::Poll | Mode::Auto)
}
