//! Long randomized runs in each mode: were a wake-up lost, the guest would not end.
//!
//! Each run has a seed, which the message of a failure shows. `WAKEBOX_STRESS=N` makes N
//! times as many steps.

use std::ops::Range;

use wakebox::{Sandbox, WakeMode};
use wakebox_tests::{guest, is_qemu, kvm_test, require_kvm, run_here, runtime_of};

const STEPS: u64 = 3000;

/// Runs every seed in a sandbox of its own, all at once, and returns what they computed.
fn stress(mode: WakeMode, threads: usize, seeds: Range<u64>) -> Vec<String> {
    require_kvm();
    let times = std::env::var("WAKEBOX_STRESS").ok();
    let times: u64 = times.map_or(1, |times| {
        times.parse().expect("WAKEBOX_STRESS is a number")
    });
    // An emulated processor is slow, and no less concurrent.
    let steps = if is_qemu() { STEPS / 10 } else { STEPS };
    let steps = (steps * times).to_string();
    runtime_of(threads).block_on(async {
        let runs: Vec<_> = seeds
            .map(|seed| {
                let probe = Sandbox::builder()
                    .guest(guest("stress"))
                    // The probe's generator wants odd seeds.
                    .args([(2 * seed + 1).to_string(), steps.clone()])
                    .in_flight(64)
                    .wake(mode);
                (seed, tokio::spawn(run_here(probe)))
            })
            .collect();
        let mut checksums = Vec::new();
        for (seed, run) in runs {
            let ended = run
                .await
                .unwrap_or_else(|error| panic!("mode {mode}, seed {seed}: {error}"));
            checksums.push(ended.success().stdout);
        }
        checksums
    })
}

#[kvm_test]
fn out_ends() {
    stress(WakeMode::Out, 1, 0..3);
}

#[kvm_test]
fn irq_ends() {
    stress(WakeMode::Irq, 1, 10..13);
}

#[kvm_test]
fn irq_ends_when_another_thread_completes() {
    stress(WakeMode::Irq, 2, 20..23);
}

#[kvm_test]
fn poll_ends() {
    stress(WakeMode::Poll, 1, 30..33);
}

#[kvm_test]
fn poll_ends_when_many_share_the_driver() {
    stress(WakeMode::Poll, 2, 40..46);
}

#[kvm_test]
fn auto_ends() {
    stress(WakeMode::Auto, 2, 50..53);
}

#[kvm_test]
fn all_modes_compute_the_same() {
    let [first, others @ ..] = WakeMode::ALL.map(|mode| stress(mode, 2, 60..62));
    assert!(
        first.iter().all(|line| line.starts_with("checksum ")),
        "{first:?}"
    );
    assert_ne!(first[0], first[1], "seeds make a difference");
    for other in others {
        assert_eq!(first, other);
    }
}
