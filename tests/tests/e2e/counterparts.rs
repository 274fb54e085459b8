//! Guests and programs that other people wrote: curl, wrk, nginx, Redis. Bytes are compared.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wakebox::policy::DirGrant;
use wakebox::{Builder, Captured, Output, Policy, Sandbox, WakeMode};
use wakebox_tests::programs::{Server, output, program};
use wakebox_tests::{Ended, guest, kvm_test, require_kvm, run};

/// The demo `http`, run by the command as `cargo xtask run http` does.
fn http(mode: WakeMode) -> Server {
    require_kvm();
    Server::start(|_, address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
        command
            .arg("run")
            .arg(guest("http"))
            .args(["--wake", &mode.to_string()])
            .args(["--allow-listen", &address.to_string()])
            .args(["--", &address.to_string()])
            .stdout(Stdio::null());
        command
    })
}

/// What curl prints when it asks for these paths, one after another.
fn curl(server: &Server, options: &[&str], paths: &[&str]) -> Vec<u8> {
    let mut command = program("curl");
    command.args(["--silent", "--show-error"]).args(options);
    for path in paths {
        command.arg(format!("http://{}{path}", server.address()));
    }
    output(&mut command)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// Status, type and body of an answer.
fn answer(server: &Server, options: &[&str], path: &str) -> (String, String, String) {
    let options = [options, &["--write-out", "\n%{http_code} %{content_type}"]].concat();
    let said = text(curl(server, &options, &[path]));
    let (body, last) = said.rsplit_once('\n').expect("a last line");
    let (status, kind) = last.split_once(' ').expect("two words");
    (status.to_owned(), kind.to_owned(), body.to_owned())
}

#[kvm_test(modes)]
fn curl_gets_every_page_of_the_site(mode: WakeMode) {
    const TEXT: &str = "text/plain; charset=utf-8";
    const JSON: &str = "application/json";
    let server = http(mode);
    let get = |path| answer(&server, &[], path);
    let is = |status: &str, kind: &str, body: &str| {
        (status.to_owned(), kind.to_owned(), body.to_owned())
    };
    assert_eq!(get("/greet/you"), is("200", JSON, "{\"hello\":\"you\"}"));
    assert_eq!(get("/wait/1"), is("200", TEXT, "that was it\n"));
    assert_eq!(get("/wait/soon").0, "404");
    assert_eq!(get("/nowhere"), is("404", TEXT, "/nowhere not found\r\n"));
    let post = answer(&server, &["--data", "x"], "/greet/you");
    assert_eq!(post.0, "405", "mode {mode}");

    let (status, kind, page) = get("/");
    assert_eq!(status, "200");
    assert!(kind.starts_with("text/html"), "{kind}");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</script>\n"));

    let (_, kind, stats) = get("/stats");
    assert_eq!(kind, JSON);
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert!(stats["polls"].as_u64() > Some(0), "{stats}");
}

#[kvm_test]
fn streamed_and_large_bodies_arrive_byte_for_byte() {
    let pieces: String = (1..=10).map(|n| format!("piece {n} of 10\n")).collect();
    let mut numbers = String::new();
    for number in 1..2_000_000 {
        numbers.push_str(&format!("{number}\n"));
    }
    for mode in WakeMode::ALL {
        let server = http(mode);
        let header = "Transfer-Encoding: chunked";
        let streamed = text(curl(&server, &["--include"], &["/stream"]));
        let (head, body) = streamed.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.to_lowercase().contains(&header.to_lowercase()),
            "{head}"
        );
        assert_eq!(body, pieces, "mode {mode}");
        for count in [0, 1, 65_536, 10_000_000] {
            let path = format!("/bytes/{count}");
            let body = curl(&server, &[], &[&path]);
            assert!(body == numbers.as_bytes()[..count], "{path}, mode {mode}");
        }
    }
}

#[kvm_test]
fn a_connection_serves_many_requests_and_a_head_has_no_body() {
    let server = http(WakeMode::Auto);
    // `--remote-name-all`, so that none of the bodies is printed.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().expect("text");
    let told = "%{num_connects} %{size_download}\n";
    let asked = [
        "--remote-name-all",
        "--output-dir",
        folder,
        "--write-out",
        told,
    ];
    let paths = ["/greet/a", "/nowhere", "/bytes/100000", "/greet/b"];
    let said = text(curl(&server, &asked, &paths));
    assert_eq!(said, "1 13\n0 20\n0 100000\n0 13\n");

    let head = text(curl(&server, &["--head"], &["/greet/a"]));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("Content-Length: 13\r\n"), "{head}");
    // A body after a head would be taken for the next answer.
    let heads = text(curl(
        &server,
        &["--head"],
        &["/greet/a", "/bytes/9", "/greet/a"],
    ));
    assert_eq!(heads.matches("HTTP/1.1 200").count(), 3, "{heads}");
    assert!(!heads.contains("hello"), "{heads}");
}

