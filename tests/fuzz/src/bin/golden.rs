//! Writes template files that tests keep: `cargo xtask golden`.
//!
//! `golden FILE TO` copies a template file, compressed, without what it needs of the processor on which
//! it was taken. `golden --smallest TO` writes those of the smallest guest to a folder, for the fuzzer.

use std::process::ExitCode;

use wakebox::proof::template;
use wakebox::template::FileOptions;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = || FileOptions::new();
    let written = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--smallest", to] => {
            let plain = template::smallest(&options(), &[], 1, 0);
            let packed = template::smallest(&options().compressed(), &[], 1, 0);
            let several = template::smallest(&options(), &[], 3, 0);
            let windows = template::smallest(&options(), &[], 1, 2);
            let write = |name, file| std::fs::write(format!("{to}/{name}"), file);
            write("smallest", plain)
                .and_then(|()| write("compressed", packed))
                .and_then(|()| write("several", several))
                .and_then(|()| write("windows", windows))
        }
        [from, to] => std::fs::read(from).and_then(|file| {
            std::fs::write(
                to,
                template::for_any_processor(&file, &options().compressed()),
            )
        }),
        _ => {
            eprintln!("golden FILE TO, or golden --smallest TO");
            return ExitCode::FAILURE;
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("golden: {error}");
            ExitCode::FAILURE
        }
    }
}
