//! Components that answer HTTP, and components that ask.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::spawn;

use wakebox::template::{Open, When};
use wakebox::{Outcome, Policy};

use common::programs::{Kind, RUN, RUN_NEWER, STREAMS};
use common::serving::{Client, SERVER_NEWER, Serving};
use common::{end_of, sandbox};

const SERVER: Kind = Kind {
    wit: include_str!("components/http/world.wit"),
    world: Some("server"),
    library: &[include_str!("components/http/server.wat")],
    words: &[],
    function: (
        r#"(export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $to i32)"#,
        "",
    ),
    errors: &[],
};

/// One that is a program as well, which ends with 1.
const BOTH: Kind = Kind {
    world: Some("both"),
    library: &[
        include_str!("components/http/server.wat"),
        r#"(func (export "wasi:cli/run@0.2.0#run") (result i32) (i32.const 1))"#,
    ],
    ..SERVER
};

const CLIENT: Kind = Kind {
    wit: include_str!("components/http/world.wit"),
    world: Some("client"),
    library: &[include_str!("components/http/client.wat")],
    words: &[],
    function: RUN,
    errors: &[
        (2, "destination-not-found"),
        (6, "connection-refused"),
        (12, "TLS-protocol-error"),
        (15, "HTTP-request-denied"),
        (19, "HTTP-request-URI-invalid"),
        (25, "HTTP-response-incomplete"),
        (35, "HTTP-protocol-error"),
        (100, "invalid-syntax"),
        (101, "forbidden"),
    ],
};

/// What there is of a version of WASI.
struct Version {
    server: Kind,
    /// How many requests are in a component at once.
    at_once: usize,
    both: Kind,
    client: Kind,
}

const OLDER: Version = Version {
    server: SERVER,
    at_once: 16,
    both: BOTH,
    client: CLIENT,
};

const NEWER: Version = Version {
    server: SERVER_NEWER,
    at_once: 8,
    both: Kind {
        world: Some("both"),
        library: &[
            STREAMS,
            include_str!("components/http/server_newer.wat"),
            r#"(func (export "wasi:cli/run@0.3.0#run") (result i32) (i32.const 1))"#,
        ],
        ..SERVER_NEWER
    },
    client: Kind {
        wit: include_str!("components/http/newer.wit"),
        world: Some("client"),
        library: &[STREAMS, include_str!("components/http/client_newer.wat")],
        words: &[
            ("STREAMS", "wasi:http/types@0.3.0"),
            ("FUNCTION", "[static]request.new"),
        ],
        function: RUN_NEWER,
        ..CLIENT
    },
};

common::both! {
    a_component_answers_and_each_request_has_an_instance_of_its_own
    an_instance_may_answer_several_requests
    bodies_are_streamed_and_requests_go_on_at_once
    a_trap_harms_one_request_and_what_is_no_request_is_refused
    a_server_wants_to_know_where
    a_component_asks_and_hears_what_is_answered
    whom_a_component_may_not_ask_it_does_not
    a_component_that_is_a_program_as_well_serves_if_it_is_asked_to
    a_component_serves_from_a_template_where_it_is_told_to
}

const COUNTS: &str = "
    (call $header <x-kind> <test>)
    (call $begin (local.get $to) (i32.const 201))
    (call $put-path (local.get $request))
    (call $put < >)
    (call $put-header (local.get $request) <X-Mine>)
    (call $put-count)
    (call $finish)";

async fn a_component_answers_and_each_request_has_an_instance_of_its_own(version: &Version) {
    let serving = Serving::start(&version.server, COUNTS, &[]).await;
    let heard = serving
        .talk(|port| {
            let mut client = Client::to(port);
            client.send("GET /a?b HTTP/1.1\r\nHost: x\r\nx-mine: yes\r\n\r\n");
            let head = client.head();
            let body = client.chunks();
            let again = client.ask("GET /c HTTP/1.1\r\nHost: x\r\n\r\n");
            client.send("GET /d HTTP/1.0\r\n\r\n");
            (head, body, again, client.rest())
        })
        .await;
    let (head, body, again, last) = heard;
    assert_eq!(head[0], "HTTP/1.1 201 Created");
    assert!(head.contains(&"x-kind: test".into()), "{head:?}");
    assert_eq!(body, "/a?b yes0");
    assert_eq!(again, ("HTTP/1.1 201 Created".into(), "/c 0".into()));
    let (head, body) = last.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(body, "/d 0");
    assert!(serving.end().await.is_empty());
}

