//! Unix stream sockets, and what they share with connections over TCP.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use wakebox::{Policy, Sandbox, WakeMode};
use wakebox_tests::{Ended, guest, kvm_test, run, run_here, runtime};

/// Runs a command beside a future that serves it.
async fn probe(policy: Policy, mode: WakeMode, command: &str, serve: impl Future) -> Ended {
    let builder = Sandbox::builder()
        .guest(guest("sockets"))
        .args([command])
        .policy(policy)
        .wake(mode);
    tokio::join!(run_here(builder), serve).0.success()
}

async fn echo(stream: impl AsyncRead + AsyncWrite) {
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::io::copy(&mut from, &mut to).await.unwrap();
}

/// 200,000 bytes and one more, compared by the guest.
const SAME: &str = "ok true 200000 [33]";

#[kvm_test(modes)]
fn bytes_come_back_over_either_kind_of_stream(mode: WakeMode) {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let command = format!("unix-exchange {}", path.display());
        let policy = Policy::new().allow_unix(&path);
        let serve = async { echo(listener.accept().await.unwrap().0).await };
        let ended = probe(policy, mode, &command, serve).await;
        assert_eq!(ended.lines(), [SAME], "mode {mode}");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let command = format!("tcp-exchange {address}");
        let policy = Policy::new().allow_connect(address.parse().unwrap());
        let serve = async { echo(listener.accept().await.unwrap().0).await };
        let ended = probe(policy, mode, &command, serve).await;
        assert_eq!(ended.lines(), [SAME], "mode {mode}");
    });
}

#[kvm_test]
fn every_error_of_a_socket_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // A socket that nobody listens on any more, and a file that is none.
    drop(std::os::unix::net::UnixListener::bind(at("dead")).unwrap());
    std::fs::write(at("file"), "").unwrap();
    let _live = std::os::unix::net::UnixListener::bind(at("live")).unwrap();
    let policy = Policy::new()
        .allow_unix(at("dead"))
        .allow_unix(at("file"))
        .allow_unix(at("none"));
    let commands = [
        format!("unix {}", at("none").display()),
        format!("unix {}", at("dead").display()),
        format!("unix {}", at("file").display()),
        format!("unix {}", at("live").display()),
        format!("unix {}/../{}", at("x").display(), "live"),
        "unix relative".into(),
        format!("unix /{}", "x".repeat(5000)),
    ];
    let builder = Sandbox::builder()
        .guest(guest("sockets"))
        .args(commands)
        .policy(policy);
    let ended = run(builder).success();
    assert_eq!(
        ended.lines(),
        [
            "NotFound",
            "ConnectionRefused",
            "ConnectionRefused",
            "PermissionDenied",
            "PermissionDenied",
            "InvalidInput",
            "InvalidInput",
        ]
    );
    assert_eq!(ended.stats.refused, [("unix", 2)]);
}

#[kvm_test]
fn a_connection_takes_its_settings() {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let policy = Policy::new().allow_connect(address.parse().unwrap());
        let command = format!("options {address}");
        let ended = probe(policy, WakeMode::Auto, &command, listener.accept()).await;
        assert_eq!(ended.lines(), ["ok 127.0.0.1"]);
    });
}

#[kvm_test(modes)]
fn many_connections_are_accepted_at_once_and_none_is_lost(mode: WakeMode) {
    let policy = Policy::new()
        .allow_listen("127.0.0.1:0".parse().unwrap())
        .allow_connect("127.0.0.1".parse().unwrap());
    let builder = Sandbox::builder()
        .guest(guest("sockets"))
        .args(["accept-many 200"])
        .policy(policy)
        .wake(mode);
    assert_eq!(
        run(builder).success().lines(),
        ["ok 200 true"],
        "mode {mode}"
    );
}
