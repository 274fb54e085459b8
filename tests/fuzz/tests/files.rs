//! Files that are as much work as their format allows ([`wakebox_proofs::files`]): each ends in a named way,
//! after as many steps as are given out, in memory in proportion to the file.

use wakebox::proof;
use wakebox_proofs::files::{CASES, Case, End};

/// What a process is to do: a case by its name.
const CASE: &str = "WAKEBOX_CASE";

/// Memory beside what is in proportion to a file: the guest's own, and what is kept of its debug
/// information.
const MEMORY: u64 = 16 << 20;

/// The most memory that this process had at once since [`forget_peak`].
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse::<u64>().unwrap() << 10
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn examine(case: &Case) {
    let file = (case.file)();
    forget_peak();
    let before = peak();
    let examined = proof::examine(&file);
    let more = peak().saturating_sub(before);
    let len = file.len() as u64;
    println!("{}: {len} bytes, {} KiB of memory", case.name, more >> 10);
    match (case.end, examined) {
        (End::Refused(words), Err(error)) => {
            assert!(error.to_string().contains(words), "{error}");
        }
        (End::Stops(name), Ok(examined)) => {
            println!(
                "steps: {} to load, {} to unwind, {} for names",
                examined.load, examined.unwind, examined.symbols
            );
            assert!(examined.load <= (1 << 16) + len / 8);
            let names: Vec<_> = examined
                .frames
                .iter()
                .filter_map(|frame| frame.function.as_deref())
                .collect();
            match name {
                Some(name) => assert!(names.iter().any(|it| it.contains(name)), "{names:?}"),
                None => assert!(names.is_empty(), "{names:?}"),
            }
        }
        (_, Ok(examined)) => panic!("it was loaded: {:?}", examined.frames),
        (_, Err(error)) => panic!("it was refused: {error}"),
    }
    // The guest's memory has a copy of what is loaded, and the host one of the file.
    assert!(more <= 3 * len + MEMORY, "{} KiB of memory", more >> 10);
}

/// Each in a process of its own, of which the most memory can be told.
#[test]
fn every_file_ends_in_a_named_way_and_in_bounds() {
    if let Ok(name) = std::env::var(CASE) {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        return examine(case);
    }
    let mut failures = Vec::new();
    for case in CASES {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["every_file_ends_in_a_named_way_and_in_bounds", "--exact"])
            .arg("--nocapture")
            .env(CASE, case.name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        print!("{said}");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            failures.push(format!("{}: {} {why}", case.name, output.status));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
