//! The driver over rings of any content, in memory that changes at every read.

use wakebox::Policy;
use wakebox::proof::Bench;
use wakebox_abi::entry::Submission;
use wakebox_abi::op::Opcode;
use wakebox_abi::queue::Queue;
use wakebox_proofs::memory::{Geometry, Liar};
use wakebox_proofs::{Any, Bytes, Random};

use crate::generate;

/// Any entry, of which the first word is likely to name an operation, and the second a place that
/// there is.
fn forge(any: &mut Bytes<'_>) -> [u64; Submission::WORDS] {
    let code = u64::from(any.one_of(Opcode::ALL) as u16);
    let mut words = [0; Submission::WORDS];
    words[0] = any.u64(&[code, code, code, 0, 1, 1 << 16]);
    let slot = any.u32_mostly(&[0, 0, 0, 1, 0, 0, 1, 2], &[63, 64, u32::MAX]);
    words[1] = u64::from(slot) | u64::from(any.below(2)) << 32;
    for word in &mut words[2..5] {
        *word = any.u64(&[0, 1, 2, 63, 64 << 32, 1 << 32, u64::MAX]);
    }
    words
}

/// Takes turns over the rings that these bytes describe. Returns how many it took before they were
/// broken.
pub fn run(data: &[u8]) -> u64 {
    thread_local! {
        static BENCH: Bench = Bench::new(Policy::new());
    }
    let mut any = Bytes::new(data);
    let geometry = Geometry {
        submissions: 1 << any.below(7),
        completions: 1 << any.below(7),
        start: any.u32(&[0, u32::MAX, u32::MAX - 5]),
    };
    let turns = 1 + data.len() / 8;
    let liar = Liar::new(any, geometry, forge);
    let queue = Queue::starting_at(
        liar.clone(),
        liar.submissions(),
        liar.completions(),
        geometry.start,
    );
    BENCH.with(|bench| bench.turns(queue, turns)) as u64
}

/// Bytes that the source reads as it likes.
pub fn make(random: &mut Random, _: &[Vec<u8>]) -> Vec<u8> {
    let mut input = generate::bytes(random, 240);
    if random.bool() {
        // Telling values more often than others.
        for byte in &mut input {
            *byte &= 7;
        }
    }
    input
}
