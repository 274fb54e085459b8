//! Uses one thing until it is refused, and tells how much it got and how it was refused.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use wakebox_guest::fs::{self, File};
use wakebox_guest::io::{IoBuf, Result, Status, stdin};
use wakebox_guest::net::{TcpStream, UdpSocket, UnixStream};
use wakebox_guest::ops::nop;
use wakebox_guest::{env, eprint, print, println};

wakebox_guest::host_fns! {
    async fn echo(bytes: &[u8]) -> Vec<u8> = "echo";
    async fn never() -> () = "never";
}

/// More than any limit here.
const ENOUGH: usize = 100_000;

/// Counts what `piece` moves until it fails or has moved enough.
async fn until_refused(mut piece: impl AsyncFnMut(usize) -> Result<usize>) -> String {
    let mut moved = 0;
    loop {
        match piece(moved).await {
            Ok(count) if count == 0 || moved + count > ENOUGH => {
                return alloc::format!("{} no limit", moved + count);
            }
            Ok(count) => moved += count,
            Err(error) => return alloc::format!("{moved} {:?}", error.status()),
        }
    }
}

async fn copy(bytes: &[u8]) -> Result<IoBuf> {
    IoBuf::copy_of(bytes).await
}

/// How many bytes the host has taken.
async fn sent(write: impl Future<Output = (Result<usize>, IoBuf)>) -> Result<usize> {
    write.await.0
}

/// A connection over TCP, or over a Unix socket if the address is a path.
async fn stream(address: &str, bytes: &mut [u8], receive: bool) -> Result<String> {
    if address.starts_with('/') {
        let stream = UnixStream::connect(address).await?;
        return Ok(match receive {
            true => until_refused(async |_| stream.read(bytes).await).await,
            false => {
                until_refused(async |_| sent(stream.write_buf(copy(bytes).await?)).await).await
            }
        });
    }
    let stream = TcpStream::connect(address).await?;
    Ok(match receive {
        true => until_refused(async |_| stream.read(bytes).await).await,
        false => until_refused(async |_| sent(stream.write_buf(copy(bytes).await?)).await).await,
    })
}

async fn command(verb: &str, argument: &str) -> Result<String> {
    let mut bytes = vec![7; 1_000];
    Ok(match verb {
        "receive" => stream(argument, &mut bytes, true).await?,
        "send" => stream(argument, &mut bytes, false).await?,
        "send-datagrams" => {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            let to = argument.parse().map_err(|_| Status::InvalidInput)?;
            until_refused(async |_| socket.send_to(&bytes, to).await).await
        }
        "receive-datagrams" => {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            let to = argument.parse().map_err(|_| Status::InvalidInput)?;
            until_refused(async |_| {
                // Asks for one and gets one.
                socket.send_to(b"?", to).await?;
                Ok(socket.recv_from(&mut bytes).await?.0)
            })
            .await
        }
        "read" => {
            let file = File::open(argument).await?;
            until_refused(async |at| file.read_at(&mut bytes, at as u64).await).await
        }
        "write" => {
            let mut file = File::create(argument).await?;
            until_refused(async |_| file.write(&bytes).await).await
        }
        "list" => {
            until_refused(async |_| {
                let mut entries = fs::read_dir(argument).await?;
                let mut names = 0;
                while entries.next_entry().await?.is_some() {
                    names += 1;
                }
                Ok(names)
            })
            .await
        }
        "input" => until_refused(async |_| stdin().read(&mut bytes).await).await,
        "calls" => until_refused(async |_| Ok(echo(&bytes).await?.len())).await,
        "never" => alloc::format!("{:?}", never().await.map_err(|error| error.status())),
        "print" | "log" => {
            for _ in 0..100 {
                match verb {
                    "print" => print!("{}", "x".repeat(100)),
                    _ => eprint!("{}", "x".repeat(100)),
                }
                nop().await?;
            }
            String::from("end")
        }
        "try-memory" => {
            let mut blocks = Vec::new();
            let refused = loop {
                let mut block = Vec::<u8>::new();
                if block.try_reserve_exact(1 << 20).is_err() {
                    break true;
                }
                blocks.push(block);
            };
            drop(blocks);
            alloc::format!("refused {refused}")
        }
        "memory" => {
            drop(borrows());
            let few = [keeps(700 << 10), keeps(700 << 10)];
            let mut blocks = Vec::new();
            loop {
                blocks.push(vec![few[0][0]; 1 << 20]); // MARK loop
            }
        }
        other => alloc::format!("there is no `{other}`"),
    })
}

/// What it has is given back.
#[inline(never)]
fn borrows() -> Vec<u8> {
    vec![1; 3 << 20]
}

/// What it has is kept.
#[inline(never)]
fn keeps(len: usize) -> Vec<u8> {
    let mut bytes = vec![1; 10_000];
    bytes.resize(len, 1); // MARK resize
    bytes
}

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    let verb = args.next().unwrap_or_default();
    match command(verb, args.next().unwrap_or_default()).await {
        Ok(text) => println!("{text}"),
        Err(error) => println!("{:?}", error.status()),
    }
}
