//! One end of a TCP connection; the first argument names the case, the second the address.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use wakebox_guest::io::{Error, Result};
use wakebox_guest::net::{Shutdown, TcpListener, TcpStream};
use wakebox_guest::{env, println};

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    let (case, address) = (
        args.next().expect("a case"),
        args.next().expect("an address"),
    );
    let result = match case {
        "connect" => connect(address).await,
        "listen" => listen(address).await,
        "read" => read(address).await,
        "half" => half(address).await,
        "write" => write(address).await,
        other => panic!("no case {other:?}"),
    };
    if let Err(error) = result {
        println!("{:?}", error.status());
    }
}

async fn connect(address: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    println!("peer {}", stream.peer_addr().await?);
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    println!("{}", core::str::from_utf8(&answer).unwrap_or("?"));
    Ok(())
}

async fn listen(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr().await?);
    Ok(())
}

/// Reads to the end, or to the error.
async fn read(address: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    println!("{} bytes", read_all(&stream).await?);
    Ok(())
}

async fn read_all(stream: &TcpStream) -> Result<usize> {
    let mut bytes = vec![0; 4096];
    let mut total = 0;
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(total),
            len => total += len,
        }
    }
}

/// Says that it has no more to say, and still listens.
async fn half(address: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.write_all(b"question").await?;
    stream.shutdown(Shutdown::Write).await?;
    println!("{} bytes", read_all(&stream).await?);
    let refused = stream.write_all(b"more").await;
    println!("{:?}", refused.map_err(|error: Error| error.status()));
    Ok(())
}

/// Writes until the other side is gone.
async fn write(address: &str) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    loop {
        stream.write_all(&[b'x'; 4096]).await?;
    }
}
