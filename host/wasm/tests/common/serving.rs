//! Components that serve HTTP, and who asks them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use tokio::io::{AsyncBufReadExt, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use wakebox::{Builder, Handle, Outcome, Output, Policy};

use super::programs::{HANDLE_NEWER, Kind, STREAMS};
use super::sandbox;

/// Programs that answer, in WASI 0.3.
pub const SERVER_NEWER: Kind = Kind {
    wit: include_str!("../components/http/newer.wit"),
    world: Some("server"),
    library: &[STREAMS, include_str!("../components/http/server_newer.wat")],
    words: &[
        ("STREAMS", "wasi:http/types@0.3.0"),
        ("FUNCTION", "[static]response.new"),
    ],
    function: HANDLE_NEWER,
    errors: &[],
};

/// A component that serves, until it is killed.
pub struct Serving {
    port: u16,
    handle: Handle,
    run: JoinHandle<Outcome>,
    /// What it says.
    lines: UnboundedReceiver<String>,
}

impl Serving {
    /// One with this program.
    pub async fn start(kind: &Kind, program: &str, args: &[&str]) -> Self {
        let (builder, ..) = sandbox(kind.component(program));
        Self::of(builder, args).await
    }

    pub async fn of(builder: Builder, args: &[&str]) -> Self {
        Self::with(builder, Policy::new(), args).await
    }

    /// One that may also do what a policy allows.
    pub async fn with(builder: Builder, policy: Policy, args: &[&str]) -> Self {
        let (said, hears) = duplex(1 << 16);
        let policy = policy.allow_listen("127.0.0.1:0".parse().unwrap());
        let builder = builder.policy(policy).stderr(Output::writer(said));
        let mut sandbox = builder
            .args(args.iter().copied().chain(["127.0.0.1:0"]))
            .build()
            .unwrap();
        let handle = sandbox.handle();
        let mut lines = tokio::io::BufReader::new(hears).lines();
        let run = tokio::spawn(async move { sandbox.run().await.unwrap() });
        let first = lines.next_line().await.unwrap().unwrap();
        let port = first.strip_prefix("serving on http://127.0.0.1:").unwrap();
        let port = port.parse().unwrap();
        let (hears, said) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = hears.send(line);
            }
        });
        let lines = said;
        Self {
            port,
            handle,
            run,
            lines,
        }
    }

    /// A conversation with it, on a thread of its own.
    pub async fn talk<T: Send + 'static>(&self, talk: impl FnOnce(u16) -> T + Send + 'static) -> T {
        let port = self.port;
        tokio::task::spawn_blocking(move || talk(port))
            .await
            .unwrap()
    }

    /// What it says next.
    pub async fn line(&mut self) -> String {
        self.lines.recv().await.unwrap()
    }

    /// What else it has said.
    pub async fn end(mut self) -> Vec<String> {
        self.handle.kill();
        let outcome = self.run.await.unwrap();
        assert!(matches!(outcome, Outcome::Cancelled), "{outcome}");
        let mut said = Vec::new();
        while let Some(line) = self.lines.recv().await {
            said.push(line);
        }
        said
    }
}

/// A connection on which requests are made.
pub struct Client(pub BufReader<TcpStream>);

impl Client {
    pub fn to(port: u16) -> Self {
        Self(BufReader::new(
            TcpStream::connect(("127.0.0.1", port)).unwrap(),
        ))
    }

    pub fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    /// The lines of a head.
    pub fn head(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => return lines,
                line => lines.push(line),
            }
        }
    }

    /// The next chunk of a body; an empty one is its end.
    pub fn chunk(&mut self) -> String {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        assert_eq!(self.line(), "");
        String::from_utf8(bytes).unwrap()
    }

    /// The chunks that come, to the end.
    pub fn chunks(&mut self) -> String {
        let mut body = String::new();
        loop {
            match self.chunk() {
                chunk if chunk.is_empty() => return body,
                chunk => body += &chunk,
            }
        }
    }

    /// Asks, and gives the status line and the body in chunks.
    pub fn ask(&mut self, request: &str) -> (String, String) {
        self.send(request);
        let head = self.head();
        (head[0].clone(), self.chunks())
    }

    /// Asks, and gives the status line of an answer without a body.
    pub fn ask_error(&mut self, request: &str) -> String {
        self.send(request);
        self.head().swap_remove(0)
    }

    pub fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }
}
