//! A small web site: `http [ADDRESS]`.
//!
//! What to watch: `picoserve`, written for microcontrollers, serves a browser from a machine that
//! has no network card. Every connection is a task; each waits for its own timers, also while
//! `/stream` drips. Try `curl -N http://127.0.0.1:8080/stream`, or the page in a browser.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use core::fmt::Write as _;

use picoserve::response::chunked::{ChunkWriter, ChunkedResponse, Chunks, ChunksWritten};
use picoserve::response::{File, Json};
use picoserve::routing::{PathRouter, get, get_service, parse_path_segment};
use picoserve::time::Duration;
use picoserve::{Config, Router, Server, Timeouts, io};
use serde::Serialize;
use wakebox_guest::io::Result;
use wakebox_guest::net::TcpListener;
use wakebox_guest::net::picoserve::Timer;
use wakebox_guest::{env, eprintln, println, spawn, stats, time};

const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8"><title>Wakebox</title>
<h1>Hello from ring 3</h1>
<p>This page comes from a micro-VM without a kernel. Its routes:
<ul>
<li><a href="/stats">/stats</a>: what the guest has done so far, as JSON
<li><a href="/greet/you">/greet/NAME</a>: a greeting, as JSON
<li><a href="/wait/250">/wait/MILLIS</a>: an answer that takes its time
<li><a href="/bytes/1000000">/bytes/COUNT</a>: so many bytes to download
<li><a href="/stream">/stream</a>: a body that comes piece by piece:
</ul>
<pre id="stream"></pre>
<script>
  (async () => {
    const reader = (await fetch("/stream")).body.getReader();
    const text = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      document.getElementById("stream").textContent += text.decode(value);
    }
  })();
</script>
"#;

const CONFIG: Config = Config::new(Timeouts {
    start_read_request: Duration::from_secs(10),
    persistent_start_read_request: Duration::from_secs(30),
    read_request: Duration::from_secs(5),
    write: Duration::from_secs(10),
})
.keep_connection_alive();

#[derive(Serialize)]
struct Figures {
    uptime_ms: u64,
    tasks: u64,
    polls: u64,
    turns: u64,
}

#[derive(Serialize)]
struct Greeting {
    hello: String,
}

/// A line every 200 milliseconds.
struct Drip;

impl Chunks for Drip {
    fn content_type(&self) -> &'static str {
        "text/plain; charset=utf-8"
    }

    async fn write_chunks<W: io::Write>(
        self,
        mut to: ChunkWriter<W>,
    ) -> core::result::Result<ChunksWritten, W::Error> {
        for number in 1..=10 {
            writeln!(to, "piece {number} of 10").await?;
            to.flush().await?;
            time::sleep(time::Duration::from_millis(200)).await;
        }
        to.finalize().await
    }
}

/// So many bytes: lines of numbers, the last one perhaps cut.
struct Bytes(usize);

impl Chunks for Bytes {
    fn content_type(&self) -> &'static str {
        "application/octet-stream"
    }

    async fn write_chunks<W: io::Write>(
        self,
        mut to: ChunkWriter<W>,
    ) -> core::result::Result<ChunksWritten, W::Error> {
        let (mut left, mut number) = (self.0, 0);
        let mut lines = String::new();
        while left > 0 {
            lines.clear();
            for _ in 0..1000 {
                number += 1;
                // A `String` takes whatever is written to it.
                let _ = writeln!(lines, "{number}");
            }
            let part = &lines.as_bytes()[..lines.len().min(left)];
            to.write_chunk(part).await?;
            left -= part.len();
        }
        to.finalize().await
    }
}

fn site() -> Router<impl PathRouter> {
    Router::new()
        .route("/", get_service(File::html(PAGE)))
        .route(
            ("/bytes", parse_path_segment()),
            get(async |count: usize| ChunkedResponse::new(Bytes(count))),
        )
        .route("/stream", get(async || ChunkedResponse::new(Drip)))
        .route(
            "/stats",
            get(async || {
                let stats = stats();
                Json(Figures {
                    uptime_ms: time::now().as_nanos() / 1_000_000,
                    tasks: stats.spawned - stats.completed,
                    polls: stats.polls,
                    turns: stats.turns,
                })
            }),
        )
        .route(
            ("/greet", parse_path_segment()),
            get(async |hello: String| Json(Greeting { hello })),
        )
        .route(
            ("/wait", parse_path_segment()),
            get(async |millis: u64| {
                time::sleep(time::Duration::from_millis(millis)).await;
                "that was it\n"
            }),
        )
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let address = env::args().next().unwrap_or(DEFAULT_ADDRESS);
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/", listener.local_addr().await?);
    let site = Rc::new(site());
    loop {
        let stream = listener.accept().await?;
        let site = site.clone();
        spawn(async move {
            // An answer goes out in a few parts, none of which should wait for the peer's word that
            // it has the one before. If it cannot be set, the peer has gone already.
            let _ = stream.set_nodelay(true).await;
            let mut buffer = vec![0; 2048];
            let server = Server::custom(&site, Timer, &CONFIG, &mut buffer);
            if let Err(error) = server.serve(stream).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}
