//! The guest from within: shared memory as bare addresses, and just enough to be served.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use wakebox_abi::boot::Boot;
use wakebox_abi::entry::{Completion, Entry, Submission, Token};
use wakebox_abi::memory::Word;
use wakebox_abi::op::{Buf, Handle, Operation};
use wakebox_abi::status::Status;
use wakebox_abi::wake::{Mode, Sleep};
use wakebox_abi::{layout, port};

use crate::machine;

/// What the processor held when the guest was entered.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Entered {
    /// `fxsave` of it.
    pub legacy: [u8; 512],
    /// `rax rbx r10 r11 r12 r13 r14 r15`; the others are the start file's.
    pub registers: [u64; 8],
}

/// The running guest.
#[derive(Debug)]
pub struct Guest {
    /// What the host told.
    pub boot: &'static Boot,
    /// What the processor held at the start.
    pub entered: &'static Entered,
    /// The second argument: a path of the host that the guest is granted to connect to.
    pub unix_path: &'static str,
    tail: u32,
    head: u32,
    generation: u32,
}

impl Guest {
    /// Entries of either ring, but in the group `turns`.
    pub const RING: u32 = machine::IN_FLIGHT;

    /// # Safety
    ///
    /// The code runs as a Wakebox guest, and this is called once.
    pub unsafe fn new(entered: &'static Entered, unix_path: &'static str) -> Self {
        // SAFETY: the caller's promise.
        let boot = unsafe { Boot::get() };
        // The host makes no longer ring for submissions.
        let expected = [
            (machine::ARENA, machine::IN_FLIGHT, machine::IN_FLIGHT),
            (machine::LARGE_ARENA, 1024, machine::LARGE_IN_FLIGHT),
        ];
        assert!(
            expected.contains(&(boot.arena.len, boot.submissions, boot.completions))
                && boot.stack.len == machine::STACK,
            "the cases expect another machine"
        );
        Self {
            boot,
            entered,
            unix_path,
            tail: 0,
            head: 0,
            generation: 1,
        }
    }

    /// Reads a word of the control page.
    pub fn get(&self, word: Word) -> u32 {
        Self::word(word).load(Ordering::Acquire)
    }

    /// Writes a word of the control page.
    pub fn set(&self, word: Word, value: u32) {
        Self::word(word).store(value, Ordering::Release);
    }

