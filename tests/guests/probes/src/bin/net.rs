//! The network, in parts: `net COMMAND ADDRESS`.
//!
//! - `connect`: connects and says how it went.
//! - `listen`: listens and says how it went.
//! - `echo`: sends 100 messages to an echo server and compares what comes back.
//! - `half-close`: sends "ping", shuts its side down, and reads to the end.
//! - `read`: reads to the end, and says how that went.
//! - `write`: writes until that fails, and says how.
//! - `pieces`: writes many of different lengths, and waits for the end of none.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use wakebox_guest::io::Result;
use wakebox_guest::net::{Shutdown, TcpListener, TcpStream};
use wakebox_guest::{env, println};

async fn read_to_end(stream: &TcpStream) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&part[..count]),
        }
    }
}

async fn echo(address: &str) -> Result<bool> {
    let stream = TcpStream::connect(address).await?;
    let mut same = true;
    for round in 1..=100_usize {
        let sent: Vec<u8> = (0..round * 100)
            .map(|index| (index * round) as u8)
            .collect();
        let mut received = vec![0; sent.len()];
        stream.write_all(&sent).await?;
        stream.read_exact(&mut received).await?;
        same &= sent == received;
    }
    Ok(same)
}

async fn half_close(address: &str) -> Result<Vec<u8>> {
    let stream = TcpStream::connect(address).await?;
    stream.write_all(b"ping").await?;
    stream.shutdown(Shutdown::Write).await?;
    read_to_end(&stream).await
}

/// How many pieces, and how long each is at most.
const PIECES: (usize, usize) = (1_000, 40_000);

async fn pieces(address: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let mut sent = 0_usize;
    for index in 0..PIECES.0 {
        let len = index * 997 % PIECES.1 + 1;
        let piece: Vec<u8> = (sent..sent + len).map(|at| (at / 1_000) as u8).collect();
        stream.write_all(&piece).await?;
        sent += len;
    }
    stream.shutdown(Shutdown::Write).await?;
    println!("sent {sent}");
    Ok(())
}

async fn write(address: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    loop {
        stream.write_all(&[7; 4096]).await?;
    }
}

async fn run(command: &str, address: &str) -> Result<()> {
    match command {
        "connect" => {
            let stream = TcpStream::connect(address).await?;
            println!("connected to {}", stream.peer_addr().await?);
        }
        "listen" => {
            let listener = TcpListener::bind(address).await?;
            println!("listening on {}", listener.local_addr().await?);
        }
        "echo" => println!("same {}", echo(address).await?),
        "half-close" => {
            let answer = half_close(address).await?;
            println!("read {:?}", alloc::string::String::from_utf8_lossy(&answer));
        }
        "read" => {
            let stream = TcpStream::connect(address).await?;
            println!("read {} bytes", read_to_end(&stream).await?.len());
        }
        "write" => write(address).await?,
        "pieces" => pieces(address).await?,
        other => println!("unknown command {other}"),
    }
    Ok(())
}

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    let command = args.next().unwrap_or_default();
    let address = args.next().unwrap_or_default();
    if let Err(error) = run(command, address).await {
        println!("error {:?}", error.status());
        println!("{error}");
    }
}
