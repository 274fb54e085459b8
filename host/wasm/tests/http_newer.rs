//! What HTTP has in WASI 0.3 besides: trailers, and what is passed on.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use common::peers::{server, to_port};
use common::programs::{Kind, STREAMS};
use common::sandbox;
use common::serving::{Client, SERVER_NEWER, Serving};

/// One that may ask others.
const PASSER: Kind = Kind {
    world: Some("passer"),
    library: &[
        STREAMS,
        include_str!("components/http/server_newer.wat"),
        include_str!("components/http/passer.wat"),
    ],
    ..SERVER_NEWER
};

#[tokio::test(flavor = "multi_thread")]
async fn trailers_come_and_go() {
    let echo = "
        (call $begin (local.get $to) (i32.const 200))
        (call $echo (local.get $request))
        ;; Those that came, if they did.
        (call $finish-with (i32.load (i32.const 1412)))";
    let serving = Serving::start(&SERVER_NEWER, echo, &[]).await;
    let heard = serving
        .talk(|port| {
            let mut client = Client::to(port);
            client.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
            client.send("5\r\nhello\r\n0\r\nx-trailer: yes\r\nx-other: no\r\n\r\n");
            client.head();
            let body = client.chunk();
            assert_eq!(client.line(), "0");
            let trailers = client.head();
            // A connection has another request after trailers.
            let again = client.ask("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nagain");
            (body, trailers, again.1)
        })
        .await;
    let trailers = vec!["x-trailer: yes".to_owned(), "x-other: no".to_owned()];
    assert_eq!(heard, ("hello".into(), trailers, "again".into()));
    assert!(serving.end().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_answers_is_passed_on_and_an_error_is_a_500() {
    let much = "x".repeat(300_000);
    let answer = much.clone();
    let (port, asked) = server(move |listener| {
        let mut peer = BufReader::new(listener.accept().unwrap().0);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            peer.read_line(&mut head).unwrap();
        }
        let mut body = [0; 4];
        peer.read_exact(&mut body).unwrap();
        write!(
            peer.get_mut(),
            "HTTP/1.1 202 Accepted\r\nx-kind: other\r\nkeep-alive: 5\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )
        .unwrap();
        (head, body)
    });
    let program = format!("(call $pass (local.get $request) <127.0.0.1:{port}>)");
    let (builder, ..) = sandbox(PASSER.component(&program));
    let mut serving = Serving::with(builder, to_port(port), &[]).await;
    let (head, body, error) = serving
        .talk(|port| {
            let mut client = Client::to(port);
            client.send(
                "POST /to?x HTTP/1.1\r\nhost: me\r\nx-mine: 1\r\ncontent-length: 4\r\n\r\nbody",
            );
            let head = client.head();
            let mut body = vec![0; 300_000];
            client.0.read_exact(&mut body).unwrap();
            // Nobody is there any more.
            let error = client.ask_error("GET / HTTP/1.1\r\n\r\n");
            (head, body, error)
        })
        .await;
    assert_eq!(head[0], "HTTP/1.1 202");
    assert!(head.contains(&"x-kind: other".into()), "{head:?}");
    assert!(
        !head.iter().any(|line| line.starts_with("keep-alive")),
        "{head:?}"
    );
    assert!(body == much.as_bytes());
    assert_eq!(error, "HTTP/1.1 500 Internal Server Error");
    let (asked, sent) = asked.join().unwrap();
    assert!(asked.starts_with("POST /to?x HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-mine: 1\r\n"), "{asked}");
    assert_eq!(&sent, b"body");
    let said = serving.line().await;
    assert!(said.ends_with("ConnectionRefused"), "{said}");
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let cut = "
        (call $begin (local.get $to) (i32.const 200))
        (call $put <half>)
        (call $echo (local.get $request))
        (unreachable)";
    let mut serving = Serving::start(&SERVER_NEWER, cut, &[]).await;
    let heard = serving
        .talk(|port| {
            let mut client = Client::to(port);
            client.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
            client.head();
            let half = client.chunk();
            client.send("0\r\n\r\n");
            (half, client.rest())
        })
        .await;
    // Without the last chunk.
    assert_eq!(heard, ("half".into(), String::new()));
    let said = serving.line().await;
    assert!(said.starts_with("error: POST /: "), "{said}");
    serving.end().await;
}

/// Who asks may go at any time.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_request_and_no_other() {
    let endless = "
        (call $begin (local.get $to) (i32.const 200))
        (loop $more
          (br_if $more (call $write-all (global.get $writer) (i32.const 8192) (i32.const 8000))))
        (call $finish)";
    let serving = Serving::start(&SERVER_NEWER, endless, &[]).await;
    for _ in 0..20 {
        serving
            .talk(|port| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                stream.read_exact(&mut [0; 100_000]).unwrap();
            })
            .await;
    }
    assert!(serving.end().await.is_empty());
}
