//! What is told of a guest that has no memory left.

use std::process::Command;

use wakebox::trace::Recording;
use wakebox::{Outcome, Sandbox, WakeMode};
use wakebox_tests::{guest, kvm_test, runtime_of};

use crate::ends::marked;

/// What `wakebox run` says of a guest that has taken all of its 16 MiB.
fn told(options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(["run", "--mem", "16M"]).args(options);
    command.arg(guest("quota")).arg("memory");
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(101), "{told}");
    told
}

#[kvm_test]
fn who_is_out_of_memory_is_told_what_gives_more() {
    let told = told(&[]);
    assert!(told.contains("memory allocation of "), "{told}");
    assert!(told.contains("`--mem` gives it more"), "{told}");
    // And what has become of what it has.
    assert!(told.contains("= of 16 MiB, the heap has "), "{told}");
    assert!(told.contains("= `--trace FILE` has it say who"), "{told}");
}

#[kvm_test]
fn of_a_traced_guest_those_are_named_who_have_the_most_memory() {
    let told = told(&["--trace", "/dev/null"]);
    let of = |mark: &str| format!("quota.rs:{}:", marked("quota", mark));
    let lines: Vec<_> = told
        .lines()
        .filter(|line| line.contains("of the largest blocks, "))
        .collect();
    // What was given back is not among them, and the most comes first.
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        lines[0].contains(" MiB in ") && lines[0].contains(&of("loop")),
        "{told}"
    );
    assert!(
        lines[1].contains("1.4 MiB in 2 by ") && lines[1].contains(&of("resize")),
        "{told}"
    );
}

#[kvm_test]
fn a_program_learns_who_has_the_memory_of_a_guest_in_every_mode() {
    for mode in WakeMode::ALL {
        let builder = Sandbox::builder()
            .guest(guest("quota"))
            .memory(16 << 20)
            .wake(mode)
            .args(["memory"])
            .trace(Recording::new());
        let mut sandbox = builder.build().unwrap();
        assert!(sandbox.largest_allocations().is_empty());
        let outcome = runtime_of(2).block_on(sandbox.run()).unwrap();
        assert!(matches!(outcome, Outcome::Panic(_)), "{outcome}");
        let largest = sandbox.largest_allocations();
        let first = &largest[0];
        assert!(first.bytes >= u64::from(first.blocks) << 20, "{first}");
        let location = first.backtrace.location().unwrap();
        let file = location.file.as_deref().unwrap();
        assert!(file.ends_with("quota.rs"), "mode {mode}: {first}");
    }
}
