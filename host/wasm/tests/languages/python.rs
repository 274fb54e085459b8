//! Python, by `componentize-py` of PyPI.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread::spawn;

use wakebox::{Outcome, Policy};

use crate::common::{end_of, sandbox};
use crate::{made, says, served, sources};

/// A component of a program in Python.
fn componentized(source: &str, file: &str, world: &str) -> Vec<u8> {
    let flags = ["-q", "-d", file, "-w", world, "componentize", source, "-o"];
    made("python", "componentize-py", &flags)
}

/// What a script in Python prints.
async fn python(script: &str, args: &[&str], policy: Policy) -> String {
    says(componentized(script, "world.wit", "script"), args, policy).await
}

/// What the loop of `asyncio` takes to wake itself.
fn of_asyncio() -> Policy {
    Policy::new()
        .allow_listen("127.0.0.1:0".parse().unwrap())
        .allow_connect("127.0.0.1".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn runs_a_script() {
    let said = python("hello", &["a", "b c"], Policy::new()).await;
    assert_eq!(said, "Python 3 a b c\n");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn gathers_ten_sleeps() {
    let said = python("naps", &[], of_asyncio()).await;
    assert!(
        said.starts_with("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn fetches_ten_pages_at_once() {
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
async fn runs_a_script_that_it_is_given() {
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-py of PyPI"]
async fn answers_http() {
    let world = "../../../../host/wasm/tests/components/http/world.wit";
    let answers = served(componentized("handler", world, "server")).await;
    for (number, answer) in answers.iter().enumerate() {
        // An instance for each request has been asked once.
        let said = format!("Python was asked for /page/{number}, 1 time(s)");
        assert!(answer.contains(&said), "{answer}");
    }
}