async fn an_instance_may_answer_several_requests(version: &Version) {
    let serving = Serving::start(&version.server, COUNTS, &["--reuse", "2"]).await;
    let heard = serving
        .talk(|port| {
            let mut client = Client::to(port);
            [(); 3].map(|()| client.ask("GET / HTTP/1.1\r\n\r\n").1)
        })
        .await;
    assert_eq!(heard, ["/ 0", "/ 1", "/ 0"]);
    serving.end().await;
}

async fn bodies_are_streamed_and_requests_go_on_at_once(version: &Version) {
    let echo = "
        (call $begin (local.get $to) (i32.const 200))
        (call $echo (local.get $request))
        (call $finish)";
    let serving = Serving::start(&version.server, echo, &[]).await;
    let at_once = version.at_once;
    let heard = serving
        .talk(move |port| {
            let mut clients: Vec<_> = (0..at_once).map(|_| Client::to(port)).collect();
            // Each has answered a part of a body that has not ended.
            for client in &mut clients {
                client.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
                client.head();
                assert_eq!(client.chunk(), "one");
            }
            let end = |client: &mut Client| {
                client.send("5\r\n, two\r\n0\r\nx-trailer: 1\r\n\r\n");
                let chunk = client.chunk();
                assert_eq!(client.chunk(), "");
                // And the connection has another.
                client.send("POST / HTTP/1.1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
                assert_eq!(client.head(), ["HTTP/1.1 100 Continue"]);
                client.send("more");
                client.head();
                chunk + &client.chunk()
            };
            clients.iter_mut().rev().map(end).collect::<Vec<_>>()
        })
        .await;
    assert_eq!(heard, vec![", twomore"; at_once]);
    assert!(serving.end().await.is_empty());
}

async fn a_trap_harms_one_request_and_what_is_no_request_is_refused(version: &Version) {
    let serving = Serving::start(&version.server, "(unreachable)", &[]).await;
    let heard = serving
        .talk(|port| {
            let requests = [
                "GET /trap HTTP/1.1\r\n\r\n",
                "nonsense\r\n\r\n",
                "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
                "GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
            ];
            requests.map(|request| {
                let mut client = Client::to(port);
                client.send(request);
                client.rest().lines().next().unwrap_or_default().to_owned()
            })
        })
        .await;
    let bad = "HTTP/1.1 400 Bad Request";
    let expected = ["HTTP/1.1 500 Internal Server Error", bad, bad, bad, bad];
    assert_eq!(heard, expected);
    let said = serving.end().await;
    assert!(said[0].starts_with("error: GET /trap: "), "{said:?}");
    assert!(
        said.iter().any(|line| line.contains("unreachable")),
        "{said:?}"
    );
}

async fn a_server_wants_to_know_where(version: &Version) {
    let (builder, _, err) = sandbox(version.server.component(COUNTS));
    assert_eq!(common::end_of(builder).await, Outcome::Exit(1));
    assert!(
        err.text().contains("wakebox serve app.wasm --allow-listen"),
        "{}",
        err.text()
    );
}

/// A server that gives these answers, each to a connection, and tells what it was asked.
fn answering(answers: &'static [&'static str]) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = spawn(move || {
        let answer = |answer: &&str| {
            let mut peer = BufReader::new(listener.accept().unwrap().0);
            let mut asked = String::new();
            while !asked.ends_with("\r\n\r\n") {
                peer.read_line(&mut asked).unwrap();
            }
            if asked.contains("chunked") {
                while !asked.ends_with("\r\n0\r\n\r\n") {
                    peer.read_line(&mut asked).unwrap();
                }
            }
            peer.get_mut().write_all(answer.as_bytes()).unwrap();
            asked
        };
        answers.iter().map(answer).collect()
    });
    (port, server)
}

