//! The command `wakebox`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wakebox::cli::main()
}
