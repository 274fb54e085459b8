//! TCP between a guest and the world, as far as policy lets it.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use wakebox::{Output, Policy, Sandbox, WakeMode};
use wakebox_tests::{Ended, ends, guest, kvm_test, run_here, runtime};

/// Somebody who listens, and where.
async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Runs a case of the probe that may connect to an address, beside somebody who listens there.
async fn with_peer<P>(
    case: &str,
    mode: WakeMode,
    peer: impl AsyncFnOnce(TcpStream) -> P,
) -> (Ended, P) {
    let (listener, address) = listener().await;
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        peer(stream).await
    };
    tokio::join!(probe(case, address, connect, mode), serve)
}

/// Runs a case of the probe with one grant for its address.
async fn probe(
    case: &str,
    address: impl ToString,
    grant: impl FnOnce(Policy, &str) -> Policy,
    mode: WakeMode,
) -> Ended {
    let address = address.to_string();
    let policy = grant(Policy::new(), &address);
    let probe = Sandbox::builder()
        .guest(guest("net"))
        .args([case, &address])
        .policy(policy)
        .wake(mode);
    run_here(probe).await.success()
}

fn connect(policy: Policy, address: &str) -> Policy {
    policy.allow_connect(address.parse().unwrap())
}

fn listen(policy: Policy, address: &str) -> Policy {
    policy.allow_listen(address.parse().unwrap())
}

#[kvm_test(modes)]
fn bytes_come_back_as_they_went(mode: WakeMode) {
    runtime().block_on(async {
        let (ended, ()) = with_peer("echo", mode, async |mut stream| {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        })
        .await;
        assert_eq!(ended.lines(), ["same true"], "mode {mode}");
    });
}

#[kvm_test(modes)]
fn a_connection_knows_its_peer(mode: WakeMode) {
    runtime().block_on(async {
        let (ended, peer) =
            with_peer("connect", mode, async |stream| stream.local_addr().unwrap()).await;
        assert_eq!(
            ended.lines(),
            [format!("connected to {peer}")],
            "mode {mode}"
        );
    });
}

#[kvm_test(modes)]
fn a_name_is_resolved_by_the_host(mode: WakeMode) {
    runtime().block_on(async {
        let (listener, address) = listener().await;
        let named = format!("localhost:{}", address.port());
        let probe = probe("connect", named, connect, mode);
        let (ended, accepted) = tokio::join!(probe, listener.accept());
        accepted.unwrap();
        assert_eq!(
            ended.lines(),
            [format!("connected to {address}")],
            "mode {mode}"
        );
    });
}

#[kvm_test(modes)]
fn a_refused_connection_says_so(mode: WakeMode) {
    runtime().block_on(async {
        let (listener, nobody) = listener().await;
        drop(listener);
        let ended = probe("connect", nobody, connect, mode).await;
        assert_eq!(ended.lines()[0], "error ConnectionRefused", "mode {mode}");
    });
}

#[kvm_test(modes)]
fn what_is_not_granted_is_denied_and_counted(mode: WakeMode) {
    runtime().block_on(async {
        let (listener, address) = listener().await;
        // To listen there is not to connect there, and the other way round.
        let ended = probe("connect", address, listen, mode).await;
        assert_eq!(ended.lines()[0], "error PermissionDenied", "mode {mode}");
        assert_eq!(ended.stats.refusals, 1);
        let ended = probe("listen", address, connect, mode).await;
        assert_eq!(ended.lines()[0], "error PermissionDenied", "mode {mode}");
        // Nobody came.
        let mut accept = std::pin::pin!(listener.accept());
        let nobody = std::future::poll_fn(|context| {
            std::task::Poll::Ready(accept.as_mut().poll(context).is_pending())
        });
        assert!(nobody.await);
    });
}

#[kvm_test(modes)]
fn a_port_in_use_says_so_and_a_free_one_is_told(mode: WakeMode) {
    runtime().block_on(async {
        let (_listener, taken) = listener().await;
        let ended = probe("listen", taken, listen, mode).await;
        assert_eq!(ended.lines()[0], "error AddrInUse", "mode {mode}");
        let ended = probe("listen", "127.0.0.1:0", listen, mode).await;
        let bound = ended.lines()[0].strip_prefix("listening on ").unwrap();
        let bound: SocketAddr = bound.parse().unwrap();
        assert!(bound.ip().is_loopback() && bound.port() != 0);
    });
}

#[kvm_test(modes)]
fn a_large_transfer_arrives_whole(mode: WakeMode) {
    runtime().block_on(async {
        const BYTES: usize = 5_000_000;
        let (ended, ()) = with_peer("read", mode, async |mut stream| {
            stream.write_all(&vec![7; BYTES]).await.unwrap();
        })
        .await;
        assert_eq!(
            ended.lines(),
            [format!("read {BYTES} bytes")],
            "mode {mode}"
        );
    });
}

#[kvm_test(modes)]
fn a_reset_while_reading_says_so(mode: WakeMode) {
    runtime().block_on(async {
        let (ended, ()) = with_peer("read", mode, async |stream| {
            // With zero linger, a close is a reset.
            stream.set_zero_linger().unwrap();
        })
        .await;
        assert_eq!(ended.lines()[0], "error ConnectionReset", "mode {mode}");
    });
}

#[kvm_test(modes)]
fn a_reset_while_writing_says_so(mode: WakeMode) {
    runtime().block_on(async {
        let (ended, ()) = with_peer("write", mode, async |stream| {
            // Bytes have come and are not read: the guest fills what lies between them.
            stream.readable().await.unwrap();
            stream.set_zero_linger().unwrap();
        })
        .await;
        let said = ended.lines()[0].to_owned();
        assert!(
            ["error ConnectionReset", "error BrokenPipe"].contains(&said.as_str()),
            "{said}"
        );
    });
}

