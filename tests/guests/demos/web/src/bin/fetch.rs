//! Gets many URLs at once: `fetch [--limit N] [--timeout MILLIS] URL...`.
//!
//! What to watch: at most N requests are under way (8 unless you say otherwise), each has its own
//! time-out, and one more task tells how far they are. A host that was not granted is an ordinary
//! error. The protocol is that of `reqwless`, unchanged, over our connections; no TLS.
//!
//! Without a URL it asks the demo `http`, which must run then.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use embedded_io_async::Read;
use futures::stream::{StreamExt, iter};
use reqwless::client::HttpConnection;
use reqwless::request::{Request, RequestBuilder};
use wakebox_guest::net::TcpStream;
use wakebox_guest::time::{Duration, Instant, interval, timeout};
use wakebox_guest::{env, eprintln, println, spawn};

const DEFAULT_URLS: [&str; 6] = [
    "http://127.0.0.1:8080/",
    "http://127.0.0.1:8080/stats",
    "http://127.0.0.1:8080/wait/300",
    "http://127.0.0.1:8080/stream",
    "http://127.0.0.1:8080/wait/60000",
    "http://192.0.2.1/not-granted",
];

/// What everybody has done together.
#[derive(Default)]
struct Progress {
    begun: Cell<usize>,
    done: Cell<usize>,
    bytes: Cell<usize>,
}

struct Answer {
    status: u16,
    bytes: usize,
}

async fn get(url: &str, progress: &Progress) -> Result<Answer, String> {
    let rest = url.strip_prefix("http://").ok_or("not an http:// URL")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    let address = match host.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => String::from(host),
        _ => format!("{host}:80"),
    };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("{error}"))?;

    let broken = |error: reqwless::Error| format!("{error:?}");
    let path = if path.is_empty() { "/" } else { path };
    let request = Request::get(path).host(host).build();
    let mut buffer = vec![0; 4096];
    let mut connection = HttpConnection::Plain(stream);
    let response = connection
        .send(request, &mut buffer)
        .await
        .map_err(broken)?;
    let status = response.status.0;
    let mut body = response.body().reader();
    let mut part = vec![0; 4096];
    let mut bytes = 0;
    loop {
        match body.read(&mut part).await.map_err(broken)? {
            0 => return Ok(Answer { status, bytes }),
            count => {
                bytes += count;
                progress.bytes.set(progress.bytes.get() + count);
            }
        }
    }
}

#[wakebox_guest::main]
async fn main() -> i32 {
    let (mut limit, mut patience) = (8, 3_000);
    let mut urls = Vec::new();
    let mut args = env::args();
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok());
        match arg {
            "--limit" => limit = number().unwrap_or(limit).max(1),
            "--timeout" => patience = number().unwrap_or(patience),
            url => urls.push(url),
        }
    }
    if urls.is_empty() {
        urls.extend(DEFAULT_URLS);
    }

    let (all, start) = (urls.len(), Instant::now());
    let progress = Rc::new(Progress::default());
    let watched = progress.clone();
    let reporter = spawn(async move {
        let mut beat = interval(Duration::from_millis(250));
        beat.tick().await;
        loop {
            beat.tick().await;
            let done = watched.done.get();
            let under_way = watched.begun.get() - done;
            eprintln!(
                "... {done} of {all} done, {under_way} under way, {} bytes",
                watched.bytes.get()
            );
        }
    });

    let mut answers = iter(urls)
        .map(|url| {
            let progress = progress.clone();
            async move {
                progress.begun.set(progress.begun.get() + 1);
                let start = Instant::now();
                let patience = Duration::from_millis(patience as u64);
                let answer = timeout(patience, get(url, &progress)).await;
                progress.done.set(progress.done.get() + 1);
                let answer = answer.unwrap_or_else(|late| Err(format!("{late}")));
                (url, answer, start.elapsed().as_millis())
            }
        })
        .buffer_unordered(limit);
    let mut failed = 0;
    while let Some((url, answer, millis)) = answers.next().await {
        match answer {
            Ok(Answer { status, bytes }) => {
                println!("{status} {bytes:>8} bytes {millis:>6} ms  {url}")
            }
            Err(error) => {
                failed += 1;
                println!("---              {millis:>6} ms  {url}: {error}");
            }
        }
    }
    reporter.abort();
    println!(
        "{} of {all} in {} ms",
        all - failed,
        start.elapsed().as_millis()
    );
    i32::from(failed == all)
}
