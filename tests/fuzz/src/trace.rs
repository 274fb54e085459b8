//! Trace files, as `wakebox run --trace` writes them and others read them.

use wakebox::trace::json::{Reader, Writer};
use wakebox::trace::{Sink, Summary};
use wakebox_proofs::Random;

use crate::generate;

/// Words of the format.
const WORDS: [&[u8]; 12] = [
    b"\"args\":{",
    b"\"event\":",
    b"{\"cat\":\"wakebox\",",
    b"{\"name\":\"wakebox_end\"",
    b"},\n",
    b"null",
    b"\\ud800",
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"[[[[",
    b"\"task\":1",
];

/// Reads what may be a trace; what could be read is counted, and written so that it is read the
/// same. Returns how many events that were.
pub fn run(data: &[u8]) -> u64 {
    let Ok(reader) = Reader::new(data) else {
        return 0;
    };
    let events: Vec<_> = reader.map_while(Result::ok).collect();
    let mut summary = Summary::new();
    let mut written = Vec::new();
    let mut writer = Writer::new(&mut written);
    for event in &events {
        summary.count(event);
        writer.event(event).expect("memory takes everything");
    }
    drop(writer);
    let _ = format!("{summary:?}");
    if !events.is_empty() {
        let again = Reader::new(&written[..]).expect("it was written as a trace");
        let again: Vec<_> = again.map_while(Result::ok).collect();
        assert_eq!(again, events, "a trace is read as it was written");
    }
    events.len() as u64
}

/// A trace with a few changes.
pub fn make(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    generate::changed(random, corpus, &WORDS)
}
