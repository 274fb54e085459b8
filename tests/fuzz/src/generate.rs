//! Changes to inputs that are good, so that most of what is made is nearly good.

use wakebox_proofs::{Any, Random};

/// Any bytes, up to so many.
pub fn bytes(random: &mut Random, most: u32) -> Vec<u8> {
    let len = random.below(most + 1);
    let words = (0..len.div_ceil(8)).flat_map(|_| random.word().to_le_bytes());
    words.take(len as usize).collect()
}

/// One of the corpus with a few changes: telling values where a field could be, pieces that are
/// taken out, doubled, moved or come from elsewhere, words of a dictionary, single bytes.
pub fn changed(random: &mut Random, corpus: &[Vec<u8>], dictionary: &[&[u8]]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len() as u32) as usize].clone();
    for _ in 0..=random.below(6) {
        change(random, &mut input, corpus, dictionary);
    }
    input
}

/// Changes one thing in an input; see [`changed`].
pub fn change(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>], dictionary: &[&[u8]]) {
    if input.is_empty() {
        input.extend(bytes(random, 16));
        return;
    }
    let at = random.below(input.len() as u32) as usize;
    match random.below(8) {
        0 => input[at] = random.u8(&[0, 1, b'"', b'\n', 0x7F, 0x80, 0xFF]),
        1 | 2 => {
            let width = random.one_of(&[2_usize, 4, 8]);
            let at = at / width * width;
            let len = input.len() as u64;
            let telling = [
                0,
                1,
                7,
                4095,
                4096,
                len - 1,
                len,
                len + 1,
                1 << 31,
                1 << 63,
                u64::MAX,
            ];
            let value = random.u64(&telling).to_le_bytes();
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&value[..end - at]);
        }
        3 => input.truncate(at),
        4 => {
            let end = at + random.below((input.len() - at) as u32 + 1) as usize;
            input.drain(at..end);
        }
        5 => {
            let other = &corpus[random.below(corpus.len() as u32) as usize];
            let from = random.below(other.len() as u32 + 1) as usize;
            let len = random.below((other.len() - from) as u32 + 1) as usize;
            let end = (at + len).min(input.len());
            input.splice(at..end, other[from..from + len].iter().copied());
        }
        6 if !dictionary.is_empty() => {
            let word = random.one_of(dictionary);
            input.splice(at..at, word.iter().copied());
        }
        _ => {
            let end = at + random.below((input.len() - at).min(64) as u32 + 1) as usize;
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() as u32 + 1) as usize;
            input.splice(to..to, piece);
        }
    }
}
