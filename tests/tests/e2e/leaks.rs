//! The short form of `cargo xtask soak sandboxes`.

use wakebox_tests::{alone, kvm_test, leaks};

#[kvm_test]
fn hundreds_of_sandboxes_leave_nothing() {
    alone!("hundreds_of_sandboxes_leave_nothing", || {
        let left = leaks::sandboxes(200, 400).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(left.growth() < 8 << 20, "{left}");
    });
}
