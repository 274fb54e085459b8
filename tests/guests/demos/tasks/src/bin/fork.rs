//! A guest that initialises itself for about a second, and then answers questions. It is run by
//! `host/examples/fork.rs`.
//!
//! What to watch: `snapshot` says where sandboxes of a template begin. All that is above it is done
//! once, however many answer.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use async_lock::OnceCell;
use wakebox_guest::{serve, snapshot};

/// Answers are known up to here.
const MOST: usize = 400_000_000;
/// Bits of a word of the sieve.
const WORD: usize = u64::BITS as usize;
/// Words of the sieve from one count to the next.
const STRIDE: usize = 8;

static PRIMES: OnceCell<Primes> = OnceCell::new();

/// The primes up to [`MOST`] that are odd, and how many there are.
struct Primes {
    /// Bit `n` is set if `2 * n + 1` is a prime.
    sieve: Vec<u64>,
    /// How many bits are set before every so many words.
    counts: Vec<u32>,
}

impl Primes {
    fn find() -> Self {
        let bits = MOST.div_ceil(2);
        let mut sieve = vec![u64::MAX; bits / WORD + 1];
        // One is no prime.
        sieve[0] &= !1;
        let odd = (3..).step_by(2);
        for n in odd.take_while(|n| n * n <= MOST) {
            if sieve[n / 2 / WORD] >> (n / 2 % WORD) & 1 == 1 {
                for bit in (n * n / 2..bits).step_by(n) {
                    sieve[bit / WORD] &= !(1 << (bit % WORD));
                }
            }
        }
        let mut total = 0;
        let counts = sieve.chunks(STRIDE).map(|words| {
            let before = total;
            total += ones(words);
            before
        });
        let counts = counts.collect();
        Self { sieve, counts }
    }

    /// How many primes there are up to `n`.
    fn up_to(&self, n: usize) -> u32 {
        let bits = n.div_ceil(2);
        let words = bits / WORD;
        let counted = words / STRIDE;
        let last = self.sieve[words] & ((1 << (bits % WORD)) - 1);
        let two = u32::from(n >= 2);
        two + self.counts[counted] + ones(&self.sieve[counted * STRIDE..words]) + last.count_ones()
    }
}

fn ones(words: &[u64]) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

/// How many primes there are up to a number, if that is known.
#[wakebox_guest::export]
async fn primes_up_to(n: u32) -> Option<u32> {
    let n = n as usize;
    PRIMES
        .get()
        .filter(|_| n <= MOST)
        .map(|primes| primes.up_to(n))
}

#[wakebox_guest::main]
async fn main() -> wakebox_guest::io::Result<()> {
    PRIMES.get_or_init(async || Primes::find()).await;
    // Who is made of a template goes on here.
    snapshot().await?;
    serve().await;
    Ok(())
}
