//! Rung 9: an interrupt that runs a future (`--wake irq`).
//!
//! On rung 7 the interrupt left a note, and who computed had to come back to see it. Here it goes on in
//! ring 3: `upcall` keeps all registers of the computation on that one's own stack, polls the urgent task,
//! and returns. Neither the compiler nor who computes knows of it, as with threads: what both
//! use is used with upcalls masked, or changes in one instruction.
//!
//! Elsewhere: Embassy's `InterruptExecutor`, RTIC; the upcalls of Tock.
//!
//! Next: a second processor.
#![no_std]
#![no_main]

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ground::prelude::*;
use ground::{ask, completion, mask, now_ns, take_and_lift};

ground::rung!(rung);

const COMPUTES: u32 = 1;
const URGENT: u32 = 2;
type Boxed = Pin<Box<dyn Future<Output = ()>>>;
static TASK: Local<RefCell<Option<Boxed>>> = Local(RefCell::new(None));
static WAITS: Local<RefCell<Option<Waker>>> = Local(RefCell::new(None));
static OVER: AtomicU32 = AtomicU32::new(0);
static WOKEN: AtomicBool = AtomicBool::new(true);

struct Urgent;
impl Wake for Urgent {
    fn wake(self: Arc<Self>) {
        WOKEN.store(true, Relaxed);
    }
}

/// Where the ring-0 stub goes on, with every register as it was, and upcalls masked.
#[unsafe(naked)]
extern "C" fn upcall() {
    naked_asm!(
        // The compiler may use 128 bytes below the stack pointer without saying so.
        "lea rsp, [rsp - 128]",
        "push qword ptr [{interrupted}]; pushfq",
        "push rax; push rcx; push rdx; push rbx; push rbp; push rsi; push rdi",
        "push r8; push r9; push r10; push r11; push r12; push r13; push r14; push r15",
        "cld; mov rbp, rsp",
        // x87 and SSE, which is all that this guest is compiled for.
        "sub rsp, 512; and rsp, -16; fxsave64 [rsp]",
        "call {turn}",
        "fxrstor64 [rsp]; mov rsp, rbp",
        "pop r15; pop r14; pop r13; pop r12; pop r11; pop r10; pop r9; pop r8",
        "pop rdi; pop rsi; pop rbp; pop rbx; pop rdx; pop rcx; pop rax",
        "popfq; ret 128",
        interrupted = const ground::INTERRUPTED,
        turn = sym turn,
    );
}

/// The urgent executor: takes what has come, polls the task if it was woken, and lifts the mask.
extern "C" fn turn() {
    take_and_lift(upcall as *const () as usize, || {
        let (task, interrupted) = (COMPUTES, true);
        trace(What::UpcallBegin { task, interrupted });
        while let Some(done) = completion() {
            OVER.fetch_add(1, Relaxed);
            woken(URGENT, Reason::Operation(done.token), true);
            WAITS.0.take().into_iter().for_each(Waker::wake);
        }
        poll();
        trace(What::UpcallEnd { task });
    });
}

fn poll() {
    let mut task = TASK.0.borrow_mut();
    if let (true, Some(future)) = (WOKEN.swap(false, Relaxed), &mut *task) {
        poll_begins(URGENT);
        let waker = Waker::from(Arc::new(Urgent));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        poll_ends(URGENT, polled.is_ready(), None);
    }
}

/// Waits for the host. It is told at once: nobody knows how long the interrupted one will compute.
async fn wait(ms: u64) {
    let generation = OVER.load(Relaxed);
    let at_ns = now_ns() + ms * 1_000_000;
    submit(Deadline { at_ns }, token(1, generation), URGENT);
    ask();
    poll_fn(|context| {
        if OVER.load(Relaxed) > generation {
            return Poll::Ready(());
        }
        *WAITS.0.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Floats, in registers all the time.
fn work() -> f64 {
    (0..100_000).fold(0.0, |sum, round| sum * 0.999 + f64::from(round))
}

fn rung() {
    spawned(COMPUTES, 0, "computes");
    spawned(URGENT, 0, "urgent");
    let expected = work();
    *TASK.0.borrow_mut() = Some(Box::pin(async {
        wait(2).await;
        wait(2).await;
    }));
    poll_begins(COMPUTES);
    turn();
    while OVER.load(Relaxed) < 2 {
        assert!(work() == expected);
    }
    mask();
    poll_ends(COMPUTES, true, None);
    say!("in the middle of one poll, an urgent task was woken twice");
    say!("what the interrupted one computed is right");
}
