//! Sockets as components see them: what is granted, what is done, and what is refused with which error.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;

use wakebox::Policy;

use common::peers::{Callers, server, to_port, udp_peers};
use common::programs::{Kind, RUN};

const SOCKETS: Kind = Kind {
    wit: include_str!("components/sockets/world.wit"),
    world: None,
    library: &[include_str!("components/sockets/library.wat")],
    words: &[],
    function: RUN,
    errors: &[
        (1, "access-denied"),
        (2, "not-supported"),
        (3, "invalid-argument"),
        (6, "concurrency-conflict"),
        (7, "not-in-progress"),
        (8, "would-block"),
        (9, "invalid-state"),
        (12, "address-in-use"),
        (14, "connection-refused"),
        (18, "name-unresolvable"),
    ],
};

/// `$d` of programs is a TCP socket, `$f` another, `$g` a UDP socket that is bound.
const BEGIN: &str = "
    (local.set $d (call $tcp (i32.const 0)))
    (local.set $f (call $tcp (i32.const 0)))
    (local.set $g (call $udp (i32.const 0)))";

#[tokio::test(flavor = "multi_thread")]
async fn a_component_connects_writes_ends_its_side_and_reads_to_the_end() {
    let (port, heard) = server(|listener| {
        let mut peer = listener.accept().unwrap().0;
        let mut heard = String::new();
        peer.read_to_string(&mut heard).unwrap();
        peer.write_all(b"pong").unwrap();
        heard
    });
    let connect = format!("(call $connect (local.get $d) (i32.const {port}))");
    let program = format!(
        "{BEGIN} (call $say {connect})
        (call $say (call $remote-port (local.get $d)))
        (call $say (call $put <pi>))
        (call $say (call $put <ng>))
        (call $say (call $shutdown (local.get $d) (i32.const 1)))
        (call $say (call $take))
        (call $say (call $take))
        (call $say (call $put <more>))"
    );
    let said = SOCKETS.said_with(to_port(port), &program).await;
    let port = port.to_string();
    assert_eq!(said, ["0", &*port, "0", "0", "0", "pong", "0", "1", "1"]);
    assert_eq!(heard.join().unwrap(), "ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_listens_on_a_port_of_the_hosts_choice_and_serves_who_comes() {
    let callers = Callers::default();
    let calls = callers.clone();
    let connects = move |number: i32| calls.hear(number);
    let serve = "
        (local.set $f (call $accept (local.get $d)))
        (call $say (call $take))
        (call $say (call $put <served>))
        (call $drop-input (global.get $in)) (call $drop-output (global.get $out))
        (call $drop-tcp (local.get $f))";
    let program = format!(
        "{BEGIN} (call $say (call $bind (local.get $d) (i32.const 0)))
        (call $say (call $listen (local.get $d)))
        (call $say (call $is-listening (local.get $d)))
        (call $say (call $try-accept (local.get $d)))
        (call $say (call $local-port (local.get $d))) {serve}
        (call $say (call $local-port (local.get $d))) {serve}"
    );
    let policy = Policy::new().allow_listen("127.0.0.1:0".parse().unwrap());
    let (said, _) = SOCKETS.said(policy, &program, connects).await;
    let port = &*said[4];
    assert_eq!(
        said,
        [
            "0",
            "0",
            "1",
            "would-block",
            port,
            "hello",
            "0",
            "0",
            port,
            "hello",
            "0",
            "0"
        ]
    );
    assert_eq!(callers.heard(), ["served"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_poll_ten_connections_is_ten_operations() {
    const COUNT: usize = 10;
    let (port, server) = server(|listener| {
        let mut peers: Vec<_> = (0..COUNT).map(|_| listener.accept().unwrap().0).collect();
        // The component has asked for all when it writes to its last.
        peers[COUNT - 1].read_exact(&mut [0]).unwrap();
        peers[COUNT / 2].write_all(b"!").unwrap();
        peers
    });
    let program = format!("(call $say (call $poll-all (i32.const {port}) (i32.const {COUNT})))");
    let (said, stats) = SOCKETS.said(to_port(port), &program, |_| ()).await;
    assert_eq!(said, ["1"]);
    server.join().unwrap();
    let reads = stats
        .operations
        .iter()
        .find(|(name, _)| *name == "ReadStream");
    assert_eq!(reads.unwrap().1, COUNT as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_to_whom_they_may_and_a_peer_may_be_chosen() {
    let (port, stranger, echoes) = udp_peers();
    let other = stranger.local_addr().unwrap().port();
    let policy = Policy::new()
        .allow_udp(format!("127.0.0.1:{port}").parse().unwrap())
        .allow_udp_bind("127.0.0.1:0".parse().unwrap());
    let said = SOCKETS
        .said_with(
            policy,
            &format!(
                "{BEGIN} (call $say (call $stream (local.get $g) (i32.const 0)))
                (call $say (call $bind-udp (local.get $g) (i32.const 0)))
                (call $say (call $stream (local.get $g) (i32.const 0)))
                (call $say (call $send (i32.const 0) <nobody>))
                (call $say (call $send (i32.const {other}) <stranger>))
                (call $say (call $send (i32.const {port}) <one>))
                (call $say (i32.eq (call $receive) (i32.const {port})))
                (call $say (call $stream (local.get $g) (i32.const {port})))
                (call $say (i32.eq (call $udp-peer (local.get $g)) (i32.const {port})))
                (call $say (call $send (i32.const 0) <two>))
                (call $say (i32.eq (call $receive) (i32.const {port})))
                (call $say (call $send (i32.const {other}) <stranger>))
                (call $say (call $stream (local.get $g) (i32.const 0)))"
            ),
        )
        .await;
    assert_eq!(
        said,
        [
            "invalid-state",
            "0",
            "0",
            "invalid-argument",
            "access-denied",
            "1",
            "one",
            "1",
            "0",
            "1",
            "1",
            "two",
            "1",
            "invalid-argument",
            "not-supported"
        ]
    );
    echoes.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_denied() {
    let dialogue = [
        (
            "(call $connect (local.get $d) (i32.const 9))",
            "access-denied",
        ),
        (
            "(call $start-connect (local.get $d) (i32.const 9))",
            "invalid-state",
        ),
        ("(call $bind (local.get $f) (i32.const 9))", "access-denied"),
        (
            "(call $bind-udp (local.get $g) (i32.const 0))",
            "access-denied",
        ),
        ("(call $resolve <example.org>)", "access-denied"),
    ];
    SOCKETS.answers(Policy::new(), BEGIN, &dialogue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_have_addresses_and_an_address_stands_for_itself() {
    let policy = Policy::new().allow_resolve("localhost".parse().unwrap());
    let dialogue = [
        ("(call $resolve <127.0.0.1>)", "1"),
        ("(i32.const 0)", "0"),
        ("(call $resolve <localhost>)", "1"),
    ];
    // Each that is found says its last number first.
    let said = SOCKETS
        .said_with(
            policy,
            &dialogue
                .map(|(call, _)| format!("(call $say {call})"))
                .concat(),
        )
        .await;
    assert_eq!(said, ["1", "0", "0", "1", "0"]);
    let refused = [("(call $resolve <no name>)", "invalid-argument")];
    SOCKETS.answers(Policy::new(), BEGIN, &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_goes_its_way_and_no_other() {
    let (closed, _) = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap().port(), listener)
    };
    let (open, server) = server(|listener| listener.accept().unwrap());
    let policy = to_port(open)
        .allow_connect(format!("127.0.0.1:{closed}").parse().unwrap())
        .allow_listen("127.0.0.1:0".parse().unwrap());
    let connect = |port: u16| format!("(call $connect (local.get $d) (i32.const {port}))");
    let dialogue: Vec<(String, &str)> = vec![
        ("(call $tcp (i32.const 1))".into(), "4"),
        (
            "(call $finish-connect (local.get $d))".into(),
            "not-in-progress",
        ),
        (
            "(call $finish-bind (local.get $d))".into(),
            "not-in-progress",
        ),
        (
            "(call $start-listen (local.get $d))".into(),
            "invalid-state",
        ),
        ("(call $try-accept (local.get $d))".into(), "invalid-state"),
        ("(call $local-port (local.get $d))".into(), "invalid-state"),
        ("(call $remote-port (local.get $d))".into(), "invalid-state"),
        (
            "(call $shutdown (local.get $d) (i32.const 2))".into(),
            "invalid-state",
        ),
        (
            "(call $start-connect (local.get $d) (i32.const 0))".into(),
            "invalid-argument",
        ),
        (
            "(call $start-bind (call $tcp (i32.const 1)) (i32.const 0))".into(),
            "invalid-argument",
        ),
        (
            "(call $hops (local.get $d) (i32.const 0))".into(),
            "invalid-argument",
        ),
        (
            "(call $hops (local.get $d) (i32.const 9))".into(),
            "not-supported",
        ),
        (
            "(call $idle (local.get $d) (i64.const 0))".into(),
            "invalid-argument",
        ),
        (
            "(call $idle (local.get $d) (i64.const 1000000000))".into(),
            "0",
        ),
        ("(call $interval (local.get $d))".into(), "1000000000"),
        (
            "(call $keep-alive (local.get $d) (i32.const 1))".into(),
            "0",
        ),
        (connect(open), "0"),
        (
            "(call $keep-alive (local.get $d) (i32.const 0))".into(),
            "0",
        ),
        (connect(open), "not-in-progress"),
        (
            "(call $start-bind (local.get $d) (i32.const 0))".into(),
            "invalid-state",
        ),
        ("(call $bind (local.get $f) (i32.const 0))".into(), "0"),
        (
            format!("(call $start-connect (local.get $f) (i32.const {open}))"),
            "not-supported",
        ),
        ("(call $start-listen (local.get $f))".into(), "0"),
        (
            "(call $start-listen (local.get $f))".into(),
            "concurrency-conflict",
        ),
    ];
    let dialogue: Vec<_> = dialogue
        .iter()
        .map(|(act, answer)| (&**act, *answer))
        .collect();
    SOCKETS.answers(policy.clone(), BEGIN, &dialogue).await;
    server.join().unwrap();
    let refused = connect(closed);
    let dialogue = [
        (&*refused, "connection-refused"),
        ("(call $local-port (local.get $d))", "invalid-state"),
    ];
    SOCKETS.answers(policy, BEGIN, &dialogue).await;
}
