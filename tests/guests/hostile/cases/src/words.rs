//! The words of the control page, each with values that it cannot have, alone and two at once.
//!
//! The guest sets the words, publishes one no-op by setting the submission tail (which may be the
//! word that is wrong), and sleeps. What must come of it follows from three rules: a tail that is
//! ahead by more than the ring is a violation, so is a completion head that is not zero, because
//! nothing was completed yet; and a guest that says that it has seen what there is sleeps for ever.
//! No other word of these is anything that the host believes.

use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::memory::Word;
use wakebox_abi::op::{Nop, Operation};
use wakebox_abi::port;
use wakebox_abi::status::Status;
use wakebox_abi::wake::Sleep;

use crate::case::{Args, Case, End, Modes, Violated};
use crate::guest::Guest;
use crate::machine;

const RING: u32 = machine::IN_FLIGHT;

const WORDS: [(Word, &str); 11] = [
    (Word::SubmissionTail, "submission-tail"),
    (Word::CompletionHead, "completion-head"),
    (Word::Sleep, "sleep"),
    (Word::Seen, "seen"),
    (Word::ExitCode, "exit-code"),
    (Word::Interrupts, "interrupts"),
    (Word::UpcallReturn, "upcall-return"),
    (Word::CompletionTail, "completion-tail"),
    (Word::SubmissionHead, "submission-head"),
    (Word::DriverPolls, "driver-polls"),
    (Word::UpcallTarget, "upcall-target"),
];

/// For each word alone.
const VALUES: [(u32, &str); 9] = [
    (0, "zero"),
    (1, "one"),
    (2, "two"),
    (RING - 1, "ring-less-one"),
    (RING, "ring"),
    (RING + 1, "ring-and-one"),
    (0x7FFF_FFFF, "most-positive"),
    (0x8000_0000, "sign"),
    (u32::MAX, "max"),
];

/// For pairs.
const PAIRED: [(u32, &str); 3] = [(1, "one"), (RING + 1, "ring-and-one"), (u32::MAX, "max")];

/// Sets two words (perhaps the same), publishes, sleeps, and tells what came of it.
fn wrong(guest: &mut Guest, [first, first_value, second, second_value]: Args) {
    let set = [(first, first_value as u32), (second, second_value as u32)];
    let value = |word: Word| {
        let mut found = set
            .iter()
            .filter(|(index, _)| WORDS[*index as usize].0 == word);
        found.next().map(|(_, value)| *value)
    };
    guest.put(0, entry());
    guest.set(Word::Sleep, Sleep::Out as u32);
    for (index, value) in set {
        let word = WORDS[index as usize].0;
        if word != Word::SubmissionTail {
            guest.set(word, value);
        }
    }
    // Last: what the host sees from now on is settled.
    guest.set(
        Word::SubmissionTail,
        value(Word::SubmissionTail).unwrap_or(1),
    );
    guest.ring(port::SUBMIT);
    guest.ring(port::WAIT);
    // A guest that lies about what it has seen is woken before there is anything.
    let mut patience = 1_000_000_u64;
    while guest.get(Word::CompletionTail) == 0 && patience > 0 {
        patience -= 1;
    }
    let completion = guest.completion(0);
    if value(Word::ExitCode).is_some() {
        assert_eq!(completion.status, Status::Ok);
        guest.end();
    }
    guest.exit_with(completion.status);
}

fn entry() -> [u64; Submission::WORDS] {
    use wakebox_abi::entry::Entry;
    let token = Token {
        slot: 0,
        generation: 7,
    };
    Nop {}.submission(token).to_words()
}

/// What must come of these words.
fn outcome(set: [(Word, u32); 2]) -> End {
    let value = |word: Word, otherwise: u32| {
        let found = set.iter().find(|(other, _)| *other == word);
        found.map_or(otherwise, |(_, value)| *value)
    };
    let tail = value(Word::SubmissionTail, 1);
    if tail > 0 && value(Word::CompletionHead, 0) > 0 {
        return End::Violation(Violated::CompletionRing);
    }
    if tail > RING {
        return End::Violation(Violated::SubmissionRing);
    }
    // Every entry that the tail covers is a no-op: one was written, the others are zeroes.
    if value(Word::Seen, 0) == tail {
        return End::Deadlock;
    }
    End::Exit(value(Word::ExitCode, 0).cast_signed())
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (index, (word, name)) in WORDS.iter().enumerate() {
        for (value, value_name) in VALUES {
            let end = outcome([(*word, value), (*word, value)]);
            let (index, wide) = (index as u64, u64::from(value));
            let name = format_args!("{name}={value_name}");
            let case = Case::new("words", name, wrong, end).modes(Modes::All);
            visit(case.with([index, wide, index, wide]));
        }
    }
    for (a, (first, first_name)) in WORDS.iter().enumerate() {
        for (b, (second, second_name)) in WORDS.iter().enumerate().skip(a + 1) {
            for (x, x_name) in PAIRED {
                for (y, y_name) in PAIRED {
                    let end = outcome([(*first, x), (*second, y)]);
                    let name = format_args!("{first_name}={x_name},{second_name}={y_name}");
                    let args = [a as u64, u64::from(x), b as u64, u64::from(y)];
                    visit(Case::new("words", name, wrong, end).with(args));
                }
            }
        }
    }
}
