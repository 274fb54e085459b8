//! Template files, from the first byte to what was in flight going on.

use std::cell::RefCell;

use wakebox::Policy;
use wakebox::proof::{Bench, template};
use wakebox_proofs::{Any, Random};

use crate::generate;

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// Reads what may be a template, sets the processor's state that it has if there is KVM, and goes on
/// with what was in flight. Returns one if it is a template.
pub fn run(data: &[u8]) -> u64 {
    BENCH.with_borrow_mut(|bench| {
        let bench = bench.get_or_insert_with(|| Bench::new(Policy::new()));
        bench.template(data).into()
    })
}

/// A template with a few changes. Most have hashes that are right, for otherwise nothing behind them is
/// looked at.
pub fn make(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len() as u32) as usize].clone();
    for _ in 0..=random.below(3) {
        if input.is_empty() {
            break;
        }
        match random.below(8) {
            // One byte or a word in the header, in which most is said, or anywhere.
            0..5 => {
                let within = match random.below(2) {
                    0 => input.len().min(900),
                    _ => input.len(),
                };
                let at = random.below(within as u32) as usize;
                let width = random.one_of(&[1_usize, 4, 8]);
                let value = random.u64(&[0, 1, 4096, 1 << 31, 1 << 47, 1 << 63, u64::MAX]);
                let end = (at + width).min(input.len());
                input[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            5 => {
                let at = random.below(input.len() as u32) as usize;
                input[at] ^= 1 << random.below(8);
            }
            6 => generate::change(random, &mut input, corpus, &[]),
            _ => {}
        }
    }
    if random.below(8) > 0 {
        template::seal(&mut input);
    }
    input
}