    fn word(word: Word) -> &'static AtomicU32 {
        let at = layout::CONTROL + word.offset() as u64;
        // SAFETY: the page is mapped for ever, and the offset is one of a word in it.
        unsafe { AtomicU32::from_ptr(at as *mut u32) }
    }

    /// Writes an entry at a place of the submission ring.
    pub fn put(&self, place: u32, words: [u64; Submission::WORDS]) {
        let at = layout::SUBMISSIONS
            + u64::from(place % self.boot.submissions) * Submission::SIZE as u64;
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: the ring is mapped for ever, and the place lies in it.
            unsafe { (at as *mut u64).add(index).write_volatile(word) };
        }
    }

    /// Reads the completion at a place of its ring.
    pub fn completion(&self, place: u32) -> Completion {
        let at = layout::COMPLETIONS
            + u64::from(place % self.boot.completions) * Completion::SIZE as u64;
        // SAFETY: the ring is mapped for ever, and the place lies in it.
        let words = unsafe { (at as *const [u64; Completion::WORDS]).read_volatile() };
        Completion::from_words(words)
    }

    /// A token of a slot that was not used before.
    pub fn token(&mut self, slot: u32) -> Token {
        self.generation += 1;
        Token {
            slot,
            generation: self.generation,
        }
    }

    /// Publishes entries, and rings if nobody looks.
    pub fn submit(&mut self, entries: &[Submission]) {
        for entry in entries {
            self.publish_quietly(entry.to_words());
        }
        self.ring_if_needed();
    }

    /// Publishes an entry as bare words.
    pub fn submit_words(&mut self, words: [u64; Submission::WORDS]) {
        self.publish_quietly(words);
        self.ring_if_needed();
    }

    /// Publishes an entry as bare words, and rings for nobody unless the ring is full.
    pub fn publish_quietly(&mut self, words: [u64; Submission::WORDS]) {
        while self.tail.wrapping_sub(self.get(Word::SubmissionHead)) >= self.boot.submissions {
            self.ring(port::SUBMIT);
        }
        self.put(self.tail, words);
        self.tail = self.tail.wrapping_add(1);
        self.set(Word::SubmissionTail, self.tail);
    }

    /// Entries published so far.
    pub fn submitted(&self) -> u32 {
        self.tail
    }

    /// Completions consumed so far.
    pub fn consumed(&self) -> u32 {
        self.head
    }

    /// Rings [`port::SUBMIT`] if the driver does not look.
    pub fn ring_if_needed(&self) {
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.get(Word::DriverPolls) == 0 {
            self.ring(port::SUBMIT);
        }
    }

    /// Rings a doorbell.
    pub fn ring(&self, port: u16) {
        // SAFETY: the code runs as a guest; whether it wakes up again is the case's business.
        unsafe { port::ring(port) };
    }

    /// The next completion, or `None` if there is none now.
    pub fn take(&mut self) -> Option<Completion> {
        if self.get(Word::CompletionTail) == self.head {
            return None;
        }
        let completion = self.completion(self.head);
        self.head = self.head.wrapping_add(1);
        self.set(Word::CompletionHead, self.head);
        Some(completion)
    }

    /// The next completion: sleeps as the wake mode says until there is one.
    pub fn wait(&mut self) -> Completion {
        loop {
            if let Mode::Poll | Mode::Auto = self.boot.mode() {
                // For a while only: nobody may look.
                for _ in 0..1000 {
                    if self.get(Word::CompletionTail) != self.head {
                        break;
                    }
                    core::hint::spin_loop();
                }
            }
            if let Some(completion) = self.take() {
                return completion;
            }
            self.sleep(self.head);
        }
    }

    /// Sleeps until the tail of the completion ring is not `seen`.
    pub fn sleep(&self, seen: u32) {
        let how = match self.boot.mode() {
            Mode::Irq => Sleep::Halt,
            _ => Sleep::Out,
        };
        self.set(Word::Seen, seen);
        self.set(Word::Sleep, how as u32);
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.get(Word::CompletionTail) == seen {
            match how {
                // SAFETY: the sleep has been announced.
                Sleep::Halt => unsafe { port::halt(seen) },
                _ => self.ring(port::WAIT),
            }
        }
        self.set(Word::Sleep, Sleep::Awake as u32);
    }

    /// Has one operation done and returns how it ended.
    pub fn call(&mut self, operation: impl Operation) -> (Status, u32) {
        let entry = operation.submission(self.token(0));
        self.call_entry(entry)
    }

    /// As [`Self::call`], with an entry.
    pub fn call_entry(&mut self, entry: Submission) -> (Status, u32) {
        self.submit(&[entry]);
        let completion = self.wait();
        assert_eq!(
            completion.token, entry.token,
            "a completion of something else"
        );
        (completion.status, completion.value)
    }

    /// Has an operation done that must open something.
    pub fn open(&mut self, operation: impl Operation) -> Handle {
        let opcode = operation.submission(Token::from_word(0)).opcode;
        let (status, value) = self.call(operation);
        assert_eq!(status, Status::Ok, "operation {opcode}");
        Handle(value)
    }

    /// Copies bytes into the arena and returns where they lie.
    pub fn arena(&self, offset: u32, bytes: &[u8]) -> Buf {
        for (index, byte) in bytes.iter().enumerate() {
            self.poke(offset + index as u32, *byte);
        }
        Buf {
            offset,
            len: bytes.len() as u32,
        }
    }

    /// Writes a byte of the arena.
    pub fn poke(&self, offset: u32, byte: u8) {
        assert!(u64::from(offset) < self.boot.arena.len);
        // SAFETY: the arena is mapped for ever, and the offset lies in it.
        unsafe { ((layout::ARENA + u64::from(offset)) as *mut u8).write_volatile(byte) };
    }

    /// Reads a byte of the arena.
    pub fn peek(&self, offset: u32) -> u8 {
        assert!(u64::from(offset) < self.boot.arena.len);
        // SAFETY: as in `poke`.
        unsafe { ((layout::ARENA + u64::from(offset)) as *const u8).read_volatile() }
    }

    /// Ends with a code.
    pub fn exit(&self, code: i32) -> ! {
        self.set(Word::ExitCode, code as u32);
        self.end()
    }

    /// Ends with the status of the last operation.
    pub fn exit_with(&self, status: Status) -> ! {
        self.exit(status.code() as i32)
    }

    /// Ends with whatever code is set.
    pub fn end(&self) -> ! {
        self.ring(port::EXIT);
        loop {
            // SAFETY: never reached; an undefined instruction ends the guest visibly.
            unsafe { asm!("ud2") };
        }
    }
}