/// The probe `web`, whose answers are never flushed by hand.
fn web(mode: WakeMode) -> Server {
    require_kvm();
    Server::start(|_, address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
        command
            .arg("run")
            .arg(guest("web"))
            .args(["--wake", &mode.to_string()])
            .args(["--allow-listen", &address.to_string()])
            .args(["--", &address.to_string()])
            .stdout(Stdio::null());
        command
    })
}

#[kvm_test(modes)]
async fn an_answer_takes_one_write_of_its_head_and_body(mode: WakeMode) {
    const ANSWERS: u64 = 5;
    let said = Captured::new();
    let any = "127.0.0.1:0";
    let builder = Sandbox::builder()
        .guest(guest("http"))
        .wake(mode)
        .args([any]);
    let builder = builder.policy(Policy::new().allow_listen(any.parse().unwrap()));
    let running = builder
        .stdout(Output::Capture(said.clone()))
        .build()
        .unwrap()
        .start();
    let address = loop {
        let said = text(said.to_vec());
        if let Some((url, "")) = said.split_once("/\n") {
            break url.trim_start_matches("http://").to_owned();
        }
        tokio::task::yield_now().await;
    };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    for _ in 0..ANSWERS {
        let request = b"GET /greet/you HTTP/1.1\r\nHost: here\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(br#"{"hello":"you"}"#) {
            stream.read_buf(&mut answer).await.unwrap();
        }
    }
    let operations = running.handle().stats().operations;
    let writes = operations.iter().find(|(name, _)| *name == "WriteStream");
    assert_eq!(writes, Some(&("WriteStream", ANSWERS)), "mode {mode}");
}

const EVENTS: &str =
    "event:number\ndata:one\n\nevent:number\ndata:two\n\nevent:number\ndata:three\n\n";

/// Reads until what was read ends with `end`.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("more bytes");
        bytes.push(byte[0]);
    }
    bytes
}

#[kvm_test(modes)]
fn events_that_are_not_flushed_arrive_while_their_writer_waits_and_when_it_is_gone(mode: WakeMode) {
    let server = web(mode);
    assert_eq!(text(curl(&server, &[], &["/three"])), EVENTS, "mode {mode}");
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let request = "GET /waiting HTTP/1.1\r\nHost: here\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let head = text(read_until(&mut stream, b"\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let events = text(read_until(&mut stream, b"three\n\n"));
    assert_eq!(events, EVENTS, "mode {mode}");
}

