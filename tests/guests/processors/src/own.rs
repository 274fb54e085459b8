//! What a processor has of its own, and how it reaches another.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use wakebox_abi::boot::Boot;
use wakebox_abi::entry::{Completion, Entry, Submission};
use wakebox_abi::memory::Word;
use wakebox_abi::wake::Sleep;
use wakebox_abi::{layout, port};

/// What a processor does. It begins with nothing in its rings.
pub type Program = fn(&mut Own) -> !;

/// What the host has told.
pub fn boot() -> &'static Boot {
    // SAFETY: this is a guest.
    unsafe { Boot::get() }
}

/// How many processors there are.
pub fn count() -> u32 {
    boot().vcpus
}

/// The number of this one.
pub fn number() -> u32 {
    word(Word::Processor)
}

fn at(page: u64, word: Word) -> &'static AtomicU32 {
    // SAFETY: the page is mapped for ever, and all access it as atomics.
    unsafe { AtomicU32::from_ptr((page as usize + word.offset()) as *mut u32) }
}

/// A word of the own control page.
pub fn word(word: Word) -> u32 {
    at(layout::CONTROL, word).load(Ordering::SeqCst)
}

/// Writes a word of the own control page.
pub fn set(word: Word, value: u32) {
    at(layout::CONTROL, word).store(value, Ordering::SeqCst);
}

/// A word of another's control page.
pub fn of(processor: u32, word: Word) -> &'static AtomicU32 {
    at(layout::control_of(processor), word)
}

/// Rings a doorbell.
pub fn ring(port: u16) {
    // SAFETY: this is a guest; whether it wakes up again is its own business.
    unsafe { port::ring(port) };
}

/// Ends the guest.
pub fn exit(code: u32) -> ! {
    set(Word::ExitCode, code);
    ring(port::EXIT);
    unreachable!("nothing returns from EXIT")
}

/// Has another processor begin with this program.
pub fn start(processor: u32, program: Program) {
    of(processor, Word::Local).store(program as usize as u32, Ordering::SeqCst);
    of(processor, Word::LocalHigh).store((program as usize >> 32) as u32, Ordering::SeqCst);
    start_at(processor, begin as *const () as u64);
}

/// Has another processor begin at an address.
pub fn start_at(processor: u32, entry: u64) {
    of(processor, Word::StartEntry).store(entry as u32, Ordering::SeqCst);
    of(processor, Word::StartEntryHigh).store((entry >> 32) as u32, Ordering::SeqCst);
    set(Word::Target, processor);
    ring(port::START);
}

/// Where other processors begin: with a stack, and nothing on it.
#[unsafe(naked)]
unsafe extern "C" fn begin() -> ! {
    naked_asm!("and rsp, -16", "call {run}", "ud2", run = sym run)
}

extern "C" fn run() -> ! {
    let program = u64::from(word(Word::Local)) | u64::from(word(Word::LocalHigh)) << 32;
    // SAFETY: whoever has started it has put it there.
    let program: Program = unsafe { core::mem::transmute(program as usize) };
    program(&mut Own::new())
}

/// A processor's ends of its rings.
pub struct Own {
    submitted: u32,
    taken: u32,
}

impl Own {
    /// Those of the processor that this is called on, once.
    pub fn new() -> Self {
        Self {
            submitted: 0,
            taken: 0,
        }
    }

    fn slot(&self, index: u32) -> *mut u64 {
        let place = u64::from(index % boot().submissions);
        (layout::SUBMISSIONS + place * Submission::SIZE as u64) as *mut u64
    }

    /// Submits an operation.
    pub fn submit(&mut self, entry: Submission) {
        for (index, word) in entry.to_words().into_iter().enumerate() {
            // SAFETY: the slot lies in the ring, which is mapped for ever.
            unsafe { self.slot(self.submitted).add(index).write_volatile(word) };
        }
        self.submitted = self.submitted.wrapping_add(1);
        set(Word::SubmissionTail, self.submitted);
        fence(Ordering::SeqCst);
        if word(Word::DriverPolls) == 0 {
            ring(port::SUBMIT);
        }
    }

    /// Writes nonsense into a slot, which counts as submitted when others are.
    pub fn put_nonsense(&self, random: u32) {
        let place = self.slot(random);
        // SAFETY: as above.
        unsafe {
            place
                .add(random as usize % Submission::WORDS)
                .write_volatile(random.into())
        };
    }

    /// The next completion, if there is one.
    pub fn take(&mut self) -> Option<Completion> {
        if word(Word::CompletionTail) == self.taken {
            return None;
        }
        let place = u64::from(self.taken % boot().completions);
        let at = layout::COMPLETIONS + place * Completion::SIZE as u64;
        // SAFETY: the slot lies in the ring, which is mapped for ever.
        let words = unsafe { (at as *const [u64; Completion::WORDS]).read_volatile() };
        self.taken = self.taken.wrapping_add(1);
        set(Word::CompletionHead, self.taken);
        Some(Completion::from_words(words))
    }

    /// The next completion.
    pub fn wait(&mut self) -> Completion {
        let mut found = None;
        self.sleep_until(|own| {
            found = own.take();
            found.is_some()
        });
        found.expect("that is what it has slept until")
    }

    /// Sleeps, as the wake mode has it, until this is so; it is looked at after each completion and each
    /// post.
    pub fn sleep_until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        loop {
            let posts = word(Word::Posts);
            let tail = word(Word::CompletionTail);
            if is_so(self) {
                return;
            }
            if crate::watches() {
                for _ in 0..300 {
                    if is_so(self) {
                        return;
                    }
                    core::hint::spin_loop();
                }
            }
            self.sleep(tail, posts);
        }
    }

    /// Sleeps unless there is more than so much.
    fn sleep(&self, tail: u32, posts: u32) {
        let how = match boot().mode() {
            wakebox_abi::wake::Mode::Irq => Sleep::Halt,
            _ => Sleep::Out,
        };
        set(Word::PostsSeen, posts);
        set(Word::Seen, tail);
        set(Word::Sleep, how as u32);
        fence(Ordering::SeqCst);
        if word(Word::CompletionTail) == tail && word(Word::Posts) == posts {
            match how {
                // SAFETY: the sleep has been announced.
                Sleep::Halt => unsafe { port::halt(tail) },
                _ => ring(port::WAIT),
            }
        }
        set(Word::Sleep, Sleep::Awake as u32);
    }

    /// Lets the host see to others.
    pub fn nap(&self) {
        ring(port::SUBMIT);
    }

    /// Leaves something for another processor, which is woken if it sleeps.
    pub fn post(&self, processor: u32) {
        of(processor, Word::Posts).fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if of(processor, Word::Sleep).load(Ordering::SeqCst) != Sleep::Awake as u32 {
            set(Word::Target, processor);
            ring(port::NUDGE);
        }
    }
}
