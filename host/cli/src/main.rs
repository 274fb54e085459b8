//! The command `wakebox`.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

use std::process::ExitCode;

fn main() -> ExitCode {
    wakebox_cli::main()
}