async fn a_component_asks_and_hears_what_is_answered(version: &Version) {
    let (port, server) = answering(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and more",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n3\r\nno \r\n4\r\npage\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "something else\r\n\r\n",
    ]);
    let fetch = |scheme: u32, method: u32| {
        format!(
            "(call $say (call $fetch (call $send (call $to <127.0.0.1:{port}> (i32.const {scheme}) (i32.const {method})))))"
        )
    };
    let program = format!(
        "{} (local.set $f (call $send (call $with (call $to <127.0.0.1:{port}> (i32.const 0) (i32.const 2)))))
        (call $put <a body>) (call $finish) (call $say (call $fetch (local.get $f)))
        {} {} {} {} {}
        (call $say (call $fetch (call $send (call $to <> (i32.const 0) (i32.const 0)))))
        (call $say (call $header <Host> <x>))
        (call $say (call $header <a b> <x>))
        (call $say (call $method <brew>))
        (call $say (call $method <br ew>))",
        fetch(0, 0), fetch(0, 0), fetch(0, 1), fetch(0, 0), fetch(0, 0), fetch(1, 0)
    );
    let policy = Policy::new().allow_connect(format!("127.0.0.1:{port}").parse().unwrap());
    let said = version.client.said_with(policy, &program).await;
    let expected = [
        "hello",
        "200",
        "no page",
        "404",
        "to the end",
        "200",
        "200",
        "HTTP-response-incomplete",
        "HTTP-protocol-error",
        "TLS-protocol-error",
        "HTTP-request-URI-invalid",
        "forbidden",
        "invalid-syntax",
        "0",
        "1",
    ];
    // What is read at once is said at once, or in parts.
    let words = |said: &[String]| said.concat();
    assert_eq!(words(&said), expected.concat());
    let asked = server.join().unwrap();
    assert!(
        asked[0].starts_with(&format!("GET /p HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n")),
        "{asked:?}"
    );
    assert!(asked[1].starts_with("POST /p HTTP/1.1\r\n"), "{asked:?}");
    assert!(
        asked[1].ends_with("\r\n\r\n6\r\na body\r\n0\r\n\r\n"),
        "{asked:?}"
    );
}

async fn whom_a_component_may_not_ask_it_does_not(version: &Version) {
    let program = "(call $say (call $fetch (call $send (call $to <127.0.0.1:9> (i32.const 0) (i32.const 0)))))";
    let said = version.client.said_with(Policy::new(), program).await;
    assert_eq!(said, ["HTTP-request-denied"]);
}

#[test]
fn the_command_serves() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.wasm");
    std::fs::write(&app, SERVER.component(COUNTS)).unwrap();
    let wakebox = Path::new(env!("CARGO_BIN_EXE_wakebox-wasm")).with_file_name("wakebox");
    let serve = |options: &[&str]| {
        let mut command = Command::new(&wakebox);
        command.arg("serve").arg(&app).args(options);
        command.env("XDG_CACHE_HOME", folder.path());
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let said = serve(&[]).wait_with_output().unwrap().stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("--allow-listen 127.0.0.1:8080"), "{said}");
    let mut serving = serve(&["--allow-listen", "127.0.0.1:0", "--reuse", "5"]);
    let mut line = String::new();
    let mut said = BufReader::new(serving.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    let port = line.trim_end().rsplit(':').next().unwrap().parse().unwrap();
    let mut client = Client::to(port);
    let bodies = [(); 2].map(|()| client.ask("GET /x HTTP/1.1\r\n\r\n").1);
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert_eq!(bodies, ["/x 0", "/x 1"]);
}

async fn a_component_that_is_a_program_as_well_serves_if_it_is_asked_to(version: &Version) {
    let component = version.both.component(COUNTS);
    let (builder, ..) = sandbox(&component);
    assert_eq!(end_of(builder).await, Outcome::Exit(1));
    let (builder, ..) = sandbox(&component);
    let serving = Serving::of(builder, &["--serve"]).await;
    let (head, _) = serving
        .talk(|port| Client::to(port).ask("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"))
        .await;
    assert_eq!(head, "HTTP/1.1 201 Created");
    assert!(serving.end().await.is_empty());
}

async fn a_component_serves_from_a_template_where_it_is_told_to(version: &Version) {
    let (builder, ..) = sandbox(version.server.component(COUNTS));
    let mut sandbox = builder.build().unwrap();
    let handle = sandbox.handle();
    let asked = handle.snapshot(When::GuestAsks, Open::Refuse);
    let taken = async {
        let taken = asked.await;
        handle.kill();
        taken.unwrap()
    };
    let (_, template) = tokio::join!(sandbox.run(), taken);
    for _ in 0..2 {
        let serving = Serving::of(template.spawn(), &["--serve"]).await;
        let (head, body) = serving
            .talk(|port| Client::to(port).ask("GET /a HTTP/1.1\r\nHost: x\r\nx-mine: y\r\n\r\n"))
            .await;
        assert_eq!((&*head, &*body), ("HTTP/1.1 201 Created", "/a y0"));
        assert!(serving.end().await.is_empty());
    }
}
