//! Every operation, in every mode, from debug and release guests.

use wakebox::{Input, Policy, Sandbox, WakeMode};
use wakebox_tests::{guest, guest_debug, kvm_test, run};

/// An address that was free a moment ago.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").to_string()
}

#[kvm_test(modes)]
fn every_operation_works_in_every_mode(mode: WakeMode) {
    for build in [guest("ops"), guest_debug("ops")] {
        let address = free_address();
        let policy = Policy::new()
            .allow_listen(address.parse().unwrap())
            .allow_connect(address.parse().unwrap());
        let probe = Sandbox::builder()
            .guest(build)
            .args([address.as_str(), "with space", "ünï"])
            .env("PROBE", "first")
            .env("PROBE", "last")
            .policy(policy)
            .stdin(Input::bytes("typed\n"))
            .wake(mode);
        let ended = run(probe).success();
        let args = format!("args ok [{address:?}, \"with space\", \"ünï\"]");
        let expected = [
            "nop ok ()",
            "deadline ok true",
            "clock ok true",
            "wall clock ok true",
            "entropy ok true",
            "seed ok true",
            "stdin ok \"typed\\n\"",
            &args,
            "env ok Some(\"last\")",
            "console ok",
            "listen ok",
            "name ok 127.0.0.1",
            "connect ok true",
            "shutdown ok",
            "read ok true",
            "read at end ok 0",
            "accept ok true 0",
            "accept from ok true",
        ];
        assert_eq!(ended.lines(), expected, "mode {mode}");
        assert_eq!(ended.stderr, "console error ok\n");
    }
}

#[kvm_test]
fn every_demo_that_asks_nothing_runs_in_both_builds() {
    for demo in ["hello", "sequential", "concurrent", "pipeline"] {
        for build in [guest(demo), guest_debug(demo)] {
            let ended = run(Sandbox::builder().guest(build)).success();
            assert!(!ended.stdout.is_empty(), "{demo}");
        }
    }
}

#[kvm_test]
fn an_anonymous_visitor_is_greeted_and_a_known_one_by_name() {
    for (input, name) in [
        ("Ada\n", "Ada"),
        ("Ada", "Ada"),
        ("", "anonymous"),
        ("\n", "anonymous"),
    ] {
        let ended = run(Sandbox::builder()
            .guest(guest("greet"))
            .stdin(Input::bytes(input)));
        let ended = ended.success();
        assert!(
            ended.stdout.ends_with(&format!("Hello, {name}!\n")),
            "{}",
            ended.stdout
        );
    }
}
