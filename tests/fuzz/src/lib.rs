//! Fuzzers: everything in the host that reads what somebody else has written, fed with anything.
//!
//! A target is a function over bytes. Bytes come from libFuzzer, which looks at what they reach in
//! the code (`cargo xtask fuzz --coverage`), or from this crate's own generator, which knows what
//! the target reads and runs on every stable toolchain (`cargo xtask fuzz`). A target fails by a
//! panic; overflow checks and debug assertions are on.
//!
//! In `corpus/` are inputs to begin with, small ones, and those that once failed: a test runs them
//! all.

pub mod debug;
pub mod elf;
pub mod generate;
pub mod operations;
pub mod paths;
pub mod policy;
pub mod ring;
pub mod template;
pub mod trace;

use wakebox_proofs::Random;

/// Something that reads bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, as on the command line and of its folder in `corpus/`.
    pub name: &'static str,
    /// What it reads.
    pub about: &'static str,
    /// Inputs that a whole run has.
    pub runs: u64,
    /// Reads one input. Returns how far that went, in [`Self::reached`].
    pub run: fn(&[u8]) -> u64,
    /// What is counted of that which gets past the first checks: a fuzzer whose every input is
    /// refused at once looks at nothing.
    pub reached: &'static str,
    /// Makes an input up, from those in the corpus.
    pub make: fn(&mut Random, &[Vec<u8>]) -> Vec<u8>,
}

impl Target {
    /// What came of so many inputs, as a line.
    #[must_use]
    pub fn tally(&self, runs: u64, reached: u64) -> String {
        format!("{}: {runs} inputs, {reached} {}", self.name, self.reached)
    }
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "ring",
        about: "the driver over rings whose memory changes at every read",
        runs: 10_000_000,
        run: ring::run,
        reached: "turns of the driver",
        make: ring::make,
    },
    Target {
        name: "elf",
        about: "ELF files: loader, page tables, unwind tables, symbols",
        runs: 1_000_000,
        run: elf::run,
        reached: "guests loaded",
        make: elf::make,
    },
    Target {
        name: "debug",
        about: "what a guest's file says of its calls: debug information, unwind tables, symbols",
        runs: 200_000,
        run: debug::run,
        reached: "functions named",
        make: debug::make,
    },
    Target {
        name: "operations",
        about: "each operation's arguments and what they name in the arena",
        runs: 1_000_000,
        run: operations::run,
        reached: "operations completed",
        make: operations::make,
    },
    Target {
        name: "paths",
        about: "operations with paths, and the same system calls in a twin of the directory",
        runs: 20_000,
        run: paths::run,
        reached: "operations done",
        make: paths::make,
    },
    Target {
        name: "policy",
        about: "policy files",
        runs: 1_000_000,
        run: policy::run,
        reached: "policies",
        make: policy::make,
    },
    Target {
        name: "template",
        about: "template files, and what was in flight in them",
        runs: 1_000_000,
        run: template::run,
        reached: "templates",
        make: template::make,
    },
    Target {
        name: "trace",
        about: "trace files",
        runs: 1_000_000,
        run: trace::run,
        reached: "events",
        make: trace::make,
    },
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The inputs that the repository keeps for a target, in the order of their names.
///
/// # Panics
///
/// If they cannot be read.
#[must_use]
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("corpus").join(name);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| std::fs::read(path).expect("a file of the corpus");
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a target read its corpus and so many inputs of its generator; `cargo xtask fuzz` has
    /// more, and an optimized build.
    fn survives(name: &str, runs: u64) {
        let target = target(name).expect("there is a target of this name");
        let corpus = corpus(name);
        assert!(
            !corpus.is_empty(),
            "corpus/{name} has something to begin with"
        );
        corpus.iter().for_each(|input| {
            (target.run)(input);
        });
        let mut random = Random::new(1);
        let input = || (target.make)(&mut random, &corpus);
        let inputs = std::iter::repeat_with(input).take(runs as usize);
        let reached: u64 = inputs.map(|input| (target.run)(&input)).sum();
        println!("{}", target.tally(runs, reached));
        assert!(reached > runs / 100, "hardly any input gets anywhere");
    }

    #[test]
    fn rings_of_any_content_are_served() {
        survives("ring", 40_000);
    }

    #[test]
    fn any_bytes_are_a_guest_or_not() {
        survives("elf", 3_000);
    }

    #[test]
    fn any_debug_information_has_an_end() {
        survives("debug", 500);
    }

    #[test]
    fn operations_with_any_arguments_are_done_or_refused() {
        survives("operations", 5_000);
    }

    #[test]
    fn the_kernels_answer_for_a_path_is_the_guests() {
        survives("paths", 200);
    }

    #[test]
    fn any_text_is_a_policy_or_not() {
        survives("policy", 20_000);
    }

    #[test]
    fn any_bytes_are_a_template_or_not() {
        survives("template", 2_000);
    }

    #[test]
    fn any_bytes_are_a_trace_or_not() {
        survives("trace", 10_000);
    }
}
