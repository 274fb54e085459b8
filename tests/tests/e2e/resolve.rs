//! Names: who may have them resolved, and what they may stand for.
//!
//! `0x7f.1` is a name to Wakebox and the address 127.0.0.1 to this host's resolver, which reads
//! numbers as `inet_aton` does: a name that points into the host's own network, without a name
//! server.

use std::net::TcpListener;

use wakebox::{Policy, Sandbox};
use wakebox_tests::{Ended, guest, kvm_test, run};

const TRICK: &str = "0x7f.1";

fn probe(policy: Policy, commands: &[String]) -> Ended {
    let builder = Sandbox::builder()
        .guest(guest("sockets"))
        .args(commands)
        .policy(policy);
    run(builder).success()
}

fn connect(targets: &[String]) -> Policy {
    targets.iter().fold(Policy::new(), |policy, target| {
        policy.allow_connect(target.parse().unwrap())
    })
}

/// Somebody who listens on loopback, and its port.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn was_reached(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

#[kvm_test]
fn localhost_is_reached_by_its_name() {
    let (listener, port) = listener();
    let policy = connect(&[format!("localhost:{port}")]);
    let commands = [
        format!("tcp localhost:{port}"),
        format!("tcp LOCALHOST:{port}"),
        format!("lookup-connect localhost {port}"),
    ];
    let ended = probe(policy, &commands);
    assert_eq!(ended.lines(), ["ok", "ok", "ok connected"]);
    assert!(was_reached(&listener));
}

#[kvm_test]
fn a_dot_at_the_end_makes_no_other_name() {
    let (listener, port) = listener();
    let commands = [
        format!("tcp localhost.:{port}"),
        format!("tcp localhost:{port}"),
        format!("lookup-connect LocalHost. {port}"),
        format!("tcp elsewhere.localhost.:{port}"),
        format!("tcp .:{port}"),
        format!("tcp localhost..:{port}"),
    ];
    for grant in ["localhost", "localhost."] {
        let policy = connect(&[format!("{grant}:{port}")]);
        let ended = probe(policy, &commands);
        let lines = ended.lines();
        assert_eq!(lines[..3], ["ok", "ok", "ok connected"], "{grant}");
        assert_eq!(
            lines[3..],
            ["PermissionDenied", "InvalidInput", "InvalidInput"]
        );
    }
    assert!(was_reached(&listener));
}

#[kvm_test]
fn a_name_does_not_lead_into_the_hosts_own_network() {
    let (listener, port) = listener();
    let policy = connect(&[format!("{TRICK}:{port}")]);
    let commands = [
        format!("lookup {TRICK}"),
        format!("tcp {TRICK}:{port}"),
        format!("lookup-connect {TRICK} {port}"),
        format!("tcp 127.0.0.1:{port}"),
        format!("tcp localhost:{port}"),
    ];
    let ended = probe(policy, &commands);
    let lines = ended.lines();
    assert_eq!(lines[0], "ok [127.0.0.1]");
    assert_eq!(lines[1..], ["PermissionDenied"; 4]);
    assert_eq!(ended.stats.refused, [("connect", 4)]);
    assert!(!was_reached(&listener));
}

#[kvm_test]
fn it_does_if_the_address_is_granted_too() {
    let (listener, port) = listener();
    let policy = connect(&[format!("{TRICK}:{port}"), format!("127.0.0.0/8:{port}")]);
    let ended = probe(policy, &[format!("tcp {TRICK}:{port}")]);
    assert_eq!(ended.lines(), ["ok"]);
    assert!(was_reached(&listener));
}

#[kvm_test]
fn a_grant_for_an_address_resolves_no_name() {
    let (listener, port) = listener();
    let policy = connect(&["127.0.0.0/8".into()]);
    let commands = [
        format!("tcp {TRICK}:{port}"),
        "lookup localhost".into(),
        "lookup 127.0.0.1".into(),
        "lookup ::1".into(),
    ];
    let ended = probe(policy, &commands);
    assert_eq!(
        ended.lines(),
        [
            "PermissionDenied",
            "PermissionDenied",
            "ok [127.0.0.1]",
            "ok [::1]"
        ]
    );
    assert_eq!(ended.stats.refused, [("connect", 1), ("resolve", 1)]);
    assert!(!was_reached(&listener));
}

#[kvm_test]
fn resolving_is_granted_apart_and_opens_nothing() {
    let (listener, port) = listener();
    let policy = Policy::new()
        .allow_resolve("localhost".parse().unwrap())
        .allow_resolve("*.invalid".parse().unwrap());
    let commands = [
        format!("lookup-connect localhost {port}"),
        "lookup nobody.invalid".into(),
        "lookup invalid".into(),
        "lookup a..b".into(),
        format!("lookup {}", "x".repeat(300)),
        "lookup".into(),
    ];
    let ended = probe(policy, &commands);
    assert_eq!(
        ended.lines(),
        [
            "PermissionDenied",
            "NotFound",
            "PermissionDenied",
            "InvalidInput",
            "InvalidInput",
            "InvalidInput"
        ]
    );
    assert!(!was_reached(&listener));
}

#[kvm_test]
fn errors_of_a_connection_have_their_names() {
    let (listener, port) = listener();
    drop(listener);
    let policy = connect(&[
        "nobody.invalid".into(),
        format!("127.0.0.1:{port}"),
        "localhost".into(),
    ]);
    let commands = [
        "tcp nobody.invalid:80".into(),
        format!("tcp 127.0.0.1:{port}"),
        format!("tcp localhost:{port}"),
        "tcp localhost".into(),
        "tcp :80".into(),
    ];
    let ended = probe(policy, &commands);
    assert_eq!(
        ended.lines(),
        [
            "NotFound",
            "ConnectionRefused",
            "ConnectionRefused",
            "InvalidInput",
            "InvalidInput"
        ]
    );
}