#[kvm_test(modes)]
fn messages_of_a_websocket_arrive_without_a_flush(mode: WakeMode) {
    /// A text of fewer than 126 bytes, masked with zeroes (RFC 6455, 5.2).
    fn message(opcode: u8, text: &str) -> Vec<u8> {
        let head = [0x80 | opcode, 0x80 | text.len() as u8, 0, 0, 0, 0];
        [&head, text.as_bytes()].concat()
    }
    fn receive(stream: &mut TcpStream) -> String {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a frame");
        assert_eq!(head[0], 0x81, "a text, whole");
        let mut bytes = vec![0; head[1].into()];
        stream.read_exact(&mut bytes).expect("its payload");
        text(bytes)
    }
    let server = web(mode);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let request = "GET /socket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let head = text(read_until(&mut stream, b"\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(receive(&mut stream), "hello", "mode {mode}");
    for said in ["a", "short", "story"] {
        stream.write_all(&message(1, said)).unwrap();
        assert_eq!(receive(&mut stream), said, "mode {mode}");
    }
    // It says a last word and is dropped.
    stream.write_all(&message(8, "")).unwrap();
    assert_eq!(receive(&mut stream), "goodbye", "mode {mode}");
    let mut rest = Vec::new();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

#[kvm_test(modes)]
fn a_load_generator_sees_no_error(mode: WakeMode) {
    let server = http(mode);
    let mut wrk = program("wrk");
    wrk.args(["--threads", "1", "--connections", "100", "--duration", "1s"])
        // A busy machine is no error.
        .args(["--timeout", "60s"])
        .arg(format!("http://{}/greet/you", server.address()));
    let said = text(output(&mut wrk));
    // It tells of errors only if there were any.
    for error in ["Socket errors", "Non-2xx"] {
        assert!(!said.contains(error), "mode {mode}: {said}");
    }
    let requests = said
        .split("requests in")
        .next()
        .and_then(|head| head.split_whitespace().last());
    let requests = requests.and_then(|word| word.parse::<u64>().ok());
    assert!(requests > Some(100), "mode {mode}: {said}");
}

/// The probe `clients` with a server of a kind at an address, granted beside what `policy` has.
fn clients(job: &str, kind: &str, address: &str, policy: Policy) -> Builder {
    let policy = match kind {
        "unix" => policy.allow_unix(address),
        _ => policy.allow_connect(address.parse().expect("an address")),
    };
    Sandbox::builder()
        .guest(guest("clients"))
        .memory(128 << 20)
        .args([job, kind, address])
        .policy(policy)
}

/// Where a server listens, of either kind.
fn addresses(server: &Server, socket: &str) -> [(&'static str, String); 2] {
    [
        ("tcp", server.address().to_string()),
        ("unix", server.folder().join(socket).display().to_string()),
    ]
}

/// Bytes that are not alike anywhere.
fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[kvm_test]
fn what_nginx_serves_arrives_byte_for_byte() {
    let files: Vec<(String, Vec<u8>)> = [0, 1, 4095, 4096, 100_000, 1_000_003, 9_999_999]
        .map(|len| (format!("file-{len}"), noise(len)))
        .into();
    let served: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let server = Server::nginx(&served);
    for (kind, address) in addresses(&server, "nginx.sock") {
        for mode in WakeMode::ALL {
            let folder = tempfile::tempdir().unwrap();
            let names = served.iter().map(|(name, _)| *name).chain(["missing"]);
            let out = DirGrant::new(folder.path(), "/out").unwrap();
            let probe = clients("download", kind, &address, Policy::new().allow_dir(out));
            let ended = run(probe.args(names).wake(mode)).success();
            let lines = ended.lines();
            assert_eq!(lines.len(), served.len() + 1, "{lines:?}");
            for ((name, bytes), line) in served.iter().zip(&lines) {
                assert_eq!(*line, format!("{name} ok 200"), "{kind}, mode {mode}");
                let saved = fs::read(folder.path().join(name)).unwrap();
                assert!(saved == *bytes, "{name} differs, {kind}, mode {mode}");
            }
            assert_eq!(lines[served.len()], "missing ok 404");
        }
    }
}

#[kvm_test(modes)]
fn redis_keeps_what_a_guest_stores_and_wakes_those_who_wait(mode: WakeMode) {
    // A server for each, so that counters begin anew.
    for transport in 0..2 {
        let server = Server::redis();
        let cli = |args: &[&str]| {
            let port = server.address().port().to_string();
            output(program("redis-cli").args(["-p", &port]).args(args))
        };
        cli(&["SET", "greeting", "from outside"]);
        let (kind, address) = &addresses(&server, "redis.sock")[transport];
        let ended: Ended = run(clients("redis", kind, address, Policy::new()).wake(mode));
        let ended = ended.success();
        assert_eq!(
            ended.lines(),
            [
                "values ok 6 true true",
                "pipeline ok 5000",
                "queue ok 200",
                "messages ok 900 Number(3)",
                "greeting ok true",
            ],
            "{kind}, mode {mode}"
        );
        // What it has stored, seen from outside, and the end of the line that is printed.
        for len in [1_000_usize, 1_000_000] {
            let mut expected: Vec<u8> = (0..len).map(|at| (at * at / 7) as u8).collect();
            expected.push(b'\n');
            assert!(cli(&["GET", &format!("value {len}")]) == expected, "{len}");
        }
        assert_eq!(cli(&["GET", "counter"]), b"5000\n");
    }
}

/// What the demo `fetch` says about URLs, if it may connect to these.
fn fetch(grants: &[String], urls: &[String]) -> Vec<String> {
    let policy = grants.iter().fold(Policy::new(), |policy, grant| {
        policy.allow_connect(grant.parse().expect("a grant"))
    });
    let builder = Sandbox::builder()
        .guest(guest("fetch"))
        .args(urls)
        .policy(policy);
    let ended = run(builder);
    // Without the times, which nobody can know.
    ended
        .lines()
        .into_iter()
        .filter_map(|line| line.split_once(" ms  "))
        .map(|(numbers, rest)| {
            let status = numbers.split_whitespace().next().unwrap_or_default();
            let bytes = numbers.split_whitespace().nth(1).unwrap_or_default();
            match status {
                "---" => rest.to_owned(),
                _ => format!("{rest} {status} {bytes}"),
            }
        })
        .collect()
}

#[kvm_test]
fn the_demo_fetch_says_what_became_of_each_address() {
    let bytes = noise(200_000);
    let server = Server::nginx(&[("file", &bytes)]);
    let port = server.address().port();
    // Nobody listens there any more.
    let nobody: SocketAddr = wakebox_tests::programs::free_address();
    let urls = [
        format!("http://127.0.0.1:{port}/file"),
        format!("http://localhost:{port}/file"),
        format!("http://127.0.0.1:{port}/missing"),
        format!("http://{nobody}/"),
        "http://nobody.invalid/".into(),
        "http://192.0.2.1/".into(),
    ];
    let grants = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        nobody.to_string(),
        "nobody.invalid:80".into(),
    ];
    let lines = fetch(&grants, &urls);
    let line = |url: &str| {
        let found = lines.iter().find(|line| line.starts_with(url));
        found.unwrap_or_else(|| panic!("{url} is not in {lines:#?}"))
    };
    assert_eq!(line(&urls[0]), &format!("{} 200 200000", urls[0]));
    assert_eq!(line(&urls[1]), &format!("{} 200 200000", urls[1]));
    assert!(line(&urls[2]).contains(" 404 "), "{lines:#?}");
    assert!(line(&urls[3]).contains("refused"), "{lines:#?}");
    assert!(line(&urls[4]).contains("there is no such"), "{lines:#?}");
    assert!(line(&urls[5]).contains("does not permit"), "{lines:#?}");
    assert_eq!(lines.len(), urls.len());
}
