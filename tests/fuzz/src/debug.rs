//! Guests whose debug information, relocations, sections and stacks lead to each other, from the
//! first byte to a backtrace.

use wakebox::proof;
use wakebox_proofs::{Random, files};

use crate::generate;

/// Reads what may be a guest, and looks for the calls that led to its entry. Returns how many frames
/// have a name.
///
/// # Panics
///
/// If that is more than a backtrace has, or takes more steps than there are.
pub fn run(data: &[u8]) -> u64 {
    let Ok(examined) = proof::examine(data) else {
        return 0;
    };
    let steps = [examined.load, examined.unwind, examined.symbols];
    for (steps, most) in steps.into_iter().zip(proof::MOST_STEPS) {
        assert!(steps <= most, "{steps} steps");
    }
    assert!(examined.frames.len() <= 2048);
    let named = examined.frames.iter();
    named.filter(|frame| frame.function.is_some()).count() as u64
}

/// One that is made up, or, now and then, a changed one.
pub fn make(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    use wakebox_proofs::Any;
    if random.below(10) == 0 {
        return generate::changed(random, corpus, &[]);
    }
    files::any(random)
}
