//! Timers: in order, many, none, beyond all time, and given up.

use wakebox::{Sandbox, WakeMode};
use wakebox_tests::{guest, guest_debug, kvm_test, run};

#[kvm_test(modes)]
fn timers_fire_in_order_and_none_early(mode: WakeMode) {
    for build in [guest("timers"), guest_debug("timers")] {
        let ended = run(Sandbox::builder().guest(build).wake(mode)).success();
        let expected = [
            "ten in order true",
            "many in order true",
            "zero true",
            "far true",
            "dropped true",
            "few deadlines true",
            "interval true",
        ];
        assert_eq!(ended.lines(), expected, "mode {mode}");
    }
}