/// Connections for which the guest has no place wait in the backlog, and each is served in the end.
#[kvm_test(modes)]
fn at_the_limit_of_handles_connections_wait_and_none_is_dropped(mode: WakeMode) {
    const CLIENTS: u8 = 8;
    runtime().block_on(async {
        let (told, tells) = tokio::io::duplex(4096);
        let mut lines = BufReader::new(tells).lines();
        let mut sandbox = Sandbox::builder()
            .guest(guest("sockets"))
            .args([format!("serve-in-turn {CLIENTS}")])
            .policy(listen(Policy::new(), "127.0.0.1:0"))
            // The listener and one connection.
            .handles(2)
            .wake(mode)
            .stdout(Output::writer(told))
            .build()
            .unwrap();
        let visit = async {
            let bound = lines.next_line().await.unwrap().unwrap();
            let address = bound.strip_prefix("bound ").unwrap();
            let mut clients = Vec::new();
            for number in 0..CLIENTS {
                clients.push((number, TcpStream::connect(address).await.unwrap()));
            }
            // All are connected; each says its number and gets it back.
            let served = clients.into_iter().map(async |(number, mut client)| {
                client.write_all(&[number]).await.unwrap();
                assert_eq!(client.read_u8().await.unwrap(), number);
            });
            futures_util::future::join_all(served).await;
            lines.next_line().await.unwrap().unwrap()
        };
        let (outcome, said) = tokio::join!(ends(&mut sandbox), visit);
        assert!(outcome.is_success(), "mode {mode}: {outcome}");
        assert_eq!(said, "ok [0, 1, 2, 3, 4, 5, 6, 7]", "mode {mode}");
    });
}

#[kvm_test(modes)]
fn a_listener_may_be_shared_by_many_tasks(mode: WakeMode) {
    runtime().block_on(async {
        let loopback = || "127.0.0.1".parse().unwrap();
        let probe = Sandbox::builder()
            .guest(guest("sockets"))
            .args(["accept-shared 4 100"])
            .policy(listen(Policy::new(), "127.0.0.1:0").allow_connect(loopback()))
            .wake(mode);
        let ended = run_here(probe).await.success();
        assert_eq!(ended.lines(), ["ok 100"], "mode {mode}");
    });
}

#[kvm_test(modes)]
fn writing_to_somebody_who_left_says_so(mode: WakeMode) {
    runtime().block_on(async {
        let (ended, ()) = with_peer("write", mode, async |mut stream| {
            stream.read_exact(&mut [0; 10_000]).await.unwrap();
        })
        .await;
        let said = ended.lines()[0].to_owned();
        assert!(
            ["error ConnectionReset", "error BrokenPipe"].contains(&said.as_str()),
            "{said}"
        );
    });
}

#[kvm_test(modes)]
fn what_is_written_and_not_waited_for_arrives_in_its_order(mode: WakeMode) {
    runtime().block_on(async {
        let (ended, received) = with_peer("pieces", mode, async |mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all
        })
        .await;
        assert_eq!(ended.lines(), [format!("sent {}", received.len())]);
        let wrong = (0..)
            .zip(&received)
            .find(|(at, byte)| (at / 1_000) as u8 != **byte);
        assert_eq!(wrong, None, "mode {mode}");
    });
}

#[kvm_test(modes)]
fn a_half_closed_connection_still_reads(mode: WakeMode) {
    runtime().block_on(async {
        let (ended, ()) = with_peer("half-close", mode, async |mut stream| {
            // The end of the question comes before the answer begins.
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await.unwrap();
            assert_eq!(question, b"ping");
            stream.write_all(b"the answer").await.unwrap();
        })
        .await;
        assert_eq!(ended.lines(), ["read \"the answer\""], "mode {mode}");
    });
}

#[kvm_test(modes)]
fn a_whole_buffer_is_written_by_one_operation_however_often_the_host_is_called(mode: WakeMode) {
    const PIECE: usize = 2 << 20;
    // Of so many buffers: operations, and whether all has come.
    let operations = |buffers: usize| {
        let count = buffers * PIECE;
        runtime().block_on(async {
            let (listener, address) = listener().await;
            let mut sandbox = Sandbox::builder()
                .guest(guest("bulk"))
                .wake(mode)
                .args([
                    "send".to_owned(),
                    count.to_string(),
                    address.to_string(),
                    PIECE.to_string(),
                ])
                .policy(Policy::new().allow_connect(address.to_string().parse().unwrap()))
                .build()
                .unwrap();
            let (outcome, received) = tokio::join!(sandbox.run(), async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                all.len()
            });
            assert!(outcome.unwrap().is_success());
            assert_eq!(received, count);
            sandbox.stats().operations_total()
        })
    };
    assert_eq!(operations(5) - operations(1), 4);
}

#[kvm_test(modes)]
fn what_is_left_of_a_long_read_that_the_host_cuts_can_be_read_at_once(mode: WakeMode) {
    // Nothing comes after it that would say that there is more.
    const COUNT: usize = 900 << 10;
    let (outcome, ()) = runtime().block_on(async {
        let (listener, address) = listener().await;
        let mut sandbox = Sandbox::builder()
            .guest(guest("bulk"))
            .wake(mode)
            .args(["take".to_owned(), COUNT.to_string(), address.to_string()])
            .policy(Policy::new().allow_connect(address.to_string().parse().unwrap()))
            .build()
            .unwrap();
        tokio::join!(async move { sandbox.run().await.unwrap() }, async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&vec![1; COUNT]).await.unwrap();
            // Open until the guest is gone.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        })
    });
    assert!(outcome.is_success(), "{outcome}");
}
