//! Searches the files of a directory: `grep TEXT [DIRECTORY]`.
//!
//! What to watch: a directory is listed while the files found so far are searched, up to 32 at
//! once, and only what was granted can be found: no link leads out. The lines are those of the
//! host's own `grep -r`, which `-- --selftest` compares.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use async_lock::Semaphore;
use wakebox_guest::fs::{File, FileKind, read_dir};
use wakebox_guest::io::Result;
use wakebox_guest::time::Instant;
use wakebox_guest::{env, eprintln, println, spawn};

/// Where `cargo xtask run grep` puts the directory.
const DIRECTORY: &str = "/data";

/// Files that are open at once.
const AT_ONCE: usize = 32;

/// Bytes that are read at once.
const CHUNK: usize = 32 << 10;

#[derive(Default)]
struct Tally {
    files: Cell<usize>,
    bytes: Cell<usize>,
    lines: Cell<usize>,
}

/// Prints the lines of a file that have the text in them. One with a zero byte is no text.
async fn search(path: &str, shown: &str, text: &[u8], tally: &Tally) -> Result<()> {
    let mut file = File::open(path).await?;
    let mut chunk = vec![0; CHUNK];
    // The beginning of a line whose end was not read yet, and the lines found.
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    loop {
        let count = file.read(&mut chunk).await?;
        let new = &chunk[..count];
        if new.contains(&0) {
            return Ok(());
        }
        let end = new.iter().rposition(|&byte| byte == b'\n');
        let whole = match end {
            Some(end) => bytes.len() + end + 1,
            None if count == 0 => bytes.len(),
            None => 0,
        };
        bytes.extend_from_slice(new);
        for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
            if line.windows(text.len()).any(|part| part == text) {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                found.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        bytes.drain(..whole);
        tally.bytes.set(tally.bytes.get() + count);
        if count == 0 {
            break;
        }
    }
    tally.files.set(tally.files.get() + 1);
    tally.lines.set(tally.lines.get() + found.len());
    for line in found {
        println!("{shown}:{line}");
    }
    Ok(())
}

#[wakebox_guest::main]
async fn main() -> Result<i32> {
    let mut args = env::args();
    let Some(text) = args.next().filter(|text| !text.is_empty()) else {
        eprintln!("usage: grep TEXT [DIRECTORY]");
        return Ok(2);
    };
    let root = args.next().unwrap_or(DIRECTORY);

    let start = Instant::now();
    let (tally, turns) = (Rc::new(Tally::default()), Rc::new(Semaphore::new(AT_ONCE)));
    let mut searches = Vec::new();
    let mut directories = vec![String::from(root)];
    while let Some(directory) = directories.pop() {
        let mut entries = read_dir(&directory).await?;
        while let Some(entry) = entries.next_entry().await? {
            let path = entry.path();
            match entry.kind() {
                FileKind::Directory => directories.push(path),
                FileKind::File => {
                    let (tally, turns) = (tally.clone(), turns.clone());
                    searches.push(spawn(async move {
                        let _turn = turns.acquire().await;
                        let shown = path
                            .strip_prefix(root)
                            .unwrap_or(&path)
                            .trim_start_matches('/');
                        let found = search(&path, shown, text.as_bytes(), &tally).await;
                        found.map_err(|error| format!("{shown}: {error}"))
                    }));
                }
                // `grep -r` follows no links either.
                _ => {}
            }
        }
    }
    for search in searches {
        if let Ok(Err(error)) = search.await {
            eprintln!("{error}");
        }
    }
    eprintln!(
        "{} lines in {} files, {} bytes, {} ms",
        tally.lines.get(),
        tally.files.get(),
        tally.bytes.get(),
        start.elapsed().as_millis()
    );
    Ok(i32::from(tally.lines.get() == 0))
}
