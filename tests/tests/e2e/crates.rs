//! Crates that work in guests unchanged and are to stay so. Their guest is built here, so that nobody else
//! waits for them.

use std::process::Command;

use wakebox::{Sandbox, WakeMode};
use wakebox_tests::programs::output;
use wakebox_tests::{guest, kvm_test, root, run};

#[kvm_test]
fn crates_of_the_ecosystem_work_in_a_guest_as_they_are() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args("build --quiet --release --locked --package wakebox-crates".split(' '));
    build
        .current_dir(root().join("tests/guests"))
        .env("CARGO_TARGET_DIR", root().join("target/guests"))
        // It would hide the flags in the workspace's own configuration.
        .env_remove("RUSTFLAGS");
    output(&mut build);
    for mode in WakeMode::ALL {
        let ended = run(Sandbox::builder().guest(guest("crates")).wake(mode));
        let expected = [
            "embassy-futures 1",
            "futures-concurrency [2, 1]",
            "futures-concurrency race 1",
            "event-listener 3",
            "maitake-sync Ok(true)",
            "thingbuf 10",
            "regex colour 42",
            "sha2 ba7816bf",
        ];
        assert_eq!(ended.success().lines(), expected, "mode {mode}");
    }
}
