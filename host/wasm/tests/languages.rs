//! Programs in languages whose compilers are not everywhere: `componentize-py`, of PyPI, and Debian's clang with
//! wasi-libc. `cargo xtask test languages` runs these; the sources are in `tests/guests/wasm`.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::spawn;

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

/// What a script in Python prints.
async fn python(script: &str, args: &[&str], policy: Policy) -> String {
    let flags = [
        "-q",
        "-d",
        "world.wit",
        "-w",
        "script",
        "componentize",
        script,
        "-o",
    ];
    let component = made("python", "componentize-py", &flags);
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
