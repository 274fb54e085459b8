//! The command `wakebox`, where tests of this package find it: cargo builds for a test the
//! programs of its own package only.

use std::process::ExitCode;

fn main() -> ExitCode {
    wakebox_cli::main()
}
