//! Programs in languages whose compilers are not everywhere: `componentize-py` of PyPI, `componentize-js` of npm, and
//! Debian's clang with wasi-libc. `cargo xtask test languages` runs these; the sources are in `tests/guests/wasm`.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::spawn;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wakebox::{Outcome, Policy};

use common::{end_of, sandbox};

fn sources(language: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap().join("tests/guests/wasm").join(language)
}

/// What a command makes of `source`, which it is to put where the last of its arguments says.
fn made(language: &str, program: &str, args: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.wasm");
    let mut command = Command::new(program);
    command.current_dir(sources(language)).args(args).arg(&file);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; see README.md in {language}"));
    assert!(output.status.success(), "{output:?}");
    std::fs::read(file).unwrap()
}

/// A component of a program in Python.
fn componentized(source: &str, file: &str, world: &str) -> Vec<u8> {
    let flags = ["-q", "-d", file, "-w", world, "componentize", source, "-o"];
    made("python", "componentize-py", &flags)
}

/// A component of a program in JavaScript.
fn javascript(source: &str, world: &str) -> Vec<u8> {
    let source = format!("{source}.js");
    let flags = [&*source, "-w", "world.wit", "-n", world, "-o"];
    made("javascript", "componentize-js", &flags)
}

/// What a script in Python prints.
async fn python(script: &str, args: &[&str], policy: Policy) -> String {
    says(componentized(script, "world.wit", "script"), args, policy).await
}

/// What a component prints that ends well.
async fn says(component: Vec<u8>, args: &[&str], policy: Policy) -> String {
    let (builder, out, err) = sandbox(component);
    let builder = builder
        .memory(256 << 20)
        .policy(policy)
        .args(args.iter().copied());
    assert_eq!(
        (end_of(builder).await, &*err.text()),
        (Outcome::Exit(0), "")
    );
    out.text()
}

/// What the loop of `asyncio` takes to wake itself.
fn of_asyncio() -> Policy {
    Policy::new()
        .allow_listen("127.0.0.1:0".parse().unwrap())
        .allow_connect("127.0.0.1".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn python_runs_a_script() {
    let said = python("hello", &["a", "b c"], Policy::new()).await;
    assert_eq!(said, "Python 3 a b c\n");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn python_gathers_ten_sleeps() {
    let said = python("naps", &[], of_asyncio()).await;
    assert!(
        said.starts_with("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn python_fetches_ten_pages_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = spawn(move || {
        // All have asked before the first is answered, and the last is answered first.
        let mut asked: Vec<_> = (0..10)
            .map(|_| {
                let peer = listener.accept().unwrap().0;
                let mut line = String::new();
                BufReader::new(&peer).read_line(&mut line).unwrap();
                (peer, line)
            })
            .collect();
        for (peer, line) in asked.iter_mut().rev() {
            let page = line.split(' ').nth(1).unwrap();
            write!(peer, "HTTP/1.0 200 OK\r\n\r\n{page}").unwrap();
        }
    });
    let said = python("fetches", &[&*port], of_asyncio()).await;
    assert_eq!(said, "/0 /1 /2 /3 /4 /5 /6 /7 /8 /9\n");
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn python_runs_a_script_that_it_is_given() {
    let component = componentized("script", "world.wit", "script");
    let folder = sources("python").display().to_string();
    let policy = of_asyncio().allow_dir(format!("{folder}:/script:ro").parse().unwrap());
    let said = says(component.clone(), &["/script/ten.py"], policy).await;
    let naps = ": naps [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], all in ";
    assert!(
        said.starts_with("Python 3.") && said.contains(naps),
        "{said}"
    );
    // And says what is wrong with one.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("bad.py"),
        "import sys\nprint(sys.argv)\n1 / 0\n",
    )
    .unwrap();
    let grant = format!("{}:/script:ro", folder.path().display());
    let (builder, out, err) = sandbox(component);
    let builder = builder
        .memory(256 << 20)
        .policy(Policy::new().allow_dir(grant.parse().unwrap()))
        .args(["/script/bad.py", "a b"]);
    assert_eq!(end_of(builder).await, Outcome::Exit(1));
    assert_eq!(out.text(), "['/script/bad.py', 'a b']\n");
    let err = err.text();
    assert!(
        err.contains("\"/script/bad.py\", line 3") && err.contains("ZeroDivisionError"),
        "{err}"
    );
}

/// What a component's answers to three requests on one connection each are, of an instance for all of them.
async fn served(component: Vec<u8>) -> Vec<String> {
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let (builder, _, _) = sandbox(component);
    let policy = Policy::new().allow_listen(address.to_string().parse().unwrap());
    let builder = builder.memory(256 << 20).policy(policy);
    let running = builder.args([address.to_string()]).build().unwrap().start();
    let mut answers = Vec::new();
    for number in 0..3 {
        let mut stream = loop {
            match tokio::net::TcpStream::connect(address).await {
                Ok(stream) => break stream,
                // It does not listen yet.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let request =
            format!("GET /page/{number} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answers.push(answer);
    }
    running.handle().kill();
    answers
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn python_answers_http() {
    let world = "../../../../host/wasm/tests/components/http/world.wit";
    let answers = served(componentized("handler", world, "server")).await;
    for (number, answer) in answers.iter().enumerate() {
        // An instance for each request has been asked once.
        let said = format!("Python was asked for /page/{number}, 1 time(s)");
        assert!(answer.contains(&said), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-js of npm"]
async fn javascript_runs_and_has_ten_timers_at_once() {
    let said = says(javascript("hello", "script"), &[], Policy::new()).await;
    assert_eq!(said, "JavaScript 2 4 6\n");
    let said = says(javascript("naps", "script"), &[], Policy::new()).await;
    assert!(said.starts_with("0 1 2 3 4 5 6 7 8 9 in "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-js of npm"]
async fn javascript_answers_http() {
    for (number, answer) in served(javascript("handler", "handler"))
        .await
        .iter()
        .enumerate()
    {
        let said = format!("JavaScript was asked for /page/{number}\n");
        assert!(answer.contains(&said), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's clang and wasi-libc"]
async fn c_reads_the_files_that_are_granted() {
    let flags = ["--target=wasm32-wasi", "-O2", "words.c", "-o"];
    let module = made("c", "clang", &flags);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "one two\n three ").unwrap();
    let grant = format!("{}:/here:ro", folder.path().display());
    let (builder, out, err) = sandbox(module);
    let policy = Policy::new().allow_dir(grant.parse().unwrap());
    let builder = builder.policy(policy).args(["/here/text", "/here/none"]);
    assert_eq!(end_of(builder).await, Outcome::Exit(1));
    assert_eq!(out.text(), "3 /here/text\n");
    assert!(
        err.text().starts_with("/here/none: No such file"),
        "{}",
        err.text()
    );
}
