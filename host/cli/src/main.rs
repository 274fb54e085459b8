//! The command `wakebox`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wakebox_cli::main()
}
