//! A TCP echo server: `echo [ADDRESS] [--once N]`.
//!
//! What to watch: each connection is a task, and hundreds at once cost little more than
//! one, because all that they submit in a turn goes out together: a short answer with the next read. What is long is not copied:
//! it is written from the buffer into which it was read.
//!
//! With `--once N` it ends when N connections have been closed.
#![no_std]
#![no_main]

use wakebox_guest::io::{IoBuf, Result};
use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::{env, eprintln, println, spawn};

const DEFAULT_ADDRESS: &str = "127.0.0.1:7777";
const BUFFER: usize = 16 << 10;

/// Sends everything back until the peer has no more.
async fn serve(stream: TcpStream) -> Result<()> {
    let mut buf = IoBuf::with_capacity(BUFFER).await?;
    loop {
        let (count, full) = stream.read_buf(buf).await;
        if count? == 0 {
            return Ok(());
        }
        let (written, empty) = stream.write_all_buf(full).await;
        written?;
        buf = empty;
    }
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut address = DEFAULT_ADDRESS;
    let mut once = None;
    let mut args = env::args();
    while let Some(arg) = args.next() {
        match arg {
            "--once" => once = args.next().and_then(|count| count.parse::<usize>().ok()),
            other => address = other,
        }
    }

    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr().await?);
    // Each task has a copy; when all are gone, all connections are closed.
    let (alive, ended) = async_channel::bounded::<()>(1);
    let mut accepted = 0;
    while once.is_none_or(|once| accepted < once) {
        let stream = listener.accept().await?;
        accepted += 1;
        let alive = alive.clone();
        spawn(async move {
            if let Err(error) = serve(stream).await {
                eprintln!("a connection ended: {error}");
            }
            drop(alive);
        });
    }
    drop(alive);
    let _ = ended.recv().await;
    Ok(())
}
