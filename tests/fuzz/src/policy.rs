//! Policy files.

use wakebox::Policy;
use wakebox_proofs::{Any, Random};

use crate::generate;

/// Words of the format, and what is hard to read.
const WORDS: [&[u8]; 24] = [
    b"connect = [\"",
    b"listen = [\"",
    b"udp = [\"",
    b"udp-bind = [\"",
    b"unix = [\"",
    b"resolve = [\"",
    b"dirs = [\"",
    b"env = [\"",
    b"functions = [\"",
    b"\"]\n",
    b"\", \"",
    b"[limits]\n",
    b"*.",
    b":443",
    b"[::1]",
    b"/32",
    b"/129",
    b":ro",
    b"\\u0000",
    b"\xF0\x9F\xA6\x80",
    b"%eth0",
    b"999999999999",
    b"10 s",
    b"'''",
];

/// Reads what may be a policy, and asks it what it allows if it is one. Returns
/// one then.
pub fn run(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let Ok(policy) = Policy::from_toml(&text, "/etc/app/policy.toml") else {
        return 0;
    };
    let again = policy.clone().and(policy.clone());
    // What it says of itself, for people.
    let _ = format!("{policy:?}{:?}", again.validate());
    let _ = policy.may_call("kv.get");
    1
}

/// Some lines of a policy, of which one may be changed; or a policy with changes anywhere.
pub fn make(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    if random.bool() {
        return generate::changed(random, corpus, &WORDS);
    }
    let policy = &corpus[random.below(corpus.len() as u32) as usize];
    let lines = policy.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.filter(|_| random.below(3) > 0);
    let mut lines: Vec<_> = kept.map(<[u8]>::to_vec).collect();
    let chosen = random.below(lines.len() as u32 + 1) as usize;
    if let Some(line) = lines.get_mut(chosen) {
        generate::change(random, line, corpus, &WORDS);
    }
    lines.concat()
}
