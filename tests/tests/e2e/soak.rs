//! Ten thousand connections at once: none is lost, and what they took comes back. `cargo xtask
//! soak` holds them for a minute; here they send some messages each.

use std::process::Command;

use wakebox::WakeMode;
use wakebox_tests::kvm_test;

#[kvm_test(modes = [Auto, Out])]
fn ten_thousand_connections_leave_nothing_behind(mode: WakeMode) {
    let mode = mode.name();
    let output = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--rounds", "2", "--cycles", "3", "--wake", mode])
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "mode {mode}:\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // All that `soak` checks, it checks before it says this.
    assert!(text.contains("messages, none lost"), "mode {mode}:\n{text}");
}
