//! The short forms of `cargo xtask soak sandboxes` and `takes`.

use wakebox_tests::{alone, kvm_test, leaks, takes};

#[kvm_test]
fn hundreds_of_sandboxes_leave_nothing() {
    alone!("hundreds_of_sandboxes_leave_nothing", || {
        let left = leaks::sandboxes(200, 400).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(left.growth() < 8 << 20, "{left}");
    });
}

#[kvm_test]
fn a_thousand_tenants_of_a_pool_leave_nothing_to_each_other() {
    alone!(
        "a_thousand_tenants_of_a_pool_leave_nothing_to_each_other",
        || {
            let left = takes::takes(200, 1_000, 1).unwrap_or_else(|error| panic!("{error:#}"));
            assert!(left.growth() < 8 << 20, "{left}");
        }
    );
}
