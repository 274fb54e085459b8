//! Which programs of other people are here, of those that do something for who uses Wakebox.

use std::env;
use std::path::{Path, PathBuf};

/// Programs that serve one purpose.
pub(super) struct Purpose {
    /// As in "to ...".
    pub(super) to: &'static str,
    programs: &'static [Program],
}

struct Program {
    name: &'static str,
    /// What brings it, as one would type it.
    by: &'static str,
}

const fn program(name: &'static str, by: &'static str) -> Program {
    Program { name, by }
}

/// All that there are. `tests/tests/e2e/cli.rs` sees to it that all of `.ci/packages` is among them.
pub(super) const PURPOSES: [Purpose; 5] = [
    Purpose {
        to: "build guests",
        programs: &[
            program("cargo", "https://rustup.rs"),
            program("cc", "apt-get install gcc libc6-dev"),
        ],
    },
    Purpose {
        to: "debug them (`run --gdb`, crash dumps)",
        programs: &[
            program("gdb", "apt-get install gdb"),
            program("objcopy", "apt-get install binutils"),
        ],
    },
    Purpose {
        to: "run WebAssembly",
        programs: &[program("wakebox-wasm", "cargo install --path host/wasm")],
    },
    Purpose {
        to: "make WebAssembly of Python, JavaScript and C",
        programs: &[
            program("componentize-py", "pip install componentize-py"),
            program(
                "componentize-js",
                "npm install -g @bytecodealliance/componentize-js",
            ),
            program("clang", "apt-get install clang wasi-libc"),
            program("wasm-ld", "apt-get install lld"),
        ],
    },
    Purpose {
        to: "run all tests of Wakebox itself",
        programs: &[
            program("git", "apt-get install git"),
            program("chromium", "apt-get install chromium"),
            program("chromedriver", "apt-get install chromium-driver"),
            program("curl", "apt-get install curl"),
            program("mosquitto", "apt-get install mosquitto"),
            program("nginx", "apt-get install nginx-light"),
            program("openssl", "apt-get install openssl"),
            program("redis-cli", "apt-get install redis-tools"),
            program("redis-server", "apt-get install redis-server"),
            program("wrk", "apt-get install wrk"),
        ],
    },
];

impl Purpose {
    /// Those that are here, in a sentence's words; then each that is not, with what brings it.
    pub(super) fn look(&self) -> (String, Vec<String>) {
        let (here, missing): (Vec<&Program>, Vec<&Program>) = self
            .programs
            .iter()
            .partition(|program| is_here(program.name));
        let here: Vec<_> = here.iter().map(|program| program.name).collect();
        let missing = missing.iter();
        let missing = missing.map(|program| format!("{} ({})", program.name, program.by));
        (here.join(", "), missing.collect())
    }
}

/// Whether a program can be started: from the search path, or where Debian puts servers, or beside this one.
fn is_here(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let beside = env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent).map(Path::to_owned);
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .chain(beside)
        .any(|folder| {
            let file = folder.join(name);
            rustix::fs::access(&file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
        })
}
