//! Programs in languages whose compilers are not everywhere. `cargo xtask test languages` runs these, those of a language
//! where its compiler is; the sources are in `tests/guests/wasm`.

mod c;
#[path = "../common/mod.rs"]
mod common;
mod go;
mod javascript;
mod python;
mod rust;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

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
