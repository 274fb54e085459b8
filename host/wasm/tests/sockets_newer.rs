//! Sockets as components of WASI 0.3 see them.

mod common;

use std::io::{Read, Write};

use wakebox::Policy;

use common::peers::{Callers, server, to_port, udp_peers};
use common::programs::{Kind, RUN_NEWER, STREAMS};

const SOCKETS: Kind = Kind {
    wit: include_str!("components/sockets/newer.wit"),
    world: None,
    library: &[STREAMS, include_str!("components/sockets/newer.wat")],
    words: &[
        ("STREAMS", "wasi:sockets/types@0.3.0"),
        ("FUNCTION", "[method]tcp-socket.receive"),
    ],
    function: RUN_NEWER,
    errors: &[
        (0, "access-denied"),
        (1, "not-supported"),
        (2, "invalid-argument"),
        (5, "invalid-state"),
        (9, "connection-refused"),
        (14, "other"),
        (100, "no access to the name"),
        (101, "no name"),
    ],
};

/// `$d` of programs is a TCP socket, `$f` another, `$g` a UDP socket.
const BEGIN: &str = "
    (local.set $d (call $tcp (i32.const 0)))
    (local.set $f (call $tcp (i32.const 0)))
    (local.set $g (call $udp))";

#[tokio::test(flavor = "multi_thread")]
async fn a_component_connects_sends_ends_its_side_and_receives_to_the_end() {
    let much = "x".repeat(200_000);
    let answer = much.clone();
    let (port, heard) = server(move |listener| {
        let mut peer = listener.accept().unwrap().0;
        let mut heard = String::new();
        peer.read_to_string(&mut heard).unwrap();
        peer.write_all(answer.as_bytes()).unwrap();
        heard
    });
    let program = format!(
        "{BEGIN} (call $say (call $connect (local.get $d) (i32.const {port})))
        (call $say (call $remote-port (local.get $d)))
        (call $open (local.get $d))
        (call $say (call $put <pi>))
        (call $say (call $put <ng>))
        (call $say (call $end-put))
        (call $say (call $take-all))
        (call $open (local.get $d))
        (call $say (call $take-all))
        (call $say (call $told (global.get $out-end)))"
    );
    let mut said = SOCKETS.said_with(to_port(port), &program).await;
    let port = port.to_string();
    let ends = said.split_off(said.len() - 3);
    let received = said.split_off(5).concat();
    assert_eq!(said, ["0", &*port, "2", "2", "0"]);
    assert!(received == much, "{} bytes", received.len());
    // Each direction has one stream.
    assert_eq!(ends, ["0", "invalid-state", "invalid-state"]);
    assert_eq!(heard.join().unwrap(), "ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_listens_on_a_port_of_the_hosts_choice_and_serves_who_comes() {
    let callers = Callers::default();
    let calls = callers.clone();
    let connects = move |number: i32| calls.hear(number);
    let serve = "
        (local.set $f (call $accept (local.get $g)))
        (call $open (local.get $f))
        (call $say (call $take-all))
        (call $say (call $put <served>))
        (call $say (call $end-put))
        (call $drop-tcp (local.get $f))";
    let program = format!(
        "{BEGIN} (call $say (call $bind (local.get $d) (i32.const 0)))
        (local.set $g (call $listen (local.get $d)))
        (call $say (call $is-listening (local.get $d)))
        (call $say (call $listen (local.get $d)))
        (call $say (call $local-port (local.get $d))) {serve}
        (call $say (call $local-port (local.get $d))) {serve}"
    );
    let policy = Policy::new().allow_listen("127.0.0.1:0".parse().unwrap());
    let (said, _) = SOCKETS.said(policy, &program, connects).await;
    let port = &*said[3];
    let served = ["hello", "0", "6", "0"];
    let expected = [
        &["0", "1", "invalid-state", port][..],
        &served,
        &[port],
        &served,
    ]
    .concat();
    assert_eq!(said, expected);
    assert_eq!(callers.heard(), ["served"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_connects_are_in_flight_at_once() {
    const COUNT: usize = 50;
    let (port, server) = server(|listener| {
        (0..COUNT)
            .map(|_| listener.accept().unwrap().0)
            .collect::<Vec<_>>()
    });
    let program =
        format!("(call $say (call $connect-many (i32.const {port}) (i32.const {COUNT})))");
    let said = SOCKETS.said_with(to_port(port), &program).await;
    assert_eq!(said, ["50"]);
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_to_whom_they_may_and_a_peer_may_be_chosen() {
    let (port, stranger, echoes) = udp_peers();
    let other = stranger.local_addr().unwrap().port();
    let policy = Policy::new()
        .allow_udp(format!("127.0.0.1:{port}").parse().unwrap())
        .allow_udp_bind("0.0.0.0:0".parse().unwrap());
    let port_is = |port: u16| format!("(i32.const {port})");
    let (port, other) = (port_is(port), port_is(other));
    let dialogue = [
        ("(call $receive-from (local.get $g))", "invalid-state"),
        ("(call $disconnect-udp (local.get $g))", "invalid-state"),
        ("(call $udp-peer (local.get $g))", "invalid-state"),
        (
            "(call $send-to (local.get $g) (i32.const 0) <nobody>)",
            "invalid-argument",
        ),
        (
            &*format!("(call $send-to (local.get $g) {other} <stranger>)"),
            "access-denied",
        ),
        (
            &*format!("(call $send-to (local.get $g) {port} <one>)"),
            "0",
        ),
        (
            &*format!("(call $bind-udp (local.get $g) {port})"),
            "invalid-state",
        ),
    ];
    let asks: String = dialogue
        .map(|(ask, _)| format!("(call $say {ask})"))
        .concat();
    let program = format!(
        "{BEGIN} {asks}
        (call $say (i32.eq (call $receive-from (local.get $g)) {port}))
        (call $say (call $connect-udp (local.get $g) {port}))
        (call $say (i32.eq (call $udp-peer (local.get $g)) {port}))
        (call $say (call $send-to (local.get $g) (i32.const 0) <two>))
        (call $say (i32.eq (call $receive-from (local.get $g)) {port}))
        (call $say (call $send-to (local.get $g) {other} <stranger>))
        (call $say (call $disconnect-udp (local.get $g)))"
    );
    let said = SOCKETS.said_with(policy, &program).await;
    let mut expected = dialogue.map(|(_, answer)| answer).to_vec();
    expected.extend([
        "one",
        "1",
        "0",
        "1",
        "0",
        "two",
        "1",
        "invalid-argument",
        "not-supported",
    ]);
    assert_eq!(said, expected);
    echoes.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_denied_and_what_is_no_name_is_said() {
    let dialogue = [
        (
            "(call $connect (local.get $d) (i32.const 9))",
            "access-denied",
        ),
        (
            "(call $connect (local.get $d) (i32.const 9))",
            "invalid-state",
        ),
        ("(call $bind (local.get $f) (i32.const 9))", "access-denied"),
        // Binds to any address.
        ("(call $listen (local.get $f))", "access-denied"),
        (
            "(call $bind-udp (local.get $g) (i32.const 0))",
            "access-denied",
        ),
        ("(call $resolve <example.org>)", "no access to the name"),
        ("(call $resolve <no name>)", "no name"),
        ("(call $hops (call $tcp (i32.const 1)))", "not-supported"),
        (
            "(call $bind (call $tcp (i32.const 1)) (i32.const 0))",
            "invalid-argument",
        ),
        ("(call $idle (local.get $f) (i64.const 1000000000))", "0"),
        ("(call $interval (local.get $f))", "1000000000"),
        ("(call $remote-port (local.get $f))", "invalid-state"),
    ];
    SOCKETS.answers(Policy::new(), BEGIN, &dialogue).await;
    let policy = Policy::new().allow_resolve("localhost".parse().unwrap());
    let said = SOCKETS
        .said_with(policy, "(call $say (call $resolve <localhost>))")
        .await;
    assert_eq!(said, ["1", "0"]);
    let port = to_nobody();
    let refused = format!("(call $connect (local.get $d) (i32.const {port}))");
    SOCKETS
        .answers(to_port(port), BEGIN, &[(&refused, "connection-refused")])
        .await;
}

/// A port on which nobody listens any more.
fn to_nobody() -> u16 {
    let (port, server) = server(drop);
    server.join().unwrap();
    port
}
