//! The short form of `cargo xtask soak sandboxes`.

use wakebox_tests::{alone, leaks, require_kvm};

#[test]
#[cfg_attr(skip_kvm, ignore = "needs /dev/kvm")]
fn hundreds_of_sandboxes_leave_nothing() {
    require_kvm();
    alone!("hundreds_of_sandboxes_leave_nothing", || {
        let left = leaks::sandboxes(200, 400).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(left.growth() < 8 << 20, "{left}");
    });
}
