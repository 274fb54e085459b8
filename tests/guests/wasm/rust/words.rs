//! Counts the words of the files that are named, and writes a file with the counts: a program of `std`.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

fn main() -> std::io::Result<()> {
    let start = Instant::now();
    let mut files: Vec<String> = env::args().skip(1).collect();
    let to = files.pop().expect("the last is where the counts go");
    let mut counts: HashMap<String, usize> = HashMap::new();
    for file in files {
        for word in fs::read_to_string(file)?.split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let lines = counts.iter().map(|(word, count)| format!("{} {}\n", count, word));
    fs::write(&to, lines.collect::<String>())?;
    thread::sleep(Duration::from_millis(2));
    assert!(start.elapsed() >= Duration::from_millis(2));
    let level = env::var("LEVEL").unwrap_or_default();
    println!("{} words, {} bytes, {}", counts.len(), fs::metadata(&to)?.len(), level);
    Ok(())
}
