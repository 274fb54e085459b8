//! Datagrams between a guest and the world, as far as policy lets them.

use tokio::net::UdpSocket;
use wakebox::{Builder, Outcome, Output, Policy, Sandbox, WakeMode};
use wakebox_tests::{Ended, ends, guest, kvm_test, run, run_here, runtime};

fn sandbox(policy: Policy, commands: &[&str]) -> Builder {
    Sandbox::builder()
        .guest(guest("sockets"))
        .args(commands.iter().copied())
        .policy(policy)
}

fn with(address: &str) -> Policy {
    Policy::new().allow_udp(address.parse().unwrap())
}

/// Runs commands beside somebody who sends every datagram back. `PEER` stands for its address.
fn beside_echo(mode: WakeMode, grant: &str, commands: &[&str]) -> Ended {
    runtime().block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let fill = |text: &str| text.replace("PORT", &port.to_string());
        let commands: Vec<String> = commands.iter().map(|command| fill(command)).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let echo = async {
            let mut bytes = vec![0; 65_536];
            loop {
                let (len, from) = socket.recv_from(&mut bytes).await.unwrap();
                socket.send_to(&bytes[..len], from).await.unwrap();
            }
        };
        let run = run_here(sandbox(with(&fill(grant)), &commands).wake(mode));
        tokio::select! {
            ended = run => ended.success(),
            () = echo => unreachable!("it has no end"),
        }
    })
}

#[kvm_test(modes)]
fn datagrams_come_back_as_they_went(mode: WakeMode) {
    let commands = ["udp-echo 127.0.0.1:PORT 100"];
    let ended = beside_echo(mode, "127.0.0.1:PORT", &commands);
    assert_eq!(ended.lines(), ["ok 100"], "mode {mode}");
}

#[kvm_test]
fn a_socket_has_a_peer_by_number_or_by_name() {
    let answer = "ok Err(NotConnected) 3 \"hel\" true";
    for (grant, peer) in [
        ("127.0.0.1:PORT", "127.0.0.1:PORT"),
        ("localhost:PORT", "localhost:PORT"),
        ("127.0.0.0/8", "127.0.0.1:PORT"),
    ] {
        let command = format!("udp-connected {peer}");
        let ended = beside_echo(WakeMode::Auto, grant, &[&command]);
        assert_eq!(ended.lines(), [answer], "{grant}");
    }
}

#[kvm_test(modes)]
fn what_is_sent_together_is_as_many_datagrams_and_what_has_come_is_received_together(
    mode: WakeMode,
) {
    let commands = ["udp-many 127.0.0.1:PORT"];
    let ended = beside_echo(mode, "127.0.0.1:PORT", &commands);
    let line = ended.lines().concat();
    let answers = r#"[("aaa", true), ("bbb", true), ("ccc", true), ("d", true)]"#;
    assert_eq!(
        line,
        format!("ok 10 {answers} Err(InvalidInput)"),
        "mode {mode}"
    );
}

#[kvm_test(modes)]
fn a_peer_that_is_gone_is_told_to_who_waits_for_its_answer(mode: WakeMode) {
    // Nobody listens there any more.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = socket.local_addr().unwrap().to_string();
    drop(socket);
    let command = format!("udp-refused {gone}");
    let ended = run(sandbox(with(&gone), &[&command]).wake(mode)).success();
    assert_eq!(
        ended.lines(),
        ["ok [Err(ConnectionRefused), Err(ConnectionRefused)]"],
        "mode {mode}"
    );
}

#[kvm_test(modes)]
fn a_datagram_that_nobody_waits_for_is_kept(mode: WakeMode) {
    let commands = ["udp-given-up 127.0.0.1:PORT"];
    let ended = beside_echo(mode, "127.0.0.1:PORT", &commands);
    assert_eq!(ended.lines(), ["ok \"kept\""], "mode {mode}");
}

#[kvm_test(modes)]
fn those_who_receive_on_one_socket_have_their_turns_in_order(mode: WakeMode) {
    let commands = ["udp-shared 127.0.0.1:PORT 5"];
    let ended = beside_echo(mode, "127.0.0.1:PORT", &commands);
    assert_eq!(ended.lines(), ["ok [0, 1, 2, 3, 4]"], "mode {mode}");
}

#[kvm_test]
fn a_datagram_that_is_too_large_is_an_error() {
    let commands = ["udp-large 127.0.0.1:PORT"];
    let ended = beside_echo(WakeMode::Auto, "127.0.0.1:PORT", &commands);
    assert_eq!(
        ended.lines(),
        ["ok [Ok(65507), Err(MessageTooLarge), Err(MessageTooLarge)]"]
    );
}

#[kvm_test]
fn what_is_not_granted_is_not_sent_and_not_bound() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    taken.set_nonblocking(true).unwrap();
    let taken_at = taken.local_addr().unwrap();
    let none = run(sandbox(
        Policy::new(),
        &["bind 127.0.0.1:0", "bind 0.0.0.0:0"],
    ))
    .success();
    assert_eq!(none.lines(), ["PermissionDenied"; 2]);
    assert_eq!(none.stats.refused, [("udp bind", 2)]);

    let policy = with("127.0.0.1:1").allow_udp_bind(taken_at.to_string().parse().unwrap());
    let commands = [
        &format!("send {taken_at}"),
        "send 127.0.0.2:1",
        "send [::ffff:127.0.0.2]:1",
        "bind 127.0.0.1:54321",
        &format!("bind {taken_at}"),
        "bind localhost:0",
        "udp-connected localhost:1",
        "send 127.0.0.1:1",
    ];
    let some = run(sandbox(policy, &commands)).success();
    assert_eq!(
        some.lines(),
        [
            "PermissionDenied",
            "PermissionDenied",
            "PermissionDenied",
            "PermissionDenied",
            "AddrInUse",
            "InvalidInput",
            "PermissionDenied",
            "ok 1",
        ]
    );
    assert_eq!(some.stats.refused, [("udp", 4), ("udp bind", 1)]);
    assert!(taken.recv(&mut [0]).is_err(), "nothing was sent");
}

#[kvm_test(modes)]
fn what_comes_from_a_stranger_is_dropped(mode: WakeMode) {
    runtime().block_on(async {
        let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        let friend = UdpSocket::bind("127.0.0.3:0").await.unwrap();
        let friend_at = friend.local_addr().unwrap();
        let policy = with(&friend_at.to_string());
        let commands = ["udp-serve 127.0.0.1:0"];
        // The address is told by an event, which the writer is.
        let (told, mut tells) = tokio::io::duplex(4096);
        let mut sandbox = sandbox(policy, &commands)
            .wake(mode)
            .stdout(Output::writer(told))
            .build()
            .unwrap();
        let talk = async {
            use tokio::io::AsyncReadExt;
            let mut said = String::new();
            while !said.ends_with('\n') {
                said.push(tells.read_u8().await.unwrap().into());
            }
            let bound = said.trim().strip_prefix("bound ").unwrap().to_owned();
            for _ in 0..50 {
                stranger.send_to(b"evil", &bound).await.unwrap();
            }
            friend.send_to(b"good", &bound).await.unwrap();
            said.clear();
            while !said.ends_with('\n') {
                said.push(tells.read_u8().await.unwrap().into());
            }
            said
        };
        let (outcome, said) = tokio::join!(ends(&mut sandbox), talk);
        assert_eq!(outcome, Outcome::Exit(0));
        assert_eq!(said, format!("ok \"good\" {friend_at}\n"), "mode {mode}");
        assert_eq!(sandbox.stats().refused, [("udp", 50)], "mode {mode}");
    });
}
