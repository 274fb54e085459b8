//! ELF files, from the first byte to a loaded guest with a backtrace.

use wakebox::proof;
use wakebox_proofs::Random;

use crate::generate;

/// Reads what may be a guest, loads it if it is, and looks for the calls that led to its entry.
/// Returns one if it is.
pub fn run(data: &[u8]) -> u64 {
    proof::load(data).into()
}

/// A guest with a few changes.
pub fn make(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    generate::changed(random, corpus, &[])
}
