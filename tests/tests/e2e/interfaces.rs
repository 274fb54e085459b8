//! The interfaces of the async ecosystem, used by a guest and checked from outside.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wakebox::{Input, Policy, Sandbox, WakeMode};
use wakebox_tests::{Ended, guest, kvm_test, run_here, runtime};

/// Greets with two lines, then sends everything back.
async fn greet(mut stream: TcpStream) {
    stream.write_all(b"hello\nworld\n").await.unwrap();
    let (mut from, mut to) = stream.split();
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(count) => to.write_all(&bytes[..count]).await.unwrap(),
        }
    }
}

async fn interfaces(mode: WakeMode) -> Ended {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(greet(stream));
        }
    });
    let name = format!("localhost:{}", address.port());
    let policy = Policy::new()
        .allow_connect(name.parse().unwrap())
        .allow_connect("127.0.0.1".parse().unwrap())
        .allow_listen("127.0.0.1:0".parse().unwrap());
    let probe = Sandbox::builder()
        .guest(guest("interfaces"))
        .args([address.to_string(), name])
        .stdin(Input::reader(&b"first line\nsecond\n"[..]))
        .policy(policy)
        .wake(mode);
    let ended = run_here(probe).await.success();
    server.abort();
    ended
}

#[kvm_test]
fn code_for_the_ecosystems_traits_runs_unchanged() {
    let mut random = Vec::new();
    for mode in WakeMode::ALL {
        let ended = runtime().block_on(interfaces(mode));
        let mut lines = ended.lines();
        random.push(lines.pop().unwrap().to_owned());
        assert_eq!(
            lines,
            [
                "stdin buffered \"first line\"",
                "stdin buffered \"second\"",
                "stream line \"hello\"",
                "stream line \"world\"",
                "stream echo true",
                "stream echo by reference true",
                "half line \"one\"",
                "half line \"two\"",
                "half end \"\"",
                "visit true",
                "no grant Err(PermissionDenied)",
                "lookup true",
                "edge (true, true)",
                "incoming three",
                "incoming waits true",
                "accept meanwhile true",
                "accept after true",
                "interval 3",
                "embassy slept true",
                "embassy timeout true",
                "embassy order [3, 6, 9]",
                "embassy tasks 1000",
                "embassy same clock true",
                "getrandom true",
                "getrandom changes true",
                "getrandom 0.3 true",
                "rand system true",
                "rand range true",
            ],
            "mode {mode}"
        );
        // Who connects by a trait cannot ask that small writes leave at once.
        let asked = ended.stats.operations.iter();
        let asked = asked.filter(|(name, _)| *name == "SetSocketOption");
        // The visit, and both sides of the one by `edge-nal`.
        assert_eq!(asked.map(|(_, count)| count).sum::<u64>(), 3, "mode {mode}");
    }
    random.sort();
    random.dedup();
    assert_eq!(random.len(), WakeMode::ALL.len(), "{random:?}");
}
