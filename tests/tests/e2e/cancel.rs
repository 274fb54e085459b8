//! Operations that are given up in flight, and rings that are full.

use tokio::io::duplex;
use wakebox::{Input, Policy, Sandbox, WakeMode};
use wakebox_tests::{guest, kvm_test, run, run_here, runtime};

#[kvm_test(modes)]
fn operations_given_up_in_flight_leave_nothing_behind(mode: WakeMode) {
    runtime().block_on(async {
        // An input that says nothing and does not end.
        let (_silent, input) = duplex(64);
        let address = free_address();
        let policy = Policy::new()
            .allow_listen(address.parse().unwrap())
            .allow_connect(address.parse().unwrap());
        let probe = Sandbox::builder()
            .guest(guest("cancel"))
            .args([address])
            .policy(policy)
            .stdin(Input::reader(input))
            .wake(mode);
        let ended = run_here(probe).await.success();
        let expected = [
            "stdin dropped",
            "sleep dropped",
            "no stranger is woken true",
            "accept dropped",
            "read dropped",
            "bytes kept true",
            "write dropped true",
            "some cancels true",
        ];
        assert_eq!(ended.lines(), expected, "mode {mode}");
    });
}

/// An address that was free a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").to_string()
}

#[kvm_test(modes)]
fn a_guest_that_wants_more_than_fits_waits_and_gets_it(mode: WakeMode) {
    for in_flight in [1, 64, 4096] {
        let probe = Sandbox::builder()
            .guest(guest("ringfull"))
            .args(["20000"])
            .in_flight(in_flight)
            .wake(mode);
        let ended = run(probe).success();
        let expected = ["ended 20000 of 20000", "in order true", "still works true"];
        assert_eq!(
            ended.lines(),
            expected,
            "mode {mode}, {in_flight} in flight"
        );
    }
}
