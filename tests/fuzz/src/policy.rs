//! Policy files.

use wakebox::Policy;
use wakebox_proofs::Random;

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

/// Reads what may be a policy, and asks it what it allows if it is one.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(policy) = Policy::from_toml(&text, "/etc/app/policy.toml") {
        let again = policy.clone().and(policy.clone());
        // What it says of itself, for people.
        let _ = format!("{policy:?}{:?}", again.validate());
        let _ = policy.may_call("kv.get");
    }
}

/// A policy with a few changes.
pub fn make(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    generate::changed(random, corpus, &WORDS)
}
